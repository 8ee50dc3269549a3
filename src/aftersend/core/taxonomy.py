"""The rows: every canonical type with one sentence of meaning. Each dialect's file holds its column."""

from __future__ import annotations

from msgspec import Struct


class Row(Struct, frozen=True):
    """One thing that can happen."""

    subject: str
    """`*` for any channel, else the first word of the type."""
    what: str
    group: str
    meaning: str

    @property
    def type(self) -> str:
        """The type as printed: `*.opened`, `campaign.started`, `other`."""
        return f"{self.subject}.{self.what}" if self.what else self.subject


CHANNELS = ("email", "sms", "push", "whatsapp", "viber", "telegram_bot", "telegram_group", "popup", "web")
"""Channels with a meaning of their own; others are kept as they are named."""

OTHER = "other"

RECLASSIFIED = "event.reclassified"

ROWS: tuple[Row, ...] = (
    Row("*", "accepted", "sending", "The sending system took the message over."),
    Row("*", "sent", "sending", "The message left for the recipient's provider."),
    Row("*", "delivered", "sending", "The recipient's provider or device took the message."),
    Row("*", "deferred", "sending", "Not taken for now; it will be tried again."),
    Row("*", "undelivered", "sending", "Not delivered, for a reason that is not told as a bounce."),
    Row("*", "suppressed", "sending", "Never tried, because the recipient is on a list of those not to write to."),
    Row("*", "rejected", "sending", "The sending system refused the message before sending."),
    Row("*", "render_failed", "sending", "The message could not be made from its template."),
    Row("*", "hard_bounced", "failing", "Refused for good: the address does not work."),
    Row("*", "soft_bounced", "failing", "Refused for now: a full mailbox, a fault, a limit."),
    Row("*", "blocked", "failing", "Refused because of the sender, the content or a policy."),
    Row("*", "bounced", "failing", "Refused, for a reason that could not be determined."),
    Row("*", "opened", "engaging", "The message was opened (every time)."),
    Row("*", "first_opened", "engaging", "The first open of a message by a person; never add it to the opens."),
    Row("*", "clicked", "engaging", "A link in the message was followed (every time)."),
    Row("*", "first_clicked", "engaging", "The first click of a message by a person; never add it to the clicks."),
    Row("*", "read", "engaging", "E-mail: open for 8 seconds or more. Chats: the read receipt."),
    Row("*", "skimmed", "engaging", "Open for 4 to 8 seconds."),
    Row("*", "glanced", "engaging", "Open for less than 4 seconds."),
    Row("*", "confirmed", "engaging", "The person confirmed something asked in the message."),
    Row("*", "replied", "engaging", "The person answered the message."),
    Row("*", "auto_replied", "engaging", "A machine answered for the person (out of office)."),
    Row("*", "received", "engaging", "A message came in from the person."),
    Row("*", "subscribed", "consenting", "The person agreed to get messages."),
    Row("*", "subscription_confirmed", "consenting", "The person confirmed the subscription (double opt-in)."),
    Row("*", "unsubscribed", "consenting", "The person wants no more messages."),
    Row("*", "complained", "consenting", "The person called the message spam."),
    Row("campaign", "started", "campaign", "The campaign began to be processed."),
    Row("campaign", "sending", "campaign", "The campaign is processed and goes out; says nothing of any recipient."),
    Row("campaign", "finished", "campaign", "The campaign has gone out."),
    Row("campaign", "failed", "campaign", "The campaign or job failed."),
    Row("campaign", "requested", "campaign", "A campaign or job was asked for."),
    Row("profile", "imported_manually", "profile", "A person's data was entered by hand."),
    Row("profile", "imported_from_file", "profile", "A person's data came from a file."),
    Row("profile", "imported_by_api", "profile", "A person's data came through an API."),
    Row("profile", "merged", "profile", "Two profiles became one."),
    Row("profile", "split", "profile", "One profile became two."),
    Row("profile", "unsubscribed", "profile", "A person was unsubscribed through an API."),
    Row("segment", "entered", "other", "The person came into a segment."),
    Row("segment", "left", "other", "The person left a segment."),
    Row("promocode", "attached", "other", "A promotion code was given to the person."),
    Row("promocode", "detached", "other", "A promotion code was taken from the person."),
    Row("promocode", "activated", "other", "The person used a promotion code."),
    Row("popup", "submitted", "other", "The form in a popup was sent."),
    Row("popup", "closed", "other", "A popup was closed."),
    Row("popup", "failed", "other", "A popup failed."),
    Row("popup", "custom", "other", "An event of the popup's own making."),
    Row("web", "pixel_opened", "other", "A tracking pixel on a page was fetched."),
    Row("record", "found", "other", "A stored record was asked for and found."),
    Row("record", "missed", "other", "A stored record was asked for and not found."),
    Row("event", "reclassified", "other", "A later look at a hit judged anew who did it; `extra` names the hit."),
    Row(OTHER, "", "other", "A word that aftersend has no row for; the vendor's own word is kept."),
)

SUBJECTS = frozenset(row.subject for row in ROWS if row.subject not in ("*", OTHER, "popup", "web"))
"""First words of types that are not channels."""

MESSAGE_ROWS = frozenset(row.what for row in ROWS if row.subject == "*")
"""What can happen on any channel."""

_OWN = frozenset(row.type for row in ROWS if row.subject != "*")
_MEMORY_LIMIT = 4096
_channels: dict[str, str | None] = {}
_known: dict[str, bool] = {}


def is_type(text: str) -> bool:
    """Whether the text is a canonical type: a row, on any channel whose name is a plain word."""
    known = _known.get(text)
    if known is None:
        known = _is_type(text)
        if len(_known) < _MEMORY_LIMIT:
            _known[text] = known
    return known


def _is_type(text: str) -> bool:
    if text in _OWN:
        return True
    subject, dot, what = text.rpartition(".")
    return bool(dot) and what in MESSAGE_ROWS and subject not in SUBJECTS and is_channel(subject)


def is_channel(text: str) -> bool:
    """Whether the text can name a channel: lower-case letters, digits and underscores, at most 40."""
    plain = text.replace("_", "a")
    return 0 < len(text) <= 40 and plain.isalnum() and plain.isascii() and text == text.lower()


def channel_of(type: str) -> str | None:  # noqa: A002
    """The channel that a type names, or None for campaigns, profiles and the like."""
    try:
        return _channels[type]
    except KeyError:
        subject, dot, _ = type.rpartition(".")
        channel = subject if dot and subject not in SUBJECTS else None
        if len(_channels) < _MEMORY_LIMIT:
            _channels[type] = channel
        return channel


def row_of(type: str) -> Row:  # noqa: A002
    """The row of a canonical type; raises KeyError."""
    subject, dot, what = type.rpartition(".")
    for row in ROWS:
        if row.type == type or (dot and row.subject == "*" and row.what == what and subject not in SUBJECTS):
            return row
    raise KeyError(type)

"""The plan of a rewriting, and what is said about it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from msgspec import Struct

from aftersend.capture.links import Link
from aftersend.core.consent import Level

UNSUBSCRIBE_LIMIT = 900
"""Octets of the whole `List-Unsubscribe` field."""
CLIPPED_PAST = 100_000
"""Bytes of HTML past which Gmail soon clips a message (102 kB)."""
LINK_LIMIT = 10_000
"""Links of one message that are rewritten."""

NOTICES = {
    "malformed_mime": "a part that is not well-formed was left as it was",
    "signed_part": "a signed or encrypted part was left as it was",
    "unknown_encoding": "a part in an unknown transfer encoding was left as it was",
    "unknown_charset": "a part in a charset that cannot be scanned was left as it was",
    "too_many_parts": "the message has more or deeper parts than are looked at; the others were left as they were",
    "no_place": "the HTML ends inside a tag, comment or script, so the pixel at the bottom was left out",
    "pixel_too_long": "the pixel's address is too long for a line of the message, so it was left out",
    "no_recipient": "the message does not say which one person it is for; name it in X-Aftersend-Recipient",
    "unknown_header": "an X-Aftersend field that is not known, or too long, was removed unread",
    "unknown_level": "X-Aftersend-Tracking says neither none, anonymous nor full; none is taken",
    "unsubscribe_not_https": "List-Unsubscribe was not added: one-click needs an https address",
    "unsubscribe_too_long": f"List-Unsubscribe was not added: it would be longer than {UNSUBSCRIBE_LIMIT} octets",
    "unsubscribe_refused": "List-Unsubscribe was not added: the message's List-Unsubscribe-Post says something else",
    "sign_after": "sign with DKIM after this, with List-Unsubscribe and List-Unsubscribe-Post in h= (RFC 8058)",
    "signed_before": "the message was signed with DKIM before this; that signature no longer holds",
    "large": "the HTML is past 100 kB now; Gmail clips it at 102 kB",
}


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be done with a message. A field of its header goes before a value given here."""

    tenant: int
    domain: int
    own_hosts: frozenset[str]
    """Hosts of tracking addresses, in lower case: links to them are left alone."""
    level: Level = Level.FULL
    """The most that may be tracked; the message can lower it, not raise it."""
    level_of: Callable[[str], Level] = lambda person: Level.FULL
    """The most that the recipient lets be tracked. Raises StoreError."""
    clicks: bool = True
    text: bool = False
    """Links of the text part too."""
    office: bool = False
    """Links in conditional comments too, which only Outlook shows."""
    top: bool = False
    """A pixel at the top."""
    bottom: bool = True
    """A pixel at the bottom: only this one is missed where a mail program clips the message."""
    reading: bool = False
    """A picture beside the pixel at the bottom that measures how long the message stays open."""
    unsubscribe: bool = True
    untracked: frozenset[str] = frozenset()
    """Domains, in lower case, that links lead to directly; so for all below them."""
    recipient: str = ""
    message_id: str = ""
    campaign_id: str = ""
    list_id: str = ""


class Notice(Struct, frozen=True):
    """Something that whoever sends should know."""

    code: str
    """A key of NOTICES."""
    text: str


class Rewritten(Struct, frozen=True):
    """A message as it can be sent, and what was done to it."""

    message: bytes
    growth: int = 0
    """In octets."""
    links: int = 0
    pixels: int = 0
    skipped: Mapping[str, int] = {}
    """How many links were left alone, by reason (`hrefs.Judged`)."""
    warnings: Sequence[Notice] = ()


Sign = Callable[[Link], str]
"""The whole address of a link, in ASCII. Raises LinkError, `too_long` where there is none."""

"""The items of MessageGears: their elements in order, and where each stands in our event."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any

from aftersend.core.event import Event
from aftersend.core.taxonomy import OTHER, channel_of
from aftersend.dialects.messagegears.failures import (
    CODES,
    JUDGES,
    PUSH_CATEGORIES,
    SAID_CLASSIFICATIONS,
    SMS_CATEGORIES,
    Judge,
)

NAME = "messagegears"
NAMESPACE = "http://messagegears.com/3.1/webService"

# Items in the sequence of the vendor's schema 3.1, each with its elements in order; `!` marks the required ones.
_MAIL = "RequestId! CorrelationId EmailAddress! RecipientId Timestamp!"
_LOOSE_MAIL = "RequestId! CorrelationId EmailAddress RecipientId Timestamp!"
_SMS = "RequestId! CorrelationId SmsAddress! RecipientId Timestamp!"
SCHEMA = {
    "OpenActivity": ("email.opened", f"{_MAIL} IpAddress! UserAgent! ActivityId! Microsite JobCategory"),
    "ClickActivity": (
        "email.clicked",
        f"{_MAIL} IpAddress! UserAgent! Url! UrlName ActivityId! Microsite UrlId JobCategory",
    ),
    "UnsubActivity": ("email.unsubscribed", f"{_LOOSE_MAIL} IpAddress! UserAgent! ActivityId! Microsite JobCategory"),
    "InboundEmailActivity": (
        "email.received",
        f"{_MAIL} ActivityId! IpAddress! JobCategory MailFrom Subject Classification! ContentId! Content!",
    ),
    "BouncedMessageActivity": (
        "email.bounced",
        f"{_MAIL} Category! CategoryCode! Details! IpAddress! MessageSize! ActivityId! JobCategory",
    ),
    "DeliveredMessageActivity": ("email.delivered", f"{_MAIL} IpAddress! MessageSize! ActivityId! JobCategory"),
    "SpamComplaintActivity": ("email.complained", f"{_LOOSE_MAIL} Isp IpAddress Subject ActivityId! JobCategory"),
    "RenderErrorActivity": ("email.render_failed", f"{_MAIL} RenderErrors! ActivityId! JobCategory"),
    "JobErrorActivity": ("campaign.failed", "RequestId! CorrelationId Timestamp! JobError ActivityId! JobCategory"),
    "SmsDeliveredActivity": ("sms.delivered", f"{_SMS} ActivityId! JobCategory SendingSmsNumber"),
    "SmsDeliveryFailureActivity": (
        "sms.bounced",
        f"{_SMS} Category! CategoryCode! ActivityId! JobCategory SendingSmsNumber",
    ),
    "SmsRenderErrorActivity": ("sms.render_failed", f"{_SMS} RenderErrors! ActivityId! JobCategory"),
    "SmsInboundActivity": (
        "sms.received",
        "Timestamp! ActivityId! SendingSmsNumber DestinationSmsNumber SmsBody "
        "FromCity FromState FromZip FromCountry ToCity ToState ToZip ToCountry",
    ),
    "RequestActivity": (
        "campaign.requested",
        "AccountId! RequestId! Timestamp! ActivityId! CorrelationId JobCategory CampaignId CampaignVersion "
        "NotificationEmailAddress RecipientXml! ContextXml",
    ),
}

# Items that only the vendor's page has, in the page's order.
_PAGE_SMS = "RequestId CorrelationId ActivityId SmsAddress RecipientId Timestamp"
_PAGE_PUSH = "RequestId CorrelationId ActivityId EmailAddress RecipientId DeviceId Service ApplicationId Timestamp"
PAGE = {
    "DeliveredMobilePushActivity": ("push.delivered", f"{_PAGE_PUSH} PushDeliveryService JobCategory"),
    "BouncedMobilePushActivity": ("push.bounced", f"{_PAGE_PUSH} Category Details PushDeliveryService JobCategory"),
    "RenderErrorMobilePushActivity": ("push.render_failed", f"{_PAGE_PUSH} RenderErrors JobCategory"),
    "DeliveredSmsActivity": ("sms.delivered", f"{_PAGE_SMS} JobCategory"),
    "BouncedSmsActivity": ("sms.bounced", f"{_PAGE_SMS} Category Details JobCategory"),
    "RenderErrorSmsActivity": ("sms.render_failed", f"{_PAGE_SMS} RenderErrors JobCategory"),
    "InboundSmsActivity": (
        "sms.received",
        "ActivityId SmsAddress Timestamp To InboundMessageType InboundMessage",
    ),
    "ContextHitActivity": (
        "record.found",
        "Timestamp AccountId RequestId CorrelationId ActivityId EmailAddress RecipientId IpAddress Vendor Prefix "
        "RecordId RecordSize CreateTimestamp UpdateTimestamp",
    ),
}
COUNTERPARTS = {
    "DeliveredSmsActivity": "SmsDeliveredActivity",
    "BouncedSmsActivity": "SmsDeliveryFailureActivity",
    "RenderErrorSmsActivity": "SmsRenderErrorActivity",
    "InboundSmsActivity": "SmsInboundActivity",
}
PAGE_NAMES = {counterpart: word for word, counterpart in COUNTERPARTS.items()}

STOP = " STOP"

_FIELDS = {
    "RequestId": "message_id",
    "CorrelationId": "correlation_id",
    "RecipientId": "profile_id",
    "DeviceId": "device_id",
    "JobCategory": "category",
    "CampaignId": "campaign_id",
    "UserAgent": "user_agent",
    "Url": "url",
    "UrlName": "url_name",
}
# Elements that go through other hands before they stand in an event.
_OTHERS = {"Timestamp": "timestamp", "ActivityId": "activity_id"}
_FAILING = {"Category": "failure_category", "Details": "failure_detail"}
INTEGERS = ("MessageSize", "CategoryCode")

Row = tuple[str, str, str, str | None]
"""An element: its name, its tags, and what is written where there is nothing to say (None: it is left out)."""


@dataclass(frozen=True, slots=True)
class Item:
    """How one item is read and told."""

    name: str
    fact: str
    """The name that the schema has for it: the same fact under both names is one."""
    type: str
    channel: str | None
    fields: Mapping[str, str]
    elements: tuple[str, ...]
    """Those whose value `get` takes from an event."""
    get: Callable[[Event], tuple[Any, ...]]
    rows: tuple[Row, ...]
    page_rows: tuple[Row, ...]
    required: frozenset[str]
    rank: int
    """Its place in the schema's sequence."""
    judge: Judge | None


def _make_item(name: str) -> Item:
    type_, order = SCHEMA.get(name) or PAGE.get(name) or (OTHER, "")
    fact = COUNTERPARTS.get(name, name)
    channel = channel_of(type_) if type_ != OTHER else _channel_in(name)
    address = (
        "SendingSmsNumber" if name == "SmsInboundActivity" else "SmsAddress" if channel == "sms" else "EmailAddress"
    )
    fields = {**_FIELDS, address: "recipient"}
    if type_ in ("email.opened", "email.clicked", "email.unsubscribed"):
        # Elsewhere it is the address of a server.
        fields["IpAddress"] = "ip"
    others = {**_OTHERS, **(_FAILING if type_.endswith(".bounced") else {})}
    if type_ == "email.bounced":
        others["CategoryCode"] = "failure_code"
    rows = _rows(order.split())
    page_order = order.replace("!", "").split()
    if name in SCHEMA and "RequestId" in page_order:
        head = [element for element in ("RequestId", "CorrelationId", "ActivityId") if element in page_order]
        page_order = head + [element for element in page_order if element not in head]
    return Item(
        name=name,
        fact=fact,
        type=type_,
        channel=channel,
        fields=fields | others,
        elements=tuple(fields),
        get=attrgetter(*fields.values()),
        rows=rows,
        page_rows=_rows(page_order),
        required=frozenset(name for name, _, _, default in rows if default is not None),
        rank=[*SCHEMA].index(fact) if fact in SCHEMA else len(SCHEMA),
        judge=JUDGES.get(type_),
    )


def _rows(order: Sequence[str]) -> tuple[Row, ...]:
    rows = []
    for word in order:
        name = word.rstrip("!")
        default = ("0" if name in INTEGERS else "") if word != name else None
        rows.append((name, f"<{name}>", f"</{name}>", default))
    return tuple(rows)


def _channel_in(name: str) -> str | None:
    lower = name.lower()
    return "sms" if "sms" in lower else "push" if "push" in lower else None


ITEMS = {name: _make_item(name) for name in (*SCHEMA, *PAGE)}
_unknown_item = lru_cache(256)(_make_item)


def item_of(word: str) -> Item:
    """How an item of that name is read and told; of an unknown one no element is required."""
    return ITEMS.get(word) or _unknown_item(word)


def _columns() -> Iterator[tuple[str, str]]:
    """Every item with its type; bounces by code, other failures by category, the page's second names last."""
    for word, item in sorted(ITEMS.items(), key=lambda pair: pair[0] in COUNTERPARTS):
        if word == "BouncedMessageActivity":
            yield from ((f"{word} {code}", f"email.{meaning[0]}") for code, (_, meaning) in CODES.items())
            continue
        categories = {"sms.bounced": SMS_CATEGORIES, "push.bounced": PUSH_CATEGORIES}.get(item.type, {})
        yield from ((f"{word} {said}", f"{item.channel}.{meaning[0]}") for said, meaning in categories.items())
        yield word, item.type
        if item.type == "email.received":
            yield from ((f"{word} {said}", type_) for type_, said in SAID_CLASSIFICATIONS.items())
        elif item.type == "sms.received":
            yield word + STOP, "sms.unsubscribed"
        elif item.type == "record.found":
            yield f"{word} without size and dates", "record.missed"


COLUMNS = dict(_columns())
SPOKEN = {type_: word.partition(" ")[0] for word, type_ in reversed(COLUMNS.items())}
# An inbound SMS that says STOP would have to be made up, and would be heard as two events.
del SPOKEN["sms.unsubscribed"]

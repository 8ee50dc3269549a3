"""MessageGears: account activity as XML, from the queue feed and the daily files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, ClassVar, Literal
from zoneinfo import ZoneInfo

from lxml import etree
from msgspec import json, structs

from aftersend.contracts import Dialect as Contract
from aftersend.core import xml
from aftersend.core.errors import EncodeError
from aftersend.core.event import Body, Event, Failure, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.options import option
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import OTHER, channel_of
from aftersend.core.timestamps import MILLISECOND, SECOND, SUSPECT_BEFORE, parse_time, time_fault

NAME = "messagegears"
NAMESPACE = "http://messagegears.com/3.1/webService"
ITEMS_LIMIT = 100_000
MESSAGES_LIMIT = 1_000
"""An answer of SQS holds ten."""

# Items in the sequence of the vendor's schema 3.1, each with its elements in order; `!` marks the required ones.
_MAIL = "RequestId! CorrelationId EmailAddress! RecipientId Timestamp!"
_LOOSE_MAIL = "RequestId! CorrelationId EmailAddress RecipientId Timestamp!"
_SMS = "RequestId! CorrelationId SmsAddress! RecipientId Timestamp!"
_SCHEMA = {
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
_PAGE = {
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
_COUNTERPARTS = {
    "DeliveredSmsActivity": "SmsDeliveredActivity",
    "BouncedSmsActivity": "SmsDeliveryFailureActivity",
    "RenderErrorSmsActivity": "SmsRenderErrorActivity",
    "InboundSmsActivity": "SmsInboundActivity",
}
_PAGE_NAMES = {counterpart: word for word, counterpart in _COUNTERPARTS.items()}

# What a failure means: what happened, class, final (None: the vendor does not say).
Meaning = tuple[str, str | None, bool | None]
_HARD: Meaning = ("hard_bounced", "hard", True)
_SOFT: Meaning = ("soft_bounced", "soft", True)
_FAULT: Meaning = ("soft_bounced", "soft", None)
_BLOCKED: Meaning = ("blocked", "block", True)
_DEFERRED: Meaning = ("deferred", "soft", False)
_UNDETERMINED: Meaning = ("bounced", "undetermined", True)
_UNKNOWN: Meaning = ("bounced", "undetermined", None)
_CANCELLED: Meaning = ("undelivered", None, True)
# Dropped before sending: nobody refused, so there is no class that would be counted against the sender.
_SUPPRESSED: Meaning = ("suppressed", None, True)

_CODES: dict[int, tuple[str, Meaning]] = {
    1: ("Undetermined", _UNDETERMINED),
    10: ("Invalid Recipient", _HARD),
    20: ("Soft Bounce", _SOFT),
    21: ("DNS Failure", _SOFT),
    22: ("Mailbox Full", _SOFT),
    23: ("Too Large", _SOFT),
    24: ("Timeout", _SOFT),
    25: ("Admin Failure", _SOFT),
    30: ("Generic Bounce: No RCPT", _HARD),
    40: ("Generic Bounce", _SOFT),
    50: ("Mail Block", _BLOCKED),
    51: ("Spam Block", _BLOCKED),
    52: ("Spam Content", _BLOCKED),
    53: ("Prohibited Attachment", _BLOCKED),
    54: ("Relay Denied", _BLOCKED),
    70: ("Transient Failure", _DEFERRED),
    110: ("Invalid Email Syntax", _HARD),
    130: ("Hardbounce Suppression", _SUPPRESSED),
    131: ("Unsubscribe Suppression", _SUPPRESSED),
    132: ("Fbl Suppression", _SUPPRESSED),
    133: ("Complainer Suppression", _SUPPRESSED),
    134: ("Domain Suppression", _SUPPRESSED),
    135: ("Role Suppression", _SUPPRESSED),
}
_PUSH_CATEGORIES: dict[str, Meaning] = {
    "TRANSIENT_FAILURE": _DEFERRED,
    "FAILURE_PERMANENT": _HARD,
    "SERVICE_FAILURE": _FAULT,
    "TIMEOUT": _FAULT,
    "DAILY_CAP": _FAULT,  # a limit, as is the next
    "THROTTLED": _FAULT,
    "EXPIRED": ("undelivered", "soft", True),  # its time to live ended; nobody refused it
    "JOB_CANCELLED": _CANCELLED,
}
_SMS_CATEGORIES: dict[str, Meaning] = {
    "INVALID_ADDRESS": _HARD,
    "ADDRESS_BLOCKED": _BLOCKED,
    "INTERNATIONAL_SENDING_PROHIBITED": _BLOCKED,  # a policy
    "INVALID_CONTENT": _BLOCKED,
    "SERVICE_FAILURE": _FAULT,
    "JOB_CANCELLED": _CANCELLED,
}
# Said of others' events where every category of the vendor would claim a cause that nobody told us.
_OWN_CATEGORIES = {"undelivered": "UNDELIVERED", "bounced": "UNDETERMINED"}
_CLASS_CODES = {"hard": "10", "soft": "20", "block": "50"}

# The vendor names no values; these are to be expected, and compared without case and separators.
_CLASSIFICATIONS = {
    "REPLY": "email.replied",
    "AUTOREPLY": "email.auto_replied",
    "AUTORESPONSE": "email.auto_replied",
    "AUTORESPONDER": "email.auto_replied",
    "OUTOFOFFICE": "email.auto_replied",
}
_SAID_CLASSIFICATIONS = {"email.replied": "REPLY", "email.auto_replied": "AUTO_REPLY"}

_STOP = " STOP"
_STOP_WORDS = frozenset(("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "OPT-OUT"))

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
_INTEGERS = ("MessageSize", "CategoryCode")
_IDENTITY = ("message_id", "correlation_id", "recipient", "profile_id", "device_id", "url")

Values = dict[str, Any]
Judge = Callable[[Values, Values], tuple[str, Failure | None]]
"""Type and failure of an item: from the fields with a place in our event, and the others."""


def _failure(fields: Values, meaning: Meaning, code: int | None = None) -> Failure:
    _, class_, final = meaning
    category, detail = fields.pop("failure_category", None), fields.pop("failure_detail", None)
    return Failure(class_, code, category, None, None, final, detail)


def _judge_bounce(fields: Values, extra: Values) -> tuple[str, Failure]:
    """By the code; its text is kept where it is not a plain number."""
    text = fields.pop("failure_code", "")
    code = int(text) if len(text) <= 9 and text.isascii() and text.isdecimal() else None
    if text and str(code) != text:
        extra.setdefault("CategoryCode", text)
    meaning = _CODES[code][1] if code in _CODES else _UNKNOWN
    return f"email.{meaning[0]}", _failure(fields, meaning, code or None)


def _judge_category(channel: str, categories: Mapping[str, Meaning]) -> Judge:
    known: dict[str, Meaning] = {"UNDELIVERED": ("undelivered", "undetermined", None), **categories}

    def judge(fields: Values, extra: Values) -> tuple[str, Failure]:
        meaning = known.get(fields.get("failure_category", ""), _UNKNOWN)
        return f"{channel}.{meaning[0]}", _failure(fields, meaning)

    return judge


def _judge_classification(fields: Values, extra: Values) -> tuple[str, None]:
    said = extra.get("Classification")
    letters = filter(str.isalpha, said[:40].upper()) if isinstance(said, str) else ()
    return _CLASSIFICATIONS.get("".join(letters), "email.received"), None


def _judge_context(fields: Values, extra: Values) -> tuple[str, None]:
    """A miss is told as a hit without size and dates."""
    found = "RecordSize" in extra or "CreateTimestamp" in extra or "UpdateTimestamp" in extra
    return "record.found" if found else "record.missed", None


def _judge_errors(type_: str) -> Judge:
    """The first error is the failure; all of them stay in `extra`."""

    def judge(fields: Values, extra: Values) -> tuple[str, Failure | None]:
        errors = _first(extra.get("RenderErrors"))
        error = _first(errors.get("RenderError")) or _first(extra.get("JobError"))
        category, detail = error.get("ErrorCode"), error.get("ErrorMessage")
        if not isinstance(category, str) or not isinstance(detail, str):
            return type_, None
        return type_, Failure(category=category or None, final=True, detail=detail or None)

    return judge


def _first(value: Any) -> Values:
    if isinstance(value, list):
        value = value[0]
    return value if isinstance(value, dict) else {}


_JUDGES: dict[str, Judge] = {
    "email.bounced": _judge_bounce,
    "sms.bounced": _judge_category("sms", _SMS_CATEGORIES),
    "push.bounced": _judge_category("push", _PUSH_CATEGORIES),
    "email.received": _judge_classification,
    "record.found": _judge_context,
    **{row: _judge_errors(row) for row in ("email.render_failed", "push.render_failed", "sms.render_failed")},
    "campaign.failed": _judge_errors("campaign.failed"),
}

Row = tuple[str, str, str, str | None]
"""An element: its name, its tags, and what is written where there is nothing to say (None: it is left out)."""


@dataclass(frozen=True, slots=True)
class _Item:
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


def _make_item(name: str) -> _Item:
    type_, order = _SCHEMA.get(name) or _PAGE.get(name) or (OTHER, "")
    fact = _COUNTERPARTS.get(name, name)
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
    if name in _SCHEMA and "RequestId" in page_order:
        head = [element for element in ("RequestId", "CorrelationId", "ActivityId") if element in page_order]
        page_order = head + [element for element in page_order if element not in head]
    return _Item(
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
        rank=[*_SCHEMA].index(fact) if fact in _SCHEMA else len(_SCHEMA),
        judge=_JUDGES.get(type_),
    )


def _rows(order: Sequence[str]) -> tuple[Row, ...]:
    rows = []
    for word in order:
        name = word.rstrip("!")
        default = ("0" if name in _INTEGERS else "") if word != name else None
        rows.append((name, f"<{name}>", f"</{name}>", default))
    return tuple(rows)


def _channel_in(name: str) -> str | None:
    lower = name.lower()
    return "sms" if "sms" in lower else "push" if "push" in lower else None


_ITEMS = {name: _make_item(name) for name in (*_SCHEMA, *_PAGE)}
_unknown_item = lru_cache(256)(_make_item)


def _columns() -> Iterator[tuple[str, str]]:
    """Every item with its type; bounces by code, other failures by category, the page's second names last."""
    for word, item in sorted(_ITEMS.items(), key=lambda pair: pair[0] in _COUNTERPARTS):
        if word == "BouncedMessageActivity":
            yield from ((f"{word} {code}", f"email.{meaning[0]}") for code, (_, meaning) in _CODES.items())
            continue
        categories = {"sms.bounced": _SMS_CATEGORIES, "push.bounced": _PUSH_CATEGORIES}.get(item.type, {})
        yield from ((f"{word} {said}", f"{item.channel}.{meaning[0]}") for said, meaning in categories.items())
        yield word, item.type
        if item.type == "email.received":
            yield from ((f"{word} {said}", type_) for type_, said in _SAID_CLASSIFICATIONS.items())
        elif item.type == "sms.received":
            yield word + _STOP, "sms.unsubscribed"
        elif item.type == "record.found":
            yield f"{word} without size and dates", "record.missed"


_COLUMNS = dict(_columns())
_SPOKEN = {type_: word.partition(" ")[0] for word, type_ in reversed(_COLUMNS.items())}
# An inbound SMS that says STOP would have to be made up, and would be heard as two events.
del _SPOKEN["sms.unsubscribed"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """XML as the vendor's schema 3.1 has it; read in any order, with any namespace or none."""

    name: ClassVar[str] = NAME
    forms: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Mapping[str, str]] = _COLUMNS
    identity_fields: ClassVar[str] = (
        "the item's name in the schema, Timestamp, ActivityId; without an ActivityId: "
        "RequestId, CorrelationId, the recipient, RecipientId, DeviceId, Url"
    )
    singles: ClassVar[frozenset[str]] = frozenset()
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200)
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()
    unsaid: ClassVar[Mapping[str, frozenset[str]]] = {"sms.received": frozenset(("message_id",))}

    as_documented: bool = option(False, help="speak as the vendor's page does: its order and names, no namespace")
    sequence: Literal["events", "schema"] = option(
        "events",
        help="events: items in the order of the events; schema: a new body wherever the item types would leave the "
        "schema's sequence, which the vendor's Java SDK insists on",
    )
    body_bytes: int = option(65_536, help="largest body, unless one item is larger; the limit of the vendor's queues")

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of ActivityItems, an AccountActivityResponse, a bare item, or the messages of an SQS answer.

        An inbound SMS that says STOP is two events: received, and unsubscribed under a word that ends in `STOP`.
        """
        found: list[Event | Rejected] = []
        index = 0
        roots = _roots(receipt.body)
        for root in roots:
            items = root if isinstance(root, Rejected) else _items(root)
            if isinstance(items, Rejected):
                found.append(items if len(roots) == 1 else structs.replace(items, index=index))
                index += 1
                continue
            for item in items:
                event = _event(item, index, receipt)
                found.append(event)
                index += 1
                if type(event) is Event and event.type == "sms.received" and _says_stop(event):
                    found.append(_unsubscribed(event, receipt))
        return found

    def word(self, event: Event) -> str | None:
        """The item's name; an unsubscription by SMS keeps its mark."""
        if event.source.dialect == NAME:
            word = event.source.word
            return word if word in _ITEMS or xml.is_name(word.removesuffix(_STOP)) else None
        spoken = _SPOKEN.get(event.type)
        return _PAGE_NAMES.get(spoken, spoken) if self.as_documented and spoken else spoken

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """ActivityItems of at most `body_bytes`."""
        opening = b"<ActivityItems>" if self.as_documented else b'<ActivityItems xmlns="%s">' % NAMESPACE.encode()
        bodies: list[Body] = []
        parts: list[bytes] = []
        size = rank = 0
        before: Event | None = None
        for event in events:
            told, place = self.item(event, before), self._rank(event)
            if parts and told and (size + len(told) > self.body_bytes or place < rank):
                bodies.append(_body(opening, parts))
                parts, size = [], 0
            size += len(told) if parts else len(told) + len(opening) + 16
            rank, before = place, event
            parts.append(told)
        return [*bodies, _body(opening, parts)] if parts else bodies

    def item(self, event: Event, before: Event | None = None) -> bytes:
        """One event as an item, for writers of whole files; empty where `before` has told it already (STOP).

        Raises EncodeError for an event without a word.
        """
        word = self.word(event)
        if word is None:
            raise EncodeError
        heard = event.source.dialect == NAME
        if heard and word.endswith(_STOP):
            if before is not None and _is_told_by(before, event):
                return b""
            word = word.removesuffix(_STOP)
        item = _ITEMS.get(word) or _unknown_item(word)
        values = dict(zip(item.elements, item.get(event), strict=True))
        values["ActivityId"] = event.source.id if heard else event.id
        values.update(_heard(event, item) if heard else _foreign(event, item))
        if "Timestamp" not in values:
            values["Timestamp"] = _eastern(event.time)
        return _written(item, values, item.page_rows if self.as_documented else item.rows, heard)

    def _rank(self, event: Event) -> int:
        if self.sequence == "events":
            return 0
        item = _ITEMS.get((self.word(event) or "").partition(" ")[0])
        return item.rank if item else len(_SCHEMA)

    def schemas(self) -> dict[str, dict[str, Any]]:
        """One item each, its elements as an object."""
        return {name: _schema(item) for name, item in _ITEMS.items()}


# Reading


def _roots(body: bytes) -> list[xml.Element | Rejected]:
    """The documents of a receipt: one, or one for each message of an SQS answer (query or JSON protocol)."""
    bodies: list[bytes | Rejected]
    if body[:64].lstrip()[:1] == b"{":
        bodies = _bodies_in_json(body)
    else:
        root = xml.parse_xml(body)
        if isinstance(root, Rejected) or xml.local_name(root.tag) != "ReceiveMessageResponse":
            return [root]
        found = root.iterfind("{*}ReceiveMessageResult/{*}Message/{*}Body")
        bodies = [(element.text or "").encode() for element in found]
    if len(bodies) > MESSAGES_LIMIT:
        return [Rejected("too_large", f"more than {MESSAGES_LIMIT} SQS messages", None, body)]
    return [xml.parse_xml(text) if isinstance(text, bytes) else text for text in bodies]


def _bodies_in_json(body: bytes) -> list[bytes | Rejected]:
    if len(body) > xml.BYTES_LIMIT:
        return [Rejected("too_large", f"more than {xml.BYTES_LIMIT} bytes", None, body)]
    answer, *more = split_json(body)
    if isinstance(answer, Rejected):
        return [structs.replace(answer, index=None, raw=body)]
    messages = answer.get("Messages")
    if more or not isinstance(messages, list):
        return [Rejected("missing_field", "JSON, but not an SQS answer with Messages", None, body)]
    return [_body_of(message) for message in messages]


def _body_of(message: Any) -> bytes | Rejected:
    text = message.get("Body") if isinstance(message, dict) else None
    if isinstance(text, str):
        return text.encode()
    return Rejected("missing_field", "an SQS message without a Body", None, json.encode(message))


def _items(root: xml.Element) -> list[xml.Element] | Rejected:
    name = xml.local_name(root.tag)
    if name == "ActivityItems":
        items = list(root)
    elif name == "AccountActivityResponse":
        if _text(root.find("{*}Result")) == "REQUEST_FAILED":
            errors = [_text(error) for error in root.iterfind("{*}RequestErrors/{*}RequestError/*")]
            return Rejected("request_failed", ": ".join(errors)[:300], None, etree.tostring(root))
        items = [item for group in root.iterfind("{*}ActivityItems") for item in group]
    elif name.endswith("Activity"):
        items = [root]
    else:
        return Rejected("unknown_document", f"<{name[:60]}> holds no activity items", None, etree.tostring(root))
    if len(items) > ITEMS_LIMIT:
        return Rejected("too_large", f"more than {ITEMS_LIMIT} items", None, etree.tostring(root))
    return items


def _text(element: xml.Element | None) -> str:
    return (element.text or "").strip() if element is not None else ""


def _event(element: xml.Element, index: int, receipt: Receipt) -> Event | Rejected:
    word = xml.local_name(element.tag)
    item = _ITEMS.get(word) or _unknown_item(word)
    try:
        fields, extra = _read(element, item)
        if not fields and not extra:
            return _rejected("missing_field", f"item {index}, <{word[:60]}>, says nothing", index, element)
        time = _time(fields, extra, receipt)
    except xml.TooDeepError:
        return _rejected("too_deep", f"item {index} nests deeper than {xml.DEPTH_LIMIT} levels", index, element)
    except xml.TooManyAttributesError:
        detail = f"item {index} has an element with more than {xml.ATTRIBUTES_LIMIT} attributes"
        return _rejected("too_large", detail, index, element)
    except ValueError as error:
        return _rejected("invalid_time", f"item {index}: {error}", index, element)
    if time_fault(time, receipt.received_at) is not None:
        detail = f"item {index}: the time is before 1970 or more than 7 days ahead"
        return _rejected("time_out_of_range", detail, index, element)
    activity_id = fields.pop("activity_id", None)
    type_, failure = item.judge(fields, extra) if item.judge is not None else (item.type, None)
    key: Any = activity_id or [fields.get(name) for name in _IDENTITY]
    return Event(
        id=event_id(receipt, NAME, item.fact, time, key),
        type=type_,
        time=time,
        source=Source(receipt.source or NAME, NAME, word, activity_id),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel=item.channel,
        failure=failure,
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=extra,
        **fields,
    )


def _read(element: xml.Element, item: _Item) -> tuple[Values, Values]:
    """An item's elements: those with a place in our event, and the others under the vendor's names.

    Text with blanks around it, and what stands twice, is (also) among the others, so that it can be said again.
    Elements that must be there but say nothing are as good as absent.
    """
    fields: Values = {}
    extra: Values = {}
    known, required, local_name = item.fields, item.required, xml.local_name
    for child in element:
        name = local_name(child.tag)
        if len(child) or child.keys():
            _keep(fields, extra, name, known.get(name), xml.value_of(child))
            continue
        text = child.text or ""
        plain = text.strip()
        if (not plain and name in required) or (plain == "0" and name in _INTEGERS):
            continue
        field = known.get(name)
        if field is None or not plain or field in fields or name in extra:
            _keep(fields, extra, name, field, text)
            continue
        fields[field] = plain
        if len(plain) != len(text):
            extra[name] = text
    if element.keys():
        extra.update(xml.attributes_of(element))
    return fields, extra


def _keep(fields: Values, extra: Values, name: str, field: str | None, value: Any) -> None:
    if field in fields and name not in extra:
        extra[name] = fields.pop(field)
    xml.add(extra, name, value)


def _time(fields: Values, extra: Values, receipt: Receipt) -> int:
    """The time of an item, its text being kept where we would say it otherwise. Raises ValueError."""
    text = fields.pop("timestamp", None)
    if text is None:
        if extra.get("Timestamp"):
            raise ValueError("the Timestamp is not one text")
        return receipt.received_at - receipt.received_at % MILLISECOND
    time = _parse_time(text)
    if time >= 0 and _eastern(time) != text:
        extra.setdefault("Timestamp", text)
    return time


_EASTERN = ZoneInfo("America/New_York")
_CACHE_LIMIT = 4096
_moments: dict[str, int] = {}
_minutes: dict[int, tuple[str, str]] = {}


def _parse_time(text: str) -> int:
    """As core's, quick for the vendor's form `2010-09-14T15:49:16.064-04:00`. Raises ValueError."""
    digits = text[17:19] + text[20:23]
    if len(text) == 29 and text[16] + text[19] == ":." and digits.isdecimal() and digits.isascii() and digits < "6":
        minute = text[:17] + text[23:]
        moment = _moments.get(minute)
        if moment is not None:
            return moment + int(digits) * MILLISECOND
        if text[23] in "+-":
            if len(_moments) >= _CACHE_LIMIT:
                _moments.clear()
            moment = _moments[minute] = parse_time(text[:17] + "00" + text[23:])
            return moment + int(digits) * MILLISECOND
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an ISO 8601 time") from None


def _eastern(time: int) -> str:
    """A time as the vendor prints it: US Eastern with the offset in force, milliseconds."""
    seconds, fraction = divmod(time, SECOND)
    minute, second = divmod(seconds, 60)
    found = _minutes.get(minute)
    if found is None:
        text = datetime.fromtimestamp(minute * 60, _EASTERN).isoformat()
        if len(_minutes) >= _CACHE_LIMIT:
            _minutes.clear()
        found = _minutes[minute] = text[:17], text[19:]
    return f"{found[0]}{second:02d}.{fraction // MILLISECOND:03d}{found[1]}"


def _rejected(reason: str, detail: str, index: int, element: xml.Element) -> Rejected:
    return Rejected(reason, detail[:300], index, etree.tostring(element, encoding="utf-8", with_tail=False))


def _says_stop(event: Event) -> bool:
    said = event.extra.get("InboundMessageType" if event.source.word == "InboundSmsActivity" else "SmsBody")
    return isinstance(said, str) and said[:40].strip(" \t\r\n.!\"'").upper() in _STOP_WORDS


def _unsubscribed(event: Event, receipt: Receipt) -> Event:
    """What an inbound STOP means besides: a copy with a word and an id of its own."""
    source = event.source
    fact = _COUNTERPARTS.get(source.word, source.word) + _STOP
    key: Any = source.id or [getattr(event, name) for name in _IDENTITY]
    return structs.replace(
        event,
        id=event_id(receipt, NAME, fact, event.time, key),
        type="sms.unsubscribed",
        source=structs.replace(source, word=source.word + _STOP),
    )


# Speaking


def _is_told_by(before: Event, event: Event) -> bool:
    """Whether an event is the unsubscription that `before`, an inbound STOP, tells by itself."""
    source = structs.replace(before.source, word=before.source.word + _STOP)
    return event == structs.replace(before, id=event.id, type=event.type, source=source)


def _body(opening: bytes, parts: list[bytes]) -> Body:
    return Body(opening + b"".join(parts) + b"</ActivityItems>", "application/xml", len(parts))


def _written(item: _Item, values: Values, rows: tuple[Row, ...], heard: bool) -> bytes:
    """An item: the elements it is known to have in their order, then what else was heard."""
    parts = [f"<{item.name}>"]
    for name, opening, closing, default in rows:
        value = values.pop(name, None)
        if value is None:
            value = default
            if value is None:
                continue
        if type(value) is str:
            parts += opening, xml.escaped(value), closing
        else:
            parts.append(xml.written(name, value))
    if heard:
        parts += [xml.written(name, value) for name, value in values.items() if value is not None]
        parts[0] = f"<{item.name}{xml.attributes(values)}>"
    parts.append(f"</{item.name}>")
    return "".join(parts).encode()


def _heard(event: Event, item: _Item) -> Values:
    """What our fields do not hold of an event in this dialect."""
    failure = event.failure
    if failure is None or "Category" not in item.fields:
        return event.extra
    code = None if failure.code is None else str(failure.code)
    return {"Category": failure.category, "CategoryCode": code, "Details": failure.detail, **event.extra}


def _foreign(event: Event, item: _Item) -> Values:
    """What only this vendor's items have, filled for another's event from what that one said, and no more."""
    failure = event.failure or Failure()
    detail = failure.detail or failure.reply
    if "Category" in item.fields:
        category, code = (
            _foreign_bounce(event, failure) if item.channel == "email" else _foreign_category(event, failure)
        )
        return {"Category": category, "CategoryCode": code, "Details": detail or failure.category}
    if event.type == "email.complained":
        return {"Isp": (event.recipient or "").partition("@")[2] or None}
    if event.type in _SAID_CLASSIFICATIONS:
        return {"Classification": _SAID_CLASSIFICATIONS[event.type]}
    if event.type == "record.found":
        return {"RecordSize": ""}
    if failure.category or detail:
        error = {"ErrorCode": failure.category or "", "ErrorMessage": detail or ""}
        return {"JobError": error, "RenderErrors": {"RenderError": error}}
    return {}


def _foreign_bounce(event: Event, failure: Failure) -> tuple[str, str]:
    what = event.type.partition(".")[2]
    codes = [code for code, (_, meaning) in _CODES.items() if meaning[0] == what]
    code = failure.code if failure.code is not None and failure.code in codes else codes[0]
    return _CODES[code][0], str(code)


def _foreign_category(event: Event, failure: Failure) -> tuple[str, str]:
    channel, _, what = event.type.partition(".")
    table = _SMS_CATEGORIES if channel == "sms" else _PUSH_CATEGORIES
    fitting = [name for name, meaning in table.items() if meaning[0] == what]
    own = _OWN_CATEGORIES.get(what)
    category = failure.category if failure.category in fitting else own or fitting[0]
    class_ = table[category][1] if category in table else failure.class_
    return category or "", _CLASS_CODES.get(class_ or "", "1")


# Schemas

_ERROR = {"type": "object", "properties": {"ErrorCode": {"type": "string"}, "ErrorMessage": {"type": "string"}}}
_SHAPES: dict[str, dict[str, Any]] = {
    **{name: {"type": "string", "format": "date-time"} for name in ("Timestamp", "CreateTimestamp", "UpdateTimestamp")},
    **{name: {"type": "integer"} for name in _INTEGERS},
    "Microsite": {"type": "boolean"},
    "JobError": _ERROR,
    "RenderErrors": {"type": "object", "properties": {"RenderError": {"type": "array", "items": _ERROR}}},
}


def _schema(item: _Item) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": item.name,
        "type": "object",
        "properties": {name: _SHAPES.get(name, {"type": "string"}) for name, _, _, _ in item.rows},
        "required": [name for name, _, _, default in item.rows if default is not None],
    }


_proof: type[Contract] = Dialect

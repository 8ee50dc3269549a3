"""Reading MessageGears' XML: any order, any namespace or none."""

from __future__ import annotations

from typing import Any

from lxml import etree
from msgspec import json, structs

from aftersend.core import xml
from aftersend.core.event import Event, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.timestamps import MILLISECOND, SUSPECT_BEFORE, time_fault
from aftersend.dialects.messagegears.failures import Values
from aftersend.dialects.messagegears.items import COUNTERPARTS, INTEGERS, NAME, STOP, Item, item_of
from aftersend.dialects.messagegears.times import eastern, parse_timestamp

ITEMS_LIMIT = 100_000
MESSAGES_LIMIT = 1_000
"""An answer of SQS holds ten."""

_STOP_WORDS = frozenset(("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT", "OPT-OUT"))
_IDENTITY = ("message_id", "correlation_id", "recipient", "profile_id", "device_id", "url")


def roots_of(body: bytes) -> list[xml.Element | Rejected]:
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


def items_in(root: xml.Element) -> list[xml.Element] | Rejected:
    """The items of a document, or why it holds none."""
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


def event_of(element: xml.Element, index: int, receipt: Receipt) -> Event | Rejected:
    """What an item says."""
    word = xml.local_name(element.tag)
    item = item_of(word)
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


def _read(element: xml.Element, item: Item) -> tuple[Values, Values]:
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
        if (not plain and name in required) or (plain == "0" and name in INTEGERS):
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
    time = parse_timestamp(text)
    if time >= 0 and eastern(time) != text:
        extra.setdefault("Timestamp", text)
    return time


def _rejected(reason: str, detail: str, index: int, element: xml.Element) -> Rejected:
    return Rejected(reason, detail[:300], index, etree.tostring(element, encoding="utf-8", with_tail=False))


def says_stop(event: Event) -> bool:
    """Whether an inbound SMS asks to be sent nothing more."""
    said = event.extra.get("InboundMessageType" if event.source.word == "InboundSmsActivity" else "SmsBody")
    return isinstance(said, str) and said[:40].strip(" \t\r\n.!\"'").upper() in _STOP_WORDS


def unsubscribed(event: Event, receipt: Receipt) -> Event:
    """What an inbound STOP means besides: a copy with a word and an id of its own."""
    source = event.source
    fact = COUNTERPARTS.get(source.word, source.word) + STOP
    key: Any = source.id or [getattr(event, name) for name in _IDENTITY]
    return structs.replace(
        event,
        id=event_id(receipt, NAME, fact, event.time, key),
        type="sms.unsubscribed",
        source=structs.replace(source, word=source.word + STOP),
    )

"""Telling events as MessageGears' items."""

from __future__ import annotations

from msgspec import structs

from aftersend.core import xml
from aftersend.core.event import Event, Failure
from aftersend.dialects.messagegears.failures import SAID_CLASSIFICATIONS, Values, foreign_bounce, foreign_category
from aftersend.dialects.messagegears.items import ITEMS, NAME, SPOKEN, STOP, Item, Row, item_of
from aftersend.dialects.messagegears.times import eastern


def word_of(event: Event) -> str | None:
    """The name of the item that tells an event, the schema's for others' events; unsubscriptions by SMS are marked."""
    if event.source.dialect == NAME:
        word = event.source.word
        return word if word in ITEMS or xml.is_name(word.removesuffix(STOP)) else None
    return SPOKEN.get(event.type)


def is_told_by(before: Event | None, event: Event) -> bool:
    """Whether an event is the unsubscription that `before`, an inbound STOP, tells by itself."""
    if before is None or event.source.dialect != NAME or not event.source.word.endswith(STOP):
        return False
    source = structs.replace(before.source, word=before.source.word + STOP)
    return event == structs.replace(before, id=event.id, type=event.type, source=source)


def told_as(word: str, event: Event, *, as_documented: bool = False) -> bytes:
    """An event as the item that its word names, in the form of the schema or of the vendor's page."""
    item = item_of(word.removesuffix(STOP))
    rows = item.page_rows if as_documented else item.rows
    return written(item, values_of(event, item), rows, event.source.dialect == NAME)


def values_of(event: Event, item: Item) -> Values:
    """The elements of an item: what the event says, and what was heard besides in this dialect."""
    heard = event.source.dialect == NAME
    values = dict(zip(item.elements, item.get(event), strict=True))
    values["ActivityId"] = event.source.id if heard else event.id
    values.update(_heard(event, item) if heard else foreign_values(event, item))
    if "Timestamp" not in values:
        values["Timestamp"] = eastern(event.time)
    return values


def written(item: Item, values: Values, rows: tuple[Row, ...], heard: bool) -> bytes:
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


def _heard(event: Event, item: Item) -> Values:
    """What our fields do not hold of an event in this dialect."""
    failure = event.failure
    if failure is None or "Category" not in item.fields:
        return event.extra
    code = None if failure.code is None else str(failure.code)
    return {"Category": failure.category, "CategoryCode": code, "Details": failure.detail, **event.extra}


def foreign_values(event: Event, item: Item) -> Values:
    """What only this vendor's items have, filled for another's event from what that one said, and no more."""
    failure = event.failure or Failure()
    detail = failure.detail or failure.reply
    if "Category" in item.fields:
        category, code = foreign_bounce(event, failure) if item.channel == "email" else foreign_category(event, failure)
        return {"Category": category, "CategoryCode": code, "Details": detail or failure.category}
    if event.type == "email.complained":
        return {"Isp": (event.recipient or "").partition("@")[2] or None}
    if event.type in SAID_CLASSIFICATIONS:
        return {"Classification": SAID_CLASSIFICATIONS[event.type]}
    if event.type == "record.found":
        return {"RecordSize": ""}
    if failure.category or detail:
        error = {"ErrorCode": failure.category or "", "ErrorMessage": detail or ""}
        return {"JobError": error, "RenderErrors": {"RenderError": error}}
    return {}

"""CloudEvents 1.0 in JSON: the canonical event as `data`, in an envelope that any CloudEvents library reads.

An envelope of someone else's making becomes `other` and is kept whole in `extra`, `data_base64` and all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import quote

import msgspec
from msgspec import Struct, structs

from aftersend.contracts import Dialect as Contract
from aftersend.core import canonical
from aftersend.core.event import Body, Event, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import OTHER, ROWS, is_type
from aftersend.core.timestamps import SUSPECT_BEFORE, format_time, parse_time, time_fault

PREFIX = "aftersend."
"""Begins the `type` of our own events."""
BATCHED = "application/cloudevents-batch+json"
STRUCTURED = "application/cloudevents+json"

_REQUIRED = ("specversion", "id", "source", "type")
_DATA = frozenset(("data",))
_OURS = frozenset((*_REQUIRED, "time", "subject", "datacontenttype", "data"))
_encode = msgspec.json.Encoder().encode


class _Envelope(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """An event of ours as told."""

    specversion: str
    id: str
    source: str
    type: str
    time: str
    subject: str | None = None
    """The message: a person's address has no place where brokers and routers look."""
    datacontenttype: str
    data: canonical.Spoken


@dataclass(frozen=True, slots=True)
class Dialect:
    """CloudEvents in JSON: arrays (`batched`) or one object a body (`structured`)."""

    name: ClassVar[str] = "cloudevents"
    forms: ClassVar[tuple[str, ...]] = ("batched", "structured")
    columns: ClassVar[Mapping[str, str]] = {PREFIX + row.type: row.type for row in ROWS}
    identity_fields: ClassVar[str] = "source and id, as CloudEvents says"
    singles: ClassVar[frozenset[str]] = frozenset(("structured",))
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200)
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of one envelope, an array of them, or NDJSON."""
        found: list[Event | Rejected] = []
        for index, member in enumerate(split_json(receipt.body)):
            found.append(member if isinstance(member, Rejected) else _read(member, index, receipt))
        return found

    def word(self, event: Event) -> str | None:
        """Everything can be told; an envelope of someone else's keeps its type."""
        return event.source.word if _is_kept(event) else PREFIX + event.type

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """`batched`: one array; `structured`: a body for each."""
        if form == "structured":
            return [Body(_encode(_told(event)), STRUCTURED, 1) for event in events]
        return [Body(_encode([_told(event) for event in events]), BATCHED, len(events))] if events else []

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The envelope of an event of ours."""
        data = canonical.schema()
        text = {"type": "string", "minLength": 1}
        properties: dict[str, Any] = dict.fromkeys(_REQUIRED, text)
        properties |= {
            "specversion": {"const": "1.0"},
            "time": {"type": "string", "format": "date-time"},
            "subject": {**text, "description": "The message's id."},
            "datacontenttype": {"const": "application/json"},
        }
        return {
            "event": {
                "$schema": data.pop("$schema"),
                "$defs": data.pop("$defs"),
                "type": "object",
                "properties": {**properties, "data": data},
                "required": [*_REQUIRED, "time", "datacontenttype", "data"],
            }
        }


def _read(member: dict[str, Any], index: int, receipt: Receipt) -> Event | Rejected:
    for name in _REQUIRED:
        value = member.get(name)
        if type(value) is not str or not value:
            reason = "missing_field" if value is None or value == "" else "wrong_type"
            return Rejected(reason, f"event {index} has no {name} that is text", index, _encode(member))
    if not member["specversion"].startswith("1."):
        detail = f"event {index} is of CloudEvents {member['specversion'][:20]}, 1.0 is known"
        return Rejected("unsupported_version", detail, index, _encode(member))
    data = member.get("data")
    if isinstance(data, dict) and isinstance(data.get("type"), str):
        event = _ours(member, data, index, receipt)
        if event is not None:
            return event
    return _others(member, index, receipt)


def _ours(member: dict[str, Any], data: dict[str, Any], index: int, receipt: Receipt) -> Event | Rejected | None:
    """The canonical event in an envelope; None where the data only looks like one."""
    word = member["type"]
    ours = word == PREFIX + data["type"]
    if not ours and not is_type(data["type"]):
        return None
    if data.get("time") is None and member.get("time") is not None:
        data = {**data, "time": member["time"]}
    teller = canonical.Teller("cloudevents", word, member["id"], (member["source"], member["id"]))
    event = canonical.read(data, index, receipt, teller)
    if isinstance(event, Rejected):
        return structs.replace(event, raw=_encode(member)) if ours else None
    said = _OURS if ours else _DATA
    if member.keys() <= said:
        return event
    attributes = {name: value for name, value in member.items() if name not in said}
    return structs.replace(event, extra={**event.extra, "cloudevent": attributes})


def _others(member: dict[str, Any], index: int, receipt: Receipt) -> Event | Rejected:
    word, id_, said = member["type"], member["id"], member.get("time")
    try:
        time = receipt.received_at if said is None else parse_time(said)
    except (ValueError, TypeError):
        return Rejected("invalid_time", f"event {index}: the time is not RFC 3339", index, _encode(member))
    fault = time_fault(time, receipt.received_at)
    if fault is not None:
        detail = f"event {index}: the time is before 1970 or more than 7 days ahead"
        return Rejected(fault, detail, index, _encode(member))
    return Event(
        id=event_id(receipt, "cloudevents", word, time, [member["source"], id_]),
        type=OTHER,
        time=time,
        source=Source(receipt.source or "cloudevents", "cloudevents", word, id_),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=member,
    )


def _is_kept(event: Event) -> bool:
    """Whether `extra` is an envelope of someone else's, to be told as it was."""
    source, extra = event.source, event.extra
    return (
        event.type == OTHER
        and source.dialect == "cloudevents"
        and "specversion" in extra
        and (extra.get("type"), extra.get("id")) == (source.word, source.id)
    )


def _told(event: Event) -> _Envelope | dict[str, Any]:
    if _is_kept(event):
        return event.extra
    return _Envelope(
        specversion="1.0",
        id=event.id,
        source=_source(event.tenant, event.source.name),
        type=PREFIX + event.type,
        time=format_time(event.time),
        subject=event.message_id or None,
        datacontenttype="application/json",
        data=canonical.spoken(event),
    )


@lru_cache(1024)
def _source(tenant: str, name: str) -> str:
    """A URI reference that tells whose event it is and which source it came from."""
    return f"/aftersend/{quote(tenant, safe='')}/{quote(name, safe='')}"


_proof: type[Contract] = Dialect

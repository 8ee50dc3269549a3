"""Events as canonical JSON objects, for the dialects that speak the house's own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from aftersend.core.event import Actor, Event, Failure, Geo, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.taxonomy import OTHER, channel_of, is_channel, is_type
from aftersend.core.timestamps import SUSPECT_BEFORE, format_time, parse_time, time_fault

IDENTITY_FIELDS = ("recipient", "profile_id", "device_id", "message_id", "campaign_id", "job_id", "url")
"""What makes two events one fact where they have no id."""


class Spoken(Struct, frozen=True, gc=False, omit_defaults=True):
    """An event as told: `Event` with its times as text, field for field in the same order."""

    id: str
    type: str
    time: str
    source: Source
    tenant: str
    received_at: str = ""
    channel: str | None = None
    recipient: str | None = None
    profile_id: str | None = None
    device_id: str | None = None
    message_id: str | None = None
    campaign_id: str | None = None
    job_id: str | None = None
    correlation_id: str | None = None
    template_id: str | None = None
    list_id: str | None = None
    category: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    geo: Geo | None = None
    url: str | None = None
    url_name: str | None = None
    failure: Failure | None = None
    actor: Actor | None = None
    test: bool = False
    suspect: list[str] = []
    extra: dict[str, Any] = {}


class _HeardSource(Struct, frozen=True, gc=False):
    name: str = ""
    dialect: str = ""
    word: str = ""
    id: str | None = None


class _Heard(Struct, frozen=True, gc=False):
    """What a sender may say: all of it optional but the type."""

    type: str
    time: str | None = None
    id: str | None = None
    source: _HeardSource | str | None = None
    tenant: str | None = None
    received_at: str | None = None
    channel: str | None = None
    recipient: str | None = None
    profile_id: str | None = None
    device_id: str | None = None
    message_id: str | None = None
    campaign_id: str | None = None
    job_id: str | None = None
    correlation_id: str | None = None
    template_id: str | None = None
    list_id: str | None = None
    category: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    geo: Geo | None = None
    url: str | None = None
    url_name: str | None = None
    failure: Failure | None = None
    actor: Actor | None = None
    test: bool = False
    suspect: list[str] = []
    extra: dict[str, Any] = {}


class Teller(Struct, frozen=True):
    """Who tells a canonical object, where something around it says that."""

    dialect: str
    word: str
    id: str
    key: Sequence[str]
    """What makes two events one fact."""


_KNOWN = frozenset(_Heard.__struct_fields__)


def spoken(event: Event) -> Spoken:
    """An event as the object that tells it."""
    values = list(structs.astuple(event))
    values[2] = format_time(event.time)
    values[5] = format_time(event.received_at) if event.received_at else ""
    return Spoken(*values)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of one object; its definitions stand in it."""
    whole = msgspec.json.schema(Spoken)
    own: dict[str, Any] = whole["$defs"].pop("Spoken")
    own["title"] = "Event"
    own["properties"]["time"]["format"] = "date-time"
    own["properties"]["id"]["format"] = "uuid"
    own["properties"]["received_at"].pop("default", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **own, "$defs": whole["$defs"]}


def read(member: dict[str, Any], index: int, receipt: Receipt, teller: Teller | None = None) -> Event | Rejected:
    """The event that an object tells, the `index`th of its receipt."""
    try:
        heard = msgspec.convert(member, _Heard)
        time = parse_time(heard.time) if heard.time is not None else receipt.received_at
        received_at = _received_at(heard, receipt)
    except msgspec.ValidationError as error:
        reason = "missing_field" if "missing required" in str(error) else "wrong_type"
        return _rejected(reason, f"event {index}: {error}", index, member)
    except ValueError:
        return _rejected("invalid_time", f"event {index}: {heard.time!r} is not an RFC 3339 time", index, member)
    fault = time_fault(time, receipt.received_at)
    if fault is not None:
        return _rejected(fault, f"event {index}: {heard.time} is before 1970 or more than 7 days ahead", index, member)
    known = is_type(heard.type)
    type_ = heard.type if known else OTHER
    channel = heard.channel or channel_of(type_)
    if heard.channel and not is_channel(heard.channel):
        return _rejected("invalid_channel", f"event {index}: {channel!r} cannot name a channel", index, member)
    source, id_ = _source(heard, time, receipt, teller)
    return Event(
        id=id_,
        type=type_,
        time=time,
        source=source,
        tenant=heard.tenant or receipt.tenant if receipt.verbatim else receipt.tenant,
        received_at=received_at,
        channel=channel,
        recipient=heard.recipient,
        profile_id=heard.profile_id,
        device_id=heard.device_id,
        message_id=heard.message_id,
        campaign_id=heard.campaign_id,
        job_id=heard.job_id,
        correlation_id=heard.correlation_id,
        template_id=heard.template_id,
        list_id=heard.list_id,
        category=heard.category,
        ip=heard.ip,
        user_agent=heard.user_agent,
        geo=heard.geo,
        url=heard.url,
        url_name=heard.url_name,
        failure=heard.failure,
        actor=heard.actor,
        test=heard.test,
        suspect=["time"] if time < SUSPECT_BEFORE else heard.suspect,
        extra=_extra(heard, member, receipt),
    )


def _received_at(heard: _Heard, receipt: Receipt) -> int:
    return parse_time(heard.received_at) if receipt.verbatim and heard.received_at else receipt.received_at


def _source(heard: _Heard, time: int, receipt: Receipt, teller: Teller | None) -> tuple[Source, str]:
    said = heard.source if isinstance(heard.source, _HeardSource) else None
    if receipt.verbatim and said is not None and said.dialect and heard.id:
        return Source(said.name or said.dialect, said.dialect, said.word or heard.type, said.id), heard.id
    if teller is not None:
        source = Source(receipt.source or teller.dialect, teller.dialect, teller.word, teller.id)
        return source, event_id(receipt, teller.dialect, teller.word, time, teller.key)
    source = Source(receipt.source or "canonical", "canonical", heard.type, heard.id)
    key: object = heard.id or [getattr(heard, name) for name in IDENTITY_FIELDS]
    return source, event_id(receipt, "canonical", heard.type, time, key)  # type: ignore[arg-type]


def _extra(heard: _Heard, member: dict[str, Any], receipt: Receipt) -> dict[str, Any]:
    """What the sender said beyond our fields, and who told the sender, are kept."""
    extra = heard.extra
    if len(member) > 1 and not member.keys() <= _KNOWN:
        extra = {**{name: value for name, value in member.items() if name not in _KNOWN}, **extra}
    if heard.source is not None and not receipt.verbatim:
        extra = {"source": member["source"], **extra}
    return extra


def _rejected(reason: str, detail: str, index: int, member: dict[str, Any]) -> Rejected:
    return Rejected(reason, detail[:300], index, msgspec.json.encode(member))

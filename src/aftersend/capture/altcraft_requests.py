"""What clients of Altcraft's capture APIs say, as events. Source: Altcraft's developer guide and its mobile SDKs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from aftersend.core.errors import UsageError
from aftersend.core.event import Event, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.timestamps import SUSPECT_BEFORE, parse_epoch, parse_time, time_fault
from aftersend.core.xml import TooDeepError, TooManyAttributesError, parse_xml, value_of

PIXEL_DATA_LIMIT = 1_024
TEXT_LIMIT = 512
EXTRA_LIMIT = 65_536

PUSH_WORDS = {"delivery": ("deliv_push", "push.delivered"), "open": ("open_push", "push.opened")}
PIXEL_WORD = ("pixel_open", "web.pixel_opened")
_NUMBERED = {1: ("delivery",), 2: ("open",), 3: ("delivery", "open")}

_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode


class Call(Struct, frozen=True):
    """What is known of a request besides its body."""

    tenant: str
    received_at: int
    """ns since 1970, UTC."""
    first: Callable[[str], int]
    """When a fact without a time of its own, by what makes it one, was first told: its repeat is the same fact."""
    request_id: str = ""
    ip: str = ""
    user_agent: str = ""
    matching: Mapping[str, Any] = {}
    """Whom the caller's token names; that is proven, so the body cannot name anybody else."""
    source: str = "altcraft"


def fields_of(body: bytes) -> dict[str, Any]:
    """The fields of a body in JSON or XML. Raises UsageError."""
    if body.lstrip()[:1] == b"<":
        return _fields_of_xml(body)
    members = split_json(body)
    if len(members) != 1 or isinstance(members[0], Rejected):
        raise UsageError("the body is neither a JSON object nor XML")
    return members[0]


def _fields_of_xml(body: bytes) -> dict[str, Any]:
    root = parse_xml(body)
    if isinstance(root, Rejected):
        raise UsageError("the body is not well-formed XML")
    try:
        value = value_of(root)
    except (TooDeepError, TooManyAttributesError) as error:
        raise UsageError(str(type(error).__doc__)) from None
    return value if isinstance(value, dict) else {}


# --- pushes


def pushes(fields: dict[str, Any], call: Call) -> list[Event]:
    """The events of `pushes/post_events`. Raises UsageError."""
    kinds = _NUMBERED.get(_whole(fields.pop("events", None)) or 0)
    if kinds is None:
        raise UsageError("events is 1 (delivered), 2 (opened) or 3 (both)")
    uid = _text(fields.get("uid"))
    if not uid:
        raise UsageError("there is no uid")
    fields.pop("token", None)
    pieces = uid.split("|")
    # The compact form is e|…|SMID|provider: it says everything that the other fields would.
    smid = pieces[2] if len(pieces) == 4 and pieces[0] == "e" and pieces[2] else uid
    taken = {"job_id": _text(fields.pop("launch_id", None)), "device_id": _text(fields.pop("subscription_id", None))}
    told = _Told(smid, None, call.request_id or uid, taken, fields)
    return [_event(*PUSH_WORDS[kind], told, call) for kind in kinds]


def sdk_push(kind: str, fields: dict[str, Any], call: Call) -> Event:
    """The event of `/event/push/{delivery|open}`. Raises UsageError."""
    smid = _text(fields.get("smid"))
    if not smid:
        raise UsageError("there is no smid")
    # The iOS SDK appends the kind to it.
    own = smid.removesuffix(kind) or smid
    extra = {name: value for name, value in fields.items() if name not in ("smid", "time")}
    if own != smid:
        extra["smid"] = smid
    taken = _person(call.matching)
    told = _Told(own, _epoch(fields.get("time")), call.request_id or own, taken, extra)
    return _event(*PUSH_WORDS[kind], told, call)


# --- pixels


def goal(fields: dict[str, Any], call: Call) -> Event:
    """The event of `goals/register`. Raises UsageError."""
    fields.pop("token", None)
    if _text(fields.get("pixel_id")) is None or not (fields.get("goal") or fields.get("goals")):
        raise UsageError("pixel_id and goal (or goals) must be given")
    data = fields.get("pixel_data")
    if data is not None and (not isinstance(data, dict) or len(_encode(data)) > PIXEL_DATA_LIMIT):
        raise UsageError(f"pixel_data is not an object of at most {PIXEL_DATA_LIMIT} bytes")
    digest = sha256(_encode(fields)).hexdigest()
    date = fields.pop("date", None)
    try:
        time = parse_time(date) if isinstance(date, str) else None
    except ValueError:
        raise UsageError("date is not an RFC 3339 time") from None
    taken = _person(fields) | {
        "list_id": _text(fields.pop("db_id", None)),
        "url": _text(fields.pop("referer", None)),
        "ip": _text(fields.pop("client_ip", None)),
        "user_agent": _text(fields.pop("user_agent", None)),
        "url_name": _text(fields.get("goal")),
    }
    test = str(fields.pop("is_test", False)).lower() == "true"
    told = _Told(None, time, call.request_id or digest, taken, fields, test)
    return _event(*PIXEL_WORD, told, call)


def mobile_event(parts: Mapping[str, bytes], query: Mapping[str, str], call: Call) -> Event:
    """The event of `/event/post`, a multipart form. Raises UsageError."""
    fields: dict[str, Any] = {name: _read_part(value) for name, value in parts.items()}
    if not _text(fields.get("wn")):
        raise UsageError("there is no wn, the event's name")
    matching, subscription = fields.get("ma"), fields.get("sn")
    told_person = _known(_person(subscription if isinstance(subscription, dict) else {}))
    told_person |= _known(_person(matching if isinstance(matching, dict) else {}))
    device = _known({"device_id": _text(fields.pop("aci", None))})
    taken: dict[str, str | None] = {**(_known(_person(call.matching)) or told_person), **device}
    taken["url_name"] = _text(fields.pop("wn"))
    digest = sha256(_encode(sorted((name, value.hex()) for name, value in parts.items()))).hexdigest()
    time, smid = _epoch(fields.pop("t", None)), _text(fields.pop("mi", None))
    zone = _whole(fields.pop("tz", None))
    if zone is not None:
        # Sent with its sign turned round: UTC+3 is -180.
        fields["utc_offset_minutes"] = -zone
    if query.get("i"):
        fields["pixel"] = query["i"]
    told = _Told(smid, time, call.request_id or digest, taken, {k: v for k, v in fields.items() if v not in ("", None)})
    return _event(*PIXEL_WORD, told, call)


def _read_part(value: bytes) -> Any:
    """A part as JSON where it is that; a bare id is labelled JSON by Android all the same."""
    text = value.decode("utf-8", "replace")
    if text[:1] == '"':
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return text
    members = split_json(value) if text[:1] == "{" else []
    return members[0] if len(members) == 1 and not isinstance(members[0], Rejected) else text


# --- all of them


class _Told(Struct, frozen=True):
    """What a client told: the message, when, what makes it one fact, our fields, and the rest verbatim."""

    message_id: str | None
    time: int | None
    key: str
    taken: dict[str, str | None]
    extra: dict[str, Any]
    test: bool = False


def _event(word: str, type_: str, told: _Told, call: Call) -> Event:
    _check(told.extra)
    credible = told.time is not None and time_fault(told.time, call.received_at) is None
    time = told.time if credible and told.time is not None else call.first(f"{word} {told.key}")
    extra = told.extra if credible or told.time is None else {**told.extra, "client_time": str(told.time)[:TEXT_LIMIT]}
    receipt = Receipt(b"", call.received_at, tenant=call.tenant, origin="aftersend")
    fields = {"ip": call.ip or None, "user_agent": call.user_agent or None} | _known(told.taken)
    return Event(
        id=event_id(receipt, "aftersend", word, time, told.key),
        type=type_,
        time=time,
        source=Source(call.source, "aftersend", word, told.key[:TEXT_LIMIT]),
        tenant=call.tenant,
        received_at=call.received_at,
        channel=type_.partition(".")[0],
        message_id=told.message_id,
        test=told.test,
        suspect=["time"] if time < SUSPECT_BEFORE or (told.time is not None and not credible) else [],
        extra=extra,
        **fields,  # type: ignore[arg-type]
    )


def _check(extra: dict[str, Any]) -> None:
    """Raises UsageError for what the log could not hold."""
    try:
        size = len(_pack(extra))
    except OverflowError:
        raise UsageError("a number in it has more than 64 bits") from None
    if size > EXTRA_LIMIT:
        raise UsageError(f"there are more than {EXTRA_LIMIT} bytes in it")


def _person(fields: Mapping[str, Any]) -> dict[str, str | None]:
    """Whom matching fields name."""
    return {
        "recipient": _text(fields.get("email")) or _text(fields.get("phone")),
        "profile_id": _text(fields.get("profile_id")),
        "device_id": _text(fields.get("subscription_id")),
    }


def _known(fields: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name: value for name, value in fields.items() if value}


def _text(value: object) -> str | None:
    """A text or a number as text; too long a one is none."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return value if isinstance(value, str) and 0 < len(value) <= TEXT_LIMIT else None


def _whole(value: object) -> int | None:
    text = _text(value) or ""
    return int(text) if text.removeprefix("-").isdecimal() and len(text) <= 9 else None


def _epoch(value: object) -> int | None:
    try:
        return None if value in (None, "") else parse_epoch(value)
    except (ValueError, OverflowError):
        return None

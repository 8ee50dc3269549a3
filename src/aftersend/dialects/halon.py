"""Halon: the tracking service's three events, and the delivery logs that Halon's scripts send in bulk.

A tracking event becomes fields of ours. A line of a delivery log is kept whole in `extra`, since its nested parts feed
several fields, and is told again from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from aftersend.contracts import Dialect as Contract
from aftersend.core.event import Body, Event, Failure, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import OTHER
from aftersend.core.timestamps import MILLISECOND, SECOND, SUSPECT_BEFORE, parse_epoch, time_fault
from aftersend.core.vocabulary import Vocabulary

TRACKING = {"click": "email.clicked", "open": "email.opened", "unsubscribe": "email.unsubscribed"}
"""The words of the tracking service: the only ones spoken for events of others."""

_REFUSALS = {"5": "email.hard_bounced", "5.7": "email.blocked"}
_LOGS = {
    "queue": "email.accepted",
    "delivery SUCCESS": "email.delivered",
    "delivery QUEUE": "email.deferred",
    **{f"delivery BOUNCE {kind}": type_ for kind, type_ in _REFUSALS.items()},
    "delivery BOUNCE": "email.undelivered",
    **{f"delivery DELETE {kind}": type_ for kind, type_ in _REFUSALS.items()},
    "delivery DELETE": "email.undelivered",
    "async delivered": "email.delivered",
    "async delayed": "email.deferred",
    **{f"async failed {kind}": type_ for kind, type_ in _REFUSALS.items()},
    "async failed 4": "email.soft_bounced",
    "async failed": "email.bounced",
    "arf": "email.complained",
    "SMTP delivered": "email.delivered",
    "SMTP delayed": "email.deferred",
    **{f"SMTP failed {kind}": type_ for kind, type_ in _REFUSALS.items()},
    "SMTP failed": "email.undelivered",
    "SMTP removed": "email.undelivered",
}
_CLASSES = {"5": "hard", "5.7": "block", "4": "soft", "": "undetermined"}
_FAILING = frozenset(("QUEUE", "BOUNCE", "DELETE", "delayed", "failed", "removed"))
_PENDING = frozenset(("QUEUE", "delayed"))
_DSN_ACTIONS = {"delivered": "delivered", "relayed": "delivered", "delayed": "delayed"}
_TRACKING_CLOCKS = (("timestamp", MILLISECOND),)
_LOG_CLOCKS = (("time", MILLISECOND), ("ts_attempt", SECOND), ("timestamp", MILLISECOND))
_FIELDS = ("type", "event_id", "timestamp", "recipient", "message_id", "ip", "user_agent", "url", "additional")

_vocabulary = Vocabulary("halon", TRACKING)
_encode_list = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Dialect:
    """Halon's tracking events and delivery logs: an array, one object, or one object a line; told as an array."""

    name: ClassVar[str] = "halon"
    forms: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Mapping[str, str]] = {**TRACKING, **_LOGS}
    identity_fields: ClassVar[str] = (
        "event_id (eventid) with type and time; without one: recipient, message_id, url, and of a delivery log "
        "the action or status and the number of the attempt"
    )
    singles: ClassVar[frozenset[str]] = frozenset()
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200)
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of an array, an object or NDJSON; a member without a type that has an `attempt` is a delivery."""
        found: list[Event | Rejected] = []
        for index, member in enumerate(split_json(receipt.body)):
            found.append(member if isinstance(member, Rejected) else _read(member, index, receipt))
        return found

    def word(self, event: Event) -> str | None:
        """One of the three tracking words; for what Halon told, the word it used."""
        return _vocabulary.word(event)

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """One array."""
        if not events:
            return []
        return [Body(_encode_list([_told(event) for event in events]), "application/json", len(events))]

    def schemas(self) -> dict[str, dict[str, Any]]:
        """One schema a tracking event, under the names of Halon's own files."""
        return {f"submission-tracking-{word}.schema.json": _schema(word) for word in TRACKING}


class _Log(Struct, gc=False):
    """What a line of a delivery log says, its nested parts laid flat."""

    key: str
    """Of `_LOGS`."""
    recipient: str | None = None
    message_id: str | None = None
    job_id: str | None = None
    failure: Failure | None = None
    attempt: str = ""
    """Action or status, and the attempt's number: tell apart what happened to a message in one ms."""


def _read(member: dict[str, Any], index: int, receipt: Receipt) -> Event | Rejected:
    word = member.get("type")
    if word is None:
        word = "delivery" if isinstance(member.get("attempt"), dict) else None
    if not isinstance(word, str) or not word:
        reason = "missing_field" if word is None or word == "" else "wrong_type"
        return _rejected(reason, f"event {index} has no type that is text", index, member)
    try:
        time = _time(member, _TRACKING_CLOCKS if word in TRACKING else _LOG_CLOCKS, receipt)
    except (ValueError, OverflowError):
        return _rejected("invalid_time", f"event {index}: the time is no count since 1970", index, member)
    fault = time_fault(time, receipt.received_at)
    if fault is not None:
        return _rejected(fault, f"event {index}: the time is before 1970 or more than 7 days ahead", index, member)
    if word in TRACKING:
        return _tracking_event(member, word, time, receipt)
    return _log_event(member, word, time, receipt)


def _rejected(reason: str, detail: str, index: int, member: dict[str, Any]) -> Rejected:
    return Rejected(reason, detail, index, msgspec.json.encode(member))


def _time(member: dict[str, Any], clocks: tuple[tuple[str, int], ...], receipt: Receipt) -> int:
    for name, unit in clocks:
        value = member.get(name)
        if value is not None and value != "":
            return parse_epoch(value, unit)
    # A tracking event is always told with its ms, so that much of the receipt's time is all that can be kept.
    return receipt.received_at - receipt.received_at % MILLISECOND


def _tracking_event(member: dict[str, Any], word: str, time: int, receipt: Receipt) -> Event:
    del member["type"]
    id_ = _take(member, "event_id")
    recipient = _take(member, "recipient")
    message_id = _take(member, "message_id")
    url = _take(member, "url") if word == "click" else None
    if member.get("additional") in ({}, [], None):
        member.pop("additional", None)
    if member.get("timestamp", "") in ("", None, str(time // MILLISECOND)):
        member.pop("timestamp", None)
    type_ = TRACKING[word]
    return Event(
        id=event_id(receipt, "halon", word, time, id_ or [recipient, message_id, url]),
        type=type_,
        time=time,
        source=Source(receipt.source or "halon", "halon", word, id_),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel="email",
        recipient=recipient,
        message_id=message_id,
        ip=_take(member, "ip"),
        user_agent=_take(member, "user_agent"),
        url=url,
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=member,
    )


def _take(member: dict[str, Any], name: str) -> str | None:
    """A text field, taken out; what is no text stays to be told again as it was."""
    value = member.pop(name, None)
    if type(value) is str:
        return value or None
    if value is None:
        return None
    member[name] = value
    return _text(value)


def _text(value: object) -> str | None:
    """Text, or a number in digits."""
    if type(value) is str:
        return value or None
    return str(value) if type(value) is int or type(value) is float else None


def _log_event(member: dict[str, Any], word: str, time: int, receipt: Receipt) -> Event:
    log = _READERS.get(word, _unknown)(member)
    id_ = _text(member.get("event_id")) or _text(member.get("eventid"))
    extra = {name: value for name, value in member.items() if name != "type"}
    return Event(
        id=event_id(receipt, "halon", word, time, id_ or [log.recipient, log.message_id, log.attempt]),
        type=_LOGS.get(log.key, OTHER),
        time=time,
        source=Source(receipt.source or "halon", "halon", word, id_),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel="email",
        recipient=log.recipient,
        message_id=log.message_id,
        job_id=log.job_id,
        ip=_text(member.get("ip")),
        user_agent=_text(member.get("user_agent")),
        url=_text(member.get("url")),
        failure=log.failure,
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=extra,
    )


def _unknown(member: dict[str, Any]) -> _Log:
    return _Log("", _address(member.get("recipient")), _text(member.get("message_id")), _text(member.get("jobid")))


def _queue(member: dict[str, Any]) -> _Log:
    return _Log("queue", _address(member.get("recipient")), _number(member), _text(member.get("jobid")))


def _delivery(member: dict[str, Any]) -> _Log:
    """A line made of the post-delivery hook's `$message` and `$arguments`; without an action it went well."""
    message, attempt = _object(member, "message"), _object(member, "attempt")
    result, error, report = _object(attempt, "result"), _object(attempt, "error"), _object(member, "dsn")
    action = _text(member.get("action")) or ("SUCCESS" if result or error else "DELETE")
    log = _Log(
        f"delivery {action}",
        _address(message.get("recipient")),
        _number(message),
        _text(message.get("jobid")),
        None,
        f"{action} {_text(member.get('retry'))}",
    )
    if action not in _FAILING:
        return log
    status = _status(result.get("enhanced")) or _status(report.get("status"))
    kind = _refusal(result.get("code"), status, error.get("temporary"), error.get("type") == "dns")
    reply = _reply(result.get("code"), _status(result.get("enhanced")), _lines(result.get("reason")))
    reply = reply or _text(error.get("message")) or _text(report.get("diagnosticcode"))
    log.failure = _failure(action, kind, status, reply, _text(error.get("type")) or _text(result.get("state")))
    log.key = _key(log.key, kind)
    return log


def _flat(member: dict[str, Any]) -> _Log:
    status = _text(member.get("status")) or ""
    log = _Log(
        f"SMTP {status}",
        _joined(member.get("recipient_localpart"), member.get("recipient_domain")),
        _text(member.get("messageid")),
        _text(member.get("jobid")),
        None,
        status,
    )
    if status not in _FAILING:
        return log
    code, enhanced = member.get("result_code"), _status(member.get("result_enhanced"))
    kind = _refusal(code, enhanced, member.get("error_temporary"), False)
    reply = _reply(code, enhanced, _text(member.get("result_reason"))) or _text(member.get("error_message"))
    log.failure = _failure(status, kind, enhanced, reply, _text(member.get("result_state")))
    log.key = _key(log.key, kind)
    return log


def _late(member: dict[str, Any]) -> _Log:
    """A bounce that came back by mail; the fields of its recipient are those of RFC 3464."""
    message, report = _object(member, "message"), _object(member, "recipient")
    recipient = _address(message.get("recipient")) or _address(member.get("recipient")) or _reported(report)
    status = _status(report.get("status"))
    action = _DSN_ACTIONS.get(_text(report.get("action")) or "", "failed")
    kind = _refusal(None, status, None, False)
    reply = _text(report.get("diagnosticcode")) or _text(report.get("diagnostic-code"))
    failure = _failure(action, kind, status, reply, None) if action != "delivered" else None
    return _Log(
        _key(f"async {action}", kind), recipient, _number(message), _text(message.get("jobid")), failure, action
    )


def _complaint(member: dict[str, Any]) -> _Log:
    message = _object(member, "message")
    recipient = _address(message.get("recipient")) or _address(member.get("recipient")) or _reported(member)
    return _Log("arf", recipient, _number(message), _text(message.get("jobid")))


_READERS = {"queue": _queue, "delivery": _delivery, "async": _late, "arf": _complaint, "SMTP": _flat}


def _key(word: str, kind: str) -> str:
    """The row of `_LOGS`: the word with what kind of refusal it was where that matters."""
    detailed = f"{word} {kind}"
    return detailed if detailed in _LOGS else word


def _refusal(code: object, status: str | None, temporary: object, unknown_domain: bool) -> str:
    """What kind of refusal: 5, 5.7 (a policy's), 4, or empty where the log does not tell."""
    digit = status[0] if status else str(code)[0] if type(code) is int else ""
    if digit == "5":
        return "5.7" if status and status.startswith("5.7.") else "5"
    if digit == "4" or temporary is True:
        return "4"
    return "5" if unknown_domain and temporary is False else ""


def _failure(action: str, kind: str, status: str | None, reply: str | None, detail: str | None) -> Failure:
    """Why it failed: `action` is one of `_FAILING`, `kind` what `_refusal` says."""
    final = action not in _PENDING
    return Failure(class_=_CLASSES[kind], status=status, reply=reply, final=final, detail=detail)


def _reply(code: object, status: str | None, text: str | None) -> str | None:
    """What the server said, put together again as it said it."""
    parts = [str(code) if type(code) is int else "", status or "", text or ""]
    return " ".join(part for part in parts if part) or None


def _lines(value: object) -> str | None:
    return "\n".join(line for line in value if type(line) is str) if isinstance(value, list) else _text(value)


def _status(value: object) -> str | None:
    """An enhanced status code, given as text or as three numbers; None for anything else."""
    if isinstance(value, list):
        value = ".".join(str(part) for part in value if type(part) is int)
    if type(value) is not str or len(value) > 16:
        return None
    parts = value.split(".")
    return value if len(parts) == 3 and parts[0] in ("2", "4", "5") and all(map(str.isdecimal, parts)) else None


def _object(parent: dict[str, Any], name: str) -> dict[str, Any]:
    value = parent.get(name)
    return value if isinstance(value, dict) else {}


def _number(message: dict[str, Any]) -> str | None:
    """`transaction:queue`, which is how the flat shape names a message."""
    number = _object(message, "id")
    transaction, queue = _text(number.get("transaction")), _text(number.get("queue"))
    return f"{transaction}:{queue}" if transaction and queue else transaction


def _address(value: object) -> str | None:
    if isinstance(value, dict):
        return _joined(value.get("localpart"), value.get("domain"))
    return value or None if type(value) is str else None


def _joined(local: object, domain: object) -> str | None:
    """An address of its parts; None where the local part was redacted."""
    if type(local) is not str or type(domain) is not str or not local.strip("*") or not domain:
        return None
    return f"{local}@{domain}"


def _reported(report: dict[str, Any]) -> str | None:
    """The recipient that a report names, without the kind of address before it."""
    for name in ("finalrecipient", "final-recipient", "originalrecipient", "original-recipient"):
        text = _text(report.get(name))
        if text:
            return text.rpartition(";")[2].strip() or None
    return None


def _told(event: Event) -> dict[str, Any]:
    source = event.source
    heard = source.dialect == "halon"
    if heard and source.word not in TRACKING:
        return {"type": source.word, **event.extra}
    word = source.word if heard else _vocabulary.word(event)
    told: dict[str, Any] = {
        "type": word,
        "event_id": (source.id or "") if heard else event.id,
        "timestamp": str(event.time // MILLISECOND),
        "recipient": event.recipient or "",
        "message_id": event.message_id or "",
        "ip": event.ip or "",
        "user_agent": event.user_agent or "",
    }
    if word == "click":
        told["url"] = event.url or ""
    told["additional"] = {}
    if heard and event.extra:
        told.update(event.extra)
    return told


def _schema(word: str) -> dict[str, Any]:
    names = [name for name in _FIELDS if name != "url" or word == "click"]
    properties: dict[str, Any] = {name: {"type": "string"} for name in names}
    properties["type"] = {"type": "string", "enum": [word]}
    properties["timestamp"] = {
        "type": "string",
        "pattern": "^[0-9]+$",
        "description": "Milliseconds since 1970, UTC.",
    }
    properties["additional"] = {"type": "object"}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "$comment": "Inferred from the documented fields; the vendor's own file is not public.",
        "title": f"submission-tracking-{word}",
        "type": "object",
        "properties": properties,
        "required": names,
        "additionalProperties": False,
    }


_proof: type[Contract] = Dialect

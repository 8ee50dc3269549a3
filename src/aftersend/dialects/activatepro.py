"""ActivatePro (CrossEngage): a person's events in one request, rows of a feed file, and what webhooks report back."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from msgspec import Struct

from aftersend.contracts import Dialect as Contract
from aftersend.core.archives import ZIP_MAGIC, unzipped
from aftersend.core.event import Body, Event, Failure, Receipt, Rejected, Source
from aftersend.core.framing import Framing, json_array
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import CHANNELS, OTHER, SUBJECTS, channel_of, is_channel, is_type
from aftersend.core.timestamps import SECOND, SUSPECT_BEFORE, format_time, parse_time, time_fault

REQUEST_LIMIT = 50
"""Events in one request."""
FEED_LIMIT = 100_000
"""Objects in one feed file."""
HEAD_LIMIT = 4096
"""Bytes of a request beside its events: each event keeps what they say, so a large head would multiply."""

_WORDS = {
    "sent": "Message Sent",
    "delivered": "Message Delivered",
    "opened": "Message Viewed",
    "clicked": "Message Clicked",
    "unsubscribed": "Message Unsubscribed",
    "soft_bounced": "Message soft_bounced",
    "hard_bounced": "Message hard_bounced",
    "complained": "Message marked_as_spam",
}
_ROWS = {
    **{word: what for what, word in _WORDS.items()},
    **{word.lower().replace(" ", "."): what for what, word in _WORDS.items()},
    "mail.open": "opened",
}
_FAILURES = {"soft_bounced": Failure(class_="soft"), "hard_bounced": Failure(class_="hard", final=True)}
_SPELLINGS = {"email": "Email", "sms": "SMS", "push": "Push", "whatsapp": "WhatsApp", "viber": "Viber", "web": "Web"}
_SYNONYMS = {"mail": "email", "e_mail": "email", "push_notification": "push"}
_ID_NAMES = ("id", "userId", "User_id", "user_id")
_PERSON = ("id", "email", "businessUnit")
_CUSTOM = (
    *("campaignId", "campaignExternalReferenceId", "messageId"),
    *("channelConfigExternalReferenceId", "channelConfigId", "event", "timestamp"),
)
_OF_EVENT = frozenset(("event", "timestamp", "properties"))
_OF_ROW = frozenset((*_PERSON, *_OF_EVENT))
_OF_REQUEST = frozenset((*_PERSON, "events", "timestamp", "properties"))
_RESERVED = frozenset((*_ID_NAMES, *_OF_ROW, "events"))
"""Names that cannot stand beside a feed row's properties without being taken for something else."""

_FAULTS = {
    "not_an_object": "is not a JSON object",
    "missing_field": "has no `event` that is text, nor a list of `events`",
    "wrong_type": "has `properties` that are no JSON object",
    "duplicate_key": "says one thing twice, beside its properties and in them",
    "invalid_time": "has a timestamp that is not ISO 8601",
    "too_large": "says more than 4096 bytes beside its events",
    "time_out_of_range": "is from before 1970 or more than 7 days ahead",
}
_encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_channels: dict[str, str | None] = {}


@dataclass(frozen=True, slots=True)
class Dialect:
    """Requests of one person and up to 50 events (`api`), or files of one flat array (`feed`, also zipped)."""

    name: ClassVar[str] = "activatepro"
    forms: ClassVar[tuple[str, ...]] = ("api", "feed")
    columns: ClassVar[Mapping[str, str]] = {word: f"*.{what}" for word, what in _ROWS.items()}
    identity_fields: ClassVar[str] = (
        "id (without one: email and businessUnit), messageId, campaignId, channel, url; of events that are not about "
        "a message, or are nobody's, all properties"
    )
    singles: ClassVar[frozenset[str]] = frozenset()
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(202, "application/json;charset=UTF-8", b"")
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of requests, feed rows and custom event objects, however they are mixed; a zip is opened."""
        found: list[Event | Rejected] = []
        for part in _parts(receipt.body):
            if isinstance(part, Rejected):
                found.append(part)
                continue
            for member in split_json(part):
                _read(member, found, receipt)
        return found

    def word(self, event: Event) -> str | None:
        """One of the eight, on any channel, where the event names a person; for what was heard, the word it had."""
        if event.source.dialect == "activatepro":
            return event.source.word
        if channel_of(event.type) is None or not (event.profile_id or event.recipient):
            return None
        return _WORDS.get(event.type.rpartition(".")[2])

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """`api`: a request for each run of one person's events, at most 50; `feed`: arrays of at most 100,000."""
        if form == "feed":
            return [_body([_row(event) for event in run], len(run)) for run in _runs(events, FEED_LIMIT)]
        return list(_requests(events))

    def framing(self, form: str) -> Framing | None:
        """Feed files, each with a time of its own in its name, plain or as the one file of a zip."""
        return _FEED if form == "feed" else None

    def schemas(self) -> dict[str, dict[str, Any]]:
        """A request to `/events`, and a row of `event_history_….json`."""
        return {"events": _request_schema(), "event_history": _row_schema()}


class _Person(Struct, gc=False):
    """Whose event it is."""

    profile_id: str | None
    recipient: str | None
    raw: dict[str, Any]
    """`businessUnit`, and an id or address that is no plain text, to be said again."""
    id_name: str
    """Which spelling of `id` was used."""


class _UnreadableError(Exception):
    """Why an event cannot be read; the argument is a key of `_FAULTS`."""


def _parts(body: bytes) -> Iterator[bytes | Rejected]:
    """The body, or the files of a zip: one, named like the archive without `.zip`, is the rule, but where it is
    broken ActivatePro imports the data all the same."""
    return unzipped(body, ".json") if body.startswith(ZIP_MAGIC) else iter((body,))


def _read(member: dict[str, Any] | Rejected, found: list[Event | Rejected], receipt: Receipt) -> None:
    if isinstance(member, Rejected):
        found.append(member)
    elif isinstance(member.get("events"), list):
        _read_request(member, found, receipt)
    else:
        try:
            found.append(_row_event(member, receipt))
        except _UnreadableError as error:
            found.append(_rejected(error, len(found), member))


def _read_request(member: dict[str, Any], found: list[Event | Rejected], receipt: Receipt) -> None:
    head = {name: value for name, value in member.items() if name != "events"}
    if len(member["events"]) > 1 and len(_encode(head)) > HEAD_LIMIT:
        found.append(_rejected(_UnreadableError("too_large"), len(found), member))
        return
    person = _person(head)
    shared = [_rest(head, _OF_REQUEST, person), head.get("properties")]
    shared = [fields for fields in shared if fields]
    stamp = head.get("timestamp")
    for event in member["events"]:
        try:
            found.append(_request_event(event, person, stamp, shared, receipt))
        except _UnreadableError as error:
            # Kept as a request of its own, so that it can be replayed.
            found.append(_rejected(error, len(found), {**head, "events": [event]}))


def _rejected(error: _UnreadableError, index: int, member: dict[str, Any]) -> Rejected:
    reason = error.args[0]
    return Rejected(reason, f"event {index} {_FAULTS[reason]}", index, _encode(member))


def _person(member: dict[str, Any]) -> _Person:
    raw = {}
    id_, id_name = None, "id"
    for name in _ID_NAMES:
        id_ = member.get(name)
        if id_ is not None:
            id_name = name
            break
    email, unit = member.get("email"), member.get("businessUnit")
    profile_id, recipient = _text(id_), _text(email)
    if id_ is not profile_id:
        raw["id"] = id_
    if email is not recipient:
        raw["email"] = email
    if unit is not None:
        raw["businessUnit"] = unit
    return _Person(profile_id, recipient, raw, id_name)


def _text(value: object) -> str | None:
    """Text, or a number in digits; None for what is empty or anything else."""
    if type(value) is str:
        return value or None
    return str(value) if type(value) is int or type(value) is float else None


def _rest(member: dict[str, Any], known: frozenset[str], person: _Person) -> dict[str, Any]:
    return {name: value for name, value in member.items() if name not in known and name != person.id_name}


def _request_event(event: Any, person: _Person, stamp: Any, shared: list[Any], receipt: Receipt) -> Event:
    if not isinstance(event, dict):
        raise _UnreadableError("not_an_object")
    groups = list(shared)
    if not event.keys() <= _OF_EVENT:
        groups.append({name: value for name, value in event.items() if name not in _OF_EVENT})
    groups.append(event.get("properties"))
    own = event.get("timestamp")
    return _event(event.get("event"), stamp if own is None else own, person, _merged(groups), receipt)


def _row_event(member: dict[str, Any], receipt: Receipt) -> Event:
    person = _person(member)
    properties, nested = _rest(member, _OF_ROW, person), member.get("properties")
    if nested is not None or not _RESERVED.isdisjoint(properties):
        properties = _merged([properties, nested])
    return _event(member.get("event"), member.get("timestamp"), person, properties, receipt)


def _merged(groups: list[Any]) -> dict[str, Any]:
    """Properties told in several places as one flat object; those with a reserved name stay in `properties`."""
    if len(groups) == 1 and type(groups[0]) is dict and _RESERVED.isdisjoint(groups[0]):
        return dict(groups[0])
    groups = [group for group in groups if group is not None]
    if not all(isinstance(group, dict) for group in groups):
        raise _UnreadableError("wrong_type")
    merged: dict[str, Any] = {}
    reserved: dict[str, Any] = {}
    for group in groups:
        for name, value in group.items():
            home = reserved if name in _RESERVED else merged
            if home.setdefault(name, value) != value:
                raise _UnreadableError("duplicate_key")
    return {**merged, "properties": reserved} if reserved else merged


def _event(word: Any, stamp: Any, person: _Person, extra: dict[str, Any], receipt: Receipt) -> Event:
    if type(word) is not str or not word:
        raise _UnreadableError("missing_field")
    time = receipt.received_at if stamp is None or stamp == "" else _time(stamp, receipt)
    type_, channel = _type(word, extra)
    category, url = _take(extra, "type"), _take(extra, "url")
    recipient = person.recipient or _number(extra)
    campaign_id, message_id = _take(extra, "campaignId", "campaign_id"), _take(extra, "messageId", "message_id")
    key = [person.profile_id or [person.recipient, person.raw.get("businessUnit")], message_id, campaign_id, channel]
    key.append(url)
    if type_ == OTHER or not (person.profile_id or person.recipient):
        key.append(_encode_sorted([category, extra]).decode())
    extra.update(person.raw)
    if stamp and stamp != format_time(time):
        extra["timestamp"] = stamp
    return Event(
        id=event_id(receipt, "activatepro", word, time, key),
        type=type_,
        time=time,
        source=Source(receipt.source or "activatepro", "activatepro", word),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel=channel,
        recipient=recipient,
        profile_id=person.profile_id,
        message_id=message_id,
        campaign_id=campaign_id,
        category=category,
        url=url,
        failure=_FAILURES.get(_ROWS.get(word, "")),
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=extra,
    )


def _is_number(text: str) -> bool:
    return text.isdecimal() and text.isascii()


def _number(extra: dict[str, Any]) -> str | None:
    """The number that we tell as a property of our own, because a person's `email` cannot hold it."""
    said = extra.get("recipient")
    if type(said) is str and _is_number(said):
        del extra["recipient"]
        return said
    return None


def _time(stamp: Any, receipt: Receipt) -> int:
    if type(stamp) is not str:
        raise _UnreadableError("invalid_time")
    try:
        time = parse_time(stamp)
    except ValueError:
        raise _UnreadableError("invalid_time") from None
    fault = time_fault(time, receipt.received_at)
    if fault is not None:
        raise _UnreadableError(fault)
    return time


def _type(word: str, extra: dict[str, Any]) -> tuple[str, str | None]:
    """The canonical type and the channel; the channel's name leaves `extra` where we would spell it so again."""
    what = _ROWS.get(word)
    if what is None and _is_custom(word):
        return word, channel_of(word)
    said = extra.get("channel")
    if said is None:
        extra.pop("channel", None)
        return (f"email.{what}", "email") if what else (OTHER, None)
    channel = _channel(said) if type(said) is str else None
    if channel is not None and _SPELLINGS.get(channel, channel) == said:
        del extra["channel"]
    return (f"{channel}.{what}", channel) if what and channel else (OTHER, channel)


def _is_custom(word: str) -> bool:
    """Whether a custom event is named like a canonical type, such as `whatsapp.read`."""
    return word.partition(".")[0] in CHANNELS and is_type(word)


def _channel(said: str) -> str | None:
    """The plain name of a channel, or None for a text of which none can be made."""
    try:
        return _channels[said]
    except KeyError:
        plain = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in said[:60].lower())
        plain = plain.strip("_")[:40]
        channel = _SYNONYMS.get(plain, plain) if is_channel(plain) and plain not in SUBJECTS else None
        if len(_channels) < 1024 and len(said) < 100:
            _channels[said] = channel
        return channel


def _take(extra: dict[str, Any], name: str, alias: str = "") -> str | None:
    """A text property, taken out; what is no text stays under the name that we say, to be told as it was."""
    if alias and alias in extra and extra.get(name) is None:
        extra[name] = extra.pop(alias)
    value = extra.pop(name, None)
    if type(value) is str and value:
        return value
    if value is None:
        return None
    extra[name] = value
    return _text(value)


def _requests(events: Sequence[Event]) -> Iterator[Body]:
    run: list[dict[str, Any]] = []
    person: dict[str, Any] = {}
    for event in events:
        row = _row(event)
        owner = {name: row.pop(name) for name in _PERSON if name in row}
        if run and (len(run) == REQUEST_LIMIT or not _is_same(owner, person)):
            yield _body({**person, "events": run}, len(run))
            run = []
        person = owner
        if person:
            run.append(_nested(row))
        else:
            yield _body(_custom(row), 1)
    if run:
        yield _body({**person, "events": run}, len(run))


def _is_same(owner: dict[str, Any], person: dict[str, Any]) -> bool:
    """Whether two are told alike: for Python 1, 1.0 and true are equal."""
    return owner == person and _encode(owner) == _encode(person)


def _runs(events: Sequence[Event], limit: int) -> Iterator[Sequence[Event]]:
    for start in range(0, len(events), limit):
        yield events[start : start + limit]


def _body(told: Any, count: int) -> Body:
    return Body(_encode(told), "application/json", count)


def _row(event: Event) -> dict[str, Any]:
    """An event as the feed tells it: person, event and properties in one flat object."""
    if event.source.dialect != "activatepro":
        return _foreign_row(event)
    extra, word = event.extra, event.source.word
    is_number = event.recipient is not None and _is_number(event.recipient) and "email" not in extra
    home = "recipient" if is_number else "email"
    row: dict[str, Any] = {"id": event.profile_id, home: event.recipient, "event": word}
    row["timestamp"] = format_time(event.time)
    if event.channel is not None and (word in _ROWS or not _is_custom(word)):
        row["channel"] = _SPELLINGS.get(event.channel, event.channel)
    row |= {"type": event.category, "campaignId": event.campaign_id, "messageId": event.message_id, "url": event.url}
    row = _without_none(row)
    return row | extra if extra else row


_FEED = Framing(
    content_type="application/json",
    ending=".json",
    pen=json_array(lambda event: _encode(_row(event))),
    name="event_history_{stamp}",
    max_events=FEED_LIMIT,
    compressions=("none", "zip"),
)


def _without_none(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _foreign_row(event: Event) -> dict[str, Any]:
    """An event of another vendor, in whole seconds; an address that is no e-mail address can only be an id."""
    channel = channel_of(event.type) or "email"
    recipient = event.recipient or ""
    is_email = "@" in recipient
    number = recipient if _is_number(recipient) else None
    return _without_none(
        {
            "id": event.profile_id or (None if is_email else recipient),
            "email": recipient if is_email else None,
            "recipient": number,
            "event": _WORDS[event.type.rpartition(".")[2]],
            "timestamp": format_time(event.time - event.time % SECOND),
            "channel": _SPELLINGS.get(channel, channel),
            "type": event.category,
            "campaignId": event.campaign_id,
            "messageId": event.message_id,
            "url": event.url,
        }
    )


def _nested(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its person as a request tells it: the properties in an object of their own."""
    told = {"event": row.pop("event")}
    if "timestamp" in row:
        told["timestamp"] = row.pop("timestamp")
    reserved = row.pop("properties", None)
    if reserved:
        row.update(reserved)
    if row:
        told["properties"] = row
    return told


def _custom(row: dict[str, Any]) -> dict[str, Any]:
    """A row of nobody as a custom event object, which names no person."""
    told = {name: row.pop(name) for name in _CUSTOM if name in row}
    row |= row.pop("properties", {})
    return {**told, "properties": row} if row else told


def request_fault(body: bytes, known: Collection[str] | None = None) -> dict[str, str] | None:
    """What ActivatePro's `/events` has against a request, as its 400 says it, or None.

    `known` are the events that the account has; None takes any.
    """
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        request = None
    if not isinstance(request, dict):
        return {"field": "body", "type": "WRONG_FORMAT"}
    person = _person(request)
    events = request.get("events")
    if person.profile_id is None and person.recipient is None:
        return {"field": "id", "type": "NOT_NULL"}
    if not isinstance(events, list):
        return {"field": "events", "type": "WRONG_FORMAT" if events is not None else "NOT_NULL"}
    if len(events) > REQUEST_LIMIT:
        return {"field": "events", "type": "WRONG_VALUE"}
    faults = (_event_fault(event, request.get("timestamp"), known) for event in events)
    return next((fault for fault in faults if fault is not None), None)


def _event_fault(event: Any, stamp: Any, known: Collection[str] | None) -> dict[str, str] | None:
    if not isinstance(event, dict):
        return {"field": "events", "type": "WRONG_FORMAT"}
    word, own = event.get("event"), event.get("timestamp", stamp)
    if not isinstance(word, str) or not word:
        return {"field": "event", "type": "NOT_NULL" if not word else "WRONG_FORMAT"}
    if known is not None and word not in known:
        return {"field": "event", "type": "UNKNOWN_VALUE"}
    if not isinstance(event.get("properties", {}), dict | None):
        return {"field": "properties", "type": "WRONG_FORMAT"}
    return None if not own or _is_time(own) else {"field": "timestamp", "type": "WRONG_FORMAT"}


def _is_time(stamp: Any) -> bool:
    try:
        return isinstance(stamp, str) and parse_time(stamp) is not None
    except ValueError:
        return False


_TEXT = {"type": "string"}
_ID = {"type": ["string", "number"]}
_PERSON_PROPERTIES = {"id": _ID, "email": _TEXT, "businessUnit": _TEXT}
_EVENT_PROPERTIES = {"event": _TEXT, "timestamp": {"type": "string", "format": "date-time"}}
_MESSAGE_PROPERTIES = {
    **dict.fromkeys(("channel", "type", "url"), _TEXT),
    **dict.fromkeys(("campaignId", "messageId"), _ID),
}
_SCHEMA = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
_NAMES_A_PERSON = {"anyOf": [{"required": ["id"]}, {"required": ["email"]}]}


def _request_schema() -> dict[str, Any]:
    event = {
        "type": "object",
        "properties": {**_EVENT_PROPERTIES, "properties": {"type": "object", "properties": _MESSAGE_PROPERTIES}},
        "required": ["event"],
    }
    events = {"type": "array", "items": event, "maxItems": REQUEST_LIMIT}
    properties = {**_PERSON_PROPERTIES, "events": events}
    return {**_SCHEMA, "type": "object", "properties": properties, "required": ["events"], **_NAMES_A_PERSON}


def _row_schema() -> dict[str, Any]:
    properties = {**_PERSON_PROPERTIES, **_EVENT_PROPERTIES, **_MESSAGE_PROPERTIES}
    return {**_SCHEMA, "type": "object", "properties": properties, "required": ["event"], **_NAMES_A_PERSON}


_proof: type[Contract] = Dialect

"""Altcraft's action hooks, told as a JSON array, and its history of actions, which is only read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from string import ascii_uppercase
from typing import Any, ClassVar

import msgspec

from aftersend.contracts import Dialect as Contract
from aftersend.core.event import Body, Event, Failure, Geo, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.options import option
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import OTHER, channel_of, is_channel, is_type
from aftersend.core.timestamps import SECOND, SUSPECT_BEFORE, format_time, parse_time, time_fault

_HAPPENINGS = {
    "send": "sent",
    "deliv": "delivered",
    "undeliv": "undelivered",
    "suppress": "suppressed",
    "hbounce": "hard_bounced",
    "sbounce": "soft_bounced",
    "open": "opened",
    "uopen": "first_opened",
    "click": "clicked",
    "uclick": "first_clicked",
    "read": "read",
    "skimmed": "skimmed",
    "glanced": "glanced",
    "confirm": "confirmed",
    "reply": "replied",
    "confirmsub": "subscription_confirmed",
    "subscribe": "subscribed",
    "unsub": "unsubscribed",
    "complain": "complained",
}
"""What can happen to a message; every channel composes its words of these."""

_TAILS = {happening: tail for tail, happening in _HAPPENINGS.items()}

_TAIL_IS_CHANNEL = {
    "sms": "send deliv undeliv click uclick unsub",
    "push": "send deliv undeliv sbounce hbounce open uopen click uclick",
}
_HEAD_IS_CHANNEL = {
    "telegram_bot": "send deliv undeliv click uclick subscribe",
    "telegram_group": "send deliv undeliv click",
    "whatsapp": "send deliv undeliv click uclick read subscribe unsub",
    "viber": "send deliv undeliv click uclick read subscribe unsub",
}

_COLUMNS = {
    **{word: f"email.{what}" for word, what in _HAPPENINGS.items() if word != "subscribe"},
    **{f"{w}_{channel}": f"{channel}.{_HAPPENINGS[w]}" for channel, ws in _TAIL_IS_CHANNEL.items() for w in ws.split()},
    **{f"{channel}_{w}": f"{channel}.{_HAPPENINGS[w]}" for channel, ws in _HEAD_IS_CHANNEL.items() for w in ws.split()},
    "popup_open": "popup.opened",
    "popup_click": "popup.clicked",
    "popup_post": "popup.submitted",
    "popup_close": "popup.closed",
    "popup_error": "popup.failed",
    "popup_bounce": "popup.bounced",
    "popup_custom": "popup.custom",
    "pixel_open": "web.pixel_opened",
    "campaign_launch": "campaign.started",
    "camp_error": "campaign.failed",
    "import_manual": "profile.imported_manually",
    "import_file": "profile.imported_from_file",
    "import_api": "profile.imported_by_api",
    "profile_merge": "profile.merged",
    "profile_split": "profile.split",
    "unsub_api": "profile.unsubscribed",
    "segs_add": "segment.entered",
    "segs_remove": "segment.left",
    "promocode_attach": "promocode.attached",
    "promocode_detach": "promocode.detached",
    "promocode_activate": "promocode.activated",
}
_WORDS = {type_: word for word, type_ in _COLUMNS.items()}
_CLOSED = frozenset(("email", "sms", "push", "popup", "web"))
"""Channels with a fixed list of words; all others are named by the operator of the platform."""

_FAILURES = {"hard_bounced": Failure("hard", final=True), "soft_bounced": Failure("soft", final=False)}

_Reading = tuple[str, str | None, Failure | None]


def _reading(type_: str) -> _Reading:
    return type_, channel_of(type_), _FAILURES.get(type_.rpartition(".")[2])


_READINGS: dict[str, _Reading] = {word: _reading(type_) for word, type_ in _COLUMNS.items()}

_TEXTS = (
    ("ip", "ip"),
    ("user_agent", "user_agent"),
    ("link_url", "url"),
    ("launch_id", "job_id"),
    ("send_message_id", "message_id"),
)
"""Names in `event_data`, each with our field."""
_PLACE = (("region", "region"), ("city", "city"), ("postal_code", "postal_code"), ("tz", "timezone"))
_DEGREES = (("lat", "latitude"), ("lon", "longitude"))
_ENVELOPE = (("profile_id", "profile_id"), ("event_id", "id"))
_GEO = ("country", "region", "city", "postal_code", "lat", "lon", "tz")
_NUMBERS = (int, float)
_COUNTRIES = {f".{code.lower()}": code for code in map("".join, product(ascii_uppercase, repeat=2))} | {".uk": "GB"}
"""Altcraft names a country by its top-level domain; all but the United Kingdom's is the ISO 3166 code."""
_DOMAINS = {code: domain for domain, code in _COUNTRIES.items() if domain != ".gb"}

_ADDRESSES = {"email": ("email",), "sms": ("phone",), "whatsapp": ("phone",), "viber": ("phone",)}
"""Which kind of address a channel writes to: the wrong kind is not its recipient. Elsewhere either will do."""

_WORD_KEYS = ("event_type", "event", "action")
"""The hook's, the one that its page shows in a skeleton, the history's."""
_HISTORY_DATA = {"smid": "send_message_id", "message_id": "message_id", "campaign_id": "campaign_id"}
_MOSCOW = 180
_FARTHEST = 14 * 3600
_QUARTER = 900
_HEX = frozenset("0123456789abcdefABCDEF")
_LARGEST = 10**18
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Dialect:
    """Action hooks: an array, one object (queues) or one a line; and responses of the history of actions."""

    name: ClassVar[str] = "altcraft"
    forms: ClassVar[tuple[str, ...]] = ("array", "object")
    columns: ClassVar[Mapping[str, str]] = _COLUMNS
    identity_fields: ClassVar[str] = (
        "account_id; profile_id, else _xxh, else _md5, else the recipient; send_message_id, else launch_id, else "
        "campaign_id; link_url. The history of actions has an event_id instead"
    )
    singles: ClassVar[frozenset[str]] = frozenset(("object",))
    native_firsts: ClassVar[bool] = True
    answer: ClassVar[Answer] = Answer(200, "application/json", b'{"status":"OK"}')
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement("200")

    history_offset: int | None = option(
        None,
        help="Minutes that the history's datetime is ahead of UTC, whatever its Z says (Moscow: 180). "
        "Unset: found from each event_id, else 180.",
    )
    account_id: int = option(0, help="The account told with events that other dialects brought.")

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of a hook's body or of a history response."""
        return [
            member if isinstance(member, Rejected) else self._event(member, index, receipt)
            for index, member in enumerate(_members(receipt.body))
        ]

    def _event(self, item: dict[str, Any], index: int, receipt: Receipt) -> Event | Rejected:
        key = _word_key(item)
        history = key == "action"
        time_key = "datetime" if history else "event_date"
        fault = _missing(item, key) or _missing(item, time_key)
        if fault is not None:
            return _rejected(*fault, index, item)
        try:
            time = self._history_time(item) if history else parse_time(item[time_key])
        except ValueError:
            return _rejected("invalid_time", f"{time_key} is not an RFC 3339 time", index, item)
        late = time_fault(time, receipt.received_at)
        if late is not None:
            return _rejected(late, f"{time_key} is before 1970 or more than 7 days ahead", index, item)
        word = item.pop(key)
        del item[time_key]
        return _heard(_as_hook(item) if history else item, word, time, receipt)

    def _history_time(self, item: dict[str, Any]) -> int:
        said = item["datetime"]
        time = parse_time(said)
        if "+" in said or "-" in said[10:]:
            return time
        if self.history_offset is not None:
            return time - self.history_offset * 60 * SECOND
        return time - _offset(item.get("event_id"), time // SECOND) * SECOND

    def word(self, event: Event) -> str | None:
        """The listed word of a type, or one after the pattern of custom channels."""
        if event.source.dialect == "altcraft":
            return event.source.word
        return _WORDS.get(event.type) or _composed(event.type)

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """One array of hook events, or each as an object, as Altcraft's queues tell them."""
        if not events:
            return []
        items = [
            _told(event) if event.source.dialect == "altcraft" else self._told_for_another(event) for event in events
        ]
        if form == "object":
            return [Body(_encode(item), "application/json", 1) for item in items]
        return [Body(_encode(items), "application/json", len(items))]

    def _told_for_another(self, event: Event) -> dict[str, Any]:
        item = _envelope(event, self.word(event) or "")
        item["account_id"] = self.account_id
        if event.recipient is not None:
            kinds = _kinds(channel_of(event.type))
            item["custom_data"] = {_kind(event.recipient, kinds): event.recipient}
        item["event_data"] = _data(event)
        return item

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The schema of one event of a hook."""
        return {"event": _SCHEMA}


# Reading


def _members(body: bytes) -> Iterator[dict[str, Any] | Rejected]:
    """The events of a body; a history response holds its own below `data`."""
    for member in split_json(body):
        if isinstance(member, Rejected) or not _is_response(member):
            yield member
        else:
            yield from map(_response_item, range(len(member["data"])), member["data"])


def _is_response(member: dict[str, Any]) -> bool:
    return type(member.get("data")) is list and member.keys().isdisjoint(_WORD_KEYS)


def _response_item(index: int, item: Any) -> dict[str, Any] | Rejected:
    if isinstance(item, dict):
        return item
    return Rejected("not_an_object", f"item {index} of data is not a JSON object", index, _encode(item))


def _word_key(item: dict[str, Any]) -> str:
    for key in _WORD_KEYS:
        if item.get(key) is not None:
            return key
    return "event_type"


def _missing(item: dict[str, Any], key: str) -> tuple[str, str] | None:
    value = item.get(key)
    if value is None or value == "":
        return "missing_field", f"there is no {key}"
    return None if type(value) is str else ("wrong_type", f"{key} is not a text")


def _rejected(reason: str, detail: str, index: int, item: dict[str, Any]) -> Rejected:
    return Rejected(reason, f"event {index}: {detail}", index, _encode(item))


def _offset(id_: object, seconds: int) -> int:
    """How many seconds a history time is ahead: its event_id begins with the true Unix seconds."""
    if type(id_) is str and len(id_) == 24 and _HEX.issuperset(id_):
        ahead = seconds - int(id_[:8], 16)
        if abs(ahead) <= _FARTHEST and not ahead % _QUARTER:
            return ahead
    return _MOSCOW * 60


def _as_hook(item: dict[str, Any]) -> dict[str, Any]:
    """A history item with the names and nesting of a hook, so that it can be told as one."""
    if "event_data" not in item:
        item["event_data"] = {name: item.pop(own) for own, name in _HISTORY_DATA.items() if own in item}
    if "xxh" in item and "_xxh" not in item:
        item["_xxh"] = item.pop("xxh")
    if isinstance(item.get("subscription"), dict):
        item["subscription"] = [item["subscription"]]
    return item


def _heard(item: dict[str, Any], word: str, time: int, receipt: Receipt) -> Event:
    """The event of a hook's object. What our fields would not say again to the letter stays in it, as `extra`."""
    type_, channel, failure = _READINGS.get(word) or _read_word(word)
    if channel is None:
        channel = _named_channel(item.get("channel"))
    data = item.get("event_data")
    if type(data) is not dict:
        data = {}
    recipient = _take_recipient(item, channel)
    own = _take_texts(item, _ENVELOPE)
    vendor_id = own.get("id")
    profile_id = own.get("profile_id")
    texts = _take_texts(data, _TEXTS)
    campaign_id = _take_number(data, "campaign_id")
    identity = (
        _plain(item.get("account_id")),
        profile_id or _plain(item.get("_xxh")) or _plain(item.get("_md5")) or recipient,
        texts.get("message_id") or texts.get("job_id") or campaign_id,
        texts.get("url"),
    )
    test = item.get("is_test")
    if test is True or test is False:
        del item["is_test"]
    event = Event(
        id=event_id(receipt, "altcraft", word, time, vendor_id or identity),
        type=type_,
        time=time,
        source=Source(receipt.source or "altcraft", "altcraft", word, vendor_id),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel=channel,
        recipient=recipient,
        profile_id=profile_id,
        campaign_id=campaign_id,
        template_id=_take_number(data, "message_id"),
        list_id=_take_number(item, "list_id"),
        geo=None if data.keys().isdisjoint(_GEO) else _take_geo(data),
        failure=failure,
        test=test == 1,
        suspect=["time"] if time < SUSPECT_BEFORE else [],
        extra=item,
        **texts,
    )
    if not data and item.get("event_data") == {}:
        del item["event_data"]
    return event


def _read_word(word: str) -> _Reading:
    """A word that is not listed: `<string id>_<event>` of a custom channel, or `<event>_sms`, `<event>_push`."""
    head, _, tail = word.rpartition("_")
    if tail in _TAIL_IS_CHANNEL and head in _HAPPENINGS:
        return _reading(f"{tail}.{_HAPPENINGS[head]}")
    if tail in _HAPPENINGS:
        type_ = f"{head.lower().replace('-', '_')}.{_HAPPENINGS[tail]}"
        if is_type(type_):
            return _reading(type_)
    return OTHER, None, None


def _named_channel(value: object) -> str | None:
    return value if type(value) is str and is_channel(value) else None


def _plain(value: object) -> str | None:
    """A text, or a number that stands for one; an empty text is none."""
    if type(value) is str:
        return value or None
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is int and -_LARGEST < value < _LARGEST:
        return str(value)
    return None


def _take_texts(fields: dict[str, Any], names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    """Texts out of their places; what would not be said again to the letter stays there as well."""
    taken = {}
    for name, field in names:
        value = fields.get(name)
        if value is None:
            continue
        if type(value) is str and value:
            taken[field] = value
            del fields[name]
        elif (text := _plain(value)) is not None:
            taken[field] = text
    return taken


def _take_number(fields: dict[str, Any], name: str) -> str | None:
    """An id that is told as a number."""
    value = fields.get(name)
    if type(value) is int and 0 <= value < _LARGEST:
        del fields[name]
        return str(value)
    text = _plain(value)
    if text is not None and _numeral(text) == value:
        del fields[name]
    return text


def _take_geo(data: dict[str, Any]) -> Geo | None:
    place = _take_texts(data, _PLACE)
    country = _take_country(data)
    if country is not None:
        place["country"] = country
    for name, field in _DEGREES:
        if name in data and (degrees := _take_degrees(data, name)) is not None:
            place[field] = degrees
    return Geo(**place) if place else None


def _take_country(data: dict[str, Any]) -> str | None:
    said = data.get("country")
    text = _plain(said)
    if text is None:
        return None
    country = _COUNTRIES.get(text.lower(), text)
    if _DOMAINS.get(country, country) == said:
        del data["country"]
    return country


def _take_degrees(data: dict[str, Any], name: str) -> float | None:
    value: Any = data.get(name)
    if type(value) not in _NUMBERS or not -180 <= value <= 180:
        return None
    del data[name]
    return float(value)


def _recipient(fields: dict[str, Any], kinds: tuple[str, ...], channel: str | None) -> str | None:
    """Where the message went: the hook's own profile fields, else the channel's subscription, else the history's."""
    return _address(fields.get("custom_data"), kinds) or _elsewhere(fields, kinds, channel)


def _elsewhere(fields: dict[str, Any], kinds: tuple[str, ...], channel: str | None) -> str | None:
    found = _subscribed(fields["subscription"], kinds, channel) if "subscription" in fields else None
    return found or _address(fields, kinds)


def _subscribed(subscriptions: object, kinds: tuple[str, ...], channel: str | None) -> str | None:
    for entry in subscriptions if isinstance(subscriptions, list) else [subscriptions]:
        if isinstance(entry, dict) and (channel is None or entry.get("channel") == channel):
            address = _address(entry, kinds)
            if address is not None:
                return address
    return None


def _address(fields: object, kinds: tuple[str, ...]) -> str | None:
    if isinstance(fields, dict):
        for kind in kinds:
            value = fields.get(kind)
            if value is not None and (address := _plain(value)) is not None:
                return address
    return None


def _take_recipient(item: dict[str, Any], channel: str | None) -> str | None:
    """The recipient, out of `custom_data` if telling it puts it back there: nothing else may be read as one."""
    kinds = _kinds(channel)
    custom = item.get("custom_data")
    address = _address(custom, kinds)
    if custom is None or address is None:
        return _elsewhere(item, kinds, channel)
    kind = _kind(address, kinds)
    if custom.get(kind) == address and _elsewhere(item, kinds, channel) is None:
        rest = custom.copy()
        del rest[kind]
        if not rest:
            del item["custom_data"]
        elif _address(rest, kinds) is None:
            item["custom_data"] = rest
    return address


# Telling


def _composed(type_: str) -> str | None:
    """The word that the pattern of custom channels gives, if it is read as this type again."""
    channel, _, what = type_.rpartition(".")
    tail = _TAILS.get(what)
    if tail is None or channel in _CLOSED:
        return None
    word = f"{channel}_{tail}"
    return word if (_READINGS.get(word) or _read_word(word))[0] == type_ else None


def _told(event: Event) -> dict[str, Any]:
    """An event that was heard from Altcraft: its fields, and over them what was kept verbatim."""
    extra = event.extra
    item = _envelope(event, event.source.word)
    if event.source.id is not None:
        item["event_id"] = event.source.id
    item.update(extra)
    kinds = _kinds(event.channel)
    if event.recipient is not None and _recipient(extra, kinds, event.channel) is None:
        custom = extra.get("custom_data")
        rest = custom if isinstance(custom, dict) else {}
        item["custom_data"] = {_kind(event.recipient, kinds): event.recipient, **rest}
    data = extra.get("event_data", {})
    item["event_data"] = {**_data(event), **data} if type(data) is dict else data
    return item


def _envelope(event: Event, word: str) -> dict[str, Any]:
    item: dict[str, Any] = {"event_type": word, "event_date": _date(event.time), "is_test": event.test}
    if event.list_id is not None:
        item["list_id"] = _numeral(event.list_id)
    if event.profile_id is not None:
        item["profile_id"] = event.profile_id
    return item


def _date(time: int) -> str:
    """A time with nine digits, always."""
    text = format_time(time)
    if len(text) == 30:
        return text
    seconds, _, fraction = text[:-1].partition(".")
    return f"{seconds}.{fraction:0<9}Z"


def _data(event: Event) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if event.template_id is not None:
        data["message_id"] = _numeral(event.template_id)
    if event.campaign_id is not None:
        data["campaign_id"] = _numeral(event.campaign_id)
    if event.geo is not None:
        _tell_place(event.geo, data)
    if event.ip is not None:
        data["ip"] = event.ip
    if event.user_agent is not None:
        data["user_agent"] = event.user_agent
    if event.url is not None:
        data["link_url"] = event.url
    if event.job_id is not None:
        data["launch_id"] = event.job_id
    if event.message_id is not None:
        data["send_message_id"] = event.message_id
    return data


def _tell_place(geo: Geo, data: dict[str, Any]) -> None:
    if geo.country is not None:
        data["country"] = _DOMAINS.get(geo.country, geo.country)
    if geo.region is not None:
        data["region"] = geo.region
    if geo.city is not None:
        data["city"] = geo.city
    if geo.postal_code is not None:
        data["postal_code"] = geo.postal_code
    if geo.latitude is not None:
        data["lat"] = geo.latitude
    if geo.longitude is not None:
        data["lon"] = geo.longitude
    if geo.timezone is not None:
        data["tz"] = geo.timezone


def _numeral(text: str) -> int | str:
    """A decimal id as the number that Altcraft's own ids are; any other as it is."""
    if text.isdecimal() and text.isascii() and len(text) <= 18 and (text[0] != "0" or text == "0"):
        return int(text)
    return text


def _kinds(channel: str | None) -> tuple[str, ...]:
    return _ADDRESSES.get(channel or "", ("email", "phone"))


def _kind(address: str, kinds: tuple[str, ...]) -> str:
    """What an address is told as."""
    return kinds[0] if len(kinds) == 1 or "@" in address else kinds[1]


def _properties(**names: str) -> dict[str, Any]:
    """Properties by JSON type; each may be null, as those of deleted profiles are."""
    return {name: {"type": [type_, "null"]} for type_, listed in names.items() for name in listed.split()}


_EITHER = {"type": ["integer", "string", "null"]}
_SUBSCRIPTION = _properties(
    integer="resource_id priority", string="channel email phone subscription_id provider status", object="ccsub"
)
_EVENT_DATA = {
    **dict.fromkeys(("message_id", "campaign_id"), _EITHER),
    **_properties(
        integer="segment_id resource_id",
        string="ip country region city postal_code tz user_agent os browser device link_url launch_id send_message_id "
        "extra_uid",
        number="lat lon",
    ),
}
_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Action hook event",
    "type": "object",
    "required": ["event_type", "event_date", "event_data"],
    "properties": {
        "event_type": {"type": "string", "minLength": 1},
        "event_date": {"type": "string", "format": "date-time"},
        "is_test": {"type": "boolean"},
        "list_id": _EITHER,
        **_properties(
            integer="account_id sends_trying_num",
            string="profile_id _xxh _md5 subscription_hash_id",
            boolean="is_static",
            object="custom_data",
        ),
        "event_data": {"type": ["object", "null"], "properties": _EVENT_DATA},
        "subscription": {"type": ["array", "null"], "items": {"type": "object", "properties": _SUBSCRIPTION}},
    },
}

_proof: type[Contract] = Dialect

"""Pure360 (Spotler PureResponse): event notifications as HTTP forms, CSV rows, FTP log lines or e-mails.

Every form is read into pairs of name and value, and told from them. The vendor spells one name in several ways, so
names are compared by their `_fold`; what has no place in an event stays in `extra` under the spelling that was heard.

CSV rows carry no names. They come from the `eventMeta` beside the rows (`read_rows`), or else from the body itself: a
line `eventMeta,CLICK,type,email,…` names the columns of one type, a line `type,email,…` those of every row below it,
and without either the vendor's own columns (`COLUMNS`) hold. Cells without a name are kept as `column 7`.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.errors import MessageError
from email.header import decode_header, make_header
from email.parser import BytesParser
from email.policy import compat32
from typing import Any, ClassVar, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from aftersend.contracts import Dialect as Contract
from aftersend.core.errors import EncodeError
from aftersend.core.event import Body, Event, Failure, Receipt, Rejected, Source
from aftersend.core.framing import Framing, lines
from aftersend.core.identity import event_id
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.taxonomy import OTHER, channel_of, is_channel
from aftersend.core.timestamps import SECOND, SUSPECT_BEFORE, parse_epoch, parse_time, time_fault
from aftersend.core.vocabulary import Vocabulary

FIELD_LIMIT = 1_000
"""How many fields an event may have; one with more is rejected."""

MAIL_LIMIT = 64_000
"""Bytes that an e-mail may have; a larger one is rejected."""

_WORDS = {
    "DELIVERYSTART": "campaign.started",
    "DELIVERY": "campaign.sending",
    "OPEN": "email.opened",
    "CLICK": "email.clicked",
    "BOUNCE": "email.hard_bounced",
    "SOFTBOUNCE": "email.soft_bounced",
    "BLOCKED": "email.blocked",
    "OPTIN": "email.subscribed",
    "SIGNUP": "email.subscribed",
    "OPTOUT": "email.unsubscribed",
    "SMSOPTOUT": "sms.unsubscribed",
    "SMSFAILED": "sms.undelivered",
}
_vocabulary = Vocabulary("pure360", _WORDS)

_FAILURES = {
    "BOUNCE": Failure(class_="hard", final=True),
    "SOFTBOUNCE": Failure(class_="soft"),
    "BLOCKED": Failure(class_="block"),
    "SMSFAILED": Failure(class_="undetermined"),
}


class _Meaning(NamedTuple):
    type: str
    channel: str | None
    failure: Failure | None
    addresses: tuple[str, str]
    """Folds of the recipient's address, the likelier first."""
    times: tuple[str, ...]
    """Folds of the fields that tell when, the best first."""
    is_campaign: bool
    """Its dates say more than when it happened, and all stay in `extra`."""


_CAMPAIGN_TIMES = {
    "DELIVERYSTART": ("eventdate", "deliverystartdate", "deliveryscheduleddate"),
    "DELIVERY": ("eventdate", "deliverycompletedate", "deliverystartdate", "deliveryscheduleddate"),
}


def _meaning(word: str) -> _Meaning:
    type_ = _WORDS.get(word, OTHER)
    channel = channel_of(type_) if type_ != OTHER else None
    addresses = ("mobile", "email") if word.startswith("SMS") else ("email", "mobile")
    times = _CAMPAIGN_TIMES.get(word) or ("eventdate", f"{_fold(word)}date")
    return _Meaning(type_, channel, _FAILURES.get(word), addresses, times, word in _CAMPAIGN_TIMES)


_Pair = tuple[str, str]
_DROPPED = str.maketrans("", "", "_ -/")


def _fold(name: str) -> str:
    """A name as it is compared: `Message_Name`, `messageName` and `message name` are one, `List[0]` and `List` too."""
    text = name.lower()
    if text.endswith("]"):
        text = text[: text.rfind("[")]
    return text.translate(_DROPPED)


_MEANINGS = {word: _meaning(word) for word in _WORDS}
_DATES = frozenset(fold for meaning in _MEANINGS.values() for fold in meaning.times) - {"deliverydate"}
_NOTED = frozenset(("messagetype", "messagename", "deliverydate", *sum(_CAMPAIGN_TIMES.values(), ()))) - {"eventdate"}
"""Folds that are looked at and stay in `extra` all the same."""
_TAKEN = frozenset(("type", "email", "mobile", "deliveryid", "clickurl", "url", "messageid")) | (_DATES - _NOTED)
"""Folds that have a place in an event."""

_roles: dict[str, str] = {}
_folds: dict[str, str] = {}


def _remembered(name: str) -> str:
    """The fold of a name, worked out once for names that come again."""
    fold = _fold(name)
    if len(_folds) < 4096:
        _folds[name] = fold
    return fold


def _role(name: str) -> str:
    """The fold of a name that means something to us, else an empty text."""
    role = _roles.get(name)
    if role is None:
        fold = _fold(name)
        role = fold if fold in _TAKEN or fold in _NOTED else ""
        if len(_roles) < 4096:
            _roles[name] = role
    return role


# What is told

_MESSAGE = "type,Event_date,email,mobile,messageName,deliveryDate"
_PLANNED = "Delivery_ID,List_Names[],Delivery_Scheduled_Date,Delivery_Start_Date,Delivery_Complete_Date"
_HTTP = dict.fromkeys(_WORDS, f"{_MESSAGE},Delivery_ID") | {
    "DELIVERYSTART": f"type,profile,message_Type,MessageName,{_PLANNED}",
    "DELIVERY": f"type,notificationSubject,user,Profile,Message_Type,Message_Name,{_PLANNED},"
    "Emails_Sent_/_Credits_Used",
    "OPEN": f"{_MESSAGE},device_type,device_OS,device_Browser,Delivery_ID",
    "CLICK": f"{_MESSAGE},clickUrl,device_type,device_OS,device_Browser,Delivery_ID",
}

_LOGGED = "type,event date,email,mobile,message name,delivery date"
_LOG = dict.fromkeys(_WORDS, f"{_LOGGED},delivery id") | {
    "DELIVERYSTART": "type,message name,delivery status,delivery id,list names,"
    "delivery scheduled date,delivery start date,delivery complete date",
    "DELIVERY": "type,message name,delivery status,delivery scheduled date,message type,profile,"
    "delivery id,delivery complete date,emails sent",
    "OPEN": f"{_LOGGED},device type,device os,device browser,delivery id",
    "CLICK": f"{_LOGGED},click url,device type,device os,device browser,delivery id",
}

_PLAN = (
    "type,Profile,Message Type,Message Name,Delivery ID,List Names,"
    "Delivery Scheduled Date,Delivery Start Date,Delivery Complete Date"
)
COLUMNS: Mapping[str, str] = dict.fromkeys(_WORDS, "type,email,Message Name,Delivery Date,Event Date") | {
    "DELIVERYSTART": _PLAN,
    "DELIVERY": f"{_PLAN},Emails Sent",
    "OPEN": "type,email,Message Name,Delivery Date,Open Date",
    "CLICK": "type,email,Message Name,Delivery Date,Click Url,Click Date",
    "SMSOPTOUT": "type,mobile,Message Name,Delivery Date,Event Date",
    "SMSFAILED": "type,mobile,Message Name,Delivery Date,Event Date",
}
"""The columns of a CSV row of each type, as `eventMeta` tells them (documented for CLICK and four of OPEN)."""

_NAMES = {
    "http": {"deliveryid": "Delivery_ID", "clickurl": "clickUrl", "eventdate": "Event_date"},
    "csv": {"deliveryid": "Delivery ID", "clickurl": "Click Url", "eventdate": "Event Date"},
    "ftp": {"deliveryid": "delivery id", "clickurl": "click url", "eventdate": "event date"},
}
_NAMES["email"] = _NAMES["ftp"]

_Template = Mapping[str, Sequence[tuple[str, str]]]


def _template(fields: Mapping[str, str]) -> _Template:
    return {word: [(name, _fold(name)) for name in names.split(",")] for word, names in fields.items()}


_TEMPLATES = {"http": _template(_HTTP), "csv": _template(COLUMNS), "ftp": _template(_LOG), "email": _template(_LOG)}
_STATUSES = {"DELIVERYSTART": "PROCESSING", "DELIVERY": "COMPLETED"}


def _time_name(form: str, word: str) -> str:
    """What the form calls the time of a word's events."""
    names = {fold: name for name, fold in _TEMPLATES[form].get(word, ())}
    times = _MEANINGS[word].times if word in _MEANINGS else ()
    return next((names[fold] for fold in times if fold in names), _NAMES[form]["eventdate"])


_TIME_NAMES = {(form, word): _time_name(form, word) for form in _TEMPLATES for word in _WORDS}
_TIME_FOLDS = {word: _fold(_TIME_NAMES["csv", word]) for word in _WORDS}
"""The column of a word's rows that tells when, by its fold."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """Pure360's notifications: one a request (http) or a mail (email), or many in a body (csv, ftp)."""

    name: ClassVar[str] = "pure360"
    forms: ClassVar[tuple[str, ...]] = ("http", "csv", "ftp", "email")
    columns: ClassVar[Mapping[str, str]] = _WORDS
    identity_fields: ClassVar[str] = (
        "type, time, Delivery_ID (without one: message name and delivery date), email or mobile, message_id if told, "
        "and the URL of a CLICK. Opens pulled without a time take the receipt's: equal rows of one batch count once"
    )
    singles: ClassVar[frozenset[str]] = frozenset(("http", "email"))
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200, "text/plain", b"OK")
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement(statuses="2xx", body=r"^\s*+OK\s*$", tries=5)

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """The event of a form or a mail, or those of CSV rows or log lines."""
        form = receipt.form or _detect(receipt.body)
        if form not in _READERS:
            return [Rejected("unknown_form", f"pure360 has no form {form!r}", None, receipt.body)]
        if not receipt.body.strip():
            return [] if receipt.form == "csv" else [Rejected("empty_body", "the body is empty")]
        return _READERS[form](receipt)

    def word(self, event: Event) -> str | None:
        """The vendor's word; campaigns and e-mail have most, SMS two."""
        return _vocabulary.word(event)

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """One body for each event (http, email) or for all (csv, ftp); EncodeError for a form that is not known.

        An e-mail has no `From`, `To` and `Date` yet: who sends it puts them in front.
        """
        form = form or "http"
        if form not in _NAMES:
            raise EncodeError(f"pure360 has no form {form!r}; it has {', '.join(self.forms)}")
        if not events:
            return []
        if form == "csv":
            return [Body(_csv_body(events), "text/csv; charset=utf-8", len(events))]
        told = [_pairs(event, form) for event in events]
        if form == "ftp":
            return [Body(_bytes("".join(map(_log_line, told))), "text/plain; charset=utf-8", len(events))]
        if form == "email":
            return [Body(_mail(pairs), "message/rfc822", 1) for pairs in told]
        return [Body(_form_body(pairs), "application/x-www-form-urlencoded", 1) for pairs in told]

    def framing(self, form: str) -> Framing | None:
        """Log lines, or CSV rows whose columns are named before the first that has others than the one before."""
        return _FRAMINGS.get(form)

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The fields of the HTTP form, for each type."""
        return {word: _schema(word, fields) for word, fields in _HTTP.items()}


# Pairs to an event


def _event(pairs: Iterable[tuple[str, str]], receipt: Receipt, index: int, raw: bytes | str) -> Event | Rejected:
    heard, taken, extra, dates = _sort(pairs)
    word = heard.get("type")
    if not word:
        return _rejected("missing_field", f"event {index} has no type", index, raw)
    meaning = _MEANINGS.get(word) or _unknown(word)
    if meaning is None:
        return _rejected("invalid_type", f"event {index}: {word[:60]!r} cannot be a type", index, raw)
    del taken["type"]
    time, doubtful = _time(heard, taken, meaning, dates)
    if time is None:
        time = receipt.received_at
    elif time_fault(time, receipt.received_at) is not None:
        return _rejected("time_out_of_range", f"event {index}: before 1970 or more than 7 days ahead", index, raw)
    recipient = _take_address(heard, taken, meaning)
    campaign_id = _take(heard, taken, "deliveryid")
    message_id = _take(heard, taken, "messageid")
    url = _take(heard, taken, "clickurl")
    if url is None and meaning.type == "email.clicked":
        url = _take(heard, taken, "url")
    if taken:
        extra = _restore(taken, extra)
    delivery = [campaign_id] if campaign_id else [heard.get("messagename", ""), heard.get("deliverydate", "")]
    return Event(
        id=event_id(receipt, "pure360", word, time, [*delivery, recipient, message_id, url]),
        type=meaning.type,
        time=time,
        source=Source(receipt.source or "pure360", "pure360", word),
        tenant=receipt.tenant,
        received_at=receipt.received_at,
        channel=meaning.channel or _channel(heard),
        recipient=recipient,
        message_id=message_id,
        campaign_id=campaign_id,
        url=url,
        failure=meaning.failure,
        suspect=["time"] if doubtful or time < SUSPECT_BEFORE else [],
        extra=extra,
    )


def _sort(pairs: Iterable[tuple[str, str]]) -> tuple[dict[str, str], dict[str, _Pair], dict[str, Any], list[str]]:
    """Pairs as (values by fold, pairs of those that have a place, all else, folds of dates among that)."""
    heard: dict[str, str] = {}
    taken: dict[str, _Pair] = {}
    extra: dict[str, Any] = {}
    dates: list[str] = []
    for name, value in pairs:
        role = _roles.get(name)
        if role is None:
            role = _role(name)
        if role and role not in heard:
            heard[role] = plain = value.strip()
            if plain and role in _TAKEN:
                taken[role] = (name, value)
                continue
        if role in _DATES:
            dates.append(role)
        if name in extra or name.endswith("[]"):
            extra[name] = _repeat(extra.get(name), value)
        else:
            extra[name] = value
    return heard, taken, extra, dates


def _repeat(values: Any, value: str) -> list[str]:
    if values is None:
        return [value]
    if type(values) is not list:
        return [values, value]
    values.append(value)
    return values


def _restore(taken: dict[str, _Pair], extra: dict[str, Any]) -> dict[str, Any]:
    """What found no place after all goes to `extra`, before what came later under the same name."""
    front: dict[str, Any] = dict(taken.values())
    for name in front.keys() & extra.keys():
        later = extra.pop(name)
        front[name] = [front[name], *(later if type(later) is list else [later])]
    front.update(extra)
    return front


def _take(heard: dict[str, str], taken: dict[str, _Pair], role: str) -> str | None:
    if role in taken:
        del taken[role]
        return heard[role]
    return None


def _take_address(heard: dict[str, str], taken: dict[str, _Pair], meaning: _Meaning) -> str | None:
    first, second = meaning.addresses
    return _take(heard, taken, first) or _take(heard, taken, second)


def _time(
    heard: dict[str, str], taken: dict[str, _Pair], meaning: _Meaning, dates: list[str]
) -> tuple[int | None, bool]:
    """When it happened, if that is told, and whether to doubt it.

    The time of a message leaves `taken` if it is all that is said of it, and if `encode` says it the same way.
    """
    said = [role for role in meaning.times if heard.get(role)]
    for role in said:
        text = heard[role]
        if text.isdecimal() and text.isascii() and len(text) < 12 and text[0] != "0":
            if len(said) == 1 and not meaning.is_campaign and not any(role in meaning.times for role in dates):
                taken.pop(role, None)
            return int(text) * SECOND, False
        try:
            return _parse_oddity(text), "/" in text
        except ValueError:
            continue
    return None, False


def _parse_oddity(text: str) -> int:
    """Seconds with a fraction or zeros before them, or a British date, whose zone is not told. Raises ValueError."""
    if text[2:3] == "/" and text[5:6] == "/":
        return parse_time(f"{text[6:10]}-{text[3:5]}-{text[:2]}{text[10:]}")
    return parse_epoch(text)


def _unknown(word: str) -> _Meaning | None:
    """What a word that is not in the table means: its own in capitals, or `other` if it can be a word at all."""
    known = _MEANINGS.get(word.upper())
    if known is not None:
        return known
    plain = _fold(word)
    fits = len(word) <= 60 and plain.isalnum() and word.isascii() and plain not in ("type", "eventmeta")
    return _meaning(word) if fits else None


def _channel(heard: dict[str, str]) -> str | None:
    channel = heard.get("messagetype", "").lower()
    return channel if is_channel(channel) else None


def _rejected(reason: str, detail: str, index: int | None, raw: bytes | str) -> Rejected:
    return Rejected(reason, detail, index, raw.encode() if isinstance(raw, str) else raw)


def _too_many(index: int | None, raw: bytes | str) -> Rejected:
    return _rejected("too_many_fields", f"more than {FIELD_LIMIT} fields", index, raw)


# An event to pairs


def _pairs(event: Event, form: str) -> list[tuple[str, str]]:
    return _heard_pairs(event, form) if event.source.dialect == "pure360" else _foreign_pairs(event, form)


def _heard_pairs(event: Event, form: str) -> list[tuple[str, str]]:
    """What was heard, said again: our fields under the form's names, the rest as it stood."""
    word, names, extra = event.source.word, _NAMES[form], event.extra
    meaning = _MEANINGS.get(word) or _unknown(word) or _meaning(word)
    pairs = [("type", word)]
    if not meaning.is_campaign and not any(_role(name) in meaning.times for name in extra):
        pairs.append((_TIME_NAMES.get((form, word.upper()), names["eventdate"]), str(event.time // SECOND)))
    if event.recipient is not None:
        pairs.append((_address_name(event.recipient, extra, meaning), event.recipient))
    if event.campaign_id is not None:
        pairs.append((names["deliveryid"], event.campaign_id))
    if event.url is not None:
        pairs.append((names["clickurl"], event.url))
    if event.message_id is not None:
        pairs.append(("message_id", event.message_id))
    for name, value in extra.items():
        if type(value) is str:
            pairs.append((name, value))
        else:
            pairs.extend(_spread(name, value, form))
    return pairs


def _address_name(recipient: str, extra: dict[str, Any], meaning: _Meaning) -> str:
    """Where the recipient is said: under the type's own name, unless it looks like the other and the own is free."""
    first, second = meaning.addresses
    is_number = recipient.isdecimal()
    fits = not is_number if first == "email" else "@" not in recipient
    if fits or any(value and _role(name) == first for name, value in extra.items()):
        return first
    return second


def _spread(name: str, value: Any, form: str) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        return [(name, "" if value is None else str(value))]
    texts = [str(item) for item in value]
    if form == "csv" or (form != "http" and name.endswith("[]")):
        return [(name.removesuffix("[]"), ", ".join(filter(None, texts)))]
    return [(name, text) for text in texts]


def _foreign_pairs(event: Event, form: str) -> list[tuple[str, str]]:
    """The documented fields of the word, empty where another vendor told nothing of the kind, and our message id."""
    values = _foreign_values(event)
    word = values["type"]
    values[_fold(_TIME_NAMES[form, word])] = values[_TIME_FOLDS[word]]
    pairs = [(name, values.get(fold, "")) for name, fold in _TEMPLATES[form][word]]
    if form == "csv" and event.campaign_id and not _MEANINGS[word].is_campaign:
        pairs.append(("Delivery ID", event.campaign_id))
    if event.message_id is not None:
        pairs.append(("message_id", event.message_id))
    return pairs


_LINE_BREAKS = str.maketrans("\r\n", "  ")
"""Rows, log lines and mails tell one field a line at most: a break in a value becomes a blank."""


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _text(data: bytes) -> str:
    """UTF-8, else ISO-8859-15, which the vendor's accounts are set to; line ends as LF."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("iso-8859-15")
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


# The forms: http

_SIGNS = re.compile(rb"[=,:]")


def _detect(body: bytes) -> str:
    """The form of a body, by the first sign in it: `type=OPEN`, `OPEN,joe@…`, `"type:OPEN"`, `Subject: OPEN`."""
    sign = _SIGNS.search(body)
    if sign is None or sign[0] == b",":
        return "csv"
    if sign[0] == b"=":
        return "http"
    return "ftp" if body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b'"', b"'") else "email"


def _read_form(receipt: Receipt) -> list[Event | Rejected]:
    body = receipt.body
    if b"\n" in body or b"\r" in body:
        # A line break cannot stand in a form; one documented body has it in the place of an ampersand.
        body = body.strip().replace(b"\r\n", b"&").replace(b"\n", b"&").replace(b"\r", b"&")
    if body.count(b"&") >= FIELD_LIMIT:
        return [_too_many(None, receipt.body)]
    text = _text(body.replace(b"+", b" "))
    pairs = []
    for item in text.split("&"):
        name, _, value = item.partition("=")
        if item:
            pairs.append((_unquoted(name) if "%" in name else name, _unquoted(value) if "%" in value else value))
    return [_event(pairs, receipt, 0, receipt.body)]


def _unquoted(text: str) -> str:
    data = unquote_to_bytes(text)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("iso-8859-15")


_PERCENT = str.maketrans({chr(code): quote(chr(code), "") for code in range(128)})
_quoted_names: dict[str, str] = {}


def _quoted_name(name: str) -> str:
    quoted = _quoted_names.get(name)
    if quoted is None:
        quoted = quote(name, safe="[]/", errors="replace")
        if len(_quoted_names) < 4096:
            _quoted_names[name] = quoted
    return quoted


def _form_body(pairs: list[tuple[str, str]]) -> bytes:
    return "&".join([f"{_quoted_name(name)}={_quoted(value)}" for name, value in pairs]).encode()


def _quoted(text: str) -> str:
    return text.translate(_PERCENT) if text.isascii() else quote(text, "", errors="replace")


def _schema(word: str, fields: str) -> dict[str, Any]:
    text: dict[str, Any] = {"type": "string"}
    properties = {n: {"type": "array", "items": text} if n.endswith("[]") else text for n in fields.split(",")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": word,
        "type": "object",
        "properties": {**properties, "type": {"const": word}, "message_id": text},
        "required": ["type"],
        "additionalProperties": {"type": ["string", "array"]},
    }


# The forms: csv

_OPENED = re.compile(r'[ \t]*+"')
_OPEN_END = re.compile(r'[ \t]*+"(?:[^"\\]++|\\["\\]?|"")*+$')
_QUOTED = re.compile(r'[ \t]*+"((?:[^"\\]++|\\["\\]?|"")*+)"[ \t]*+(,|$)')
_BARE = re.compile(r"([^,]*+)(,|$)")
_ESCAPED = re.compile(r'\\(["\\])|""')
_LINES_LIMIT = 10
"""How many lines a row with line breaks inside its quotes may have."""


def _read_csv(receipt: Receipt) -> list[Event | Rejected]:
    return read_rows(receipt.body, {}, receipt)


def read_rows(data: bytes, meta: Mapping[str, str], receipt: Receipt) -> list[Event | Rejected]:
    """The events of CSV rows (`eventData`, decoded) whose columns `eventMeta` names: the list for each type, as told.

    The receipt says whose they are; its body is not read. Types that `meta` does not name are read as the csv form is.
    """
    columns = {word: _column_names(_split_row(text) or []) for word, text in meta.items()}
    found: list[Event | Rejected] = []
    for cells, raw in _rows(_text(data)):
        if cells is None:
            found.append(_rejected("unclosed_quote", f"row {len(found)}: a quote is not closed", len(found), raw))
        elif len(cells) > FIELD_LIMIT:
            found.append(_too_many(len(found), raw))
        elif not _names_columns(cells, columns):
            found.append(_row_event(cells, columns, receipt, len(found), raw))
    return found


def _row_event(
    cells: list[str], columns: dict[str, list[str]], receipt: Receipt, index: int, raw: str
) -> Event | Rejected:
    word = cells[0]
    names = columns.get(word) or columns.get("") or _DEFAULT_COLUMNS.get(word.upper()) or _DEFAULT_COLUMNS["OPTIN"]
    is_named = word in columns or "" in columns
    if len(cells) < 2 or not (is_named or any(cells[1:])):
        return _rejected("missing_field", f"row {index} has a type alone", index, raw)
    if len(cells) > len(names):
        names = names + [f"column {number}" for number in range(len(names) + 1, len(cells) + 1)]
    return _event([pair for pair in zip(names, cells, strict=False) if pair[1]], receipt, index, raw)


def _names_columns(cells: list[str], columns: dict[str, list[str]]) -> bool:
    """Whether a row names columns rather than an event; it is remembered, under the empty word if it is for all."""
    first = cells[0]
    if first == "eventMeta" and len(cells) > 2:
        columns[cells[1]] = _column_names(cells[2:])
        return True
    if first in ("type", "Type", "TYPE"):
        columns.clear()
        columns[""] = _column_names(cells)
        return True
    return False


def _column_names(cells: list[str]) -> list[str]:
    """Names of columns; one that is empty or there already is called by its number."""
    seen: set[str] = set()
    names = []
    for number, cell in enumerate(cells, 1):
        fold = _fold(cell)
        names.append(cell if fold and fold not in seen else f"column {number}")
        seen.add(fold)
    return names


_DEFAULT_COLUMNS = {word: columns.split(",") for word, columns in COLUMNS.items()}


def _rows(text: str) -> Iterable[tuple[list[str] | None, str]]:
    """The cells of each row with its text; None for a row whose quote is not closed."""
    lines = text.split("\n")
    number = 0
    while number < len(lines):
        row = lines[number]
        cells, after = _split_row(row), number + 1
        if cells is None:
            cells, row, after = _joined(lines, number)
        if cells != [""]:
            yield cells, row
        number = after


def _joined(lines: list[str], number: int) -> tuple[list[str] | None, str, int]:
    """The row that goes on over several lines, and the line after it; the first alone where none closes the quote."""
    for after in range(number + 2, min(number + _LINES_LIMIT, len(lines)) + 1):
        row = " ".join(lines[number:after])
        cells = _split_row(row, strict=True) if '"' in lines[after - 1] else None
        if cells is not None:
            return cells, row, after
    return None, lines[number], number + 1


def _split_row(row: str, *, strict: bool = False) -> list[str] | None:
    """The cells of a row, those without quotes trimmed; None where a quote is not closed.

    Strict: also where one is closed in the midst of a cell, which then may be the next row's.
    """
    if '"' not in row:
        return [cell.strip() for cell in row.split(",")]
    cells: list[str] = []
    place, comma = 0, ","
    while comma:
        match = _QUOTED.match(row, place)
        if match is not None:
            cells.append(_ESCAPED.sub(_unescaped, match[1]))
        elif (strict and _OPENED.match(row, place)) or _OPEN_END.match(row, place):
            return None
        else:
            match = _BARE.match(row, place)
            assert match is not None
            cells.append(match[1].strip())
        place, comma = match.end(), match[2]
    return cells


def _unescaped(match: re.Match[str]) -> str:
    return match[1] or '"'


def event_meta(events: Sequence[Event]) -> dict[str, str]:
    """The columns of each type among these events (`eventMeta`): the vendor's own, then what they tell beyond them."""
    return {word: _join_row(names) for word, names in _columns(_told(events)).items()}


def told_meta(words: Iterable[str], custom: Sequence[str] = ()) -> dict[str, str]:
    """The columns of each word (`eventMeta`): the vendor's own, then these custom fields where they are not among them.

    A word that the vendor has no columns for gets those that most of its words have.
    """
    return {
        word: _told_columns(_DEFAULT_COLUMNS.get(word.upper()) or _DEFAULT_COLUMNS["OPTIN"], custom) for word in words
    }


def _told_columns(own: Sequence[str], custom: Sequence[str]) -> str:
    names: dict[str, str] = {}
    for name in (*own, *custom):
        names.setdefault(_fold(name), name)
    return _join_row(list(names.values()))


def csv_rows(events: Sequence[Event], meta: Mapping[str, str] = COLUMNS) -> str:
    """Rows (`eventData`, before base64) with the columns that `meta` names for their types, and no others.

    Names are compared as the vendor's are, whatever their spelling; a column that an event has nothing for is empty.
    """
    return "".join(csv_lines(events, meta))


def csv_lines(events: Iterable[Event], meta: Mapping[str, str] = COLUMNS) -> list[str]:
    """The rows of `csv_rows` one by one, each with its line end. Raises EncodeError for an event without a word."""
    columns = {word: [_fold(name) for name in _split_row(text) or []] for word, text in meta.items()}
    lines = []
    for event in events:
        values = _heard_values(event) if event.source.dialect == "pure360" else _foreign_values(event)
        row = [values.get(fold) for fold in columns.get(values["type"], ("type",))]
        if None in row and event.extra:
            values |= _extra_values(event.extra) | values
            row = [values.get(fold) for fold in columns.get(values["type"], ("type",))]
        lines.append(_join_row([cell or "" for cell in row]) + "\n")
    return lines


def _heard_values(event: Event) -> dict[str, str]:
    """What was heard, by the folds of its names."""
    word = event.source.word
    meaning = _MEANINGS.get(word) or _unknown(word) or _meaning(word)
    extra = _extra_values(event.extra)
    values = {"type": word}
    if event.recipient is not None:
        first, second = meaning.addresses
        values[first if _address_name(event.recipient, event.extra, meaning) == first else second] = event.recipient
    if event.campaign_id is not None:
        values["deliveryid"] = event.campaign_id
    if event.url is not None:
        values["clickurl"] = event.url
    if event.message_id is not None:
        values["messageid"] = event.message_id
    values = extra | values
    if not meaning.is_campaign:
        values.setdefault(_TIME_FOLDS.get(word.upper(), "eventdate"), str(event.time // SECOND))
    return values


def _extra_values(extra: Mapping[str, Any]) -> dict[str, str]:
    """Other fields by the folds of their names, the first of several; an object has no place in a cell."""
    values: dict[str, str] = {}
    for name, value in extra.items():
        fold = _folds.get(name) or _remembered(name)
        if fold not in values and type(value) is not dict:
            values[fold] = value if type(value) is str else _spread(name, value, "csv")[0][1]
    return values


def _foreign_values(event: Event) -> dict[str, str]:
    """The documented fields of the word that another vendor told something of, by the folds of their names."""
    word = _vocabulary.word(event)
    if word is None:
        raise EncodeError(f"pure360 has no word for {event.type}")
    seconds, campaign = str(event.time // SECOND), event.campaign_id or ""
    values = {
        "type": word,
        _MEANINGS[word].addresses[0]: event.recipient or "",
        "messagename": campaign,
        "deliveryid": campaign,
        "clickurl": event.url or "",
        "messagetype": (event.channel or "").upper(),
        "listnames": event.list_id or "",
        "deliverystatus": _STATUSES.get(word, ""),
        _TIME_FOLDS[word]: seconds,
    }
    if event.message_id is not None:
        values["messageid"] = event.message_id
    return values


def _csv_body(events: Sequence[Event]) -> bytes:
    told = _told(events)
    columns = _columns(told)
    lines = [
        _join_row(["eventMeta", word, *names]) for word, names in columns.items() if names != _DEFAULT_COLUMNS.get(word)
    ]
    lines += [_join_row([values.get(name, "") for name in columns[word]]) for word, values in told]
    return _bytes("\n".join(lines) + "\n")


def _told(events: Sequence[Event]) -> list[tuple[str, dict[str, str]]]:
    told = []
    for event in events:
        values: dict[str, str] = {}
        for name, value in _pairs(event, "csv"):
            while name in values:
                name += "_"
            values[name] = value
        told.append((values["type"], values))
    return told


def _columns(told: list[tuple[str, dict[str, str]]]) -> dict[str, list[str]]:
    """Names of the columns of each word: the vendor's, in the spelling that is used, then the others used."""
    used: dict[str, dict[str, str]] = {}
    for word, values in told:
        used.setdefault(word, {}).update(values)
    return {word: _merge(_DEFAULT_COLUMNS.get(word.upper(), ["type"]), list(names)) for word, names in used.items()}


def _merge(own: list[str], used: list[str]) -> list[str]:
    spellings: dict[str, str] = {}
    for name in used:
        spellings.setdefault(_fold(name), name)
    names = [name if name in used else spellings.get(_fold(name), name) for name in own]
    return names + [name for name in used if name not in names]


def _join_row(cells: Sequence[str]) -> str:
    row = ",".join(cells)
    if row.isprintable() and '"' not in row and " " not in row and row.count(",") == len(cells) - 1:
        return row
    return ",".join([cell if not cell or cell.isalnum() else _cell(cell) for cell in cells])


def _cell(text: str) -> str:
    text = text.translate(_LINE_BREAKS) if not text.isprintable() else text
    if "," in text or '"' in text or text != text.strip():
        escaped = text.replace("\\", "\\\\").replace('"', '""')
        return f'"{escaped}"'
    return text


class _RowPen:
    """Writes CSV rows into one file."""

    def __init__(self) -> None:
        self._columns: dict[str, list[str]] = {}

    def head(self) -> bytes:
        """Nothing: the vendor's own columns need no names."""
        return b""

    def tell(self, event: Event) -> bytes:
        """A row, behind one with the names of its columns where they are new."""
        ((word, values),) = _told([event])
        before = self._columns.get(word) or _DEFAULT_COLUMNS.get(word.upper())
        names = _merge(before or ["type"], list(values))
        row = _bytes(_join_row([values.get(name, "") for name in names]) + "\n")
        if names == before:
            return row
        named = _bytes(_join_row(["eventMeta", word, *names]) + "\n")
        self._columns[word] = names
        return named + row

    def foot(self) -> bytes:
        """Nothing."""
        return b""


# The forms: ftp

_ITEMS = re.compile(r',\s*"(?=[^":,]{1,200}:)')


def _read_log(receipt: Receipt) -> list[Event | Rejected]:
    found: list[Event | Rejected] = []
    for line in _text(receipt.body).split("\n"):
        items = _log_items(line.strip()) if line else []
        if len(items) > FIELD_LIMIT:
            found.append(_too_many(len(found), line))
        elif items and items != [""]:
            found.append(_event([_log_pair(item) for item in items], receipt, len(found), line))
    return found


def _log_items(line: str) -> list[str]:
    """The items of a line without the quote before each, with the one behind it.

    The vendor's own examples have quotes around the line, blanks between items, and quotes missing and too many.
    """
    items = line[1:].split('","')
    if line[:1] == '"' and line.count('"') == 2 * len(items) and all(":" in item for item in items):
        return items
    line = line.strip("'").strip().rstrip(",")
    return _ITEMS.split(line.removeprefix('"'))


def _log_pair(item: str) -> tuple[str, str]:
    name, _, value = item.partition(":")
    if '"' in value:
        core = value.rstrip().rstrip('"')
        quotes = value.count('"', len(core))
        value = core.replace('""', '"') + '"' * ((quotes - 1) // 2)
    return name.strip(' "'), value.strip()


def _log_line(pairs: list[tuple[str, str]]) -> str:
    return '"' + '","'.join([_log_item(name, value) for name, value in pairs]) + '"\n'


_NAME_BREAKS = str.maketrans('":,\r\n', "     ")


def _log_item(name: str, value: str) -> str:
    if not value.isprintable():
        value = value.translate(_LINE_BREAKS)
    return f"{name.translate(_NAME_BREAKS)}:" + value.replace('"', '""')


# The forms: email


def _read_mail(receipt: Receipt) -> list[Event | Rejected]:
    """A line `key: value` of the text is a field; others are greetings. The subject may stand for the type."""
    body = receipt.body
    # The standard library's parser takes a time that grows with the depth of parts and the square of the semicolons.
    if len(body) > MAIL_LIMIT or body.count(b"multipart/") > 10 or body.count(b";") > 2_000:
        return [_rejected("too_large", f"the mail has more than {MAIL_LIMIT} bytes, or too many parts", None, body)]
    subject, text = _subject_and_text(body)
    lines = [line.partition(":") for line in text.split("\n")]
    pairs = [(name.strip(), value.strip()) for name, colon, value in lines if colon]
    if len(pairs) > FIELD_LIMIT:
        return [_too_many(None, body)]
    said = {_role(name): value for name, value in reversed(pairs)}
    if "type" not in said and subject in _WORDS:
        pairs.append(("type", subject))
    elif subject and subject != said.get("type") and not any(_fold(name) == "notificationsubject" for name, _ in pairs):
        pairs.append(("notificationSubject", subject))
    return [_event(pairs, receipt, 0, body)]


def _subject_and_text(data: bytes) -> tuple[str, str]:
    head, gap, rest = data.lstrip().replace(b"\r\n", b"\n").partition(b"\n\n")
    if not gap or re.search(rb"^type[ \t]*:", head, re.MULTILINE | re.IGNORECASE):
        return "", _text(data)
    subject = next(
        (line[8:] for line in re.sub(rb"\n[ \t]+", b" ", head).split(b"\n") if line[:8].lower() == b"subject:"), b""
    )
    if b"multipart/" in head.lower() or b"encoding:" in head.lower():
        rest = _first_text(data)
    return _header_text(_text(subject).strip()), _text(rest)


def _first_text(data: bytes) -> bytes:
    """The first part of plain text, decoded."""
    try:
        for part in BytesParser(policy=compat32).parsebytes(data.lstrip()).walk():
            if part.get_content_type() == "text/plain":
                payload = part.get_payload(decode=True)
                return payload if isinstance(payload, bytes) else b""
    except (ValueError, LookupError, RecursionError, MessageError):
        pass
    return b""


def _header_text(text: str) -> str:
    try:
        return str(make_header(decode_header(text))) if "=?" in text and len(text) < 1_000 else text
    except (ValueError, LookupError, MessageError):
        return text


def _mail(pairs: list[tuple[str, str]]) -> bytes:
    lines = [f"{name.translate(_NAME_BREAKS)}: {value.translate(_LINE_BREAKS)}" for name, value in pairs]
    data, encoding = _bytes("\r\n".join(lines) + "\r\n"), "7bit"
    if not data.isascii() or max(map(len, lines)) > 990:
        data, encoding = encodebytes(data).replace(b"\n", b"\r\n"), "base64"
    subject = pairs[0][1].translate(_LINE_BREAKS)
    head = (
        f"Subject: {subject}\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    return _bytes(head) + data


_FRAMINGS = {
    "csv": Framing(content_type="text/csv; charset=utf-8", ending=".csv", pen=lambda sheet: _RowPen()),
    "ftp": Framing(
        content_type="text/plain; charset=utf-8",
        ending=".log",
        pen=lines(lambda event: _bytes(_log_line(_pairs(event, "ftp")))),
    ),
}
_READERS = {"http": _read_form, "csv": _read_csv, "ftp": _read_log, "email": _read_mail}

_proof: type[Contract] = Dialect

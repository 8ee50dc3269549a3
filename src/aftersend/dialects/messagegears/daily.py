"""MessageGears' daily files: the activity of one type and day, written as the vendor's clients read it.

Those clients are strict: the C# reader cuts the namespace out of the text and breaks on `<a/>`, the Java reader refuses
elements that the schema does not have and values of another kind. So an item of a daily file holds what the schema
has and no more, whatever was heard.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from aftersend.core import xml
from aftersend.core.errors import EncodeError
from aftersend.core.event import Event
from aftersend.core.framing import Framing, Sheet
from aftersend.core.timestamps import SECOND
from aftersend.dialects.messagegears.failures import Values
from aftersend.dialects.messagegears.items import COUNTERPARTS, INTEGERS, NAME, NAMESPACE, STOP, Item, item_of
from aftersend.dialects.messagegears.speaking import (
    foreign_values,
    is_told_by,
    told_as,
    values_of,
    word_of,
    written,
)
from aftersend.dialects.messagegears.times import eastern

ACTIVITIES = {
    "OPENS": "OpenActivity",
    "CLICKS": "ClickActivity",
    "UNSUBSCRIBES": "UnsubActivity",
    "BOUNCES": "BouncedMessageActivity",
    "DELIVERIES": "DeliveredMessageActivity",
    "SPAM_COMPLAINTS": "SpamComplaintActivity",
    "RENDER_ERRORS": "RenderErrorActivity",
    "JOB_ERRORS": "JobErrorActivity",
    # of the newer page; nobody has told how the clicks would be written
    "MOBILE_PUSH_DELIVERIES": "DeliveredMobilePushActivity",
    "MOBILE_PUSH_CLICKS": "",
    "MOBILE_PUSH_DELIVERY_FAILURES": "BouncedMobilePushActivity",
    "MOBILE_PUSH_RENDER_ERRORS": "RenderErrorMobilePushActivity",
    "SMS_DELIVERIES": "SmsDeliveredActivity",
    "SMS_CLICKS": "",
    "SMS_DELIVERY_FAILURES": "SmsDeliveryFailureActivity",
    "SMS_RENDER_ERRORS": "SmsRenderErrorActivity",
    "SMS_INBOUNDS": "SmsInboundActivity",
    # of the vendor's Java SDK
    "INBOUND_EMAIL_ACTIVITY": "InboundEmailActivity",
    "SMS_DELIVERED_ACTIVITY": "SmsDeliveredActivity",
    "SMS_DELIVERY_FAILURE_ACTIVITY": "SmsDeliveryFailureActivity",
    "SMS_RENDER_ERROR_ACTIVITY": "SmsRenderErrorActivity",
    "SMS_INBOUND_ACTIVITY": "SmsInboundActivity",
    "REQUEST_ACTIVITY": "RequestActivity",
}
"""Types that can be asked for, of all generations of clients, each with its item; none: the file is empty."""
_ACTIVITY_OF = {item: activity for activity, item in reversed(ACTIVITIES.items()) if item}
_OTHER = "OTHER"

_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d+)?(?:Z|[+-](?:0\d|1[0-3]):[0-5]\d)", re.ASCII
)
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
_TRUTH = re.compile("true|false|1|0")
_RENAMED = {"To": "DestinationSmsNumber", "InboundMessageType": "SmsBody", "InboundMessage": "SmsBody"}
"""Elements of the page's items under the schema's names; the last one that says something holds."""


@dataclass(frozen=True, slots=True)
class DailyFile:
    """The frame of one file, and its items."""

    activity: str
    day: str
    """YYYY-MM-DD."""
    request_id: str = ""

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.day}_{self.activity}.xml"

    @property
    def head(self) -> bytes:
        """What stands before the items."""
        request, day = xml.escaped(self.request_id), xml.escaped(self.day)
        return (
            f'<AccountActivityResponse xmlns="{NAMESPACE}"><RequestId>{request}</RequestId>'
            f"<Result>REQUEST_SUCCESSFUL</Result><ActivityDate>{day}</ActivityDate><ActivityItems>"
        ).encode()

    @property
    def foot(self) -> bytes:
        """What stands after them."""
        return b"</ActivityItems></AccountActivityResponse>"

    def item(self, event: Event, before: Event | None = None) -> bytes:
        """An event as an item of this file; empty where it belongs to another, or `before` told it already (STOP)."""
        wanted = ACTIVITIES[self.activity]
        if not wanted or fact_of(event) != wanted or is_told_by(before, event):
            return b""
        return schema_item(event, item_of(wanted))


class _Pen:
    """Writes a daily file."""

    __slots__ = ("_before", "_file")

    def __init__(self, sheet: Sheet) -> None:
        day = datetime.fromtimestamp(sheet.since // SECOND, ZoneInfo(sheet.zone)).date().isoformat()
        self._file = DailyFile(sheet.type, day, f"{day}_{sheet.type}")
        self._before: Event | None = None

    def head(self) -> bytes:
        return self._file.head

    def tell(self, event: Event) -> bytes:
        told = self._file.item(event, self._before) if self._file.activity != _OTHER else _other_item(event)
        self._before = event
        return told

    def foot(self) -> bytes:
        return self._file.foot


def activity_of(event: Event) -> str:
    """The type of the daily file that an event belongs to; `OTHER` for items that no client can ask for."""
    return _ACTIVITY_OF.get(fact_of(event) or "", _OTHER)


def _other_item(event: Event) -> bytes:
    word = word_of(event)
    if word is None:
        raise EncodeError
    return told_as(word, event)


FRAMING = Framing(
    content_type="application/xml",
    ending=".xml",
    pen=_Pen,
    name="{date}_{type}-{sequence}",
    compressions=("none", "zip"),
    type_of=activity_of,
)
"""Files for a folder or server, one for each type; the day of their name is the one that they were received on."""


def fact_of(event: Event) -> str | None:
    """The schema's name of the item that tells an event, whichever name it was heard under."""
    word = word_of(event)
    if word is None:
        return None
    name = word.removesuffix(STOP)
    return COUNTERPARTS.get(name, name)


def schema_item(event: Event, item: Item) -> bytes:
    """An event as an item that is valid against the schema."""
    values = _under_the_schemas_names(event, item) if event.source.word in COUNTERPARTS else values_of(event, item)
    fitted = {name: _fitted(name, values.get(name)) for name, _, _, _ in item.rows}
    fitted["Timestamp"] = fitted["Timestamp"] or eastern(event.time)
    return written(item, fitted, item.rows, heard=False)


def _under_the_schemas_names(event: Event, item: Item) -> Values:
    """What was heard under a name that only the vendor's page has."""
    if event.source.dialect != NAME:
        return values_of(event, item)
    renamed = {_RENAMED[name]: value for name in _RENAMED if (value := event.extra.get(name))}
    said = {"Category": event.failure.category} if event.failure and event.failure.category else {}
    heard = {name: value for name, value in event.extra.items() if name != "CategoryCode"}
    return values_of(event, item) | foreign_values(event, item) | said | heard | renamed


_FORMS = {"Timestamp": _TIME, "Microsite": _TRUTH, **dict.fromkeys(INTEGERS, _INTEGER)}


def _fitted(name: str, value: Any) -> Any:
    """A value of the kind that the schema wants, or None."""
    if name == "RenderErrors":
        return _errors(_first(value))
    if name == "JobError":
        error = _first(value)
        return _error(error) if isinstance(error, dict) else None
    text = value if value is None or type(value) is str else _text(value)
    form = _FORMS.get(name)
    return text if form is None or text is None or form.fullmatch(text) else None


def _errors(value: Any) -> Values:
    found = value.get("RenderError") if isinstance(value, dict) else None
    errors = found if isinstance(found, list) else [found]
    return {"RenderError": [_error(error) for error in errors if isinstance(error, dict)]}


def _error(value: Values) -> Values:
    return {name: _text(value.get(name)) or "" for name in ("ErrorCode", "ErrorMessage")}


def _text(value: Any) -> str | None:
    value = _first(value)
    if isinstance(value, dict):
        value = value.get("#text")
    return value if isinstance(value, str) else None


def _first(value: Any) -> Any:
    """What stands twice is a list."""
    return next(iter(value), None) if isinstance(value, list) else value

"""MessageGears' REST calls: what a request asks for, and its answers in the vendor's form.

`AccountActivity` gives the items of one type and day, `AccountSummary` counts those of a day or month, `XSD` gives the
schema. Days are US Eastern. Pure: who may ask, and how the log is read, is the transport's matter.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import ClassVar

from aftersend.core.errors import UsageError
from aftersend.core.event import Event
from aftersend.core.xml import escaped
from aftersend.dialects.messagegears.daily import ACTIVITIES, DailyFile, fact_of
from aftersend.dialects.messagegears.items import ITEMS, NAMESPACE, SCHEMA, item_of
from aftersend.dialects.messagegears.schema import xml_schema
from aftersend.dialects.messagegears.times import day_start, eastern_date

COUNTS = {
    "Messages": "",
    "Clicks": "ClickActivity",
    "Opens": "OpenActivity",
    "Bounces": "BouncedMessageActivity",
    "Unsubscribes": "UnsubActivity",
    "Deliveries": "DeliveredMessageActivity",
    "SpamComplaints": "SpamComplaintActivity",
    "RenderErrors": "RenderErrorActivity",
    "JobErrors": "JobErrorActivity",
}
"""The counts of a summary in their order, each with the item that it counts."""

_DATE = re.compile(r"(\d{4})-(\d{1,2})(?:-(\d{1,2}))?", re.ASCII)


@dataclass(slots=True)
class ActivityOrder:
    """A daily file, told run by run."""

    file: DailyFile
    since: int
    until: int
    compressed: bool
    _before: Event | None = None

    @property
    def file_name(self) -> str:
        """The file's name."""
        return self.file.name

    def head(self) -> bytes:
        """What comes before the events."""
        return self.file.head

    def tell(self, events: Sequence[Event]) -> bytes:
        """The next events, those of them that are of the type."""
        parts = []
        for event in events:
            told = self.file.item(event, self._before)
            if told:
                parts.append(told)
                self._before = event
        return b"".join(parts)

    def foot(self) -> bytes:
        """What comes after them."""
        return self.file.foot


@dataclass(slots=True)
class SummaryOrder:
    """Counts, told when all events have been seen."""

    day: str
    request_id: str
    since: int
    until: int
    compressed: ClassVar[bool] = False
    file_name: ClassVar[str] = ""
    _counts: Counter[str | None] = field(default_factory=Counter)
    _sent: int = 0

    def head(self) -> bytes:
        """Nothing."""
        return b""

    def tell(self, events: Sequence[Event]) -> bytes:
        """Count the next events; nothing is told yet."""
        self._counts.update(map(fact_of, events))
        self._sent += sum(event.type == "email.sent" for event in events)
        return b""

    def foot(self) -> bytes:
        """The whole answer."""
        counts = {name: self._counts[item] for name, item in COUNTS.items()}
        # Not every source tells what it sent; each message that it tried was delivered or bounced.
        counts["Messages"] = max(self._sent, counts["Deliveries"] + counts["Bounces"])
        inside = "".join(f"<{name}>{count}</{name}>" for name, count in counts.items())
        return _answer(
            "AccountSummaryResponse",
            self.request_id,
            "REQUEST_SUCCESSFUL",
            f"<AccountSummary><ActivityDate>{self.day}</ActivityDate>{inside}</AccountSummary>",
        )


@dataclass(slots=True)
class SchemaOrder:
    """The XML Schema of all answers."""

    since: ClassVar[int] = 0
    until: ClassVar[int] = 0
    compressed: ClassVar[bool] = False
    file_name: ClassVar[str] = ""

    def head(self) -> bytes:
        """The schema."""
        return xsd()

    def tell(self, events: Sequence[Event]) -> bytes:
        """Nothing: it is about no events."""
        return b""

    def foot(self) -> bytes:
        """Nothing."""
        return b""


Order = ActivityOrder | SummaryOrder | SchemaOrder


class Rest:
    """The calls, for whoever serves them."""

    def order(self, fields: Mapping[str, str], now: int, request_id: str) -> Order:
        """What a request asks for, at a time (ns since 1970, UTC). Raises UsageError, naming the wrong parameter."""
        action = fields.get("Action", "")
        if action == "XSD":
            return SchemaOrder()
        if action == "AccountActivity":
            return _activity(fields, now, request_id)
        if action == "AccountSummary":
            return _summary(fields, now, request_id)
        raise UsageError(f"Action: {action[:60]!r} is unknown; it is AccountActivity, AccountSummary or XSD")

    def refusal(self, action: str, request_id: str, code: str, message: str) -> bytes:
        """The answer to a request that failed."""
        root = "AccountSummaryResponse" if action == "AccountSummary" else "AccountActivityResponse"
        error = f"<ErrorCode>{escaped(code)}</ErrorCode><ErrorMessage>{escaped(message)}</ErrorMessage>"
        told = f"<RequestErrors><RequestError>{error}</RequestError></RequestErrors>"
        return _answer(root, request_id, "REQUEST_FAILED", told)


def xsd() -> bytes:
    """Our XML Schema: the vendor's items, and those of the push activities, which only its page has."""
    told = {item for item in ACTIVITIES.values() if item}
    names = [*SCHEMA, *(name for name in ITEMS if name in told and name not in SCHEMA)]
    return xml_schema(map(item_of, names), COUNTS)


def _answer(root: str, request_id: str, result: str, inside: str) -> bytes:
    return (
        f'<{root} xmlns="{NAMESPACE}"><RequestId>{escaped(request_id)}</RequestId>'
        f"<Result>{result}</Result>{inside}</{root}>"
    ).encode()


def _activity(fields: Mapping[str, str], now: int, request_id: str) -> ActivityOrder:
    activity = fields.get("ActivityType", "").strip()
    if activity not in ACTIVITIES:
        raise UsageError(f"ActivityType: {activity[:60]!r} is unknown; it is one of {', '.join(ACTIVITIES)}")
    day, is_month = _date(fields)
    if is_month:
        raise UsageError("ActivityDate: the value must be a day, yyyy-MM-dd.")
    _check_past(day, now)
    compressed = fields.get("UseCompression", "").strip().upper() == "TRUE"
    file = DailyFile(activity, day.isoformat(), request_id)
    return ActivityOrder(file, day_start(day), day_start(day + timedelta(1)), compressed)


def _summary(fields: Mapping[str, str], now: int, request_id: str) -> SummaryOrder:
    """A month may be under way; then what there is of it is counted."""
    first, is_month = _date(fields)
    _check_past(first, now)
    end = (first + timedelta(31)).replace(day=1) if is_month else first + timedelta(1)
    return SummaryOrder(first.isoformat(), request_id, day_start(first), day_start(end))


def _date(fields: Mapping[str, str]) -> tuple[date, bool]:
    """The day asked for, or the first of the month asked for; the zeros may be left out, as the C# SDK does."""
    text = fields.get("ActivityDate", "").strip()
    found = _DATE.fullmatch(text)
    try:
        if found is None or int(found[1]) < 1970:
            raise ValueError
        return date(int(found[1]), int(found[2]), int(found[3] or 1)), found[3] is None
    except ValueError:
        raise UsageError(f"ActivityDate: {text[:60]!r} is not a date, yyyy-MM-dd or yyyy-MM, from 1970 on.") from None


def _check_past(day: date, now: int) -> None:
    if day >= eastern_date(now):
        raise UsageError("ActivityDate: the value must be a date in the past.")

"""Times of MessageGears: US Eastern, to the millisecond."""

from __future__ import annotations

from datetime import date, datetime
from datetime import time as clock_time
from zoneinfo import ZoneInfo

from aftersend.core.timestamps import MILLISECOND, SECOND, parse_time

_EASTERN = ZoneInfo("America/New_York")
_CACHE_LIMIT = 4096
_moments: dict[str, int] = {}
_minutes: dict[int, tuple[str, str]] = {}


def parse_timestamp(text: str) -> int:
    """As core's `parse_time`, quick for the vendor's form `2010-09-14T15:49:16.064-04:00`. Raises ValueError."""
    digits = text[17:19] + text[20:23]
    if len(text) == 29 and text[16] + text[19] == ":." and digits.isdecimal() and digits.isascii() and digits < "6":
        minute = text[:17] + text[23:]
        moment = _moments.get(minute)
        if moment is not None:
            return moment + int(digits) * MILLISECOND
        if text[23] in "+-":
            if len(_moments) >= _CACHE_LIMIT:
                _moments.clear()
            moment = _moments[minute] = parse_time(text[:17] + "00" + text[23:])
            return moment + int(digits) * MILLISECOND
    try:
        return parse_time(text)
    except ValueError:
        raise ValueError(f"{text[:60]!r} is not an ISO 8601 time") from None


def eastern(time: int) -> str:
    """A time as the vendor prints it: US Eastern with the offset in force, milliseconds."""
    seconds, fraction = divmod(time, SECOND)
    minute, second = divmod(seconds, 60)
    found = _minutes.get(minute)
    if found is None:
        text = datetime.fromtimestamp(minute * 60, _EASTERN).isoformat()
        if len(_minutes) >= _CACHE_LIMIT:
            _minutes.clear()
        found = _minutes[minute] = text[:17], text[19:]
    return f"{found[0]}{second:02d}.{fraction // MILLISECOND:03d}{found[1]}"


def eastern_date(time: int) -> date:
    """The day (US Eastern) that a time falls on."""
    return datetime.fromtimestamp(time // SECOND, _EASTERN).date()


def day_start(day: date) -> int:
    """When a day begins in US Eastern: ns since 1970, UTC."""
    return int(datetime.combine(day, clock_time(), _EASTERN).timestamp()) * SECOND

"""Times: integers of nanoseconds since 1970 (UTC) inside, RFC 3339 outside."""

from __future__ import annotations

import re
from calendar import timegm
from time import gmtime

SECOND = 1_000_000_000
MILLISECOND = 1_000_000
DAY = 86_400 * SECOND

FUTURE_LIMIT = 7 * DAY
"""How far ahead of its receipt an event may say it happened."""

SUSPECT_BEFORE = 946_684_800 * SECOND
"""2000-01-01: earlier times are kept and marked suspect (a lost digit is the usual cause)."""

_FORM = re.compile(
    r"(\d{4})-(\d{2})-(\d{2})(?:[Tt ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d+))?)?\s*([Zz]|[+-]\d{2}(?::?\d{2})?)?)?",
    re.ASCII,
)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_CACHE_LIMIT = 4096
_minutes: dict[str, int] = {}
_seconds: dict[int, str] = {}


def parse_time(text: str) -> int:
    """Nanoseconds of an RFC 3339 time.

    Lenient as the vendors are: a blank for the `T`, offsets of two digits, no offset (UTC), no seconds, a date alone.
    Digits below the nanosecond are cut. Raises ValueError.
    """
    size = len(text)
    if (size == 20 or (size > 21 and text[19] == ".")) and text[-1] == "Z" and text[16] == ":":
        minute = _minutes.get(text[:16])
        digits = text[17:19] + text[20:-1]
        if minute is not None and digits < "6" and digits.isdecimal() and digits.isascii():
            return minute + int(digits[:11].ljust(11, "0"))
    return _parse_slowly(text)


def _parse_slowly(text: str) -> int:
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError("not a time")
    year, month, day = int(match[1]), int(match[2]), int(match[3])
    hour, minute, second = int(match[4] or 0), int(match[5] or 0), int(match[6] or 0)
    if not (1 <= month <= 12 and 1 <= day <= _DAYS[month - 1] and hour <= 24 and minute < 60 and second <= 60):
        raise ValueError("not a time")
    if month == 2 and day == 29 and not (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)):
        raise ValueError("not a time")
    if hour == 24 and (minute or second):
        raise ValueError("not a time")
    base = timegm((year, month, day, hour, minute, 0))
    zone = match[8]
    if zone in (None, "Z", "z"):
        if match[4] and text[10:11] == "T" and text[16:17] == ":":
            if len(_minutes) >= _CACHE_LIMIT:
                _minutes.clear()
            _minutes[text[:16]] = base * SECOND
    else:
        sign = -1 if zone[0] == "-" else 1
        base -= sign * (int(zone[1:3]) * 3600 + int(zone[-2:] if len(zone) > 3 else 0) * 60)
    return (base + second) * SECOND + int((match[7] or "0")[:9].ljust(9, "0"))


def format_time(time: int) -> str:
    """The RFC 3339 form in UTC, with as many digits (0, 3, 6 or 9) as the nanoseconds need."""
    seconds, fraction = divmod(time, SECOND)
    text = _seconds.get(seconds)
    if text is None:
        text = _second(seconds)
    if not fraction:
        return text + "Z"
    if not fraction % 1_000_000:
        return f"{text}.{fraction // 1_000_000:03d}Z"
    if not fraction % 1_000:
        return f"{text}.{fraction // 1_000:06d}Z"
    return f"{text}.{fraction:09d}Z"


def _second(seconds: int) -> str:
    year, month, day, hour, minute, second, *_ = gmtime(seconds)
    text = f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}"
    if len(_seconds) >= _CACHE_LIMIT:
        _seconds.clear()
    _seconds[seconds] = text
    return text


def parse_epoch(value: object, unit: int = SECOND) -> int:
    """Nanoseconds of a count of `unit` since 1970, given as a number or decimal text.

    Text keeps every digit; a float is taken to the microsecond, which is all that a double holds. Raises ValueError.
    """
    if isinstance(value, bool):
        raise ValueError("not a time")
    if isinstance(value, int):
        return value * unit
    if isinstance(value, float):
        return round(value * (unit // 1_000)) * 1_000
    if isinstance(value, str):
        whole, _, fraction = value.strip().partition(".")
        digits = whole.lstrip("-")
        if digits.isdecimal() and digits.isascii() and len(digits) <= 20 and (not fraction or fraction.isdecimal()):
            parts = int(fraction[:9].ljust(9, "0")) * unit // SECOND if fraction else 0
            return int(whole) * unit + (-parts if whole.startswith("-") else parts)
    raise ValueError("not a time")


def time_fault(time: int, received_at: int) -> str | None:
    """Why an event of this time cannot be kept, or None."""
    if 0 <= time <= received_at + FUTURE_LIMIT:
        return None
    return "time_out_of_range"

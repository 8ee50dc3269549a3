"""When one file of events ends and the next begins, and what files are called."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from msgspec import Meta, Struct

from aftersend.core.errors import ConfigurationError
from aftersend.core.timestamps import SECOND

Compression = Literal["none", "gzip", "zstd", "zip"]

ENDINGS = {"none": "", "gzip": ".gz", "zstd": ".zst", "zip": ".zip"}
"""What a compression adds to a file's name."""

NAME_LIMIT = 200
"""Characters of a name; file systems take 255."""

DEFAULT_NAME = "{name}-{tag}-{period}-{sequence}"
"""Files of two subscriptions, or of two instances, in one folder do not meet."""

_PLACES = ("name", "tag", "tenant", "date", "period", "sequence", "stamp", "type")
_PATTERN = re.compile(rf"(?!\.)(?:[A-Za-z0-9._-]|\{{(?:{'|'.join(_PLACES)})\}})+")
_MINUTES = {"minute": 1, "5 minutes": 5, "15 minutes": 15, "hour": 60}


class Rotation(Struct, frozen=True, kw_only=True):
    """How a subscription's events are put into files: whichever limit is reached first ends a file."""

    every: Literal["minute", "5 minutes", "15 minutes", "hour", "day", "week"] = "hour"
    """A file holds what was received in one such period; it begins as the zone's clock shows it, a week on Monday."""
    zone: Annotated[str, Meta(max_length=64)] = "UTC"
    """Time zone of the periods and of `{date}`, e.g. `America/New_York`."""
    max_events: Annotated[int, Meta(ge=1, le=10_000_000)] = 1_000_000
    """Events in one file; a dialect's own limit holds where it is lower."""
    max_bytes: Annotated[int, Meta(ge=1_000, le=100_000_000_000)] = 1_000_000_000
    """Bytes of one file before compression, unless one event alone has more; as much may lie in the data folder."""
    name: Annotated[str, Meta(max_length=NAME_LIMIT)] = ""
    """What files are called, without their ending: letters, digits, `.`, `_`, `-` and `{name}` (the subscription's),
    `{tag}` (six letters and digits of it alone), `{tenant}`, `{date}`, `{period}` (its beginning, UTC), `{sequence}`
    (epoch and number of the first event), `{stamp}` (14 digits, rising), `{type}` (where each type has its own file).
    Empty: as the dialect's vendor calls them, else `{name}-{tag}-{period}-{sequence}`."""
    compression: Compression = "none"
    format: Literal["dialect", "ndjson", "csv", "parquet"] = "dialect"
    """As the dialect tells events, or canonical events as one object a line, or laid flat in columns."""
    empty: bool = False
    """Whether a period without events gets a file too."""


def check(rotation: Rotation) -> None:
    """Raises ConfigurationError for a zone or a name that cannot be."""
    _zone(rotation.zone)
    if rotation.name:
        check_pattern(rotation.name, empty=rotation.empty)
    if rotation.format == "parquet" and rotation.compression != "none":
        raise ConfigurationError("file: parquet is compressed within itself; set compression to none")


def check_pattern(pattern: str, *, empty: bool = False) -> None:
    """Raises ConfigurationError for a pattern that makes no names, or one name twice."""
    if not _PATTERN.fullmatch(pattern):
        raise ConfigurationError(
            f"file: the name {pattern!r} may have letters, digits, '.', '_', '-' and {{{'}, {'.join(_PLACES)}}}"
        )
    if "{stamp}" not in pattern and "{sequence}" not in pattern:
        raise ConfigurationError(
            f"file: the name {pattern!r} needs {{sequence}} or {{stamp}}, else files replace others"
        )
    if empty and "{stamp}" not in pattern and "{period}" not in pattern:
        raise ConfigurationError(f"file: the name {pattern!r} needs {{period}} or {{stamp}}, else empty files meet")


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(f"file: there is no time zone {name!r}; one is Europe/Amsterdam") from None


# Periods


def period_of(time: int, rotation: Rotation) -> tuple[int, int]:
    """Beginning and end of the period that a time lies in (ns since 1970, UTC). Raises ConfigurationError.

    Periods follow each other without a gap, also where clocks are set: an hour that the clock shows twice is two
    periods, a day that has 23 or 25 hours is one.
    """
    zone = _zone(rotation.zone)
    seconds = time // SECOND
    start, local = _start(seconds, rotation.every, zone)
    length = _length(rotation.every)
    ends = sorted((start + int(length.total_seconds()), _absolute(local + length, zone)))
    end = next((end for end in ends if _start(end, rotation.every, zone)[0] > start), ends[-1])
    return start * SECOND, end * SECOND


def _start(seconds: int, every: str, zone: ZoneInfo) -> tuple[int, datetime]:
    """Where the period of a time begins, also as the zone's clock shows it."""
    local = datetime.fromtimestamp(seconds, zone).replace(second=0, microsecond=0)
    if every in _MINUTES:
        count = _MINUTES[every]
        local = local.replace(minute=local.minute // count * count)
    else:
        local = local.replace(hour=0, minute=0, fold=0)
        if every == "week":
            local -= timedelta(days=local.weekday())
    return _absolute(local, zone), local.replace(fold=0)


def _absolute(local: datetime, zone: ZoneInfo) -> int:
    return int(local.replace(tzinfo=zone).astimezone(UTC).timestamp())


def _length(every: str) -> timedelta:
    if every in _MINUTES:
        return timedelta(minutes=_MINUTES[every])
    return timedelta(days=7 if every == "week" else 1)


# Names


def tag_of(tenant: str, subscription: str) -> str:
    """Six letters and digits that tell a subscription (its id) from others of its name."""
    return blake2b(f"{tenant}/{subscription}".encode(), digest_size=3).hexdigest()


def next_stamp(start: int, last: int) -> int:
    """The stamp of a file whose period begins at `start` (ns), later than the one before, in seconds."""
    return max(start // SECOND, last + 1)


def file_name(
    pattern: str,
    *,
    name: str,
    tag: str,
    tenant: str,
    start: int,
    zone: str,
    epoch: int,
    sequence: int,
    stamp: int,
    type_: str = "",
) -> str:
    """The name of a file, without its ending: the same for the same subscription, period and first event."""
    seconds = start // SECOND
    return pattern.format(
        name=name,
        tag=tag,
        tenant=tenant,
        date=datetime.fromtimestamp(seconds, _zone(zone)).strftime("%Y%m%d"),
        period=datetime.fromtimestamp(seconds, UTC).strftime("%Y%m%dT%H%M%SZ"),
        sequence=f"{epoch}-{sequence:010d}",
        stamp=datetime.fromtimestamp(stamp, UTC).strftime("%Y%m%d%H%M%S"),
        type=type_,
    )

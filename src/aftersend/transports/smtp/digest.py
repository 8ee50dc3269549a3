"""What a digest shows: a tally, cut to what a person reads, in a zone and a language."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta, tzinfo
from itertools import accumulate, pairwise

from msgspec import Struct, structs

from aftersend.core.excerpts import clean_line
from aftersend.core.outcome import Volume
from aftersend.core.timestamps import SECOND
from aftersend.transports.smtp.wording import Wording

TYPES_LIMIT = 25
"""Types that have a row of their own."""
SERIES_LIMIT = 6
"""Types that have a colour of their own; the others are one more."""
HOURLY_LIMIT = 48
"""Bars by hour; past it they are by day."""
BARS_LIMIT = 62
FAILURES_SHOWN = 10
REPLY_LIMIT = 160
STRAY_SHARE = 0.01
"""Of the events, those at an end that would only stretch the bars."""

GREY = "#a7afbb"
_PALETTE = ("#8e6bbf", "#5f9e3a", "#c98fb4", "#46a6c2", "#e0b83a", "#8a6d4f", "#b7c45a", "#6f7bd0")
_COLOURS = {
    "sent": "#94a3b8",
    "delivered": "#64748b",
    "opened": "#3d84c6",
    "first_opened": "#8fbbe3",
    "clicked": "#2a9d8f",
    "first_clicked": "#86cfc5",
    "deferred": "#e0b83a",
    "soft_bounced": "#e08a3c",
    "bounced": "#e0695b",
    "undelivered": "#e0695b",
    "blocked": "#a83f6f",
    "hard_bounced": "#d1495b",
}
"""What has a colour that people expect, by the last word of its type; readable on white and on black."""


class Row(Struct, frozen=True):
    """A type, and how often it happened."""

    label: str
    count: int
    colour: str
    type: str = ""
    """Empty: several types."""


class Bar(Struct, frozen=True):
    """An hour or a day."""

    label: str
    name: str
    """In full, for those who hear it."""
    hour: int
    counts: tuple[int, ...]
    """By series, in the order of `Digest.series`."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.counts)


class Digest(Struct, frozen=True, kw_only=True):
    """All that a digest shows, but for its words."""

    subscription: str
    count: int
    period: str
    """Empty: there is none."""
    zone: str
    rows: list[Row]
    """The most frequent first; the last may stand for all others."""
    series: list[Row]
    """What the bars are stacked of, from below."""
    bars: list[Bar]
    hourly: bool
    outside: int
    """Events that no bar shows."""
    failures: list[tuple[str, int]]
    numbers: tuple[int, int]
    note: str = ""
    """What became of the file."""

    @property
    def highest(self) -> Bar:
        """The bar with the most events."""
        return max(self.bars, key=lambda bar: bar.total)


def digest_of(volume: Volume, subscription: str, zone: tzinfo, zone_name: str, words: Wording) -> Digest:
    """What a volume says to a person."""
    tally = volume.tally
    ranked = sorted(tally.types.items(), key=lambda item: (-item[1], item[0]))
    series = _series(ranked, words)
    hourly, buckets = _buckets(tally.hours, zone)
    bars = [_bar(when, types, series, words, hourly=hourly) for when, types in buckets] if len(buckets) > 1 else []
    if hourly and len({when.date() for when, _ in buckets}) > 1:
        bars = [structs.replace(bar, label=bar.name.partition(",")[0]) if bar.hour == 0 else bar for bar in bars]
    return Digest(
        subscription=subscription,
        count=tally.count,
        period=_period(volume, zone, words),
        zone=zone_name,
        rows=_rows(ranked, series, words),
        series=series,
        bars=bars,
        hourly=hourly,
        outside=max(0, tally.count - sum(bar.total for bar in bars)) if bars else 0,
        failures=_failures(tally.failures),
        numbers=(volume.first_sequence, volume.last_sequence),
    )


def _period(volume: Volume, zone: tzinfo, words: Wording) -> str:
    if not volume.since:
        return ""
    since, until = (datetime.fromtimestamp(time // SECOND, zone) for time in (volume.since, volume.until))
    return words.period(since, until)


def _series(ranked: list[tuple[str, int]], words: Wording) -> list[Row]:
    limit = SERIES_LIMIT if len(ranked) > SERIES_LIMIT + 1 else SERIES_LIMIT + 1
    own, rest = ranked[:limit], ranked[limit:]
    colours = _colours([type_ for type_, _ in own])
    series = [Row(words.type(type_), count, colours[type_], type_) for type_, count in own]
    if rest:
        series.append(_others(rest, words))
    return series


def _others(rest: list[tuple[str, int]], words: Wording) -> Row:
    label = words["others"].format(words.counted(len(rest), "more"))
    return Row(label, sum(count for _, count in rest), GREY)


def _colours(types: list[str]) -> dict[str, str]:
    """A colour for each type, no two alike: the expected one, else the next that is free."""
    colours: dict[str, str] = {}
    for type_ in types:
        expected = _COLOURS.get(type_.rpartition(".")[2])
        if expected is not None and expected not in colours.values():
            colours[type_] = expected
    free = [colour for colour in _PALETTE if colour not in colours.values()]
    for type_ in types:
        if type_ not in colours:
            colours[type_] = free.pop(0)
    return colours


def _rows(ranked: list[tuple[str, int]], series: list[Row], words: Wording) -> list[Row]:
    colours = {row.type: row.colour for row in series}
    limit = TYPES_LIMIT if len(ranked) > TYPES_LIMIT + 1 else TYPES_LIMIT + 1
    rows = [Row(words.type(type_), count, colours.get(type_, GREY), type_) for type_, count in ranked[:limit]]
    rest = ranked[limit:]
    return [*rows, _others(rest, words)] if rest else rows


def _failures(failures: Mapping[str, int]) -> list[tuple[str, int]]:
    ranked = sorted(failures.items(), key=lambda item: (-item[1], item[0]))[:FAILURES_SHOWN]
    return [(clean_line(text, REPLY_LIMIT), count) for text, count in ranked]


# Bars

_Buckets = list[tuple[datetime, Mapping[str, int]]]


def _buckets(hours: Mapping[str, Mapping[str, int]], zone: tzinfo) -> tuple[bool, _Buckets]:
    """The hours from the first to the last, or the days in a zone where those are too many; strays are left out."""
    moments = {datetime.fromisoformat(f"{hour}:00+00:00"): Counter(types) for hour, types in hours.items()}
    moments = _without_strays(moments)
    if not moments:
        return True, []
    first, last = min(moments), max(moments)
    count = round((last - first) / timedelta(hours=1)) + 1
    if count <= HOURLY_LIMIT:
        steps = [first + timedelta(hours=number) for number in range(count)]
        return True, [(step.astimezone(zone), moments.get(step, Counter())) for step in steps]
    return False, _days(moments, zone)


def _days(moments: Mapping[datetime, Counter[str]], zone: tzinfo) -> _Buckets:
    days: dict[datetime, Counter[str]] = {}
    for moment, types in moments.items():
        local = moment.astimezone(zone).replace(hour=0, minute=0, tzinfo=None)
        days.setdefault(local, Counter()).update(types)
    last = max(days)
    first = max(min(days), last - timedelta(days=BARS_LIMIT - 1))
    steps = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return [(step, days.get(step, Counter())) for step in steps]


def _without_strays(moments: dict[datetime, Counter[str]]) -> dict[datetime, Counter[str]]:
    """Late news of last month, or a clock that is wrong, must not squeeze today into one bar."""
    order = sorted(moments)
    if not order or order[-1] - order[0] < timedelta(hours=HOURLY_LIMIT):
        return moments
    strays = {*_strays(order, moments), *_strays(order[::-1], moments)}
    return {moment: types for moment, types in moments.items() if moment not in strays}


def _strays(order: list[datetime], moments: Mapping[datetime, Counter[str]]) -> list[datetime]:
    """Those before a gap of a day, where they are next to nothing together."""
    most = STRAY_SHARE * sum(types.total() for types in moments.values())
    sums = accumulate(moments[moment].total() for moment in order)
    gaps = [abs(later - earlier) >= timedelta(days=1) for earlier, later in pairwise(order)]
    ends = [place for place, (sum_, gap) in enumerate(zip(sums, gaps, strict=False), 1) if gap and sum_ <= most]
    return order[: max(ends, default=0)]


def _bar(when: datetime, types: Mapping[str, int], series: list[Row], words: Wording, *, hourly: bool) -> Bar:
    own = [types.get(row.type, 0) for row in series if row.type]
    if len(own) < len(series):
        own.append(sum(types.values()) - sum(own))
    if hourly:
        return Bar(f"{when:%H:%M}", f"{words.short_day(when)}, {when:%H:%M}", when.hour, tuple(own))
    return Bar(words.short_day(when), words.day(when), 0, tuple(own))

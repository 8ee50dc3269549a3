"""The days of ids: which file can hold an id at all.

An id begins with 48 bits of ms since 1970, so sorted ids fall into runs of one day each.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

_DAY_MS = 86_400_000
_END = 1 << 48


class Span(NamedTuple):
    """The lowest and the highest id of one day in one file."""

    lowest: bytes
    highest: bytes


def runs(ordered: Sequence[bytes]) -> Iterator[tuple[int, int, int]]:
    """Each day of sorted ids, with where its ids begin and end."""
    start = 0
    while start < len(ordered):
        day = int.from_bytes(ordered[start][:6]) // _DAY_MS
        bound = (day + 1) * _DAY_MS
        end = len(ordered) if bound >= _END else bisect_left(ordered, bound.to_bytes(6), start)
        yield day, start, end
        start = end


def within(ordered: Sequence[bytes], start: int, end: int, span: Span) -> Sequence[bytes]:
    """The ids of one run that lie within a span."""
    first = bisect_left(ordered, span.lowest, start, end)
    return ordered[first : bisect_right(ordered, span.highest, first, end)]


def widened(days: Mapping[int, Span], ordered: Sequence[bytes]) -> dict[int, Span]:
    """The spans that these ids change, as they will be."""
    changed = {}
    for day, start, end in runs(ordered):
        old = days.get(day)
        new = Span(ordered[start], ordered[end - 1])
        if old is not None:
            new = Span(min(old.lowest, new.lowest), max(old.highest, new.highest))
        if new != old:
            changed[day] = new
    return changed

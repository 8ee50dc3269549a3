"""One line of a subscription that is pulled: how far its events are read, and which of them somebody has in hand."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from msgspec import structs

from aftersend.contracts import Cursor, Lease

Ranges = tuple[tuple[int, int], ...]
"""First and last positions, rising; they mean the line's own events in between and no others."""


class WordLine:
    """The events of one line from its cursor on, as far as the log has been looked through."""

    def __init__(self, name: str, cursor: Cursor, read: Ranges = ()) -> None:
        self.name = name
        self.cursor = cursor
        self.looked = cursor.position
        """Every event before this position has been looked at."""
        self.found = array("q")
        """Positions of this line's events from the cursor on."""
        self.read = read
        """What was read above the cursor."""
        self.held: dict[str, Lease] = {}
        """What somebody has in hand, by the lease's id."""

    def free(self, before: int) -> list[tuple[int, int]]:
        """Slices of `found` below a position that are neither read nor in hand."""
        end = bisect_left(self.found, before)
        slices, place = [], 0
        for first, last in self._taken():
            slices.append((place, min(end, bisect_left(self.found, first))))
            place = max(place, bisect_right(self.found, last))
        slices.append((place, end))
        return [(start, stop) for start, stop in slices if start < stop]

    def _taken(self) -> list[tuple[int, int]]:
        return sorted([*self.read, *(span for lease in self.held.values() for span in lease.positions)])

    def ready(self, before: int) -> int:
        """How many events below a position can be had."""
        return sum([stop - start for start, stop in self.free(before)])

    def first(self, before: int, limit: int) -> list[int]:
        """Positions of the oldest of them."""
        found: list[int] = []
        for start, stop in self.free(before):
            found += self.found[start : min(stop, start + limit - len(found))]
            if len(found) >= limit:
                break
        return found

    def runs(self, before: int) -> Ranges:
        """What can be had below a position, as ranges."""
        return tuple((self.found[start], self.found[stop - 1]) for start, stop in self.free(before))

    def acknowledge(self, ranges: Ranges, count: int) -> None:
        """So many events are read; the cursor goes on as far as it can."""
        self.read = self._merged(sorted({*self.read, *ranges}))
        self.cursor = structs.replace(self.cursor, sequence=self.cursor.sequence + count)
        self.advance()

    def _merged(self, ranges: Sequence[tuple[int, int]]) -> Ranges:
        """Ranges with those made one that have no event of the line between them."""
        merged: list[tuple[int, int]] = []
        for first, last in ranges:
            if merged and first < self.looked and not self._has_between(merged[-1][1], first):
                merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
            else:
                merged.append((first, last))
        return tuple(merged)

    def _has_between(self, left: int, right: int) -> bool:
        return bisect_right(self.found, left) < bisect_left(self.found, right)

    def advance(self) -> None:
        """Move the cursor to the first event that is not read, and forget what is before it."""
        place = 0
        for first, last in self.read:
            if bisect_left(self.found, first) > place:
                break
            place = max(place, bisect_right(self.found, last))
        del self.found[:place]
        position = self.found[0] if self.found else self.looked
        self.read = tuple(span for span in self.read if span[1] >= position)
        if position > self.cursor.position:
            self.cursor = structs.replace(self.cursor, position=position)

    def skip(self, position: int) -> None:
        """Nothing before a position is there any more."""
        del self.found[: bisect_left(self.found, position)]
        self.looked = max(self.looked, position)
        self.advance()

    def forget(self, positions: set[int]) -> None:
        """These events cannot be had any more."""
        self.found = array("q", [position for position in self.found if position not in positions])
        self.advance()

"""The last blocks that were committed, still decoded: readers near the head touch neither disk nor zstd."""

from __future__ import annotations

from bisect import bisect_right

from aftersend.core.event import Recorded

_SLACK = 1_000
"""Forgotten blocks that may stay in the lists before these are cut."""


class Recent:
    """Consecutive blocks up to the head; bounded by events and by their bytes as JSON."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._end = 0
        self._clear()

    def _clear(self) -> None:
        self._positions: list[int] = []
        self._blocks: list[tuple[Recorded, int]] = []
        self._start = 0
        self._events = self._bytes = 0

    def add(self, recorded: Recorded, size: int) -> None:
        """Keep a block that was just committed, and forget the oldest past the limits."""
        if recorded.position != self._end:
            self._clear()
        self._end = recorded.next_position
        self._positions.append(recorded.position)
        self._blocks.append((recorded, size))
        self._events += len(recorded.events)
        self._bytes += size
        while self._events > self._max_events or self._bytes > self._max_bytes:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        recorded, size = self._blocks[self._start]
        self._events -= len(recorded.events)
        self._bytes -= size
        self._blocks[self._start] = (Recorded(recorded.position, recorded.tenant, []), 0)
        self._start += 1
        if self._start == len(self._blocks):
            self._clear()
        elif self._start >= _SLACK:
            del self._positions[: self._start], self._blocks[: self._start]
            self._start = 0

    def forget(self) -> None:
        """Keep nothing; what was rewritten is read from disk."""
        self._clear()

    def read(self, position: int, limit: int) -> list[Recorded] | None:
        """About `limit` events from a position on, or None where it lies outside of what is kept."""
        if position >= self._end:
            return None
        index = bisect_right(self._positions, position) - 1
        if index < self._start:
            return None
        found: list[Recorded] = []
        count = 0
        while count < limit and index < len(self._blocks):
            recorded = from_position(self._blocks[index][0], position)
            found.append(recorded)
            count += len(recorded.events)
            index += 1
        return found


def from_position(recorded: Recorded, position: int) -> Recorded:
    """A block without the events before a position."""
    if recorded.position >= position:
        return recorded
    return Recorded(position, recorded.tenant, recorded.events[position - recorded.position :])

"""The part of a line that pullers have in hand: from the cursor up to the last event that was ever handed out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, takewhile
from typing import Literal

from msgspec import Struct

from aftersend.contracts import Cursor
from aftersend.core.event import Event
from aftersend.core.outcome import Tally

LIMIT = 100_000
"""Most events between the cursor and the last one handed out; about 30 MB."""

Spans = tuple[tuple[int, int], ...]

Settled = Literal["acknowledged", "aside"]
"""Acknowledged, or refused and now beside the line."""

State = Literal["waiting", "held", "acknowledged", "aside"]
"""Waits to be handed out (again), is in somebody's hands, or is settled."""


class Entry(Struct, gc=False):
    """One event of the line."""

    position: int
    sequence: int
    id: str
    name: str | None
    """What its vendor calls it."""
    type: str
    state: State = "waiting"
    event: Event | None = None
    """Not kept while it is in somebody's hands: the log has it."""


class Window:
    """The events from a cursor on, each with its state; pure bookkeeping."""

    def __init__(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self.waiting: list[Entry] = []
        """Those that are to be handed out, in order."""
        self._entries: list[Entry] = []
        self._settled = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, position: int, event: Event) -> Entry:
        """The next event of the line."""
        sequence = self.cursor.sequence + len(self._entries) + 1
        entry = Entry(position, sequence, event.id, event.source.id, event.type, "waiting", event)
        self._entries.append(entry)
        self.waiting.append(entry)
        return entry

    def hold(self, count: int) -> list[Entry]:
        """Take the first of those that wait."""
        held, self.waiting = self.waiting[:count], self.waiting[count:]
        for entry in held:
            entry.state = "held"
            entry.event = None
        return held

    def free(self, entries: Sequence[Entry]) -> None:
        """They wait again, in their old places."""
        for entry in entries:
            entry.state = "waiting"
        self.waiting = sorted([*self.waiting, *entries], key=_position)

    def settle(self, entries: Sequence[Entry], state: Settled) -> None:
        """They are acknowledged, or beside the line."""
        for entry in entries:
            self._settled += entry.state in ("waiting", "held")
            entry.state = state
            entry.event = None
        self.waiting = [entry for entry in self.waiting if entry.state == "waiting"]

    def find(self, positions: Spans) -> list[Entry]:
        """The entries at ranges of positions."""
        return [entry for first, last in positions for entry in self._between(first, last)]

    def restore(self, positions: Spans) -> list[Entry]:
        """The entries of a lease that was written down, in somebody's hands."""
        found = self.find(positions)
        for entry in found:
            entry.state = "held"
        self.waiting = [entry for entry in self.waiting if entry.state == "waiting"]
        return found

    def _between(self, first: int, last: int) -> list[Entry]:
        start = bisect_left(self._entries, first, key=_position)
        return self._entries[start : bisect_right(self._entries, last, key=_position)]

    def settled(self) -> tuple[Cursor, Tally]:
        """Where the cursor may go, and what was acknowledged on the way there."""
        passed = list(takewhile(lambda entry: entry.state in ("acknowledged", "aside"), self._entries))
        if not passed:
            return self.cursor, Tally()
        cursor = Cursor(passed[-1].position + 1, self.cursor.epoch, passed[-1].sequence)
        return cursor, _tally([entry for entry in passed if entry.state == "acknowledged"])

    def move(self, cursor: Cursor) -> None:
        """The cursor has gone there; what is before it is settled, and forgotten."""
        self.cursor = cursor
        passed = bisect_left(self._entries, cursor.position, key=_position)
        del self._entries[:passed]
        self._settled -= passed

    def spans(self, state: Settled, cursor: Cursor) -> Spans:
        """Positions of the events that were settled out of order, above a cursor."""
        if not self._settled:
            return ()
        return spans([entry for entry in self._entries if entry.state == state and entry.position >= cursor.position])


def _position(entry: Entry) -> int:
    return entry.position


def spans(entries: Sequence[Entry]) -> Spans:
    """Entries as ranges of positions; what is between two neighbours of the line belongs to it."""
    if not entries:
        return ()
    breaks = [(left, right) for left, right in pairwise(entries) if right.sequence != left.sequence + 1]
    starts = [entries[0], *[right for _, right in breaks]]
    ends = [*[left for left, _ in breaks], entries[-1]]
    return tuple((start.position, end.position) for start, end in zip(starts, ends, strict=True))


def _tally(entries: Sequence[Entry]) -> Tally:
    ids_sum = sum([int(entry.id.replace("-", ""), 16) for entry in entries])
    return Tally(len(entries), dict(Counter([entry.type for entry in entries])), ids_sum % (1 << 128))

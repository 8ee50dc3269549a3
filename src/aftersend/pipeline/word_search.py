"""Finding the events of lines in the log: looked through once, read again only where something was found."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aftersend.contracts import Clock, Dialect, Log
from aftersend.core.event import Event, Recorded
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.selection import Router, Selection
from aftersend.pipeline.word_lines import Ranges, WordLine

OTHERS = "*"
"""The line of words that the dialect does not know."""

LOOK_LIMIT = 10 * SECOND
"""How long the log is looked through for one batch; the next one goes on from there."""

_READ_EVENTS = 4_000
_READ_LEAST = 200
_KNOWN_LIMIT = 20_000
"""Events held in memory for one batch; what was found beyond is read again."""
_DENSE = 500
"""Positions this near to each other are read together."""

Found = dict[int, Event]
"""Events by their positions."""


class Search:
    """The log as one subscription sees it, by its dialect's words."""

    def __init__(self, subscription: Subscription, dialect: Dialect, log: Log, clock: Clock) -> None:
        self.words = (*dict.fromkeys(dialect.columns), OTHERS)
        self.log = log
        self._known = frozenset(self.words)
        self._tenant = subscription.tenant
        self._dialect = dialect
        self._router = Router([(True, Selection(subscription))])
        self._clock = clock

    def word(self, event: Event) -> str | None:
        """The word on whose line an event is; None: it is not told."""
        word = self._dialect.word(event)
        if word is None or word in self._known:
            return word
        return word.upper() if word.upper() in self._known else OTHERS

    async def look(self, lines: Mapping[str, WordLine], limit: int, known: Found) -> int:
        """Look through the log until lines have enough events; returns the position that all of them have come to."""
        deadline, asked = self._clock() + LOOK_LIMIT, min(max(limit, _READ_LEAST), _READ_EVENTS)
        while True:
            before = min(line.looked for line in lines.values())
            if sum([line.ready(before) for line in lines.values()]) >= limit or self._clock() > deadline:
                return before
            chunks = await self.log.read(before, asked)
            if not chunks:
                return before
            for recorded in chunks:
                self._see(recorded, lines, known)
                await asyncio.sleep(0)
            asked = min(2 * asked, _READ_EVENTS)

    def _see(self, recorded: Recorded, lines: Mapping[str, WordLine], known: Found) -> None:
        """Note the events of lines in a block."""
        if recorded.tenant == self._tenant:
            for index, event, _ in self._router.route(recorded.events):
                line = lines.get(self.word(event) or "")
                position = recorded.position + index
                if line is not None and position >= line.looked:
                    line.found.append(position)
                    if len(known) < _KNOWN_LIMIT:
                        known[position] = event
        for line in lines.values():
            line.looked = max(line.looked, recorded.next_position)

    async def fetch(self, positions: Sequence[int], known: Found) -> None:
        """Read events whose positions are known, rising; those near to each other together."""
        wanted, place = set(positions), 0
        while place < len(positions):
            near = place + 1 < len(positions) and positions[place + 1] - positions[place] < _DENSE
            chunks = await self.log.read(positions[place], _READ_EVENTS if near else 1)
            for recorded in chunks:
                if recorded.tenant == self._tenant:
                    numbered = enumerate(recorded.events, recorded.position)
                    known.update({at: event for at, event in numbered if at in wanted and self.word(event)})
                await asyncio.sleep(0)
            end = chunks[-1].next_position if chunks else positions[-1] + 1
            while place < len(positions) and positions[place] < end:
                place += 1

    async def within(self, ranges: Mapping[str, Ranges]) -> Found:
        """The events of ranges of lines, by word, as far as the log still has them."""
        position = min(spans[0][0] for spans in ranges.values())
        end = max(spans[-1][1] for spans in ranges.values())
        found: Found = {}
        while position <= end:
            chunks = await self.log.read(position, min(_READ_EVENTS, end - position + 1))
            if not chunks:
                break
            for recorded in chunks:
                if recorded.tenant == self._tenant:
                    found |= self._inside(recorded, ranges)
                await asyncio.sleep(0)
            position = chunks[-1].next_position
        return found

    def _inside(self, recorded: Recorded, ranges: Mapping[str, Ranges]) -> Found:
        found: Found = {}
        for index, event, _ in self._router.route(recorded.events):
            at = recorded.position + index
            if any(first <= at <= last for first, last in ranges.get(self.word(event) or "", ())):
                found[at] = event
        return found

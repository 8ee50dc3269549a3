"""A subscription's line as pullers see it: what was handed out, and behind it what the feed brings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aftersend.contracts import Cursor, Dialect, Lease
from aftersend.core.errors import StoreBusyError
from aftersend.core.event import Event
from aftersend.core.registry import Subscription
from aftersend.pipeline.feed import Feed, Inbox
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.window import LIMIT, Entry, Settled, Spans, Window

INBOX_EVENTS = 2_000
"""Events that are kept ready for the next consumer."""

MARKS: tuple[Settled, ...] = ("acknowledged", "aside")
"""Ids of the rows that keep what is settled above the cursor."""

_READ_EVENTS = 4_000


class Line:
    """The window of a line and the inbox behind it."""

    def __init__(self, subscription: Subscription, dialect: Dialect, feed: Feed, ledger: Ledger) -> None:
        self.subscription = subscription
        self.window = Window(ledger.cursor(subscription.id))
        self._feed = feed
        self._ledger = ledger
        self._marks: dict[str, Spans] = {}
        self._inbox = Inbox(feed, subscription, dialect.word, self.window.cursor.position, INBOX_EVENTS)

    def listen(self, arrived: asyncio.Event) -> None:
        """Set this when events arrive."""
        self._inbox.arrived = arrived

    def leave(self) -> None:
        """Follow no more."""
        self._feed.leave(self._inbox)

    def is_current(self, subscription: Subscription, cursor: Cursor) -> bool:
        """Whether nobody changed the record, or moved the cursor, from outside."""
        return subscription is self.subscription and self.window.cursor == cursor

    async def restore(self, leases: Sequence[Lease]) -> None:
        """Read what was handed out before. Raises StoreBusyError while the feed is not there again after a start."""
        end = max([last + 1 for lease in leases for _, last in lease.positions], default=0)
        if self._feed.position < end:
            raise StoreBusyError(f"{self.subscription.name} is not ready after the start; try again in a moment")
        await self._read_to(end)
        for lease in leases:
            if lease.state == "acknowledged":
                state: Settled = "aside" if lease.id == "aside" else "acknowledged"
                self.window.settle(self.window.find(lease.positions), state)
                self._marks[lease.id] = lease.positions
        for entry in self.window.waiting:
            entry.event = None

    async def _read_to(self, end: int) -> None:
        inbox = self._inbox
        while self.window.cursor.position < end:
            await inbox.fill()
            while inbox.waiting and inbox.waiting[0][0] < end:
                self.window.add(*inbox.waiting.popleft())
            if inbox.waiting or inbox.following:
                return

    async def gather(self, most: int) -> None:
        """Have so many events wait in the window, where there are so many."""
        window, inbox = self.window, self._inbox
        while len(window.waiting) < most and len(window) < LIMIT:
            if not inbox.waiting and not inbox.following:
                await inbox.fill()
            if not inbox.waiting:
                break
            for _ in range(min(most - len(window.waiting), LIMIT - len(window), len(inbox.waiting))):
                window.add(*inbox.waiting.popleft())
        if not len(window):
            self._ledger.passed(self.subscription.id, inbox.position)
            window.move(self._ledger.cursor(self.subscription.id))

    def has_more(self) -> bool:
        """Whether anything waits to be handed out."""
        return bool(self.window.waiting or self._inbox.waiting or not self._inbox.following)

    async def load(self, entries: Sequence[Entry]) -> list[tuple[Entry, Event]]:
        """Entries with their events; those that the log has lost are settled, and left out."""
        missing = {entry.position: entry for entry in entries if entry.event is None}
        while missing:
            chunks = await self._feed.log.read(min(missing), _READ_EVENTS)
            for chunk in chunks:
                for position in [position for position in missing if position < chunk.next_position]:
                    entry = missing.pop(position)
                    if position >= chunk.position:
                        entry.event = chunk.events[position - chunk.position]
            if not chunks:
                break
        lost = [entry for entry in entries if entry.event is None]
        if lost:
            self.window.settle(lost, "aside")
        return [(entry, entry.event) for entry in entries if entry.event is not None]

    def marks(self, cursor: Cursor) -> tuple[list[Lease], list[Lease]]:
        """Rows for what is settled above a cursor, to write and to drop, where they have changed."""
        put: list[Lease] = []
        drop: list[Lease] = []
        for name in MARKS:
            positions = self.window.spans(name, cursor)
            if positions != self._marks.get(name, ()):
                self._marks[name] = positions
                (put if positions else drop).append(Lease(name, self.subscription.id, "", positions, 0, "acknowledged"))
        return put, drop

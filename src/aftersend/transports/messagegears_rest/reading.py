"""Reading the log for the events of a day, whenever they arrived."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from aftersend.contracts import Log
from aftersend.core.errors import StoreError, UsageError
from aftersend.core.event import Event
from aftersend.core.timestamps import SECOND

AHEAD = 14 * 3600 * SECOND
"""How far ahead of its receipt an event's time may be for it to be found: as far as time zones go.

Behind its receipt it may be as far as it likes: the log is read from here to its head.
"""
READ_EVENTS = 2_000
"""Events asked of the log at once."""


class DayReader:
    """The events of one tenant whose own time lies within some days."""

    def __init__(self, log: Log, tenant: str, wants: Callable[[Event], bool], since: int, until: int) -> None:
        self._log = log
        self._tenant = tenant
        self._wants = wants
        self._since = since
        self._until = until
        self._position = self._end = 0

    async def begin(self) -> None:
        """Find where to read. Raises UsageError for days that the log may no longer hold whole."""
        if self._since >= self._until:
            return
        self._end = self._log.head()
        self._position = await self._log.position_at(max(0, self._since - AHEAD))
        if self._log.tail() and self._position <= self._log.tail():
            raise UsageError("ActivityDate: what happened then is no longer kept whole.")

    async def runs(self) -> AsyncIterator[list[Event]]:
        """The events in the order of the log, run by run. Raises StoreError, also where retention overtakes."""
        while self._position < self._end:
            chunk = await self._log.read(self._position, READ_EVENTS)
            if not chunk or self._log.tail() > self._position:
                raise StoreError("the log's limit took events away while they were read")
            for recorded in chunk:
                self._position = recorded.next_position
                yield self._wanted(recorded.events) if recorded.tenant == self._tenant else []

    def _wanted(self, events: list[Event]) -> list[Event]:
        since, until, wants = self._since, self._until, self._wants
        return [event for event in events if since <= event.time < until and wants(event)]

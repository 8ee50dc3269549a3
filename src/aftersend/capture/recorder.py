"""The recorder: every hit into the log, or past its time into the spool, and from there into the log later.

What arrives while one append is under way is the next append, so that a thousand hits share a sync. A hit waits for
the log for at most 80 ms and for the spool for as long again; then whoever clicked goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec

from aftersend.capture.spool import Spool
from aftersend.contracts import Entry, Hits, Log, People
from aftersend.core.consent import Level, is_governed, level_of, lowered
from aftersend.core.errors import AftersendError, StoreError
from aftersend.core.event import Event
from aftersend.telemetry import Telemetry

LOG_SECONDS = 0.08
"""How long a hit waits for its commit."""
SPOOL_SECONDS = 0.08
"""How long it waits for the spool after that."""
GATHERED_LIMIT = 20_000
"""Hits that wait for the next append; what comes past it goes to the spool at once."""
PAUSE_SECONDS = 0.5
"""Between two tries to drain the spool while that fails."""

_PORTION_BYTES = 500_000

log = logging.getLogger("aftersend.capture")


class Spooled(msgspec.Struct, frozen=True, array_like=True):
    """An event as it waits in the spool."""

    event: Event
    level: int | None = None
    """Where its person's level was not known: the most that its link allows; it is judged when it leaves."""


_encode = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Spooled).decode
_UNKEEPABLE = b"-"
"""What stands in the spool for an event that no text can hold; it is told as lost when it leaves."""


class _Batch:
    """Hits that go into the log together, each with whoever waits for it."""

    __slots__ = ("events", "is_overdue", "timer", "waiting")

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.waiting: list[asyncio.Future[bool]] = []
        self.timer: asyncio.TimerHandle | None = None
        self.is_overdue = False

    def tell(self, kept: int) -> None:
        """Let those go on who still wait; so many of the hits, the first ones, are kept."""
        if self.timer is not None:
            self.timer.cancel()
        for number, future in enumerate(self.waiting):
            if not future.done():
                future.set_result(number < kept)


class Recorder:
    """See `contracts.Hits`; for the event loop that made it."""

    def __init__(
        self,
        *,
        log: Log,
        spool: Spool,
        people: People,
        consent_key: Callable[[], bytes],
        telemetry: Telemetry,
        judge: Callable[[Event], Event] = lambda event: event,
        treat: Callable[[Event], Event | None] = lambda event: event,
    ) -> None:
        """`consent_key` gives the secret that ids of anonymous events are made with; `judge` says who did it, and
        `treat` what the operator lets be kept of it (None: nothing).
        """
        self._judge = judge
        self._treat = treat
        self._log = log
        self._spool = spool
        self._people = people
        self._consent_key = consent_key
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._gathering = _Batch()
        self._under_way: _Batch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._spool_is_late = False
        telemetry.watch(lambda: [("spool_waiting_bytes", {}, spool.backlog)])

    async def record(self, event: Event, level: Level = Level.FULL) -> bool:
        """Keep an event as far as its level and its person's allow; see `contracts.Hits`."""
        if is_governed(event.type):
            if level is Level.NONE:
                return True
            try:
                event = self._judge(event)
            except Exception:
                log.exception("who made a hit could not be judged; it is kept without that")
            treated = self._treat(event)
            if treated is None:
                return True
            event = treated
            try:
                kept = self._lowered(event, level)
            except StoreError:
                return await self._set_aside([Spooled(event, int(level))]) > 0
            if kept is None:
                return True
            event = kept
        return await self._append_soon(event)

    def _lowered(self, event: Event, level: Level) -> Event | None:
        level = min(level, level_of(event, self._people.level))
        return event if level is Level.FULL else lowered(event, level, self._consent_key())

    def fault(self) -> str:
        """Why a hit might be lost now, in one line; empty: none will be."""
        late = "the spool does not answer" if self._spool_is_late else ""
        return self._spool.fault() or late

    # Into the log.

    async def _append_soon(self, event: Event) -> bool:
        batch = self._gathering
        is_stuck = self._under_way is not None and self._under_way.is_overdue
        if is_stuck or len(batch.events) >= GATHERED_LIMIT:
            return await self._set_aside([Spooled(event)]) > 0
        if not batch.events:
            batch.timer = self._loop.call_later(LOG_SECONDS, self._overdue, batch)
            if self._under_way is None:
                self._loop.call_soon(self._begin)
        future: asyncio.Future[bool] = self._loop.create_future()
        batch.events.append(event)
        batch.waiting.append(future)
        return await future

    def _begin(self) -> None:
        if self._under_way is None and self._gathering.events:
            batch, self._gathering = self._gathering, _Batch()
            self._under_way = batch
            self._start(self._append(batch))

    async def _append(self, batch: _Batch) -> None:
        try:
            await self._append_all(batch.events)
        except Exception as error:
            if not isinstance(error, AftersendError):
                log.exception("hits could not be appended")
            self._under_way = None
            self._overdue(batch)
        else:
            self._under_way = None
            batch.tell(len(batch.events))
        self._begin()

    async def _append_all(self, events: Sequence[Event]) -> None:
        by_tenant: dict[str, list[Event]] = {}
        for event in events:
            by_tenant.setdefault(event.tenant, []).append(event)
        for tenant, owned in by_tenant.items():
            await self._log.append(Entry(tenant, owned))

    # Into the spool.

    def _overdue(self, batch: _Batch) -> None:
        """The log did not keep them in time; what it still may keep has the same id and is one event."""
        if batch.is_overdue:
            return
        batch.is_overdue = True
        if batch.timer is not None:
            batch.timer.cancel()
        if batch is self._gathering:
            self._gathering = _Batch()
        self._start(self._rescue(batch))

    async def _rescue(self, batch: _Batch) -> None:
        batch.tell(await self._set_aside([Spooled(event) for event in batch.events]))

    async def _set_aside(self, spooled: Sequence[Spooled]) -> int:
        """How many of them, the first ones, are known to be in the spool when the time is over."""
        writing = asyncio.ensure_future(self._spool.write([_write(item) for item in spooled]))
        writing.add_done_callback(lambda done: self._count(len(spooled), done))
        done, _ = await asyncio.wait((writing,), timeout=SPOOL_SECONDS)
        self._spool_is_late = not done
        return writing.result() if done else 0

    def _count(self, hits: int, written: asyncio.Future[int]) -> None:
        self._spool_is_late = False
        kept = 0 if written.cancelled() or written.exception() is not None else written.result()
        if kept:
            self._telemetry.count("hits_spooled_total", kept)
        if kept < hits:
            self._telemetry.count("hits_lost_total", hits - kept)

    # Out of the spool.

    async def run(self) -> None:
        """Drain the spool whenever there is something in it, until cancelled."""
        while True:
            await self._spool.filled()
            try:
                emptied = await self.drain()
            except StoreError:
                emptied = False
            if not emptied:
                await asyncio.sleep(PAUSE_SECONDS)

    async def drain(self) -> bool:
        """Move what waits in the spool into the log; True: nothing waits any more. Raises StoreError.

        A portion leaves the spool when the log has it; after a crash in between it is offered again, and the log knows
        its ids.
        """
        while (portion := await self._spool.read(_PORTION_BYTES)) is not None:
            events = [event for payload in portion.payloads if (event := self._left(payload)) is not None]
            if events:
                await self._append_all(events)
            await self._spool.drained(portion)
            self._telemetry.count("hits_drained_total", len(events))
        return True

    def _left(self, payload: bytes) -> Event | None:
        try:
            spooled = _read(payload)
        except msgspec.MsgspecError as error:
            log.error("a hit in the spool cannot be read and is lost: %s", error)
            self._telemetry.count("hits_lost_total")
            return None
        event = spooled.event
        return event if spooled.level is None else self._lowered(event, Level(spooled.level))

    # Tasks.

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Wait for what is under way, at most as long as a hit would."""
        if self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=LOG_SECONDS + SPOOL_SECONDS)
        for task in tuple(self._tasks):
            task.cancel()


def _write(spooled: Spooled) -> bytes:
    try:
        return _encode(spooled)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return _UNKEEPABLE


_proof: type[Hits] = Recorder

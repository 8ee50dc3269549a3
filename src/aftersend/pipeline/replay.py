"""Telling events again, on request: a count first, then at a bounded rate, marked as a replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

from msgspec import structs

from aftersend.contracts import Clock, Dialect, Log, Replay, Transport
from aftersend.core.errors import UsageError
from aftersend.core.event import Event
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import parse_time
from aftersend.pipeline.backoff import wait_before_try
from aftersend.pipeline.selection import Selection

KEPT = 100
"""Replays that are remembered; the oldest goes."""

TRIES = 8
"""How often one parcel of a replay is tried before the replay ends as failed."""

_READ_EVENTS = 2_000


class Replayer:
    """Runs replays, each in a task of its own."""

    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._replays: dict[str, Replay] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = count(1)

    def of(self, subscription: str) -> list[Replay]:
        """The replays of a subscription, the oldest first."""
        return [replay for replay in self._replays.values() if replay.subscription == subscription]

    def stop(self) -> None:
        """End all of them."""
        for task in self._tasks:
            task.cancel()

    async def begin(
        self, subscription: Subscription, order: Replay, dialect: Dialect, form: str, transport: Transport
    ) -> Replay:
        """Count what would be told (`dry_run`), or begin to tell it. Raises UsageError for a time that is none."""
        run = _Run(self._log, self._clock, subscription, order, dialect, form, transport)
        replay = structs.replace(order, id=f"rpl_{next(self._numbers)}", subscription=subscription.id, state="running")
        replay.total = await run.total()
        if order.dry_run:
            replay.state = "done"
            await transport.close()
            return replay
        self._replays[replay.id] = replay
        while len(self._replays) > KEPT:
            self._replays.pop(next(iter(self._replays)))
        task = asyncio.create_task(run.tell(replay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return replay


class _Run:
    """One replay at work."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        subscription: Subscription,
        order: Replay,
        dialect: Dialect,
        form: str,
        transport: Transport,
    ) -> None:
        self._log = log
        self._subscription = subscription
        self._dialect = dialect
        self._form = form
        self._transport = transport
        self._rate = order.rate
        self._selections = (Selection(subscription), Selection(structs.replace(subscription, types=order.types)))
        try:
            self._since = parse_time(order.since)
            self._until = parse_time(order.until) if order.until else clock()
        except ValueError:
            raise UsageError("since and until are RFC 3339 times, e.g. 2026-01-31T08:00:00Z") from None

    async def total(self) -> int:
        """How many events it is about."""
        total = 0
        async for events in self._chunks():
            total += len(events)
        return total

    async def _chunks(self) -> AsyncIterator[list[Event]]:
        position = await self._log.position_at(self._since)
        end = await self._log.position_at(self._until)
        while position < end:
            chunks = await self._log.read(position, _READ_EVENTS)
            if not chunks:
                return
            for chunk in chunks:
                position = chunk.next_position
                if chunk.tenant == self._subscription.tenant and chunk.position < end:
                    yield [event for event in chunk.events if self._wanted(event)]

    def _wanted(self, event: Event) -> bool:
        in_time = self._since <= event.received_at < self._until
        return in_time and all(selection.wants(event) for selection in self._selections) and self._told(event)

    def _told(self, event: Event) -> bool:
        return self._dialect.word(event) is not None

    async def tell(self, replay: Replay) -> None:
        """Tell all of it."""
        try:
            async for events in self._chunks():
                size = self._subscription.batch.max_events
                for start in range(0, len(events), size):
                    await self._tell_batch(replay, events[start : start + size])
            replay.state = "done"
        except asyncio.CancelledError:
            replay.state = "cancelled"
            raise
        except _EndedError as end:
            replay.state, replay.detail = "failed", str(end)
        finally:
            await self._transport.close()

    async def _tell_batch(self, replay: Replay, events: list[Event]) -> None:
        for body in self._dialect.encode(events, self._form):
            parcel = Parcel(
                f"{replay.subscription}_{replay.id}_{replay.done}",
                body.data,
                body.content_type,
                (("aftersend-replay", replay.id),),
            )
            await self._send(parcel)
            replay.done += body.count
            if self._rate > 0:
                await asyncio.sleep(body.count / self._rate)

    async def _send(self, parcel: Parcel) -> None:
        outcome = Outcome(Verdict.FAILED)
        for failures in range(1, TRIES + 1):
            outcome = await self._transport.send(parcel)
            if outcome.verdict in (Verdict.TAKEN, Verdict.PARTLY):
                return
            if outcome.verdict is not Verdict.FAILED:
                break
            await asyncio.sleep(wait_before_try(failures, self._subscription.retry, outcome.retry_after, lambda: 0.5))
        raise _EndedError(outcome.detail)


class _EndedError(Exception):
    pass

"""Telling events again, on request: a count first, then at a bounded rate, marked as a replay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import cast

from msgspec import structs

from aftersend.contracts import Clock, Depot, Log, Replay, Transport
from aftersend.core.errors import AftersendError, UsageError
from aftersend.core.event import Body, Event
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.own_mail import teller
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import MILLISECOND, parse_time
from aftersend.pipeline.backoff import wait_before_try
from aftersend.pipeline.file_replay import FileReplay
from aftersend.pipeline.selection import Selection
from aftersend.pipeline.voice import Voice

KEPT = 100
"""Replays that are remembered; the oldest goes."""

RUNNING = 16
"""Replays that may run at once."""

TRIES = 8
"""How often one parcel of a replay is tried before the replay ends as failed."""

REFUSED_LIMIT = 32
"""Events refused in a row, none taken in between, after which the receiver is at fault and not the events."""

_READ_EVENTS = 2_000

log = logging.getLogger("aftersend.replay")


class Replayer:
    """Runs replays, each in a task of its own."""

    def __init__(self, log: Log, clock: Clock, data: Path = Path()) -> None:
        """`data` is the folder in which files are made before they go out."""
        self._log = log
        self._clock = clock
        self._data = data
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
        self,
        subscription: Subscription,
        order: Replay,
        voice: Voice,
        transport: Transport,
        log: Log | None = None,
    ) -> Replay:
        """Count what would be told (`dry_run`), or begin to tell it; out of `log` where it is not the common one.

        Raises UsageError for a time that is none, and where too many run already.
        """
        try:
            if len(self._tasks) >= RUNNING and not order.dry_run:
                raise UsageError(f"{RUNNING} replays are running; begin another when one of them is done")
            run = _Run(log or self._log, self._clock, subscription, order, voice, transport, self._data)
            total = await run.total()
        except BaseException:
            await transport.close()
            raise
        replay = structs.replace(order, id=self._new_id(), subscription=subscription.id, total=total, state="done")
        if order.dry_run:
            await transport.close()
        else:
            self._start(run, replay)
        return replay

    def _new_id(self) -> str:
        """Never one of an earlier process: parcels are named by it, and receivers drop names that they know."""
        return f"rpl_{self._clock() // MILLISECOND:x}_{next(self._numbers)}"

    def _start(self, run: _Run, replay: Replay) -> None:
        replay.state = "running"
        self._replays[replay.id] = replay
        while len(self._replays) > KEPT:
            self._replays.pop(next(iter(self._replays)))
        task = asyncio.create_task(run.tell(replay))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class _Run:
    """One replay at work."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        subscription: Subscription,
        order: Replay,
        voice: Voice,
        transport: Transport,
        data: Path,
    ) -> None:
        self._log = log
        self._subscription = subscription
        self._voice = voice
        self._data = data
        self._clock = clock
        self._word = teller(subscription, voice.word)
        self._transport = transport
        self._rate = order.rate
        self._selections = (Selection(subscription), Selection(structs.replace(subscription, types=order.types)))
        self._offered = self._refused = self._refused_in_a_row = 0
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
        """By the time at which blocks were kept, so that replays of adjoining times leave nothing out between them."""
        position = await self._log.position_at(self._since)
        end = await self._log.position_at(self._until)
        while position < end:
            chunks = await self._log.read(position, _READ_EVENTS)
            if not chunks:
                return
            position = chunks[-1].next_position
            mine = [chunk for chunk in chunks if chunk.tenant == self._subscription.tenant and chunk.position < end]
            yield [event for chunk in mine for event in chunk.events if self._wanted(event)]

    def _wanted(self, event: Event) -> bool:
        wanted = all(selection.wants(event) for selection in self._selections)
        return wanted and self._word(event) is not None

    async def tell(self, replay: Replay) -> None:
        """Tell all of it; how it ended stands in the replay."""
        try:
            if self._transport.carries == "volumes":
                await self._tell_in_files(replay)
            else:
                await self._tell_in_batches(replay)
            replay.state = "done"
        except asyncio.CancelledError:
            replay.state = "cancelled"
            raise
        except (_EndedError, AftersendError) as end:
            replay.state, replay.detail = "failed", str(end)
        except Exception:
            log.exception("the replay %s broke", replay.id)
            replay.state, replay.detail = "failed", "a fault of ours; it is in the log"
        finally:
            await self._transport.close()

    async def _tell_in_batches(self, replay: Replay) -> None:
        async for events in self._chunks():
            for start in range(0, len(events), self._batch_size()):
                await self._tell_run(replay, events[start : start + self._batch_size()])

    async def _tell_in_files(self, replay: Replay) -> None:
        async def note(count: int) -> None:
            replay.done += count
            if self._rate > 0:
                await asyncio.sleep(count / self._rate)

        files = FileReplay(
            replay.id,
            self._subscription,
            self._voice,
            cast(Depot, self._transport),
            data=self._data,
            clock=self._clock,
            until_taken=self._until_answered,
            note=note,
        )
        await files.tell(self._chunks())

    def _batch_size(self) -> int:
        """No more at once than a second's worth."""
        most = self._subscription.batch.max_events
        return max(1, int(min(most, self._rate))) if self._rate > 0 else most

    async def _tell_run(self, replay: Replay, events: list[Event]) -> None:
        """Tell a run of events, in halves where it is too large or refused."""
        start = 0
        for body in self._voice.encode(events):
            part = events[start : start + body.count]
            start += body.count
            fits = body.count == 1 or body.size <= self._subscription.batch.max_bytes
            if fits and await self._is_taken(replay, body):
                continue
            if body.count > 1:
                await self._tell_run(replay, part[: body.count // 2])
                await self._tell_run(replay, part[body.count // 2 :])
            else:
                self._pass_over(replay)

    def _pass_over(self, replay: Replay) -> None:
        self._offered += 1
        self._refused_in_a_row += 1
        self._note_refused(replay, 1)
        if self._refused_in_a_row >= REFUSED_LIMIT:
            raise _EndedError(f"the receiver refused {REFUSED_LIMIT} events, one after the other")

    def _note_refused(self, replay: Replay, number: int) -> None:
        self._refused += number
        if self._refused:
            replay.detail = f"events that the receiver refused: {self._refused}"

    async def _is_taken(self, replay: Replay, body: Body) -> bool:
        """Send a body until it is taken or refused. Raises _EndedError where the receiver only fails."""
        numbers = f"{self._offered + 1}-{self._offered + body.count}"
        name = f"{replay.subscription}_{replay.id}_{numbers}"
        headers = (("aftersend-replay", replay.id),)
        outcome = await self._sent(Parcel(name, body.data, body.content_type, headers, body.pieces))
        if outcome.verdict not in (Verdict.TAKEN, Verdict.PARTLY):
            return False
        self._offered += body.count
        self._refused_in_a_row = 0
        self._note_refused(replay, len(outcome.failed))
        replay.done += body.count - len(outcome.failed)
        if self._rate > 0:
            await asyncio.sleep(body.count / self._rate)
        return True

    async def _sent(self, parcel: Parcel) -> Outcome:
        return await self._until_answered(lambda: self._transport.send(parcel))

    async def _until_answered(self, hand_over: Callable[[], Awaitable[Outcome]]) -> Outcome:
        """Try until there is an answer. Raises _EndedError where the receiver only fails."""
        outcome = Outcome(Verdict.FAILED)
        for failures in range(1, TRIES + 1):
            outcome = await hand_over()
            if outcome.verdict is Verdict.GONE:
                break
            if outcome.verdict is not Verdict.FAILED:
                return outcome
            if failures < TRIES:
                wait = wait_before_try(failures, self._subscription.retry, outcome.retry_after, lambda: 0.5)
                await asyncio.sleep(wait)
        raise _EndedError(outcome.detail or "the receiver did not take it")


class _EndedError(Exception):
    pass

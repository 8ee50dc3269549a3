"""One subscription's line where its transport carries files: gather a file, hand it over, move the cursor.

The cursor stands until a file is with its receiver. What is being written is worth nothing after a crash and is written
anew from the log; what is planned has a fixed name and fixed bytes, and is handed over again until it is taken.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from aftersend.contracts import Clock, Cursors, Depot, Transport
from aftersend.core.errors import ConfigurationError, StoreError
from aftersend.core.event import Event
from aftersend.core.framing import Framing
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.rotation import Rotation, period_of
from aftersend.core.timestamps import DAY, SECOND
from aftersend.pipeline.aside import FULL, LIMIT
from aftersend.pipeline.draft import Draft, framing_for
from aftersend.pipeline.feed import Feed, Inbox
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.outbox import Outbox, Plan
from aftersend.pipeline.patience import Patience
from aftersend.pipeline.shipment import DisabledError, Standing
from aftersend.pipeline.voice import Voice

INBOX_EVENTS = 8_000
"""Events that wait in memory."""

RUN_EVENTS = 2_000
"""Events written at once."""

LAG = 2 * SECOND
"""How long after the end of a period its last events may still come through the feed."""

_LOOK_SECONDS = 60.0
"""How long is waited at most before the clock is looked at again."""

P = ParamSpec("P")
T = TypeVar("T")


class Filer:
    """Delivers one subscription, one file after the other; to others it looks like a `Dispatcher`."""

    def __init__(
        self,
        subscription: Subscription,
        voice: Voice,
        transport: Transport,
        *,
        rotation: Rotation,
        data: Path,
        feed: Feed,
        ledger: Ledger,
        cursors: Cursors,
        clock: Clock,
        chance: Callable[[], float],
        disable: Callable[[Subscription, str], Awaitable[None]],
        lag: int = LAG,
        standing: Standing | None = None,
    ) -> None:
        """`transport` carries volumes, `data` is the data folder; `lag` (ns) is how much later than they are received
        events may come through the feed; `standing` is that of a filer that was broken off amid failures."""
        self.subscription = subscription
        self.standing = standing or Standing(failing_since=subscription.failing_since)
        self.inbox: Inbox | None = None
        self.sending = asyncio.Lock()
        """Held while a file is handed over and that is noted: who holds it may end the filer without a repeat."""
        self._voice = voice
        self._transport = transport
        self._depot = cast(Depot, transport)
        self._rotation = rotation
        self._outbox = Outbox(data, subscription.id)
        self._feed = feed
        self._ledger = ledger
        self._cursors = cursors
        self._clock = clock
        self._disable = disable
        self._lag = lag
        self._id = subscription.id
        self._patience = Patience(subscription, self.standing, clock, chance)
        self._covered = 0
        """The end of the last period that has its files; 0: not known."""

    async def rest(self) -> None:
        """Wait for the next try, where one was broken off before it."""
        seconds = (self.standing.next_try_at - self._clock()) / SECOND
        if seconds > 0:
            await self._patience.wait(seconds)

    async def run(self) -> None:
        """Deliver until cancelled or disabled."""
        try:
            framing = self._framing()
            plan = await self._planned_before()
            if plan is not None:
                await self._deliver(plan)
            position = self._ledger.cursor(self._id).position
            inbox = self.inbox = Inbox(self._feed, self.subscription, self._voice.word, position, INBOX_EVENTS)
            while True:
                plan = await self._next_plan(inbox, framing)
                if plan is not None:
                    await self._deliver(plan)
        except DisabledError as end:
            await self._disable(self.subscription, str(end))
        finally:
            if self.inbox is not None:
                self._feed.leave(self.inbox)
                self.inbox.waiting.clear()

    async def close(self) -> None:
        """Let go of the transport."""
        await self._transport.close()

    def nudge(self) -> None:
        """Try at once what waits for its next try, and look at the clock."""
        self._patience.nudge()
        if self.inbox is not None:
            self.inbox.arrived.set()

    def _framing(self) -> Framing:
        """How the files are made; a library that is gone or a rule that is new may forbid what was allowed before."""
        try:
            return framing_for(self._voice.dialect, self._voice.form, self._rotation)
        except ConfigurationError as error:
            raise DisabledError(str(error)) from None

    # --- gathering

    async def _planned_before(self) -> Plan | None:
        """What was on its way when the process ended, fixed as it was then."""
        while True:
            try:
                plan = await _on_disk(self._outbox.open, self._ledger.cursor(self._id), self._rotation)
            except _DiskError as error:
                await self._failed(self._fault(error))
            else:
                self._covered = self._outbox.names.until
                return plan

    async def _next_plan(self, inbox: Inbox, framing: Framing) -> Plan | None:
        """Gather one file's events; None where the disk did not take them."""
        draft = await self._begin(inbox, framing)
        try:
            await self._fill(draft, inbox)
            position = inbox.waiting[0][0] if inbox.waiting else inbox.position
            return await _on_disk(draft.finish, position, self._clock)
        except _DiskError as error:
            draft.abandon()
            inbox.restart(self._ledger.cursor(self._id).position)
            await self._failed(self._fault(error))
            return None
        finally:
            draft.abandon()

    async def _begin(self, inbox: Inbox, framing: Framing) -> Draft:
        """A draft for the next file, as soon as there is anything to put into it."""
        while True:
            line = await self._line(inbox)
            if line:
                self._ledger.passed(self._id, line[0][0])
            now = line[0][1].received_at if line else self._clock() - self._lag
            period = period_of(now, self._rotation)
            silent = None if framing.type_of else self._silent_before(period[0])
            if line or silent:
                cursor = self._ledger.cursor(self._id)
                return Draft(self.subscription, self._rotation, framing, self._outbox, cursor, silent or period)
            self._ledger.passed(self._id, inbox.position)
            inbox.at_rest = True
            await self._pause(inbox, period[1] + self._lag)
            inbox.at_rest = False

    async def _fill(self, draft: Draft, inbox: Inbox) -> None:
        """Take events until one belongs into the next file, or the period is over."""
        while not draft.is_full:
            line = await self._line(inbox)
            if line:
                for _ in range(await _on_disk(draft.add, line)):
                    inbox.waiting.popleft()
            elif self._clock() >= draft.period[1] + self._lag:
                return
            else:
                await self._pause(inbox, draft.period[1] + self._lag)

    def _silent_before(self, start: int) -> tuple[int, int] | None:
        """The next period without events that gets an empty file: it lies before the one that begins at `start`."""
        if not self._rotation.empty:
            return None
        if not start - DAY < self._covered:
            self._covered = start
        return period_of(self._covered, self._rotation) if self._covered < start else None

    async def _line(self, inbox: Inbox) -> list[tuple[int, Event]]:
        """The next events, left where they wait; empty where there are none for now."""
        if len(inbox.waiting) < RUN_EVENTS and not inbox.following:
            await inbox.fill()
        return list(islice(inbox.waiting, RUN_EVENTS))

    async def _pause(self, inbox: Inbox, until: int) -> None:
        """Until events arrive, or a time (ns); the clock may be set meanwhile."""
        seconds = min(max(0.0, (until - self._clock()) / SECOND), _LOOK_SECONDS)
        inbox.arrived.clear()
        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(seconds):
                await inbox.arrived.wait()
        except TimeoutError:
            pass

    # --- handing over

    async def _deliver(self, plan: Plan) -> None:
        """Hand the files of a plan over, however long that takes, and move the cursor past them."""
        while plan.aside and len(await self._cursors.list_set_aside(self._id, LIMIT)) >= LIMIT:
            await self._failed(Outcome(Verdict.FAILED, FULL))
        for volume in plan.volumes[:-1]:
            await self._until_taken(partial(self._depot.put, volume))
        await self._until_taken(partial(self._hand_over_last, plan))
        self.standing.delivered += plan.tally.count
        self._covered = max(self._covered, plan.until)
        while True:
            try:
                return await _on_disk(self._outbox.clear, plan)
            except _DiskError as error:
                await self._failed(self._fault(error))

    async def _until_taken(self, hand_over: Callable[[], Awaitable[Outcome]]) -> None:
        while True:
            async with self.sending:
                self.standing.requests += 1
                outcome = await hand_over()
            if outcome.verdict is Verdict.TAKEN:
                self.standing.recovered()
                return
            if outcome.verdict is Verdict.GONE:
                raise DisabledError(outcome.detail or "the receiver wants nothing any more")
            await self._failed(outcome)

    async def _hand_over_last(self, plan: Plan) -> Outcome:
        """Hand the last file over and note that all of them are; where it cannot be noted, it is handed over again."""
        outcome = await self._depot.put(plan.volumes[-1]) if plan.volumes else Outcome(Verdict.TAKEN)
        if outcome.verdict is not Verdict.TAKEN:
            return outcome
        note = self._ledger.settle(self._id, plan.cursor.position, plan.tally, self._clock(), plan.aside)
        try:
            await _to_the_end(asyncio.ensure_future(note))
        except StoreError as error:
            return Outcome(Verdict.FAILED, str(error), ours=True)
        return outcome

    async def _failed(self, outcome: Outcome) -> None:
        """Wait for the next try; raises DisabledError where there is to be none."""
        wait = self._patience.failed(outcome)
        if self._patience.breaks() and self.inbox is not None and self.inbox.waiting:
            self.inbox.restart(self.inbox.waiting[0][0])
        await self._patience.wait(wait)

    def _fault(self, error: Exception) -> Outcome:
        return Outcome(Verdict.FAILED, f"{self._outbox.folder}: the file cannot be written: {error}", ours=True)


class _DiskError(Exception):
    """Our own disk did not take something."""


async def _on_disk(work: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
    """Do what waits for the disk in a thread. Raises _DiskError."""
    try:
        return await _to_the_end(asyncio.get_running_loop().run_in_executor(None, partial(work, *args, **named)))
    except OSError as error:
        raise _DiskError((error.strerror or str(error)).lower()) from None


async def _to_the_end(task: asyncio.Future[T]) -> T:
    """Wait for what must not be left half done: who is called off meanwhile waits all the same."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise

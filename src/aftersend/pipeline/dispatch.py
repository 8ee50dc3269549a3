"""One subscription's line: gather a batch, tell it, act on the answer, move the cursor."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from msgspec import structs

from aftersend.contracts import Clock, Cursors, Transport
from aftersend.core.event import Body
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.aside import FULL, Aside
from aftersend.pipeline.feed import Feed, Inbox
from aftersend.pipeline.lanes import Lanes
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.patience import Patience
from aftersend.pipeline.shipment import (
    DisabledError,
    Run,
    Shipment,
    Standing,
    parcel_of,
    refused_of,
)
from aftersend.pipeline.speaker import Speaker
from aftersend.pipeline.voice import Voice

REQUESTS_PER_BATCH = 32
"""How many requests the search for a poison event may take in one batch."""

SINGLES_PER_ROUND = 64
"""Events taken from the inbox at once where each has a body of its own."""

_NO_BODY = Body(b"", "", 1)


class Dispatcher:
    """Delivers one subscription, one batch after the other."""

    def __init__(
        self,
        subscription: Subscription,
        voice: Voice,
        transport: Transport,
        *,
        feed: Feed,
        ledger: Ledger,
        cursors: Cursors,
        speaker: Speaker,
        clock: Clock,
        chance: Callable[[], float],
        disable: Callable[[Subscription, str], Awaitable[None]],
        standing: Standing | None = None,
    ) -> None:
        """`standing` is that of a dispatcher that was broken off amid failures."""
        self.subscription = subscription
        self.standing = standing or Standing(failing_since=subscription.failing_since)
        self.inbox: Inbox | None = None
        self.sending = asyncio.Lock()
        """Held from a request to the note of its outcome: who holds it may end the dispatcher without a repeat."""
        self._voice = voice
        self._transport = transport
        self._feed = feed
        self._ledger = ledger
        self._speaker = speaker
        self._clock = clock
        self._disable = disable
        self._id = subscription.id
        self._strict = subscription.ordering == "strict"
        self._single = voice.is_single or subscription.batch.max_events == 1
        self._batch_limit = SINGLES_PER_ROUND if self._single else subscription.batch.max_events
        self._event_bytes = 0.0
        self._patience = Patience(subscription, self.standing, clock, chance)
        self._suspects: list[Shipment] = []
        self._lanes = Lanes(self._id, subscription.concurrency, voice, transport)
        self._aside = Aside(
            subscription,
            voice,
            transport,
            cursors=cursors,
            standing=self.standing,
            clock=clock,
            chance=chance,
        )

    async def run(self) -> None:
        """Deliver until cancelled or disabled."""
        position = self._ledger.cursor(self._id).position
        limit = max(2 * self.subscription.batch.max_events, SINGLES_PER_ROUND)
        inbox = self.inbox = Inbox(self._feed, self.subscription, self._voice.word, position, limit)
        await self._aside.look()
        try:
            while True:
                if self._aside.is_due():
                    async with self.sending:
                        await self._aside.deliver()
                line = await self._gather(inbox)
                if line:
                    await self._deliver(inbox, line)
        except DisabledError as end:
            await self._disable(self.subscription, str(end))
        finally:
            self._feed.leave(inbox)
            inbox.waiting.clear()

    async def close(self) -> None:
        """Let go of the transport."""
        await self._transport.close()

    async def rest(self) -> None:
        """Wait for the next try, where one was broken off before it."""
        seconds = (self.standing.next_try_at - self._clock()) / SECOND
        if seconds > 0:
            await self._patience.wait(seconds)

    def nudge(self) -> None:
        """Try at once what waits for its next try."""
        self._patience.nudge()

    # --- gathering

    async def _gather(self, inbox: Inbox) -> Run:
        """The next events of the line; empty where there are none for a while."""
        waiting = inbox.waiting
        if len(waiting) < self._batch_limit and not inbox.following:
            await inbox.fill()
        if not waiting:
            self._ledger.passed(self._id, inbox.position)
            inbox.at_rest = True
            await self._pause(inbox, self._aside.seconds(60.0))
            inbox.at_rest = False
            if waiting:
                self._ledger.passed(self._id, waiting[0][0])
            return []
        if len(waiting) < self._batch_limit and inbox.following and not self._single:
            await self._wait_for_more(inbox)
        count = min(len(waiting), self._batch_limit, self._count_by_bytes())
        return [waiting.popleft() for _ in range(count)]

    def _count_by_bytes(self) -> int:
        if self._single or not self._event_bytes:
            return self._batch_limit
        return max(1, int(self.subscription.batch.max_bytes / self._event_bytes))

    async def _wait_for_more(self, inbox: Inbox) -> None:
        deadline = self._clock() + int(self.subscription.batch.max_wait * SECOND)
        while len(inbox.waiting) < self._batch_limit and inbox.following:
            seconds = (deadline - self._clock()) / SECOND
            if seconds <= 0:
                return
            await self._pause(inbox, seconds)

    async def _pause(self, inbox: Inbox, seconds: float) -> None:
        """Until events arrive, or for that many seconds."""
        inbox.arrived.clear()
        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(seconds):
                await inbox.arrived.wait()
        except TimeoutError:
            pass

    # --- delivering

    async def _deliver(self, inbox: Inbox, line: Run) -> None:
        """Send a batch; look for the poison event where it is refused; move the cursor past what is settled."""
        if self.subscription.concurrency > 1 and len(line) > 1:
            await self._deliver_lanes(line)
            return
        shipments = deque(self._shipments(line, self._ledger.cursor(self._id).sequence + 1))
        accepted = False
        requests = 0
        while shipments:
            shipment = shipments.popleft()
            async with self.sending:
                outcome = await self._send(shipment)
                is_taken = outcome.verdict is Verdict.TAKEN or (outcome.verdict is Verdict.PARTLY and not self._strict)
                if is_taken:
                    accepted = await self._taken(shipment, outcome) or accepted
            if outcome.verdict is Verdict.FAILED:
                await self._endpoint_failed(outcome)
                shipments.appendleft(shipment)
                continue
            requests += 1
            if is_taken:
                continue
            if len(shipment.line) > 1 and requests < REQUESTS_PER_BATCH:
                shipments.extendleft(reversed(self._halves(shipment, outcome)))
            elif len(shipment.line) > 1 or self._strict:
                await self._back_to_line(inbox, [shipment, *shipments], outcome, accepted)
                return
            else:
                self._suspects.append(structs.replace(shipment, detail=outcome.detail))
                if accepted:
                    await self._believe()
                elif self._single and len(self._suspects) > 1:
                    await self._back_to_line(inbox, list(shipments), outcome, accepted)
                    return
        if self._suspects:
            await self._back_to_line(inbox, [], Outcome(Verdict.FAILED, "it refused every event"), accepted)

    def _shipments(self, line: Run, sequence: int) -> list[Shipment]:
        """The line as bodies, none larger than the batch's bytes unless one event alone is."""
        if self._single:
            bodies = [self._voice.encode([event])[0] for _, event in line]
            return [
                Shipment([item], body, number)
                for number, (item, body) in enumerate(zip(line, bodies, strict=True), sequence)
            ]
        events = [event for _, event in line]
        bodies = self._speaker.bodies(self._voice, [position for position, _ in line], events)
        size = sum([body.size for body in bodies])
        self._event_bytes = size / len(line)
        if len(bodies) == 1 and size > self.subscription.batch.max_bytes and len(line) > 1:
            middle = len(line) // 2
            return [*self._shipments(line[:middle], sequence), *self._shipments(line[middle:], sequence + middle)]
        shipments = []
        start = 0
        for body in bodies:
            shipments.append(Shipment(line[start : start + body.count], body, sequence + start))
            start += body.count
        return shipments

    def _halves(self, shipment: Shipment, outcome: Outcome) -> list[Shipment]:
        middle = len(shipment.line) // 2
        if outcome.verdict is Verdict.TOO_LARGE:
            self._batch_limit = max(1, min(self._batch_limit, middle))
        first = self._shipments(shipment.line[:middle], shipment.sequence)
        return [*first, *self._shipments(shipment.line[middle:], shipment.sequence + middle)]

    async def _send(self, shipment: Shipment) -> Outcome:
        first, last = shipment.sequence, shipment.sequence + len(shipment.line) - 1
        epoch = self._ledger.cursor(self._id).epoch
        previous = ("aftersend-previous", str(first - 1))
        self.standing.requests += 1
        outcome = await self._transport.send(parcel_of(self._id, epoch, f"{first}-{last}", shipment.body, previous))
        if outcome.verdict is Verdict.GONE:
            raise DisabledError(outcome.detail or "the receiver answered 410 (gone)")
        return outcome

    async def _taken(self, shipment: Shipment, outcome: Outcome) -> bool:
        """Move the cursor past what was taken; False where every event of it was named as failed."""
        refused = {suspect.sequence: suspect for suspect in refused_of(shipment, outcome.failed, outcome.detail)}
        if len(refused) == len(shipment.line):
            self._suspects.extend(refused.values())
            return False
        self.standing.recovered()
        self.standing.detail = outcome.detail
        await self._believe()
        if not refused:
            await self._told(shipment.line)
            return True
        for sequence, item in enumerate(shipment.line, shipment.sequence):
            if sequence in refused:
                self._suspects.append(refused[sequence])
                await self._believe()
            else:
                await self._told([item])
        return True

    async def _told(self, line: Run) -> None:
        self.standing.delivered += len(line)
        await self._ledger.told(self._id, line[-1][0] + 1, [event for _, event in line], self._clock())

    async def _believe(self) -> None:
        """The receiver takes others, so what it refused singly leaves the line."""
        if not self._suspects:
            return
        while self._aside.is_full():
            await self._endpoint_failed(Outcome(Verdict.FAILED, FULL))
            await self._aside.deliver()
        suspects, self._suspects = self._suspects, []
        taken = self._aside.take(suspects, self._ledger.cursor(self._id).epoch)
        await self._ledger.set_aside(self._id, taken[-1].position + 1, taken)

    async def _back_to_line(self, inbox: Inbox, rest: Sequence[Shipment], outcome: Outcome, accepted: bool) -> None:
        """Nothing proves the events and not the receiver at fault: the cursor stands, and all is tried again."""
        again = [item for shipment in (*self._suspects, *rest) for item in shipment.line]
        self._suspects = []
        inbox.waiting.extendleft(reversed(again))
        if not accepted:
            lone = len(inbox.waiting) == 1 and not self._strict
            await self._endpoint_failed(outcome, inbox if lone else None)

    # --- failing

    async def _endpoint_failed(self, outcome: Outcome, until_more: Inbox | None = None) -> None:
        """Wait for the next try; with `until_more`, an arrival ends the wait, because it may prove a poison event."""
        wait = self._patience.failed(outcome)
        if self._patience.breaks() and self.inbox is not None and self.inbox.waiting:
            self.inbox.restart(self.inbox.waiting[0][0])
        if until_more is not None:
            await self._pause(until_more, wait)
        else:
            await self._patience.wait(wait)

    # --- lanes

    async def _deliver_lanes(self, line: Run) -> None:
        """Without order: the cursor moves when all lanes have arrived."""
        cursor = self._ledger.cursor(self._id)
        numbers = {position: cursor.sequence + index for index, (position, _) in enumerate(line, 1)}
        pending, accepted = self._lanes.split(line), False
        refused: Run = []
        while pending:
            results = await self._lanes.send(pending, cursor.epoch, numbers, self.standing)
            pending = [result.left for result in results if result.left]
            refused.extend(item for result in results for item in result.refused)
            accepted = accepted or any(result.taken for result in results)
            failure = next((result.failure for result in results if result.failure), None)
            if failure is None and refused and not accepted:
                pending, refused = [refused], []
                failure = Outcome(Verdict.FAILED, "it refused every event")
            if failure is not None:
                await self._endpoint_failed(failure)
        self.standing.recovered()
        poison = {position for position, _ in refused}
        for position, event in line:
            if position in poison:
                self._suspects.append(Shipment([(position, event)], _NO_BODY, numbers[position]))
                await self._believe()
            else:
                await self._told([(position, event)])

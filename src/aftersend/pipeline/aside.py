"""The events beside the line: refused singly, tried again on their own schedule, marked late."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from aftersend.contracts import Clock, Cursors, SetAside, Transport
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.backoff import wait_before_try
from aftersend.pipeline.shipment import DisabledError, Shipment, Standing, parcel_of
from aftersend.pipeline.voice import Voice

PER_ROUND = 20
"""Events that are tried between two batches."""

LIMIT = 10_000
"""Most events beside the line; past it the line stands until some are taken or discarded."""

FULL = f"{LIMIT} events are set aside; discard them, or have the receiver take them, and the line goes on"


class Aside:
    """The set-aside events of one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        voice: Voice,
        transport: Transport,
        *,
        cursors: Cursors,
        standing: Standing,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._subscription = subscription
        self._voice = voice
        self._transport = transport
        self._cursors = cursors
        self._standing = standing
        self._clock = clock
        self._chance = chance
        self._next_at = 0
        self._count = 0

    async def look(self) -> None:
        """Find out when the next event is due."""
        found = await self._cursors.list_set_aside(self._subscription.id, LIMIT)
        late = [item.next_at for item in found if item.state == "late"]
        self._standing.late = len(late)
        self._count = len(found)
        self._next_at = min(late, default=0)

    def is_due(self) -> bool:
        """Whether an event waits to be tried again now."""
        return 0 < self._next_at <= self._clock()

    def is_full(self) -> bool:
        """Whether there is no room beside the line."""
        return self._count >= LIMIT

    def seconds(self, most: float) -> float:
        """Seconds until the next one is due, at most `most`."""
        if not self._next_at:
            return most
        return min(most, max(0.0, (self._next_at - self._clock()) / SECOND))

    def take(self, suspects: list[Shipment], epoch: int) -> list[SetAside]:
        """Records of events that leave the line now."""
        next_at = self._due_after(1, None)
        taken = []
        for suspect in suspects:
            ((position, event),) = suspect.line
            detail = suspect.detail or "refused singly while others were taken"
            id_ = self._subscription.id
            taken.append(SetAside(id_, position, event, 1, next_at, detail, "late", epoch, suspect.sequence))
        self._standing.late += len(taken)
        self._count += len(taken)
        self._next_at = min(self._next_at or next_at, next_at)
        return taken

    async def deliver(self) -> None:
        """Try those that are due. Raises DisabledError where the receiver wants nothing any more."""
        due = await self._cursors.due(self._subscription.id, self._clock(), PER_ROUND)
        taken: list[int] = []
        again: list[SetAside] = []
        for number, item in enumerate(due):
            outcome = await self._transport.send(self._parcel(item))
            if outcome.verdict is Verdict.GONE:
                raise DisabledError(outcome.detail or "the receiver answered 410 (gone)")
            if outcome.verdict is Verdict.FAILED:
                again.extend(self._postponed(left, outcome) for left in due[number:])
                break
            if outcome.verdict in (Verdict.TAKEN, Verdict.PARTLY) and not outcome.failed:
                taken.append(item.position)
                self._standing.delivered += 1
            else:
                again.append(self._refused_again(item, outcome))
        await self._cursors.settle(self._subscription.id, taken, again)
        await self.look()

    def _parcel(self, item: SetAside) -> Parcel:
        (body,) = self._voice.encode([item.event])
        sequence = f"{item.sequence}-{item.sequence}"
        return parcel_of(item.subscription, item.epoch, sequence, body, ("aftersend-late", "true"))

    def _due_after(self, attempts: int, retry_after: float | None) -> int:
        wait = wait_before_try(attempts, self._subscription.retry, retry_after, self._chance)
        return self._clock() + int(wait * SECOND)

    def _refused_again(self, item: SetAside, outcome: Outcome) -> SetAside:
        attempts = item.attempts + 1
        over = attempts >= (self._voice.tries or len(self._subscription.retry) + 1)
        next_at = 0 if over else self._due_after(attempts, outcome.retry_after)
        state = "failed" if over else "late"
        return structs.replace(item, attempts=attempts, next_at=next_at, detail=outcome.detail, state=state)

    def _postponed(self, item: SetAside, outcome: Outcome) -> SetAside:
        """The receiver is out of reach, which says nothing about the event: the try does not count."""
        next_at = self._due_after(item.attempts, outcome.retry_after)
        return structs.replace(item, next_at=next_at, detail=outcome.detail)

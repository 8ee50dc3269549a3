"""Events beside the line as pullers get them: refused once, offered again on their own schedule, marked late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, structs

from aftersend.contracts import Clock, Cursors, Lease, Leases, SetAside
from aftersend.core.errors import ConflictError
from aftersend.core.event import Event
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.aside import FULL, LIMIT
from aftersend.pipeline.backoff import wait_before_try

WORD = "late"
"""Their leases are on a line of their own, beside the subscription's."""


class HeldLate(Struct):
    """A lease on events set aside."""

    lease: Lease
    items: list[SetAside]


class Late:
    """The set-aside events of one subscription, while it is pulled."""

    def __init__(
        self,
        subscription: Subscription,
        tries: int | None,
        cursors: Cursors,
        leases: Leases,
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self.line = f"{subscription.id}/{WORD}"
        self.held: dict[str, HeldLate] = {}
        self.next_at = 0
        """When the next one is due (ns since 1970, UTC); 0: none is."""
        self._subscription = subscription
        self._tries = tries or len(subscription.retry) + 1
        self._cursors = cursors
        self._leases = leases
        self._clock = clock
        self._chance = chance
        self._count = 0

    async def restore(self, leases: Sequence[Lease]) -> list[Lease]:
        """Find what is beside the line, and who has it in hand; returns leases that nothing is left of."""
        self.held.clear()
        found = {item.position: item for item in await self.look()}
        for lease in leases:
            items = [found[first] for first, _ in lease.positions if first in found]
            if items:
                self.held[lease.id] = HeldLate(lease, items)
        if self.held:
            await self.look()
        return [lease for lease in leases if lease.id not in self.held]

    async def look(self) -> list[SetAside]:
        """Find out what is beside the line, and when the next one that nobody has in hand is due."""
        found = await self._cursors.list_set_aside(self._subscription.id, LIMIT)
        taken = self._in_hand()
        late = [item.next_at for item in found if item.state == "late" and item.position not in taken]
        self._count = len(found)
        self.next_at = min(late, default=0)
        return found

    def _in_hand(self) -> set[int]:
        return {item.position for held in self.held.values() for item in held.items}

    def is_due(self) -> bool:
        """Whether one waits to be offered now."""
        return 0 < self.next_at <= self._clock()

    def require_room(self, count: int) -> None:
        """Raises ConflictError where so many more have no room beside the line."""
        if self._count + count > LIMIT:
            raise ConflictError(FULL)

    async def due(self, most: int) -> list[SetAside]:
        """Those of one epoch whose time has come, the oldest first."""
        taken = self._in_hand()
        found = await self._cursors.due(self._subscription.id, self._clock(), most + len(taken))
        free = [item for item in found if item.position not in taken]
        return [item for item in free if item.epoch == free[0].epoch][:most]

    async def hold(self, lease: Lease, items: list[SetAside], drop: Sequence[Lease]) -> None:
        """Write down who has them in hand."""
        await self._leases.settle_leases([lease], drop)
        self.held[lease.id] = HeldLate(lease, items)
        await self.look()

    def leaves(self, position: int, event: Event, epoch: int, sequence: int, detail: str) -> SetAside:
        """An event that leaves the line now."""
        id_, next_at = self._subscription.id, self.due_after(1)
        return SetAside(id_, position, event, 1, next_at, detail, "late", epoch, sequence)

    def added(self, items: Sequence[SetAside]) -> None:
        """Events have left the line."""
        self._count += len(items)
        self._expect(items)

    def _expect(self, items: Sequence[SetAside]) -> None:
        times = [item.next_at for item in items if item.next_at]
        self.next_at = min([*times, self.next_at or max(times, default=0)], default=0)

    async def settle(self, held: HeldLate, gone: Sequence[SetAside], again: Sequence[SetAside]) -> None:
        """Forget some, or write down when they are offered again; the lease keeps the rest.

        Should the process end between the two writes, the lease names events that are not there, which is nothing.
        """
        positions, kept = {item.position for item in gone}, {item.position for item in again}
        await self._cursors.settle(self._subscription.id, sorted(positions - kept), again)
        self._count -= len(positions - kept)
        held.items = [item for item in held.items if item.position not in positions]
        held.lease = structs.replace(held.lease, positions=places(held.items))
        if held.items:
            await self._leases.settle_leases([held.lease])
        else:
            await self._leases.settle_leases((), [held.lease])
            self.held.pop(held.lease.id)
        self._expect(again)

    def run_out(self, held: HeldLate) -> None:
        """Its lease has ended; what it held is offered again."""
        self.held.pop(held.lease.id)
        self.next_at = min(held.items[0].next_at, self.next_at or held.items[0].next_at)

    def refused(self, item: SetAside, detail: str) -> SetAside:
        """One that was refused again."""
        attempts = item.attempts + 1
        over = attempts >= self._tries
        next_at = 0 if over else self.due_after(attempts)
        state = "failed" if over else "late"
        return structs.replace(item, attempts=attempts, next_at=next_at, detail=detail, state=state)

    def due_after(self, attempts: int) -> int:
        """When the next try is (ns), after so many."""
        wait = wait_before_try(attempts, self._subscription.retry, None, self._chance)
        return self._clock() + int(wait * SECOND)


def places(items: Sequence[SetAside]) -> tuple[tuple[int, int], ...]:
    """Where they stood in the line."""
    return tuple((item.position, item.position) for item in items)

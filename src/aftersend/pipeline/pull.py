"""Telling a subscription to those who fetch: leases, acknowledgements in any order, one cursor.

What a consumer fetched is its own until it answers or the lease runs out; then it is offered again, before anything
newer. The cursor stands before the first event that nobody has answered for; what is acknowledged above it is kept as
ranges beside the leases. A lease, its answer and the cursor are one transaction each, so a crash repeats at most what
was not answered. An answer that comes after the lease ran out still counts as long as nobody else was given the events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from aftersend.contracts import Clock, Cursors, Dialect, Lease, Leases, SetAside
from aftersend.core.errors import ConflictError, NotFoundError, StoreBusyError, UsageError
from aftersend.core.pulling import Ask, Handout, Told
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND, format_time
from aftersend.pipeline.feed import Feed
from aftersend.pipeline.late import WORD, HeldLate, Late, places
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.line import Line
from aftersend.pipeline.window import LIMIT, Entry, Spans, Window, spans

LEASES = 1_000
"""Most leases on one subscription at once."""

LATE_EVENTS = 500
"""Most events set aside that one batch holds."""

ENDED_LIMIT = 10_000
"""Leases whose end is remembered, so that an answer given twice is taken twice."""

_SETTLED = "it is answered already"
_RAN_OUT = "it has ended, and its events are offered again"

T = TypeVar("T")


class House(Struct, frozen=True):
    """What pulling works on."""

    leases: Leases
    cursors: Cursors
    ledger: Ledger
    record_of: Callable[[str], Subscription]
    """The newest record of a subscription's id."""
    feed_of: Callable[[Subscription], Feed]
    find_dialect: Callable[[Subscription], tuple[Dialect, str]]
    check_turn: Callable[[str], None]
    """Raises ConflictError where a subscription is pushed, or paused."""
    take_turn: Callable[[str], Awaitable[None]]
    """Ends a push that is failing, until no lease is live. Raises ConflictError where it works after all."""
    clock: Clock
    chance: Callable[[], float]
    make_id: Callable[[], str]


class Held(Struct):
    """A lease on a part of the line."""

    lease: Lease
    items: list[Entry]
    answered: set[str]
    """Ids that were answered for while the process runs, so that they may be once more."""


class Puller:
    """One subscription's leases."""

    def __init__(self, subscription: Subscription, house: House) -> None:
        self.used_at = house.clock()
        self._id = subscription.id
        self._house = house
        self._lock = asyncio.Lock()
        self._more = asyncio.Event()
        self._ended: dict[str, str] = {}
        self._line: Line | None = None
        self._late: Late
        self._is_stale = False
        self._watchers = 0
        self._held: dict[str, Held] = {}
        self._void: list[Lease] = []
        """Rows of leases that have ended, dropped with the next write."""
        self._late_next = True

    # --- for the consumer

    async def take(self, ask: Ask) -> Handout | None:
        """The next events, in the consumer's hands from now on; None: there are none now.

        Raises ConflictError where the subscription is pushed, or too much is in hand already.
        """
        return await self._whole(lambda: self._take(ask))

    async def acknowledge(self, lease: str, ids: Sequence[str] | None) -> Told:
        """Events of a lease were taken: all that are left, or those named by our id or the vendor's."""
        return await self._whole(lambda: self._acknowledge(lease, ids))

    async def refuse(self, lease: str, ids: Sequence[str] | None, reason: str) -> Told:
        """Events of a lease were not taken; they leave the line, and come again marked late.

        With the ordering `strict` they stay in it: the lease ends after the first wait of the retry list.
        """
        return await self._whole(lambda: self._refuse(lease, ids, reason))

    async def extend(self, lease: str, seconds: float) -> Told:
        """Keep what is left of a lease in hand so many seconds from now."""
        return await self._whole(lambda: self._extend(lease, seconds))

    async def confirm(self, consumer: str, sequence: int) -> None:
        """A consumer took everything up to a number, and wants the rest of what it has in hand anew."""
        await self._whole(lambda: self._confirm(consumer, sequence))

    async def more(self, *, late: bool = True) -> None:
        """Returns when it is worth to ask again; without `late` for events of the line alone."""
        times = [held.lease.until for held in self._live()]
        if late and self._line is not None and self._late.next_at:
            times.append(self._late.next_at)
        await self._pause((min(times) - self._house.clock()) / SECOND if times else None)

    async def _pause(self, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds if seconds is None else max(0.01, seconds)):
                await self._more.wait()
        except TimeoutError:
            pass

    # --- for the house

    async def idle(self) -> None:
        """Returns when nobody has a lease; push then begins at the cursor, and what leases have left is void."""
        self._watchers += 1
        try:
            while until := await self._whole(self._live_until, look=False):
                await self._pause((until - self._house.clock()) / SECOND)
        finally:
            self._watchers -= 1

    async def forget(self) -> None:
        """Void all leases: another epoch begins."""
        await self._whole(self._drop_all, look=False)

    def look_anew(self) -> None:
        """Something was changed from outside."""
        self._is_stale = True
        self._more.set()

    def leave(self) -> None:
        """Let go of what is in memory; all of it is on disk."""
        if self._line is not None:
            self._line.leave()
            self._line = None

    async def close(self) -> None:
        """Let go once what is under way is done; whoever waits is told to ask again."""
        async with self._lock:
            self.leave()
        self._more.set()

    def is_unused(self, since: int) -> bool:
        """Whether nobody has used it since a time."""
        return self.used_at < since and not self._watchers and not self._lock.locked()

    def standing(self) -> dict[str, int]:
        """How many leases are out, on how many events, and how many came back unanswered."""
        held = self._live()
        waiting = len(self._line.window.waiting) if self._line else 0
        return {"leases": len(held), "leased": sum([len(one.items) for one in held]), "returned": waiting}

    # --- one thing after the other

    async def _whole(self, work: Callable[[], Awaitable[T]], *, look: bool = True) -> T:
        """Do it to its end, even if who asked is gone: memory and disk agree."""
        return await asyncio.shield(asyncio.ensure_future(self._alone(work, look)))

    async def _alone(self, work: Callable[[], Awaitable[T]], look: bool) -> T:
        async with self._lock:
            self.used_at = self._house.clock()
            try:
                if look:
                    await self._look()
                return await work()
            except UsageError:
                raise
            except BaseException:
                # What is in memory may be ahead of the disk: it is read again before the next use.
                self.leave()
                raise

    async def _look(self) -> None:
        """Have the line as the cursor, the leases and the record now are."""
        record, cursor = self._house.record_of(self._id), self._house.ledger.cursor(self._id)
        if record.epoch != cursor.epoch:
            raise StoreBusyError(f"{record.name} is being changed; try again in a moment")
        if self._line is not None and self._line.is_current(record, cursor) and not self._is_stale:
            return
        self.leave()
        self._is_stale = False
        house = self._house
        dialect, _ = house.find_dialect(record)
        found = await house.leases.list_leases(self._id)
        late = Late(record, dialect.acknowledgement.tries, house.cursors, house.leases, house.clock, house.chance)
        line = Line(record, dialect, house.feed_of(record), house.ledger)
        try:
            await line.restore([lease for lease in found if lease.line == self._id])
            self._void = await late.restore([lease for lease in found if lease.line == late.line])
        except BaseException:
            line.leave()
            raise
        self._line, self._late = line, late
        self._restore([lease for lease in found if lease.line == self._id and lease.state == "leased"])
        line.listen(self._more)

    def _restore(self, leases: Sequence[Lease]) -> None:
        self._held = {}
        for lease in leases:
            items = self._window().restore(lease.positions)
            if items:
                self._held[lease.id] = Held(lease, items, set())
            else:
                self._void.append(lease)

    def _here(self) -> Line:
        assert self._line is not None
        return self._line

    def _window(self) -> Window:
        return self._here().window

    def _live(self) -> list[Held | HeldLate]:
        return [*self._held.values(), *self._late.held.values()] if self._line is not None else []

    # --- handing out

    async def _take(self, ask: Ask) -> Handout | None:
        self._more.clear()
        self._house.check_turn(self._id)
        self._reap()
        ways = (self._take_late, self._take_line) if self._late_next else (self._take_line, self._take_late)
        handout = await ways[0](ask) or await ways[1](ask)
        if handout is not None:
            self._late_next = not handout.late
            if self._here().has_more():
                self._more.set()
        return handout

    def _reap(self) -> None:
        """Leases that ran out end; their events are offered again, before anything newer."""
        now = self._house.clock()
        for held in [held for held in self._live() if held.lease.until <= now]:
            if isinstance(held, HeldLate):
                self._late.run_out(held)
            else:
                del self._held[held.lease.id]
                self._window().free(held.items)
            self._end(held.lease, _RAN_OUT)
            self._void.append(held.lease)

    def _end(self, lease: Lease, how: str) -> None:
        if len(self._ended) >= ENDED_LIMIT:
            del self._ended[next(iter(self._ended))]
        self._ended[lease.id] = how

    async def _take_late(self, ask: Ask) -> Handout | None:
        if not (ask.late and self._late.is_due()):
            return None
        await self._may_take()
        items = await self._late.due(min(ask.most, LATE_EVENTS))
        if not items:
            await self._late.look()
            return None
        items = items[: ask.fit([item.event for item in items])]
        lease = self._lease(ask, self._late.line, places(items))
        await self._late.hold(lease, items, self._void)
        self._void = []
        sequences = [item.sequence for item in items]
        return Handout(lease.id, items[0].epoch, sequences, [item.event for item in items], lease.until, late=True)

    async def _take_line(self, ask: Ask) -> Handout | None:
        if not await self._next(ask.most):
            return None
        await self._may_take()
        loaded = await self._here().load(await self._next(ask.most))
        if not loaded:
            return None
        count = ask.fit([event for _, event in loaded])
        lease = self._lease(ask, self._id, spans([entry for entry, _ in loaded[:count]]))
        await self._house.leases.settle_leases([lease], self._void)
        self._void = []
        held = self._window().hold(count)
        self._held[lease.id] = Held(lease, held, set())
        sequences, events = [entry.sequence for entry in held], [event for _, event in loaded[:count]]
        return Handout(lease.id, self._window().cursor.epoch, sequences, events, lease.until)

    async def _next(self, most: int) -> list[Entry]:
        """The first of the line that nobody has in hand."""
        name, window = self._here().subscription.name, self._window()
        if self._here().subscription.ordering == "strict" and self._held:
            return []
        if len(self._live()) >= LEASES:
            raise ConflictError(f"{LEASES} leases are out on {name}; answer them, or let them end")
        await self._here().gather(most)
        if not window.waiting and len(window) >= LIMIT:
            raise ConflictError(
                f"{len(window)} events of {name} are in hand or were answered out of order; "
                "answer the oldest lease, or let it end"
            )
        return window.waiting[:most]

    async def _may_take(self) -> None:
        """Make sure that nothing is pushed meanwhile."""
        await self._house.take_turn(self._id)
        await self._look()

    def _lease(self, ask: Ask, line: str, positions: Spans) -> Lease:
        until = self._house.clock() + int(ask.seconds * SECOND)
        return Lease(f"lease_{self._house.make_id()}", line, ask.consumer, positions, until)

    # --- answers

    async def _acknowledge(self, id_: str, ids: Sequence[str] | None) -> Told:
        held = self._find(id_)
        if held is None:
            return Told(id_, 0, 0)
        if isinstance(held, HeldLate):
            items = _chosen_late(held, ids)
            await self._settle_late(held, items)
            return _told(held, len(items))
        entries = _chosen(held, ids)
        self._window().settle(entries, "acknowledged")
        await self._settle(held, entries)
        return _told(held, len(entries))

    async def _refuse(self, id_: str, ids: Sequence[str] | None, reason: str) -> Told:
        held = self._find(id_)
        if held is None:
            raise ConflictError(f"the lease {id_} cannot be refused: {_SETTLED}")
        detail = f"refused by {held.lease.consumer or 'a consumer'}" + (f": {reason}" if reason else "")
        if isinstance(held, HeldLate):
            items = _chosen_late(held, ids)
            await self._settle_late(held, items, [self._late.refused(item, detail) for item in items])
            return _told(held, len(items))
        entries = _chosen(held, ids)
        if self._here().subscription.ordering == "strict":
            await self._prolong(held, self._late.due_after(1))
            return _told(held, len(entries))
        self._late.require_room(len(entries))
        epoch, loaded = self._window().cursor.epoch, await self._here().load(entries)
        aside = [self._late.leaves(entry.position, event, epoch, entry.sequence, detail) for entry, event in loaded]
        self._window().settle(entries, "aside")
        await self._settle(held, entries, aside)
        self._late.added(aside)
        return _told(held, len(entries))

    async def _settle(self, held: Held, gone: Sequence[Entry], aside: Sequence[SetAside] = ()) -> None:
        """Write down an answer: what is left of the lease, the cursor, and what is settled above it."""
        window = self._window()
        held.answered.update([entry.id for entry in gone])
        held.items = [entry for entry in held.items if entry.state == "held"]
        held.lease = structs.replace(held.lease, positions=spans(held.items))
        cursor, tally = window.settled()
        put, drop = self._here().marks(cursor)
        (put if held.items else drop).append(held.lease)
        await self._house.ledger.settle_leases(
            self._id,
            cursor,
            tally,
            leases=self._house.leases,
            put=put,
            drop=[*drop, *self._void],
            aside=aside,
            now=self._house.clock(),
        )
        window.move(cursor)
        self._void = []
        if not held.items:
            del self._held[held.lease.id]
        self._answered(held)

    async def _settle_late(self, held: HeldLate, gone: Sequence[SetAside], again: Sequence[SetAside] = ()) -> None:
        await self._late.settle(held, gone, again)
        self._answered(held)

    def _answered(self, held: Held | HeldLate) -> None:
        if not held.items:
            self._end(held.lease, _SETTLED)
        self._more.set()

    async def _extend(self, id_: str, seconds: float) -> Told:
        held = self._find(id_)
        if held is None:
            raise ConflictError(f"the lease {id_} cannot be extended: {_SETTLED}")
        await self._prolong(held, self._house.clock() + int(seconds * SECOND))
        return _told(held, len(held.items))

    async def _prolong(self, held: Held | HeldLate, until: int) -> None:
        lease = structs.replace(held.lease, until=until)
        await self._house.leases.settle_leases([lease])
        held.lease = lease
        self._more.set()

    async def _confirm(self, consumer: str, sequence: int) -> None:
        for held in [held for held in self._live() if held.lease.consumer == consumer]:
            if isinstance(held, HeldLate):
                await self._settle_late(held, [item for item in held.items if item.sequence <= sequence])
            else:
                taken = [entry for entry in held.items if entry.sequence <= sequence]
                self._window().settle(taken, "acknowledged")
                await self._settle(held, taken)
            if held.items:
                await self._prolong(held, self._house.clock())

    def _find(self, id_: str) -> Held | HeldLate | None:
        """What is left of a lease; None: everything in it is answered. Raises NotFoundError and ConflictError."""
        held = self._held.get(id_) or self._late.held.get(id_)
        how = self._ended.get(id_)
        if held is None and how == _RAN_OUT:
            raise ConflictError(f"the lease {id_} is over: {_RAN_OUT}")
        if held is None and how is None:
            name = self._here().subscription.name
            raise NotFoundError(f"there is no lease {id_!r} on {name}; it was answered, has ended, or never was")
        return held

    # --- giving way

    async def _live_until(self) -> int:
        """When the first lease ends (ns); 0: none is live, and all are void now."""
        self._more.clear()
        mine = await self._rows()
        live = [lease.until for lease in mine if lease.state == "leased" and lease.until > self._house.clock()]
        if not live:
            await self._drop_all()
        return min(live, default=0)

    async def _drop_all(self) -> None:
        found = await self._rows()
        for lease in found:
            self._end(lease, _RAN_OUT)
        if found:
            await self._house.leases.settle_leases((), found)
        self.leave()

    async def _rows(self) -> list[Lease]:
        lines = (self._id, f"{self._id}/{WORD}")
        return [lease for lease in await self._house.leases.list_leases(self._id) if lease.line in lines]


def _told(held: Held | HeldLate, events: int) -> Told:
    left = len(held.items)
    return Told(held.lease.id, events, left, format_time(held.lease.until) if left else None)


def _chosen(held: Held, ids: Sequence[str] | None) -> list[Entry]:
    if ids is None:
        return held.items
    names = set(ids)
    _require_known(ids, held.lease, {name for entry in held.items for name in (entry.id, entry.name)} | held.answered)
    return [entry for entry in held.items if entry.id in names or entry.name in names]


def _chosen_late(held: HeldLate, ids: Sequence[str] | None) -> list[SetAside]:
    if ids is None:
        return held.items
    names = set(ids)
    _require_known(ids, held.lease, {name for item in held.items for name in (item.event.id, item.event.source.id)})
    return [item for item in held.items if item.event.id in names or item.event.source.id in names]


def _require_known(ids: Sequence[str], lease: Lease, known: Collection[str | None]) -> None:
    unknown = next((name for name in ids if name not in known), None)
    if unknown is not None:
        raise UsageError(f"{unknown!r} is not in the lease {lease.id}; nothing was changed")

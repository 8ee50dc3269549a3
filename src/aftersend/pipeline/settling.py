"""The follower that judges hits anew when others are seen beside them, and the log as it stands once that is over.

The verdict that a hit was kept with never changes. A later one is an event of its own (`event.reclassified`) that names
the hit. The follower only ever finds machines: it takes trust away and never gives it back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import structs

from aftersend.contracts import Appended, Clock, Entry, Log, Verdict, Verdicts
from aftersend.core.event import Actor, Event, Recorded, Source
from aftersend.core.hits import signals_of, what_of
from aftersend.core.identity import make_id
from aftersend.core.taxonomy import RECLASSIFIED
from aftersend.core.timestamps import DAY, SECOND
from aftersend.pipeline.sightings import Sightings, Suspicion, slim
from aftersend.pipeline.verdict import Rules

KEPT = 400 * DAY
"""How long a later verdict is looked up for readers of settled events; the log keeps it as long as any event."""

TICK = 1.0
"""Seconds between two looks at what has settled, while anything has not."""

BOOKMARK_INTERVAL = 30 * SECOND
"""A new start looks again at what settled in the last of these."""

_READ_EVENTS = 4_000
_PAUSE_SECONDS = 0.05
_encode = msgspec.json.Encoder().encode


class Settling:
    """Reads the log in order, appends later verdicts, and knows how far the log is settled.

    The bookmark is where the settled part ends, so a new start sees again what can still be judged; the verdicts it
    finds twice have the same ids, and the log drops them. `Verdicts` is filled from the log, not beside it.
    """

    def __init__(self, log: Log, verdicts: Verdicts, rules: Rules, clock: Clock, settled: int) -> None:
        self._log = log
        self._verdicts = verdicts
        self._rules = rules
        self._clock = clock
        self._window = int(rules.book.settle_seconds * SECOND)
        self._moved = asyncio.Event()
        self._written_at = 0
        self.settled = settled
        """Every event before this position has the verdict that it will keep, as far as this follower goes."""
        self._begin()

    @classmethod
    async def open(cls, log: Log, verdicts: Verdicts, rules: Rules, clock: Clock) -> Settling:
        """The follower at its bookmark."""
        return cls(log, verdicts, rules, clock, await verdicts.bookmark())

    async def skip(self) -> None:
        """Where nothing was ever settled, begin with what arrived within the window before now."""
        if not self.settled:
            self.settled = await self._log.position_at(self._clock() - self._window)
            await self._verdicts.remember((), self._clock(), self.settled)

    def _begin(self) -> None:
        self.position = self.settled
        self._head = self._log.head()
        self._newest = 0
        self._marks: deque[tuple[int, int]] = deque()
        self._sightings = Sightings(self._rules.book.settled)

    async def run(self) -> None:
        """Follow until cancelled."""
        self._begin()
        while True:
            await self._read_on()
            await self._settle()

    async def reached(self, position: int) -> int:
        """Returns where the settled part ends as soon as that is past a position."""
        while self.settled <= position:
            self._moved.clear()
            await self._moved.wait()
        return self.settled

    # --- reading

    async def _read_on(self) -> None:
        """Look at what is new, or wait for a tick; without anything unsettled, wait until there is."""
        try:
            async with asyncio.timeout(TICK if self._marks else None):
                await self._log.wait(self.position)
        except TimeoutError:
            return
        chunks = await self._log.read(self.position, _READ_EVENTS)
        if chunks:
            await self._follow(chunks)
        else:
            # Retention took away what was to be read; there is something again at the tail or later.
            self.position = max(self.position, self._log.tail())
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self, chunks: Sequence[Recorded]) -> None:
        events = [event for chunk in chunks for event in chunk.events]
        told = [verdict for verdict in map(verdict_of, events) if verdict is not None]
        if told:
            await self._verdicts.remember(told, self._clock(), self.settled)
        found = [suspicion for event in events for suspicion in self._see(event)]
        if found:
            await self._tell(found)
        self._mark(chunks)
        self.position = chunks[-1].next_position

    def _see(self, event: Event) -> list[Suspicion]:
        return self._sightings.see(event, at_once(event, self._rules).kind) if what_of(event) else []

    async def _tell(self, found: Sequence[Suspicion]) -> None:
        """Append verdicts on those hits that no verdict calls a machine's yet."""
        known = await self._verdicts.latest([suspicion.hit.id for suspicion in found])
        reasons: dict[str, list[str]] = {}
        for suspicion in found:
            reasons.setdefault(suspicion.hit.id, []).append(suspicion.reason)
        hits = {suspicion.hit.id: suspicion.hit for suspicion in found}
        events = [
            reclassified(hit, known.get(id_), self._rules.machine(reasons[id_]), self._clock())
            for id_, hit in hits.items()
            if id_ not in known or known[id_].actor.kind != "machine"
        ]
        await append_by_tenant(self._log, events)

    # --- settling

    def _mark(self, chunks: Sequence[Recorded]) -> None:
        """Note when what is before a position arrived: now, or (what was there at the start) as the newest of it says.

        One note for each second: no more than the window has.
        """
        newest = max(event.received_at for chunk in chunks for event in chunk.events)
        self._newest = max(self._newest, newest)
        arrived = self._newest if self.position < self._head else self._clock()
        full_second = (arrived // SECOND + 1) * SECOND
        if self._marks and self._marks[-1][0] >= full_second:
            full_second, _ = self._marks.pop()
        self._marks.append((full_second, chunks[-1].next_position))

    async def _settle(self) -> None:
        """Let go what arrived more than the window before now, or before the newest that was read."""
        until = self._clock() if self.position >= self._log.head() else self._newest
        settled = self.settled
        while self._marks and self._marks[0][0] <= until - self._window:
            _, settled = self._marks.popleft()
        if settled == self.settled:
            return
        self.settled = settled
        self._moved.set()
        if self._clock() - self._written_at >= BOOKMARK_INTERVAL:
            self._written_at = self._clock()
            await self._verdicts.remember((), self._written_at, settled)


class SettledLog:
    """The log as far as it is settled, each hit with its latest verdict. See `contracts.Log`."""

    def __init__(self, log: Log, settling: Settling, verdicts: Verdicts) -> None:
        self._log = log
        self._settling = settling
        self._verdicts = verdicts

    async def append(self, entry: Entry) -> Appended:
        """Keep an entry; it shows here when it is settled."""
        return await self._log.append(entry)

    async def read(self, position: int, limit: int) -> list[Recorded]:
        """About `limit` settled events from a position on, in order; empty where none is settled yet."""
        end = self._settling.settled
        if position >= end:
            return []
        # The settled part ends where a block ends.
        chunks = [chunk for chunk in await self._log.read(position, limit) if chunk.position < end]
        hits = [event.id for chunk in chunks for event in chunk.events if what_of(event)]
        latest = await self._verdicts.latest(hits)
        return [_judged(chunk, latest) for chunk in chunks] if latest else chunks

    async def wait(self, position: int) -> int:
        """Returns where the settled part ends as soon as that is past a position."""
        return await self._settling.reached(position)

    async def position_at(self, received_at: int) -> int:
        """The lowest position of a block received at or after a time (ns, UTC)."""
        return await self._log.position_at(received_at)

    def head(self) -> int:
        """Where the settled part ends."""
        return self._settling.settled

    def tail(self) -> int:
        """The lowest position that is still kept."""
        return self._log.tail()


_proof: type[Log] = SettledLog


def _judged(chunk: Recorded, latest: dict[str, Verdict]) -> Recorded:
    events = [
        structs.replace(event, actor=latest[event.id].actor) if event.id in latest else event for event in chunk.events
    ]
    return Recorded(chunk.position, chunk.tenant, events)


# --- verdicts as events


def at_once(event: Event, rules: Rules) -> Actor:
    """The verdict that a hit was kept with; where it has none, what the rules say of it."""
    return event.actor or rules.judge(signals_of(event))


def verdict_of(event: Event) -> Verdict | None:
    """The verdict that an event of ours tells."""
    if event.type != RECLASSIFIED or event.source.dialect != "aftersend" or event.actor is None:
        return None
    return Verdict(event.extra["event"], event.id, event.actor)


def reclassified(hit: Event, before: Verdict | None, actor: Actor, now: int) -> Event:
    """The event that tells a later verdict on a hit.

    It takes the hit's time. Its id follows from the hit, the verdict before this one, and this one: said twice it is
    one event, and a verdict that comes back after another is a new one.
    """
    was = before.actor if before is not None else hit.actor or Actor()
    identity = _encode((hit.tenant, hit.id, before.id if before is not None else "", actor.kind, actor.ruleset))
    return structs.replace(
        slim(hit),
        id=make_id(hit.time, identity),
        type=RECLASSIFIED,
        source=Source(hit.source.name, "aftersend", "reclassified", hit.id),
        received_at=now,
        actor=actor,
        extra={"event": hit.id, "type": hit.type, "was": was.kind},
    )


async def append_by_tenant(log: Log, events: Iterable[Event]) -> None:
    """Append events, those of each tenant together."""
    mine: dict[str, list[Event]] = {}
    for event in events:
        mine.setdefault(event.tenant, []).append(event)
    for tenant, items in mine.items():
        await log.append(Entry(tenant, items))

"""Judging hits that were kept by the rules as they are now: the difference first, then, if wanted, as verdicts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from aftersend.contracts import Clock, Log, Verdict, Verdicts
from aftersend.core.event import Actor, Event
from aftersend.core.hits import signals_of, what_of
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.settling import append_by_tenant, reclassified, verdict_of
from aftersend.pipeline.sightings import Sightings, slim
from aftersend.pipeline.verdict import Rules, is_own

PENDING = 200_000
"""Hits that wait for what may come beside them; past it the oldest is judged by what came until then."""

_READ_EVENTS = 4_000


class Change(Struct, frozen=True):
    """How many hits pass from one kind of actor to another."""

    was: str
    becomes: str
    hits: int


class Difference(Struct, frozen=True):
    """What the present rules make of a part of the log."""

    since: int
    """The position that was read from …"""
    until: int
    """… and the one before which reading ended."""
    hits: int
    """Hits that were judged."""
    changes: list[Change]
    """What is judged otherwise than before, the most frequent first."""
    ruleset: str
    applied: bool
    """Whether verdicts were appended to the log."""


async def reclassify(
    log: Log,
    verdicts: Verdicts,
    rules: Rules,
    clock: Clock,
    *,
    since: int,
    until: int | None = None,
    tenant: str | None = None,
    apply: bool = False,
) -> Difference:
    """Judge the hits between two positions by the present rules; `until` is the head where it is not given.

    Each hit that is judged otherwise than it stands is counted and, with `apply`, gets a verdict in the log. To apply
    what was shown, pass the `until` that was shown. What a vendor says of the actor stands. Ended halfway, it can be
    begun again: what is judged so already is no difference any more.
    """
    until = log.head() if until is None else until
    changes: Counter[tuple[str, str]] = Counter()
    hits = 0
    async for judged in _judged(log, rules, since, until, tenant):
        hits += len(judged)
        latest = await verdicts.latest([one.hit.id for one in judged])
        differing = [one for one in judged if one.actor.kind != _standing(one.hit, latest).kind]
        changes.update((_standing(one.hit, latest).kind, one.actor.kind) for one in differing)
        if apply and differing:
            now = clock()
            events = [reclassified(one.hit, latest.get(one.hit.id), one.actor, now) for one in differing]
            await append_by_tenant(log, events)
            await verdicts.remember([verdict for verdict in map(verdict_of, events) if verdict is not None], now)
    ordered = [Change(was, becomes, count) for (was, becomes), count in changes.most_common()]
    return Difference(since, until, hits, ordered, rules.ruleset, apply)


class _Judged(Struct):
    """A hit and what is thought of it so far."""

    hit: Event
    actor: Actor
    arrived: int
    reasons: list[str]


class _Docket:
    """The hits that wait for what may come beside them, in the order in which they came."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._window = int(rules.book.settle_seconds * SECOND)
        self._sightings = Sightings(rules.book.settled)
        self._pending: dict[str, _Judged] = {}
        self._newest = 0

    def enter(self, event: Event) -> None:
        """Judge a hit at once, and those that wait in its light."""
        self._newest = max(self._newest, event.received_at)
        actor = event.actor if event.actor and not is_own(event.actor) else self._rules.judge(signals_of(event))
        self._pending[event.id] = _Judged(slim(event), actor, self._newest, [])
        for suspicion in self._sightings.see(event, actor.kind):
            judged = self._pending.get(suspicion.hit.id)
            if judged is not None:
                judged.reasons.append(suspicion.reason)
                judged.actor = self._rules.machine(judged.reasons)

    def settled(self, *, all_of_them: bool = False) -> list[_Judged]:
        """Those that nothing can change any more; they leave."""
        left: list[str] = []
        for id_, judged in self._pending.items():
            is_over = judged.arrived < self._newest - self._window or len(self._pending) - len(left) > PENDING
            if not (is_over or all_of_them):
                break
            left.append(id_)
        return [self._pending.pop(id_) for id_ in left]


async def _judged(log: Log, rules: Rules, since: int, until: int, tenant: str | None) -> AsyncIterator[list[_Judged]]:
    """The hits of a part of the log as they are judged now; what came shortly before is looked at as well."""
    docket = _Docket(rules)
    before: set[str] = set()
    position = await _with_context(log, since, rules)
    while position < until:
        chunks = await log.read(position, _READ_EVENTS)
        if not chunks:
            break
        for chunk in chunks:
            if tenant is not None and chunk.tenant != tenant:
                continue
            for place, event in enumerate(chunk.events, chunk.position):
                if place < until and what_of(event):
                    docket.enter(event)
                    if place < since:
                        before.add(event.id)
        position = chunks[-1].next_position
        yield _without(docket.settled(), before)
    yield _without(docket.settled(all_of_them=True), before)


async def _with_context(log: Log, since: int, rules: Rules) -> int:
    """Where to begin, so that the first hits are seen beside those before them."""
    chunks = await log.read(since, 1)
    if not chunks:
        return since
    arrived = chunks[0].events[0].received_at
    return min(since, await log.position_at(arrived - int(rules.book.settle_seconds * SECOND)))


def _without(judged: Sequence[_Judged], before: set[str]) -> list[_Judged]:
    """Those that were asked for."""
    asked = [one for one in judged if one.hit.id not in before]
    before.difference_update(one.hit.id for one in judged)
    return asked


def _standing(hit: Event, latest: dict[str, Verdict]) -> Actor:
    return latest[hit.id].actor if hit.id in latest else hit.actor or Actor()

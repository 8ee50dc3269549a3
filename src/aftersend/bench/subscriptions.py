"""Many subscriptions on one stream: what the tail reader and the dispatchers cost, on a real store.

The events are appended in thousands while the subscriptions follow the head. What is compared are CPU-seconds for
the same events: with the appends (`idle`), or beyond the appends (`split`). The transport takes everything at once,
so that no time of it is counted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, Literal

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.storage import BATCH, events, opened_store
from aftersend.contracts import Entry
from aftersend.core.event import Event
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Batch, Subscription
from aftersend.pipeline.deliveries import Deliveries
from aftersend.rack import dialect_of
from aftersend.stores.sqlite import SqliteStore

SPLIT = Row("100 subscriptions that split a stream, against 1 that takes it all", "×", 3.0, 1.5, rising=False)
IDLE = Row("100 subscriptions that match nothing, against none", "×", 1.3, 1.1, rising=False)

COUNT = 100
_PAIRS = 3
_MAX_WAIT = 1.0
_SECONDS = 60.0


class Taker:
    """A transport that takes everything."""

    name: ClassVar[str] = "taker"
    schemes: ClassVar[tuple[str, ...]] = ()
    brokered: ClassVar[bool] = False
    carries: Literal["parcels"] = "parcels"

    async def probe(self) -> Outcome:
        """It is there."""
        return _TAKEN

    async def send(self, parcel: Parcel) -> Outcome:
        """Taken."""
        return _TAKEN

    async def close(self) -> None:
        """Nothing is open."""


_TAKEN = Outcome(Verdict.TAKEN)


def subscriptions(scale: Scale, report: Report) -> Iterator[Reading]:
    """Both comparisons."""
    count = scale.of(200_000, BATCH) // BATCH * BATCH
    start = time.time_ns()
    batches = [events(BATCH, start + number * 1_000_000_000, COUNT) for number in range(count // BATCH)]
    report("none")
    nobody = _cpu_seconds(batches, [], 0)
    report("one that takes all")
    everything = _cpu_seconds(batches, [_subscription("all")], count)
    report(SPLIT.name)
    split = _cpu_seconds(batches, [_subscription(f"s{number}", str(number)) for number in range(COUNT)], count)
    yield Reading(SPLIT, (split - nobody) / max(everything - nobody, 1e-6), count)
    report(IDLE.name)
    unwanted = [_subscription(f"s{number}", f"none-{number}") for number in range(COUNT)]
    # Side by side, and more than once: a tenth is looked for, and a neighbour on the machine takes as much.
    pairs = [(_cpu_seconds(batches, unwanted, 0), _cpu_seconds(batches, [], 0)) for _ in range(_PAIRS)]
    yield Reading(IDLE, sum(idle for idle, _ in pairs) / sum(none for _, none in pairs), count)


def _subscription(name: str, *campaigns: str) -> Subscription:
    return Subscription(id=f"sub_{name}", name=name, campaigns=campaigns, batch=Batch(max_wait=_MAX_WAIT))


def _cpu_seconds(batches: Sequence[list[Event]], asked: Sequence[Subscription], told: int) -> float:
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        return uvloop.run(_follow(Path(folder), batches, asked, told))


async def _follow(folder: Path, batches: Sequence[list[Event]], asked: Sequence[Subscription], told: int) -> float:
    async with opened_store(folder) as store, _deliveries(store) as deliveries:
        for subscription in asked:
            await deliveries.apply(subscription)
        await asyncio.sleep(0.2)
        with stopwatch() as watch:
            for batch in batches:
                await store.append(Entry("default", batch))
            await _settle(deliveries, asked, told, store.head())
        return watch.seconds


async def _settle(deliveries: Deliveries, asked: Sequence[Subscription], told: int, head: int) -> None:
    """Returns when everything is read and so many events were told. Raises TimeoutError."""
    async with asyncio.timeout(_SECONDS):
        while deliveries.feed.position < head or told > sum(  # noqa: ASYNC110
            deliveries.ledger.cursor(subscription.id).sequence for subscription in asked
        ):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def _deliveries(store: SqliteStore) -> AsyncIterator[Deliveries]:
    deliveries = Deliveries(
        log=store,
        registry=store,
        cursors=store,
        leases=store,
        find_dialect=dialect_of,
        open_transport=lambda subscription: Taker(),
        clock=time.time_ns,
        chance=random.random,
    )
    await deliveries.start()
    tasks = [asyncio.create_task(work()) for work in (deliveries.ledger.run, deliveries.feed.run)]
    try:
        yield deliveries
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await deliveries.stop()

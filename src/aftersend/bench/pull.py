"""Pulling: from the log to a consumer as NDJSON, a lease and an acknowledgement on disk for each batch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.bench.storage import BATCH, Supply, append_all
from aftersend.core.pulling import LEASE_SECONDS, Ask
from aftersend.core.registry import Subscription
from aftersend.dialects.canonical import Dialect
from aftersend.simulation.instance import delivering
from aftersend.simulation.processes import pin, unpinned
from aftersend.web.telling import Telling
from aftersend.wiring import Instance

PULL = Row("pull, 1,000 events a batch", "events", 50_000, 100_000)

MOST = 1_000
MOST_BYTES = 8_000_000


def pulling(scale: Scale, report: Report) -> Iterator[Reading]:
    """One consumer that takes everything there is, each batch acknowledged before the next."""
    report(PULL.name)
    count = scale.of(200_000, BATCH) // BATCH * BATCH
    with TemporaryDirectory(prefix="aftersend-bench-") as folder, unpinned():
        pin(0)
        reference = bare_rate()
        rate = uvloop.run(_rate(Path(folder) / "data", count))
        yield Reading(PULL, rate, count, (reference + bare_rate()) / 2)


async def _rate(data: Path, count: int) -> float:
    async with delivering(data) as instance:
        supply = Supply(time.time_ns())
        await append_all(instance.store, [supply.batch() for _ in range(count // BATCH)])
        subscription = Subscription(id="sub_bench", name="bench", transport="rest_pull", start="beginning")
        await instance.deliveries.apply(subscription)
        with stopwatch() as watch:
            await _pull_all(instance, subscription, count)
        return watch.rate(count)


async def _pull_all(instance: Instance, subscription: Subscription, count: int) -> None:
    puller = instance.deliveries.pulls.of(subscription.id)
    telling = Telling(Dialect(), "", MOST_BYTES, in_lines=True)
    done = 0
    while done < count:
        handout = await puller.take(Ask(MOST, LEASE_SECONDS, "bench", telling.fit))
        if handout is None:
            await puller.more()
        else:
            done += len(handout.events)
            await puller.acknowledge(handout.lease, None)

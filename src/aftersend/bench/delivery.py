"""Delivering: from the log to a receiver in another process that takes everything at once, signed, over HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.bench.storage import BATCH, Supply, append_all
from aftersend.core.registry import Batch, Subscription
from aftersend.core.secret import Secret
from aftersend.core.signing import format_secret
from aftersend.simulation.instance import delivering
from aftersend.simulation.processes import pin, receiver, unpinned
from aftersend.wiring import Instance

BATCHES = Row("delivery, 500 events a POST", "events", 100_000, 200_000)
SINGLES = Row("delivery, 1 event a POST", "POSTs", 3_000, 6_000)

SECONDS = 300.0
"""How long a run may take."""


def delivery(scale: Scale, report: Report) -> Iterator[Reading]:
    """A subscription that reads the log from its beginning, in batches and one by one."""
    for row, events, most in ((BATCHES, 200_000, 500), (SINGLES, 20_000, 1)):
        report(row.name)
        count = scale.of(events, BATCH) // BATCH * BATCH
        with TemporaryDirectory(prefix="aftersend-bench-") as folder, receiver() as child, unpinned():
            child.pin(1)
            pin(0)
            reference = bare_rate()
            rate, requests = uvloop.run(_delivery_rate(Path(folder) / "data", child.port, count, most))
            yield Reading(row, rate, requests if most == 1 else count, (reference + bare_rate()) / 2)


async def _delivery_rate(data: Path, port: int, count: int, most: int) -> tuple[float, int]:
    """Events, or POSTs where each carries one, a CPU-second; and how many POSTs there were."""
    async with delivering(data) as instance:
        supply = Supply(time.time_ns())
        await append_all(instance.store, [supply.batch() for _ in range(count // BATCH)])
        subscription = Subscription(
            id="sub_bench",
            name="bench",
            url=f"http://127.0.0.1:{port}/",
            start="beginning",
            batch=Batch(max_events=most, max_wait=0),
            signing_secrets=(Secret(format_secret(bytes(32))),),
        )
        with stopwatch() as watch:
            await instance.deliveries.apply(subscription)
            await until_told(instance, subscription, count)
        requests: int = instance.deliveries.standing(subscription)["requests"]
        return watch.rate(requests if most == 1 else count), requests


async def until_told(instance: Instance, subscription: Subscription, count: int) -> None:
    """Returns when so many events have been taken. Raises TimeoutError."""
    async with asyncio.timeout(SECONDS):
        while instance.deliveries.standing(subscription)["sequence"] < count:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

"""Memory of the server while many events wait for a receiver that is gone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from aftersend.bench.ingestion import post
from aftersend.bench.readings import Reading, Report, Row, Scale
from aftersend.bench.storage import BATCH, Supply
from aftersend.core.errors import StoreError
from aftersend.dialects.canonical import Dialect
from aftersend.simulation.instance import set_up
from aftersend.simulation.processes import Child, server
from aftersend.simulation.receiver import dead
from aftersend.simulation.sender import Sender, bearer, request

MEMORY = Row("memory growth, {} events wait for a dead endpoint", "MB", 150, 50, rising=False)

_ROUND = 20


def waiting(scale: Scale, report: Report) -> Iterator[Reading]:
    """The server's memory before the first event and the most it had until the last one was kept."""
    count = scale.of(1_000_000, BATCH) // BATCH * BATCH
    row = Row(MEMORY.name.format(f"{count:,}"), MEMORY.unit, MEMORY.floor, MEMORY.reach, MEMORY.rising)
    report(row.name)
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        data = Path(folder) / "data"
        token = uvloop.run(set_up(data))
        with server(data) as child, dead() as url:
            uvloop.run(_subscribe(child.port, token, url))
            growth = _growth(child, token, count, report)
    yield Reading(row, growth / 1e6, count)


async def _subscribe(port: int, token: str, url: str) -> None:
    sender = await Sender.connect(port)
    body = b'{"name": "dead", "url": "%s", "dialect": "canonical"}' % url.encode()
    answer = await sender.send(request("/v1/subscriptions", body, headers=bearer(token)))
    sender.close()
    if answer.status != 201:
        raise StoreError(f"the subscription was answered {answer.status}: {answer.body.decode()}")


def _growth(child: Child, token: str, count: int, report: Report) -> int:
    supply, dialect = Supply(time.time_ns()), Dialect()
    before = most = child.memory()
    for start in range(0, count, _ROUND * BATCH):
        bodies = [dialect.encode(supply.batch())[0].data for _ in range(min(_ROUND, (count - start) // BATCH))]
        uvloop.run(post(child.port, [request("/v1/events", body, headers=bearer(token)) for body in bodies], 4))
        most = max(most, child.memory())
        report(f"{start + len(bodies) * BATCH:,} events, {most / 1e6:.0f} MB")
    return most - before

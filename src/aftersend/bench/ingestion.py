"""Taking in over HTTP: `aftersend serve` in a process of its own, every answer after the sync to disk.

The load comes from this process over keep-alive connections with ready-made requests. The events are those of a
campaign: 40 in 100 are opens and clicks, for which the server also makes and keeps the firsts meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import msgspec
import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale
from aftersend.bench.reference import bare_rate
from aftersend.core.errors import StoreError
from aftersend.core.timestamps import SECOND
from aftersend.simulation.campaign import Happening, campaign
from aftersend.simulation.instance import set_up
from aftersend.simulation.processes import Child, pin, server, unpinned
from aftersend.simulation.sender import Answer, Sender, bearer, request
from aftersend.simulation.vendors import tell

HUNDREDS = Row("ingest over HTTP, 100 events a request", "events", 50_000, 100_000)
SINGLES = Row("ingest over HTTP, 1 event a request", "requests", 8_000, 12_000)

CONNECTIONS = 64


def ingestion(scale: Scale, report: Report) -> Iterator[Reading]:
    """A hundred events a request, then one."""
    for row, events, most in ((HUNDREDS, 300_000, 100), (SINGLES, 40_000, 1)):
        report(row.name)
        happenings = shuffled(scale.of(events, 100) // most * most)
        with TemporaryDirectory(prefix="aftersend-bench-") as folder, unpinned():
            data = Path(folder) / "data"
            token = uvloop.run(set_up(data))
            with server(data) as child:
                child.pin(0)
                pin(1)
                yield _measured(row, child, _requests(happenings, most, token), len(happenings))


def shuffled(count: int) -> list[Happening]:
    """So many happenings of a campaign, of many messages at once."""
    found: list[Happening] = []
    stories = campaign(count, 11, time.time_ns() // SECOND * SECOND - 3_600 * SECOND)
    while len(found) < count:
        found += next(stories)
    Random(3).shuffle(found)  # noqa: S311
    return found[:count]


def _requests(happenings: Sequence[Happening], most: int, token: str) -> list[bytes]:
    return [
        request("/v1/events", body.data, headers=bearer(token))
        for start in range(0, len(happenings), most)
        for body in tell("canonical", happenings[start : start + most])
    ]


def _measured(row: Row, child: Child, requests: Sequence[bytes], count: int) -> Reading:
    reference = bare_rate()
    before = child.cpu_seconds()
    answers = uvloop.run(post(child.port, requests))
    seconds = max(child.cpu_seconds() - before, 0.01)
    accepted = sum([msgspec.json.decode(answer.body)["accepted"] for answer in answers])
    if accepted != count:
        raise StoreError(f"{count} events were sent, {accepted} accepted")
    return Reading(row, count / seconds, accepted, (reference + bare_rate()) / 2)


async def post(port: int, requests: Sequence[bytes], connections: int = CONNECTIONS) -> list[Answer]:
    """Send ready-made requests over many connections; their answers."""
    sender = await Sender.connect(port, min(connections, len(requests)))
    try:
        return await sender.post_all(requests)
    finally:
        sender.close()

"""What a dead receiver and a very slow one do to those beside them.

Events come in at a steady, low rate over HTTP; each healthy receiver notes how long after its sending every event
arrives. Compared is the delay that 99 in 100 stay under, in one server: before the bad neighbours come, and after.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale
from aftersend.core.errors import StoreError
from aftersend.core.timestamps import MILLISECOND, format_time
from aftersend.simulation.instance import set_up
from aftersend.simulation.processes import server
from aftersend.simulation.receiver import Delivery, dead, listen
from aftersend.simulation.sender import Sender, bearer, request

NEIGHBOURS = Row("99th percentile delay of 20 healthy receivers beside a dead and a slow one", "×", 1.5, 1.2, False)

HEALTHY = 20
_PER_REQUEST = 5
_INTERVAL = 0.05
_SECONDS = 60.0
_SLOW_SECONDS = 5.0


class _Told(msgspec.Struct):
    """What is looked at of an event."""

    message_id: str


_decode = msgspec.json.Decoder(list[_Told]).decode
_encode = msgspec.json.Encoder().encode


class Delays:
    """A receiver that notes how long each event was under way; below `/slow` it answers slowly."""

    def __init__(self) -> None:
        self.found: list[float] = []

    async def take(self, delivery: Delivery) -> int:
        """Take a batch."""
        now = time.monotonic_ns()
        if delivery.path == "/slow":
            await asyncio.sleep(_SLOW_SECONDS)
            return 200
        self.found += [(now - int(event.message_id)) / MILLISECOND for event in _decode(delivery.body)]
        return 200

    def percentile(self) -> float:
        """The delay (ms) that 99 in 100 stay under, of what was found so far."""
        return sorted(self.found)[len(self.found) * 99 // 100]


def neighbours(scale: Scale, report: Report) -> Iterator[Reading]:
    """Both times, after a moment that is not counted in which connections are made."""
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        data = Path(folder) / "data"
        token = uvloop.run(set_up(data))
        with server(data) as child, dead() as url:
            yield uvloop.run(_compared(child.port, token, scale.of(300, 4), url, report))


async def _compared(port: int, token: str, rounds: int, dead_url: str, report: Report) -> Reading:
    delays = Delays()
    listening = await listen(delays.take)
    sender = await Sender.connect(port)
    base = f"http://127.0.0.1:{listening.port}"
    try:
        for number in range(HEALTHY):
            await _subscribe(sender, token, f"healthy-{number}", f"{base}/healthy")
        await _percentile(sender, token, delays, max(2, rounds // 10))
        report(f"{HEALTHY} healthy receivers alone")
        alone = await _percentile(sender, token, delays, rounds)
        report("beside a dead and a slow one")
        await _subscribe(sender, token, "dead", dead_url)
        await _subscribe(sender, token, "slow", f"{base}/slow")
        beside = await _percentile(sender, token, delays, rounds)
    finally:
        sender.close()
        await listening.close()
    report(f"{alone:.1f} ms alone, {beside:.1f} ms beside them")
    return Reading(NEIGHBOURS, beside / alone, len(delays.found))


async def _percentile(sender: Sender, token: str, delays: Delays, rounds: int) -> float:
    """The delay (ms) of events fed now."""
    delays.found = []
    await _feed(sender, token, rounds)
    await _settle(delays, rounds * _PER_REQUEST * HEALTHY)
    return delays.percentile()


async def _subscribe(sender: Sender, token: str, name: str, url: str) -> None:
    batch = {"max_wait": 0}
    body = _encode({"name": name, "url": url, "batch": batch, "retry": [0.2], "types": ["email.delivered"]})
    answer = await sender.send(request("/v1/subscriptions", body, headers=bearer(token)))
    if answer.status != 201:
        raise StoreError(f"the subscription was answered {answer.status}: {answer.body.decode()}")


async def _feed(sender: Sender, token: str, rounds: int) -> None:
    for _ in range(rounds):
        now = format_time(time.time_ns())
        events = [
            {"type": "email.delivered", "time": now, "message_id": str(time.monotonic_ns() + number)}
            for number in range(_PER_REQUEST)
        ]
        await sender.send(request("/v1/events", _encode(events), headers=bearer(token)))
        await asyncio.sleep(_INTERVAL)


async def _settle(delays: Delays, count: int) -> None:
    async with asyncio.timeout(_SECONDS):
        while len(delays.found) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

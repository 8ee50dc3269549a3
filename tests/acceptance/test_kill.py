"""kill -9 at random moments under load: nothing acknowledged is lost, nothing is stored twice, order and ids hold.

AFTERSEND_KILLS sets how often (8 by default, 50 for the long version).
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
import pytest
from tests.acceptance.conftest import Inlet, Server

KILLS = int(os.environ.get("AFTERSEND_KILLS", "8"))
TENDERS = 4
SUBSCRIBERS = 3


class Sender:
    """Sends numbered batches without end and knows which were acknowledged."""

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.name = name
        self.number = 0
        self.acknowledged: list[str] = []
        self.pending: list[dict[str, object]] = []

    async def run(self) -> None:
        """Every batch is repeated until it is acknowledged, as a good sender does."""
        while True:
            self.pending = self.pending or [self.event() for _ in range(random.choice((1, 5, 40)))]
            try:
                status, body, _ = await self.server.request("POST", "/v1/events", msgspec.json.encode(self.pending))
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.01)
                continue
            assert status in (200, 503), body
            if status == 200:
                said = msgspec.json.decode(body)
                assert said["accepted"] + said["duplicates"] == len(self.pending), said
                self.acknowledged.extend(str(event["id"]) for event in self.pending)
                self.pending = []

    def event(self) -> dict[str, object]:
        self.number += 1
        return {
            "id": f"{self.name}-{self.number}",
            "type": random.choice(("email.opened", "email.clicked", "email.delivered")),
            "time": f"2026-10-{1 + self.number % 28:02d}T08:00:00Z",
            "recipient": f"r{self.number % 50}@example.org",
            "message_id": f"m{self.number % 7}",
        }


@pytest.mark.slow
async def test_kill_9_loses_nothing_and_doubles_nothing(
    stopped_server: Server, inlets: Callable[[], Awaitable[Inlet]]
) -> None:
    server = stopped_server
    # Small files, so that some kills fall around a change of file.
    server.options = ("--max-file-bytes", "300000")
    await server.start()
    receivers = [await inlets() for _ in range(SUBSCRIBERS)]
    for number, receiver in enumerate(receivers):
        fields = {"name": f"s{number}", "url": receiver.url, "start": "beginning", "retry": [0.05]}
        await server.json("POST", "/v1/subscriptions", fields | {"batch": {"max_events": 50, "max_wait": 0.01}}, 201)
    senders = [Sender(server, f"t{number}") for number in range(TENDERS)]
    tasks = [asyncio.create_task(sender.run()) for sender in senders]
    for _ in range(KILLS):
        await asyncio.sleep(random.uniform(0.2, 1.2))
        await server.kill()
        await server.start()
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    acknowledged = [name for sender in senders for name in sender.acknowledged]
    assert len(acknowledged) > KILLS * 20, "there was hardly any load"

    stored = await settled(server)
    heard = [event for event in stored if event["source"]["dialect"] == "canonical"]
    names = [event["source"]["id"] for event in heard]
    assert set(acknowledged) <= set(names), "an acknowledged event is lost"
    assert len(names) == len(set(names)), "an event is stored twice"
    assert len({event["id"] for event in stored}) == len(stored)
    check_firsts(stored)
    order = [str(event["id"]) for event in stored]
    for receiver in receivers:
        await receiver.until(lambda inlet=receiver: len({event["id"] for event in inlet.events()}) >= len(order))
        check_received(receiver, order)
    assert len(list((server.data / "log").glob("*.db"))) > 1, "no change of file was met"
    assert await server.stop() == 0


async def settled(server: Server) -> list[dict[str, object]]:
    """The log once the follower of firsts has caught up."""
    before, stored = -1, await server.events()
    while len(stored) != before:
        before = len(stored)
        await asyncio.sleep(1)
        stored = await server.events()
    return stored


def check_firsts(stored: list[dict[str, object]]) -> None:
    """Each first is there once, made from the first hit in log order."""
    hits: dict[tuple[object, ...], object] = {}
    firsts: dict[tuple[object, ...], object] = {}
    for event in stored:
        what = str(event["type"]).removeprefix("email.")
        key = (what.removeprefix("first_"), event["message_id"], event["recipient"])
        if what in ("opened", "clicked"):
            hits.setdefault(key, event["source"]["id"])  # type: ignore[index]
        elif what.startswith("first_"):
            assert key not in firsts, f"{key} was made twice"
            firsts[key] = event["source"]["id"]  # type: ignore[index]
    hit_ids = {event["source"]["id"]: event["id"] for event in stored}  # type: ignore[index]
    assert {key: hit_ids[name] for key, name in hits.items()} == firsts


def check_received(receiver: Inlet, order: list[str]) -> None:
    """First deliveries are in log order; repeats carry the same parcel id for the same bytes."""
    seen: dict[str, None] = {}
    for event in receiver.events():
        seen.setdefault(str(event["id"]))
    assert list(seen) == order
    bodies: dict[str, bytes] = {}
    numbers: dict[int, str] = {}
    for headers, body in receiver.requests:
        assert bodies.setdefault(headers["webhook-id"], body) == body, "the same id came with other bytes"
        first, last = map(int, headers["aftersend-sequence"].split("-"))
        ids = [event["id"] for event in msgspec.json.decode(body)]
        assert len(ids) == last - first + 1
        for number, id_ in zip(range(first, last + 1), ids, strict=True):
            assert numbers.setdefault(number, id_) == id_, "a number was given to two events"
    assert sorted(numbers) == list(range(1, len(order) + 1))

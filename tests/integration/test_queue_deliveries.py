"""From the log to a queue: the whole engine, with a real NATS server that is killed on the way."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.nats_server import Server, server

from aftersend.bench.storage import Supply
from aftersend.config import Config
from aftersend.contracts import Entry
from aftersend.core.event import DEFAULT_TENANT, Event
from aftersend.core.registry import Batch, Subscription
from aftersend.testing.pieces import ids
from aftersend.wiring import Instance, opened

CONFIG = Config(egress_allow=("127.0.0.0/8",), egress_brokers=("127.0.0.1",))


@asynccontextmanager
async def delivering(data: Path) -> AsyncIterator[Instance]:
    """An instance that delivers and does nothing else."""
    async with opened(data, CONFIG, create=True) as instance:
        deliveries = instance.deliveries
        await deliveries.start()
        tasks = [asyncio.create_task(work()) for work in (deliveries.ledger.run, deliveries.feed.run)]
        try:
            yield instance
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


@pytest.fixture
async def queue(tmp_path: Path) -> AsyncIterator[Server]:
    async with server(tmp_path) as made:
        await made.add()
        yield made


def subscription(queue: Server, **fields: Any) -> Subscription:
    return Subscription(
        id="sub_queue",
        name="queue",
        transport="nats",
        url=queue.url,
        settings={"tls": False},
        start="beginning",
        retry=(0.1,),
        **{"batch": Batch(max_events=100, max_wait=0), "timeout": 5.0, **fields},
    )


async def keep(instance: Instance, events: list[Event]) -> None:
    await instance.store.append(Entry(DEFAULT_TENANT, events))


async def until(done: Callable[[], Any]) -> None:
    async with asyncio.timeout(20):
        while not done():
            await asyncio.sleep(0.02)


async def test_a_queue_that_is_killed_again_and_again_gets_every_event_once_and_in_order(
    tmp_path: Path, queue: Server
) -> None:
    events = Supply(time.time_ns()).batch()
    async with delivering(tmp_path / "data") as instance:
        wanted = subscription(queue)
        await keep(instance, events)
        async with queue.passed(150):
            await instance.deliveries.apply(wanted)
        await queue.stop()
        await until(lambda: instance.deliveries.standing(wanted)["failures"] > 1)
        shown = instance.deliveries.standing(wanted)
        assert shown["detail"]
        await queue.start()
        await until(lambda: instance.deliveries.standing(wanted)["sequence"] == len(events))
    arrived = await queue.arrived()
    assert ids(arrived) == [event.id for event in events]
    assert [msgspec.json.decode(one.body)["id"] for one in arrived] == ids(arrived)
    assert {one.content_type for one in arrived} == {"application/json"}


async def test_an_event_that_is_too_large_is_set_aside_alone(tmp_path: Path, queue: Server) -> None:
    events = Supply(time.time_ns()).batch()[:20]
    events[7] = msgspec.structs.replace(events[7], extra={"note": "x" * 1_100_000})
    async with delivering(tmp_path / "data") as instance:
        wanted = subscription(queue)
        await keep(instance, events)
        await instance.deliveries.apply(wanted)
        await until(lambda: instance.deliveries.standing(wanted)["sequence"] == len(events))
        (aside,) = await instance.store.list_set_aside(wanted.id, 10)
    assert aside.event.id == events[7].id
    assert ids(await queue.arrived()) == [event.id for event in events if event is not events[7]]


async def test_a_dialect_speaks_one_event_a_message(tmp_path: Path, queue: Server) -> None:
    events = Supply(time.time_ns()).batch()[:20]
    async with delivering(tmp_path / "data") as instance:
        wanted = subscription(queue, dialect="cloudevents")
        await keep(instance, events)
        await instance.deliveries.apply(wanted)
        await until(lambda: instance.deliveries.standing(wanted)["behind"] == 0)
        told = instance.deliveries.standing(wanted)["sequence"]
    arrived = await queue.arrived()
    assert len(arrived) == told > 0
    assert [msgspec.json.decode(one.body)["id"] for one in arrived] == ids(arrived)
    assert {one.content_type for one in arrived} == {"application/cloudevents+json"}

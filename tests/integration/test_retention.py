"""Retention on a whole instance: nothing goes that is still needed, unless the log may not grow: then it is told."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aftersend.config import Config
from aftersend.contracts import Entry
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.wiring import Instance, opened

NOW = 1_770_000_000 * SECOND


def event(number: int) -> Event:
    noise = random.Random(number).randbytes(200).hex()
    return Event(
        make_id(NOW, str(number).encode()), "email.opened", NOW, Source("s", "canonical", "email.opened"), url=noise
    )


@asynccontextmanager
async def instance(folder: Path, **settings: object) -> AsyncIterator[Instance]:
    async with opened(folder, Config(max_file_bytes=100_000, **settings), create=True) as made:  # type: ignore[arg-type]
        await made.deliveries.start()
        yield made


async def fill(made: Instance) -> None:
    for start in range(0, 3_000, 100):
        await made.store.append(Entry("default", [event(number) for number in range(start, start + 100)]))


async def subscribe(made: Instance, state: str) -> Subscription:
    url = "http://127.0.0.1:1025/"
    return await made.deliveries.apply(
        Subscription(id="sub_x", name="x", url=url, state=state, start="beginning", transport="http")
    )


async def test_a_file_that_a_paused_subscription_needs_stays_however_old(tmp_path: Path) -> None:
    async with instance(tmp_path / "d", retention_days=0.000001, egress_allow=("127.0.0.0/8",)) as made:
        await subscribe(made, "paused")
        await fill(made)
        await made.retain()
        assert made.store.tail() == 0
        await made.deliveries.drop((await made.store.list(Subscription))[0])
        await made.retain()
        assert made.store.tail() > 0


async def test_past_the_size_limit_the_oldest_goes_and_the_overtaken_are_told(tmp_path: Path) -> None:
    async with instance(tmp_path / "d", max_log_bytes=500_000, egress_allow=("127.0.0.0/8",)) as made:
        await subscribe(made, "paused")
        await fill(made)
        await made.retain()
        assert made.store.tail() > 0
        (record,) = await made.store.list(Subscription)
        assert record.state == "paused"
        assert f"positions 0 to {made.store.tail()}" in record.reason


async def test_an_active_subscription_that_was_overtaken_has_the_state_gap(tmp_path: Path) -> None:
    async with instance(tmp_path / "d", max_log_bytes=500_000, egress_allow=("127.0.0.0/8",)) as made:
        await subscribe(made, "active")
        await fill(made)
        await made.retain()
        (record,) = await made.store.list(Subscription)
        assert record.state == "gap"
        assert "dropped by the log's size limit" in record.reason


async def test_one_that_was_overtaken_once_holds_what_it_needs_and_is_told_of_the_next_time(tmp_path: Path) -> None:
    async with instance(tmp_path / "a", retention_days=0.000001, egress_allow=("127.0.0.0/8",)) as made:
        await subscribe(made, "gap")
        await fill(made)
        await made.retain()
        assert made.store.tail() == 0
    async with instance(tmp_path / "b", max_log_bytes=500_000, egress_allow=("127.0.0.0/8",)) as made:
        await subscribe(made, "gap")
        await fill(made)
        await made.retain()
        (record,) = await made.store.list(Subscription)
        assert "dropped by the log's size limit" in record.reason

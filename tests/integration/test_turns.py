"""Push and pull on one subscription, in turns: never both at once, nothing lost, each event with its own number."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from aftersend.contracts import Entry
from aftersend.core.errors import ConflictError, NotFoundError, StoreBusyError
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.pulling import Ask, Handout
from aftersend.core.registry import Batch, Subscription
from aftersend.core.timestamps import SECOND
from aftersend.dialects import canonical
from aftersend.keyring import Keyring
from aftersend.pipeline.deliveries import Deliveries
from aftersend.pipeline.pull import Puller
from aftersend.stores.sqlite import SqliteStore

NOW = 1_770_000_000 * SECOND
TAKEN = Outcome(Verdict.TAKEN)
FAILED = Outcome(Verdict.FAILED, "it answered 500")
BUSY = (ConflictError, StoreBusyError)


class Receiver:
    """Takes what it is sent while it is up."""

    name = "receiver"
    carries = "parcels"

    def __init__(self) -> None:
        self.is_up = True
        self.is_slow = False
        self.tries = 0
        self.heard: list[tuple[int, int]] = []
        """Numbers of events with their sequence, in the order of arrival."""

    async def send(self, parcel: Parcel) -> Outcome:
        self.tries += 1
        await asyncio.sleep(0.02 if self.is_slow else 0)
        if not self.is_up:
            return FAILED
        first, _, _ = dict(parcel.headers)["aftersend-sequence"].partition("-")
        told = [int(item["source"]["id"]) for item in msgspec.json.decode(parcel.body)]
        self.heard += [(number, int(first) + index) for index, number in enumerate(told)]
        return TAKEN

    async def close(self) -> None:
        pass

    async def until(self, enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not enough():
                await asyncio.sleep(0.005)


def event(number: int) -> Event:
    """One of as many events as there are numbers."""
    id_ = make_id(NOW + number, str(number).encode())
    return Event(id_, "email.opened", NOW + number, Source("s", "canonical", "email.opened", str(number)))


class Home:
    """A store with one subscription that is pushed to a receiver."""

    def __init__(self, store: SqliteStore, receiver: Receiver) -> None:
        self.store, self.receiver, self.told = store, receiver, 0
        self.deliveries = Deliveries(
            log=store,
            registry=store,
            cursors=store,
            leases=store,
            find_dialect=lambda subscription: (canonical.Dialect(), ""),
            open_transport=lambda subscription: receiver,
            clock=time.time_ns,
            chance=lambda: 0.5,
        )
        batch = Batch(max_events=4, max_wait=0.0)
        self.record = Subscription(id="sub_1", name="crm", batch=batch, retry=(0.01,), start="beginning")

    async def tell(self, count: int) -> None:
        await self.store.append(Entry("default", [event(number) for number in range(self.told, self.told + count)]))
        self.told += count

    async def change(self, **fields: object) -> None:
        self.record = await self.deliveries.apply(structs.replace(self.record, **fields))

    @property
    def puller(self) -> Puller:
        return self.deliveries.pulls.of("sub_1")

    async def take(self, most: int = 100, seconds: float = 10.0) -> Handout | None:
        return await self.puller.take(Ask(most, seconds, "a", len))

    async def take_when_open(self, most: int = 100, seconds: float = 10.0) -> Handout:
        """As soon as the breaker lets it."""
        async with asyncio.timeout(10):
            while True:
                try:
                    found = await self.take(most, seconds)
                except BUSY:
                    found = None
                if found is not None:
                    return found
                await asyncio.sleep(0.005)


@asynccontextmanager
async def home(folder: Path) -> AsyncIterator[Home]:
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=time.time_ns, keyring=keyring, create=True)
    built = Home(store, Receiver())
    await built.deliveries.start()
    await built.change()
    tasks = [asyncio.create_task(work()) for work in (built.deliveries.ledger.run, built.deliveries.feed.run)]
    try:
        yield built
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await built.deliveries.stop()
        await store.close()


def numbers(handout: Handout) -> list[tuple[int, int]]:
    told = [int(item.source.id or -1) for item in handout.events]
    return list(zip(told, handout.sequences, strict=True))


def run_of(first: int, last: int) -> list[tuple[int, int]]:
    """The numbers of a run of events, each with its sequence."""
    return [(number, number + 1) for number in range(first, last)]


async def test_while_push_works_pull_is_refused(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        await place.tell(8)
        await place.receiver.until(lambda: len(place.receiver.heard) == 8)
        with pytest.raises(ConflictError, match="crm is pushed by http; to pull it, pause it, or add a subscription"):
            await place.take()


async def test_a_push_that_fails_gives_way_and_comes_back_behind_what_was_pulled(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        place.receiver.is_up = False
        await place.tell(20)
        first = await place.take_when_open(6)
        assert numbers(first) == run_of(0, 6)
        place.receiver.is_up = True
        tries = place.receiver.tries
        await asyncio.sleep(0.1)
        assert place.receiver.tries == tries, "nothing is sent while a lease is live"
        await place.puller.acknowledge(first.lease, None)
        await place.receiver.until(lambda: len(place.receiver.heard) == 14)
        assert place.receiver.heard == run_of(6, 20)
        with pytest.raises(ConflictError):
            await place.take()


async def test_a_lease_that_nobody_answers_ends_and_push_tells_its_events(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        place.receiver.is_up = False
        await place.tell(8)
        first = await place.take_when_open(4, seconds=1)
        second = await place.take_when_open(2, seconds=1)
        await place.puller.acknowledge(second.lease, None)
        place.receiver.is_up = True
        await place.receiver.until(lambda: len(place.receiver.heard) == 8)
        assert place.receiver.heard == run_of(0, 8), "what was acknowledged out of order is told again"
        with pytest.raises(ConflictError, match="is over"):
            await place.puller.acknowledge(first.lease, None)


async def test_a_push_that_gave_way_keeps_its_failures_and_its_next_try(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        place.receiver.is_up = False
        await place.change(retry=(0.01, 0.01, 0.01, 0.01, 0.4))
        await place.tell(8)
        first = await place.take_when_open(4)
        failures = place.deliveries.standing(place.record)["failures"]
        assert failures >= 5
        await place.puller.acknowledge(first.lease, None)
        tries = place.receiver.tries
        await asyncio.sleep(0.05)
        assert place.receiver.tries == tries, "its next try is not due"
        assert place.deliveries.standing(place.record)["breaker"] == "open"
        second = await place.take()
        assert second is not None
        assert numbers(second) == run_of(4, 8)


async def test_what_was_refused_by_pull_is_pushed_late(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        await place.change(state="paused", retry=(0.2,))
        await place.tell(3)
        first = await place.take()
        assert first is not None
        await place.puller.refuse(first.lease, [first.events[1].id], "")
        await place.puller.acknowledge(first.lease, None)
        await place.change(state="active")
        await place.receiver.until(lambda: bool(place.receiver.heard))
        assert place.receiver.heard == [(1, 2)]
        assert await place.store.list_set_aside("sub_1", 10) == []


async def test_a_subscription_that_is_removed_ends_its_pull(tmp_path: Path) -> None:
    async with home(tmp_path / "d") as place:
        await place.change(state="paused")
        await place.tell(3)
        first = await place.take()
        assert first is not None
        puller = place.puller
        await place.deliveries.drop(place.record)
        with pytest.raises(NotFoundError, match="removed"):
            await puller.acknowledge(first.lease, None)
        assert await place.store.list_leases("sub_1") == []
        await place.change()


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_each_event_is_told_with_its_number(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    pulled: list[tuple[int, int]] = []
    answered: set[int] = set()

    async def consume() -> None:
        while True:
            await asyncio.sleep(chance.uniform(0, 0.02))
            try:
                found = await place.take(chance.choice((1, 3, 10)), 1)
                if found is None:
                    continue
                pulled.extend(numbers(found))
                await asyncio.sleep(chance.uniform(0, 0.02))
                if chance.random() < 0.9:
                    await place.puller.acknowledge(found.lease, None)
                    answered.update(number for number, _ in numbers(found))
            except BUSY:
                pass

    async with home(tmp_path / "d") as place:
        place.receiver.is_slow = True
        consumers = [asyncio.create_task(consume()) for _ in range(3)]
        for turn in range(400):
            if turn >= 12 and min(len(answered), len(place.receiver.heard)) > 10:
                break
            await place.tell(chance.choice((1, 9, 30)))
            place.receiver.is_up = not place.receiver.is_up
            await asyncio.sleep(chance.uniform(0.05, 0.15))
            if chance.random() < 0.3:
                state = "paused" if place.record.state == "active" else "active"
                await place.change(state=state)
        for task in consumers:
            task.cancel()
        await asyncio.wait(consumers)
        place.receiver.is_up = True
        await place.change(state="active")

        def is_all_told() -> bool:
            return len(answered | {number for number, _ in place.receiver.heard}) == place.told

        await place.receiver.until(is_all_told)
    assert len(answered) > 10, "hardly anything was pulled"
    assert len(place.receiver.heard) > 10, "hardly anything was pushed"
    assert all(sequence == number + 1 for number, sequence in [*pulled, *place.receiver.heard])
    firsts = list(dict.fromkeys(number for number, _ in place.receiver.heard))
    assert firsts == sorted(firsts), "push never goes back to what it left out"

"""Pulling on a real store: what consumers get, in which order, and what their answers come to."""

import asyncio
import itertools
import random
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftersend.contracts import Cursor, Entry
from aftersend.core.errors import ConflictError, NotFoundError, StoreBusyError, StoreFullError, UsageError
from aftersend.core.event import Event
from aftersend.core.pulling import Ask, Handout
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.dialects import canonical
from aftersend.keyring import Keyring
from aftersend.pipeline import line as lines
from aftersend.pipeline import pull as pulling
from aftersend.pipeline.feed import Feed
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.pull import House
from aftersend.pipeline.pullers import Pulls
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import NOW, SetClock, event, events, read_all

RECORD = Subscription(id="sub_1", name="crm", transport="rest_pull", retry=(10.0, 20.0))


class Place:
    """A store with one subscription, pulled."""

    def __init__(self, folder: Path, record: Subscription = RECORD) -> None:
        self.folder = folder
        self.record = record
        self.clock = SetClock()
        self.numbers = itertools.count(1)
        self.conflict = ""

    async def open(self) -> None:
        keyring = Keyring.open(self.folder.with_suffix(".keys"), create=True)
        self.store = await SqliteStore.open(self.folder, clock=self.clock, keyring=keyring, create=True)
        self.feed = Feed(self.store)
        self.ledger = Ledger(self.store)
        await self.ledger.open(self.record.id, Cursor())
        self.pulls = Pulls(
            House(
                leases=self.store,
                cursors=self.store,
                ledger=self.ledger,
                record_of=lambda id_: self.record,
                feed_of=lambda record: self.feed,
                find_dialect=lambda record: (canonical.Dialect(), ""),
                check_turn=self.check,
                take_turn=self.take_turn,
                clock=self.clock,
                chance=lambda: 0.5,
                make_id=lambda: str(next(self.numbers)),
            )
        )
        self.puller = self.pulls.of(self.record.id)
        self.tasks = [asyncio.create_task(work()) for work in (self.feed.run, self.ledger.run)]

    def check(self, id_: str) -> None:
        if self.conflict:
            raise ConflictError(self.conflict)

    async def take_turn(self, id_: str) -> None:
        self.check(id_)

    async def close(self) -> None:
        """End as a crash ends: what only memory knows is gone."""
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks)
        await self.store.close()

    async def crash(self) -> None:
        await self.close()
        await self.open()

    async def tell(self, *told: Event) -> None:
        await self.store.append(Entry(told[0].tenant, told))
        while self.feed.position < self.store.head():
            await asyncio.sleep(0)

    async def take(self, most: int = 100, seconds: float = 60.0, consumer: str = "a", **more: Any) -> Handout | None:
        return await self.puller.take(Ask(most, seconds, consumer, more.pop("fit", len), **more))

    async def given(self, most: int = 100, seconds: float = 60.0, consumer: str = "a") -> Handout:
        found = await self.take(most, seconds, consumer)
        assert found is not None
        return found

    def wait(self, seconds: float) -> None:
        self.clock.now += int(seconds * SECOND)

    @property
    def cursor(self) -> Cursor:
        return self.ledger.cursor(self.record.id)


@asynccontextmanager
async def opened(folder: Path, record: Subscription = RECORD) -> AsyncIterator[Place]:
    place = Place(folder, record)
    await place.open()
    try:
        yield place
    finally:
        await place.close()


def numbers(handout: Handout | None) -> list[int]:
    assert handout is not None
    return [int(item.source.id or -1) for item in handout.events]


def ids(*told: Event) -> list[str]:
    return [item.id for item in told]


async def test_what_is_acknowledged_moves_the_cursor_in_memory_and_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 10))
        first = await place.given(4)
        assert (numbers(first), list(first.sequences), first.epoch) == ([0, 1, 2, 3], [1, 2, 3, 4], 1)
        assert place.cursor == Cursor(0)
        assert (await place.puller.acknowledge(first.lease, None)).events == 4
        assert place.cursor == await place.store.get("sub_1") == Cursor(4, 1, 4)
        assert await place.store.list_leases("sub_1") == []
        (manifest,) = await place.store.manifests("sub_1")
        assert (manifest.first_sequence, manifest.last_sequence, manifest.types) == (1, 4, {"email.clicked": 4})


async def test_nothing_there_is_told_as_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        assert await place.take() is None
        await place.tell(*events(0, 1, tenant="other"))
        assert await place.take() is None
        assert place.cursor.position == 1, "what nobody wants is passed"


async def test_two_consumers_never_have_the_same_event_in_hand(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        assert numbers(await place.take(3)) == [0, 1, 2]
        assert numbers(await place.take(3, consumer="b")) == [3, 4, 5]
        assert await place.take() is None


async def test_an_acknowledgement_out_of_order_waits_above_the_cursor_also_after_a_crash(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 9))
        first, second, third = [await place.given(3) for _ in range(3)]
        await place.puller.acknowledge(third.lease, None)
        await place.puller.acknowledge(second.lease, ids(event(4)))
        assert place.cursor == Cursor(0)
        await place.crash()
        assert await place.take() is None
        await place.puller.acknowledge(first.lease, None)
        assert place.cursor == await place.store.get("sub_1") == Cursor(3, 1, 3)
        await place.puller.acknowledge(second.lease, None)
        assert place.cursor == Cursor(9, 1, 9)
        assert await place.store.list_leases("sub_1") == []
        (manifest,) = await place.store.manifests("sub_1")
        assert (manifest.last_sequence, manifest.types) == (9, {"email.clicked": 9})


async def test_a_lease_that_runs_out_is_offered_first_with_the_same_ids(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        first = await place.given(2, seconds=10)
        await place.given(2)
        place.wait(10)
        again = await place.given(3, consumer="b")
        assert numbers(again) == [0, 1, 4]
        assert list(again.sequences) == [1, 2, 5]
        assert ids(*again.events)[:2] == ids(*first.events)
        with pytest.raises(ConflictError, match=f"the lease {first.lease} is over: it has ended, and its events are"):
            await place.puller.acknowledge(first.lease, None)


async def test_a_late_answer_counts_while_nobody_else_was_given_the_events(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 2))
        first = await place.given(seconds=10)
        place.wait(3_600)
        assert (await place.puller.acknowledge(first.lease, None)).events == 2
        assert await place.take() is None


async def test_an_answer_may_be_given_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        first = await place.given()
        for events_ in (1, 0):
            told = await place.puller.acknowledge(first.lease, ids(event(1)))
            assert (told.events, told.left) == (events_, 2)
        for events_ in (2, 0):
            told = await place.puller.acknowledge(first.lease, None)
            assert (told.events, told.left, told.until) == (events_, 0, None)


async def test_wrong_answers_are_told_in_one_line_and_change_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        first = await place.given(2)
        for answer in (place.puller.acknowledge, lambda lease, ids: place.puller.refuse(lease, ids, "")):
            with pytest.raises(
                NotFoundError, match="there is no lease 'lease_0' on crm; it was answered, has ended, or"
            ):
                await answer("lease_0", None)
            with pytest.raises(
                UsageError, match=f"{event(2).id!r} is not in the lease {first.lease}; nothing was chan"
            ):
                await answer(first.lease, ids(event(0), event(2)))
        assert (await place.puller.acknowledge(first.lease, None)).events == 2
        with pytest.raises(ConflictError, match="cannot be refused: it is answered already"):
            await place.puller.refuse(first.lease, None, "")
        with pytest.raises(ConflictError, match="cannot be extended: it is answered already"):
            await place.puller.extend(first.lease, 10)


async def test_events_are_also_known_by_their_vendors_names(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        first = await place.given()
        assert (await place.puller.acknowledge(first.lease, ["0", "1"])).left == 1


async def test_an_extended_lease_lasts(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 1))
        first = await place.given(seconds=10)
        place.wait(9)
        assert (await place.puller.extend(first.lease, 100)).until == "2026-02-01T12:01:49Z"
        place.wait(99)
        await place.crash()
        assert await place.take() is None
        place.wait(1)
        assert numbers(await place.take()) == [0]


async def test_a_refused_event_leaves_the_line_and_comes_again_late_until_it_has_failed(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        first = await place.given()
        told = await place.puller.refuse(first.lease, ids(event(1)), "no such person")
        assert (told.events, told.left) == (1, 2)
        await place.puller.acknowledge(first.lease, None)
        assert place.cursor == Cursor(3, 1, 3)
        (manifest,) = await place.store.manifests("sub_1")
        assert (manifest.last_sequence, manifest.types) == (3, {"email.clicked": 2})
        assert await place.take() is None
        for wait in (10, 20):
            place.wait(wait)
            await place.crash()
            late = await place.given()
            assert (numbers(late), late.late, list(late.sequences), late.epoch) == ([1], True, [2], 1)
            assert await place.take() is None
            await place.puller.refuse(late.lease, None, "still not")
        (item,) = await place.store.list_set_aside("sub_1", 10)
        assert (item.state, item.attempts, item.detail) == ("failed", 3, "refused by a: still not")
        place.wait(1_000)
        assert await place.take() is None


async def test_a_late_event_that_is_acknowledged_is_done(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        await place.puller.refuse((await place.given()).lease, None, "")
        place.wait(10)
        late = await place.given(2)
        await place.puller.acknowledge(late.lease, ids(event(0)))
        await place.crash()
        await place.puller.acknowledge(late.lease, None)
        assert [item.position for item in await place.store.list_set_aside("sub_1", 10)] == [2]
        assert await place.store.list_leases("sub_1") == []
        assert numbers(await place.take()) == [2]


async def test_a_late_lease_that_runs_out_is_offered_again(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 1))
        await place.puller.refuse((await place.given()).lease, None, "")
        place.wait(10)
        first = await place.given(seconds=5)
        assert await place.take() is None
        place.wait(5)
        assert numbers(await place.take()) == [0]
        with pytest.raises(ConflictError, match="is over"):
            await place.puller.acknowledge(first.lease, None)


async def test_late_events_and_the_line_take_turns(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 10))
        await place.puller.refuse((await place.given(4)).lease, None, "")
        place.wait(10)
        found = [await place.given(1) for _ in range(4)]
        assert [handout.late for handout in found] == [True, False, True, False]


async def test_in_strict_order_there_is_one_lease_and_a_refused_one_blocks(tmp_path: Path) -> None:
    record = Subscription(id="sub_1", name="crm", transport="rest_pull", retry=(10.0,), ordering="strict")
    async with opened(tmp_path / "d", record) as place:
        await place.tell(*events(0, 4))
        first = await place.given(2)
        assert await place.take() is None
        await place.puller.acknowledge(first.lease, ids(event(0)))
        await place.puller.refuse(first.lease, ids(event(1)), "not now")
        assert await place.take() is None
        place.wait(10)
        assert numbers(await place.take()) == [1, 2, 3]
        assert await place.store.list_set_aside("sub_1", 10) == []


async def test_only_what_fits_an_answer_is_leased(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 5))
        assert numbers(await place.take(fit=lambda told: 2)) == [0, 1]
        assert numbers(await place.take()) == [2, 3, 4]


async def test_an_answer_that_cannot_be_made_leases_nothing(tmp_path: Path) -> None:
    def fit(told: Sequence[Event]) -> int:
        raise UsageError("halon has no word for it")

    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 2))
        with pytest.raises(UsageError, match="no word"):
            await place.take(fit=fit)
        assert numbers(await place.take()) == [0, 1]


async def test_who_waits_is_told_of_arrivals_of_returned_events_and_of_late_ones(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        assert await place.take() is None
        waiting = [asyncio.create_task(place.puller.more()) for _ in range(3)]
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in waiting)
        await place.tell(event(0))
        await asyncio.wait_for(asyncio.gather(*waiting), 1)
        await place.given(seconds=0.05)
        assert await place.take() is None
        asyncio.get_running_loop().call_later(0.03, place.wait, 1)
        await asyncio.wait_for(place.puller.more(), 1)
        assert numbers(await place.take()) == [0]


async def test_an_arrival_wakes_whoever_waits_while_another_takes_a_part(tmp_path: Path) -> None:
    async def consume() -> int:
        while True:
            found = await place.take(1)
            if found is not None:
                return numbers(found)[0]
            await place.puller.more()

    async with opened(tmp_path / "d") as place:
        tasks = [asyncio.create_task(consume()) for _ in range(5)]
        await asyncio.sleep(0.01)
        await place.tell(*events(0, 5))
        assert sorted(await asyncio.wait_for(asyncio.gather(*tasks), 2)) == [0, 1, 2, 3, 4]


async def test_too_many_leases_and_a_lease_that_holds_up_too_much_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 20))
        monkeypatch.setattr(pulling, "LEASES", 2)
        first, second = await place.given(1), await place.given(1)
        with pytest.raises(ConflictError, match="2 leases are out on crm; answer them, or let them end"):
            await place.take()
        await place.puller.acknowledge(second.lease, None)
        monkeypatch.setattr(pulling, "LEASES", 100)
        monkeypatch.setattr(pulling, "LIMIT", 6)
        monkeypatch.setattr(lines, "LIMIT", 6)
        await place.puller.acknowledge((await place.given()).lease, None)
        with pytest.raises(
            ConflictError, match="6 events of crm are in hand or were answered out of order; answer the"
        ):
            await place.take()
        await place.puller.acknowledge(first.lease, None)
        assert numbers(await place.take()) == [6, 7, 8, 9, 10, 11]


async def test_past_the_limit_nothing_more_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aftersend.pipeline.late.LIMIT", 2)
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 3))
        first = await place.given()
        with pytest.raises(ConflictError, match="set aside"):
            await place.puller.refuse(first.lease, None, "")
        await place.puller.refuse(first.lease, ids(event(0), event(1)), "")
        await place.puller.acknowledge(first.lease, None)
        assert place.cursor == Cursor(3, 1, 3)


async def test_a_push_that_works_is_told_and_nothing_is_leased(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(event(0))
        place.conflict = "it is pushed"
        with pytest.raises(ConflictError, match="it is pushed"):
            await place.take()
        assert await place.store.list_leases("sub_1") == []


async def test_push_waits_for_live_leases_and_begins_at_the_cursor(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        first, second = await place.given(2, seconds=30), await place.given(2)
        push = asyncio.create_task(place.puller.idle())
        await place.puller.acknowledge(second.lease, None)
        await asyncio.sleep(0.02)
        assert not push.done()
        await place.puller.acknowledge(first.lease, ids(event(0)))
        place.wait(30)
        await asyncio.wait_for(push, 1)
        assert place.cursor == Cursor(1, 1, 1)
        assert await place.store.list_leases("sub_1") == []
        with pytest.raises(ConflictError, match="is over"):
            await place.puller.acknowledge(first.lease, None)


async def test_where_push_moved_the_cursor_pull_goes_on_from_there(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        await place.puller.acknowledge((await place.given(2)).lease, None)
        await place.puller.idle()
        await place.ledger.told("sub_1", 4, events(2, 4), NOW)
        third = await place.given()
        assert (numbers(third), list(third.sequences)) == ([4, 5], [5, 6])


async def test_another_epoch_begins_without_leases(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        first, second = await place.given(2), await place.given(2)
        await place.puller.acknowledge(second.lease, None)
        place.record = Subscription(id="sub_1", name="crm", transport="rest_pull", types=("email.*",), epoch=2)
        with pytest.raises(StoreBusyError, match="crm is being changed"):
            await place.take()
        await place.puller.forget()
        await place.ledger.restart("sub_1", 2, place.cursor.position)
        anew = await place.given()
        assert (numbers(anew), anew.epoch, anew.sequences[0]) == ([0, 1, 2, 3, 4, 5], 2, 1)
        with pytest.raises(ConflictError, match="is over"):
            await place.puller.acknowledge(first.lease, None)


async def test_what_the_log_has_lost_holds_nothing_up(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        await place.given(6, seconds=1)
        place.wait(1)
        whole, place.feed.log = place.feed.log, Lossy(place.store, 4)  # type: ignore[assignment]
        left = await place.given()
        assert numbers(left) == [4, 5]
        place.feed.log = whole
        await place.puller.acknowledge(left.lease, None)
        assert place.cursor == Cursor(6, 1, 6)


class Lossy:
    """A log whose oldest events were dropped."""

    def __init__(self, store: SqliteStore, tail: int) -> None:
        self.store, self.tail = store, tail

    async def read(self, position: int, limit: int) -> Any:
        return await self.store.read(max(position, self.tail), limit)


async def test_a_consumer_that_confirms_gets_the_rest_anew(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 6))
        for _ in range(2):
            await place.given(2, consumer="stream")
        await place.given(1, consumer="other")
        await place.puller.confirm("stream", 3)
        assert place.cursor == Cursor(3, 1, 3)
        assert numbers(await place.take()) == [3, 5]


async def test_an_answer_that_cannot_be_written_counts_for_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    async def full(*arguments: object) -> None:
        raise StoreFullError

    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 4))
        first = await place.given(2)
        with monkeypatch.context() as patch:
            patch.setattr(place.store, "settle_leases", full)
            for work in (
                place.take(),
                place.puller.acknowledge(first.lease, None),
                place.puller.refuse(first.lease, None, ""),
                place.puller.extend(first.lease, 10),
            ):
                with pytest.raises(StoreFullError):
                    await work
        assert place.cursor == Cursor(0)
        assert await place.store.manifests("sub_1") == []
        assert numbers(await place.take()) == [2, 3]
        await place.puller.acknowledge(first.lease, None)
        assert place.cursor == await place.store.get("sub_1") == Cursor(2, 1, 2)
        (manifest,) = await place.store.manifests("sub_1")
        assert manifest.types == {"email.clicked": 2}


async def test_one_who_gives_up_leaves_memory_and_disk_agreed(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 40))
        for turns in range(12):
            handout = await place.given(2)
            task = asyncio.create_task(place.puller.acknowledge(handout.lease, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # The next one waits for what is still being written.
            await place.puller.acknowledge(handout.lease, None)
            assert place.cursor == await place.store.get("sub_1")
        assert place.cursor == Cursor(24, 1, 24)


async def test_unused_pullers_are_let_go(tmp_path: Path) -> None:
    async with opened(tmp_path / "d") as place:
        await place.tell(*events(0, 2))
        first = await place.given(1)
        place.wait(601)
        place.pulls.of("sub_2")
        assert place.pulls.of("sub_1") is not place.puller
        place.puller = place.pulls.of("sub_1")
        assert (await place.puller.acknowledge(first.lease, None)).events == 1


# The model.


class Model:
    """What a consumer's world must look like, kept beside the real thing."""

    def __init__(self, place: Place, chance: random.Random) -> None:
        self.place, self.chance = place, chance
        self.told = 0
        self.acknowledged: set[int] = set()
        self.aside: set[int] = set()
        self.refused: set[int] = set()
        self.hands: dict[str, tuple[Handout, set[int]]] = {}
        self.void: list[str] = []

    async def step(self) -> None:
        chance = self.chance
        work = chance.choices(
            (self.arrive, self.take, self.answer, self.refuse, self.expire, self.extend, self.crash, self.give_up),
            (3, 8, 6, 2, 2, 1, 1, 1),
        )[0]
        await work()
        self.check()

    async def arrive(self) -> None:
        count = self.chance.choice((1, 3, 10))
        await self.place.tell(*events(self.told, self.told + count))
        self.told += count

    async def take(self) -> None:
        now = self.place.clock.now
        before = {number for _, left in self.hands.values() for number in left}
        handout = await self.place.take(self.chance.choice((1, 2, 7, 50)), self.chance.choice((5, 20, 100)))
        self.reap(now)
        if handout is None:
            in_hand = {number for _, left in self.hands.values() for number in left}
            open_ = set(range(self.told)) - self.acknowledged - self.aside - in_hand
            assert not open_, f"not offered: {open_}, before {before}"
            return
        found = numbers(handout)
        assert found == sorted(found), "order rises"
        assert list(handout.sequences) == [number + 1 for number in found], "a number stays with its event"
        in_hand = {number for _, left in self.hands.values() for number in left}
        assert not in_hand & set(found), "in two hands at once"
        assert not self.acknowledged & set(found), "acknowledged, and offered again"
        assert set(found) <= self.aside if handout.late else not set(found) & self.aside
        if not handout.late:
            open_ = set(range(self.told)) - self.acknowledged - self.aside - in_hand
            assert found == sorted(open_)[: len(found)], "the oldest first"
        self.hands[handout.lease] = (handout, set(found))

    def reap(self, now: int) -> None:
        for lease in [lease for lease, (handout, _) in self.hands.items() if handout.until <= now]:
            del self.hands[lease]
            self.void.append(lease)

    def pick(self) -> tuple[Handout, set[int], set[int]] | None:
        if not self.hands:
            return None
        handout, left = self.hands[self.chance.choice(sorted(self.hands))]
        some = set(self.chance.sample(sorted(left), self.chance.randint(1, len(left))))
        return handout, left, some

    async def answer(self) -> None:
        if self.void and self.chance.random() < 0.2:
            with pytest.raises((ConflictError, NotFoundError)):
                await self.place.puller.acknowledge(self.chance.choice(self.void), None)
        picked = self.pick()
        if picked is None:
            return
        handout, left, some = picked
        some = left.copy() if self.chance.random() < 0.6 else some
        told = await self.place.puller.acknowledge(handout.lease, None if some == left else ids(*map(event, some)))
        assert (told.events, told.left) == (len(some), len(left) - len(some))
        self.settle(handout, some)
        self.acknowledged |= some
        self.aside -= some

    async def refuse(self) -> None:
        picked = self.pick()
        if picked is None:
            return
        handout, _, some = picked
        await self.place.puller.refuse(handout.lease, ids(*map(event, some)), "no")
        self.settle(handout, some)
        self.aside |= some

    def settle(self, handout: Handout, some: set[int]) -> None:
        left = self.hands[handout.lease][1]
        left -= some
        if not left:
            del self.hands[handout.lease]

    async def expire(self) -> None:
        self.place.wait(self.chance.choice((1, 6, 30, 200)))

    async def extend(self) -> None:
        picked = self.pick()
        if picked is not None:
            handout, left, _ = picked
            await self.place.puller.extend(handout.lease, 50)
            later = Handout(
                handout.lease, 1, handout.sequences, handout.events, self.place.clock.now + 50 * SECOND, handout.late
            )
            self.hands[handout.lease] = (later, left)

    async def crash(self) -> None:
        await self.place.crash()

    async def give_up(self) -> None:
        """A request is called off: it happened or it did not."""
        task = asyncio.create_task(self.place.take(2, 5))
        for _ in range(self.chance.randint(0, 4)):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            # What it was given, if anything, is nobody's until it runs out.
            await self.place.puller.confirm("nobody", 0)
            self.place.wait(5)
            await self.take()
        elif (handout := task.result()) is not None:
            self.reap(self.place.clock.now)
            self.hands[handout.lease] = (handout, set(numbers(handout)))

    def check(self) -> None:
        settled = self.acknowledged | self.aside
        low = next(number for number in itertools.count() if number not in settled)
        assert self.place.cursor == Cursor(low, 1, low), "the cursor stands before the first that is not settled"

    async def end(self) -> None:
        """Everything comes in the end."""
        place = self.place
        for _ in range(500):
            place.wait(200)
            handout = await place.take(50)
            self.reap(place.clock.now)
            if handout is None:
                break
            await place.puller.acknowledge(handout.lease, None)
            self.acknowledged |= set(numbers(handout))
            self.aside -= set(numbers(handout))
        failed = {int(item.event.source.id or -1) for item in await place.store.list_set_aside("sub_1", 10_000)}
        assert self.acknowledged | failed == set(range(self.told))
        assert place.cursor == await place.store.get("sub_1") == Cursor(self.told, 1, self.told)
        assert await place.store.list_leases("sub_1") == []
        assert len(await read_all(place.store)) == self.told


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.randoms(use_true_random=False), st.integers(10, 80))
def test_nothing_is_lost_and_nothing_acknowledged_comes_again(chance: random.Random, steps: int) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as folder:
            async with opened(Path(folder) / "d") as place:
                model = Model(place, chance)
                for _ in range(steps):
                    await model.step()
                await model.end()

    asyncio.run(check())

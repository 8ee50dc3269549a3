"""Pulling by words on a real store: each word has its own place, and nothing is lost whoever crashes when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import structs
from tests.integration.soap_pulling import PullHouse, event, pulled

from aftersend.contracts import Lease
from aftersend.core.errors import StoreBusyError, StoreError
from aftersend.core.event import Source
from aftersend.core.timestamps import DAY, SECOND
from aftersend.pipeline.word_holdings import HELD_LIMIT, KEPT_LIMIT
from aftersend.pipeline.words import WAITING_LIMIT, Batch
from aftersend.stores.sqlite import SqliteStore

LEASE = 600 * SECOND
OPEN, CLICK = "email.opened", "email.clicked"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[PullHouse]:
    async with pulled(tmp_path) as made:
        yield made


def numbers(batch: Batch | None) -> list[int]:
    assert batch is not None
    return [int(str(one.recipient).partition("@")[0][1:]) for one in batch.events]


async def look(house: PullHouse, *words: str, limit: int = 100) -> list[int]:
    async with house.words.taking(house.subscription) as puller:
        batch = await puller.gather(words or puller.words, limit)
        await puller.rest()
        return numbers(batch)


async def read(house: PullHouse, *words: str, limit: int = 100, keep: int = DAY) -> list[int]:
    async with house.words.taking(house.subscription) as puller:
        batch = await puller.gather(words or puller.words, limit)
        await puller.read(batch, keep)
        return numbers(batch)


async def reserve(house: PullHouse, consumer: str, *words: str, limit: int = 100) -> list[int]:
    async with house.words.taking(house.subscription) as puller:
        batch = await puller.gather(words or puller.words, limit)
        await puller.reserve(batch, consumer, LEASE)
        return numbers(batch)


async def acknowledge(house: PullHouse, consumer: str, keep: int = DAY) -> int:
    async with house.words.taking(house.subscription) as puller:
        return await puller.acknowledge(consumer, keep)


async def recall(house: PullHouse, number: int = 1, consumer: str = "again") -> list[int] | None:
    async with house.words.taking(house.subscription) as puller:
        batch = await puller.recall(number, consumer, LEASE)
        return None if batch is None else numbers(batch)


async def fill(house: PullHouse, count: int, start: int = 1) -> None:
    """Opens, and every third a click."""
    await house.keep(*[event(number, CLICK if number % 3 == 0 else OPEN) for number in range(start, start + count)])


async def test_a_batch_takes_the_oldest_unread_events(house: PullHouse) -> None:
    await fill(house, 5)
    assert await read(house, "OPEN", "CLICK", limit=2) == [1, 2]
    assert await read(house, "OPEN", "CLICK", limit=2) == [3, 4]
    assert await read(house, "OPEN", "CLICK", limit=2) == [5]
    assert await read(house, "OPEN", "CLICK") == []


async def test_what_is_only_looked_at_comes_again(house: PullHouse) -> None:
    await fill(house, 4)
    assert await look(house, limit=3) == await look(house, limit=3) == [1, 2, 3]
    await fill(house, 4, 5)
    assert await look(house, limit=3) == [1, 2, 3]
    assert await look(house) == [1, 2, 3, 4, 5, 6, 7, 8]


async def test_each_word_has_its_own_place(house: PullHouse) -> None:
    await fill(house, 9)
    assert await read(house, "OPEN", limit=4) == [1, 2, 4, 5]
    assert await read(house, "CLICK", limit=1) == [3]
    assert await look(house) == [6, 7, 8, 9]
    assert await read(house, "CLICK") == [6, 9]
    assert await look(house) == [7, 8]


async def test_words_that_the_vendor_does_not_know_are_told_with_all(house: PullHouse) -> None:
    heard = structs.replace(event(1, "other"), source=Source("p", "pure360", "FORWARD"))
    lower = structs.replace(event(2), source=Source("p", "pure360", "open"))
    await house.keep(heard, lower, event(3, "profile.merged"), event(4, OPEN, tenant="default"))
    assert await look(house, "OPEN") == [2, 4]
    assert await read(house) == [1, 2, 4], "what has no word is not told"


async def test_another_tenants_events_are_not_told(house: PullHouse) -> None:
    await house.keep(event(1, tenant="other"))
    await house.keep(event(2))
    assert await read(house) == [2]


async def test_the_subscriptions_filter_holds(house: PullHouse) -> None:
    house.subscription = structs.replace(house.subscription, types=("email.clicked",))
    await fill(house, 6)
    assert await read(house) == [3, 6]


async def test_a_new_subscription_begins_where_its_record_says(house: PullHouse) -> None:
    await fill(house, 3)
    house.subscription = structs.replace(house.subscription, id="sub_new", start="now")
    await house.words.open(house.subscription)
    await fill(house, 2, 10)
    assert await read(house) == [10, 11]


async def test_where_everybody_stands_outlives_a_restart(house: PullHouse) -> None:
    await fill(house, 9)
    await read(house, "OPEN", limit=4)
    await read(house, "CLICK", limit=1)
    house.restart()
    assert await look(house) == [6, 7, 8, 9]
    lines = house.words.standing(house.subscription)["words"]
    assert (lines["OPEN"]["sequence"], lines["CLICK"]["sequence"], lines["BOUNCE"]["sequence"]) == (4, 1, 0)


async def test_how_a_subscription_does_is_told_of_all_words_together_and_of_each(house: PullHouse) -> None:
    assert house.words.standing(house.subscription) == {}
    await fill(house, 9)
    await read(house, "OPEN", limit=4)
    await reserve(house, "one", "CLICK", limit=1)
    standing = house.words.standing(house.subscription)
    assert (standing["position"], standing["behind"], standing["sequence"]) == (0, 9, 4)
    assert (standing["in_hand"], standing["kept"]) == (1, 1)
    assert standing["words"]["OPEN"] == {"position": 6, "epoch": 1, "sequence": 4}
    assert standing["pulled_at"].endswith("Z")


async def test_an_event_in_hand_is_not_given_to_others(house: PullHouse) -> None:
    await fill(house, 9)
    assert await reserve(house, "one", limit=4) == [1, 2, 3, 4]
    assert await reserve(house, "two", limit=2) == [5, 6]
    assert await look(house) == [7, 8, 9]
    assert await read(house, limit=1) == [7]


async def test_a_batch_in_hand_is_read_when_it_is_acknowledged(house: PullHouse) -> None:
    await fill(house, 6)
    await reserve(house, "one", limit=4)
    assert await acknowledge(house, "two") == 0
    assert await acknowledge(house, "one") == 4
    house.now += LEASE
    assert await read(house) == [5, 6]


async def test_batches_are_acknowledged_in_any_order(house: PullHouse) -> None:
    await fill(house, 12)
    for consumer in ("one", "two", "three"):
        await reserve(house, consumer, limit=4)
    assert await acknowledge(house, "two") == 4
    house.restart()
    house.now += LEASE
    assert await look(house) == [1, 2, 3, 4, 9, 10, 11, 12]
    assert await read(house, limit=6) == [1, 2, 3, 4, 9, 10]
    assert await read(house) == [11, 12]
    assert house.words.standing(house.subscription)["words"]["OPEN"]["sequence"] == 8
    assert [lease.state for lease in await house.store.list_leases("sub_pull") if lease.state != "kept"] == []


async def test_a_batch_whose_holder_crashed_comes_again_after_the_lease(house: PullHouse) -> None:
    await fill(house, 6)
    await reserve(house, "one", limit=4)
    house.now += LEASE - 1
    assert await look(house) == [5, 6]
    house.now += 1
    assert await reserve(house, "two") == [1, 2, 3, 4, 5, 6]
    assert await acknowledge(house, "one") == 0, "its time is over"


async def test_a_batch_in_hand_comes_again_though_the_process_was_restarted(house: PullHouse) -> None:
    await fill(house, 6)
    await reserve(house, "one", limit=4)
    house.restart()
    assert await read(house) == [5, 6], "it is still in hand"
    house.restart()
    house.now += LEASE
    assert await read(house) == [1, 2, 3, 4]
    house.restart()
    assert await read(house) == []


async def test_a_batch_in_hand_outlives_the_store_that_was_closed_and_opened_again(tmp_path: Path) -> None:
    async with pulled(tmp_path) as house:
        await fill(house, 9)
        await read(house, "CLICK", limit=1)
        await reserve(house, "one", limit=4)
    async with pulled(tmp_path) as house:
        assert await look(house) == [6, 7, 8, 9]
        assert await recall(house, 2) == [3]
        house.now += LEASE
        assert await read(house) == [1, 2, 4, 5, 6, 7, 8, 9]


async def test_the_last_batch_can_be_had_again(house: PullHouse) -> None:
    await fill(house, 6)
    await read(house, limit=2)
    house.now += 1
    await read(house, "CLICK")
    house.restart()
    assert await recall(house) == [3, 6]
    assert await recall(house) == [3, 6], "as often as it is asked for"
    assert await recall(house, 2) == [1, 2]
    assert await recall(house, 3) is None
    assert await read(house) == [4, 5], "it moves nothing"
    house.now += DAY
    assert await recall(house) is None
    assert await recall(house, 2) is None


async def test_a_batch_in_hand_that_is_recalled_is_in_the_callers_hand(house: PullHouse) -> None:
    await fill(house, 4)
    await reserve(house, "crashed", limit=3)
    house.restart()
    house.now += LEASE - 1
    assert await recall(house, consumer="next") == [1, 2, 3]
    house.now += LEASE - 1
    assert await look(house) == [4]
    assert await acknowledge(house, "crashed") == 0
    assert await acknowledge(house, "next") == 3
    assert await read(house) == [4]
    lines = house.words.standing(house.subscription)["words"]
    assert (lines["OPEN"]["sequence"], lines["CLICK"]["sequence"]) == (3, 1)


async def test_a_batch_that_was_acknowledged_can_be_had_again(house: PullHouse) -> None:
    await fill(house, 3)
    await reserve(house, "one")
    await acknowledge(house, "one")
    assert await recall(house) == [1, 2, 3]
    assert (await house.store.list_leases("sub_pull"))[0].consumer == ""


async def test_nothing_is_kept_for_whoever_wants_no_recall(house: PullHouse) -> None:
    await fill(house, 6)
    await read(house, limit=2, keep=0)
    await reserve(house, "one")
    await acknowledge(house, "one", keep=0)
    assert await house.store.list_leases("sub_pull") == []
    assert await recall(house) is None


async def test_no_more_batches_are_kept_or_in_hand_than_the_limits(house: PullHouse) -> None:
    await fill(house, KEPT_LIMIT + HELD_LIMIT + 20)
    for _ in range(KEPT_LIMIT + 5):
        house.now += 1
        await read(house, limit=1)
    assert await recall(house, KEPT_LIMIT) is not None
    assert await recall(house, KEPT_LIMIT + 1) is None
    assert len(await house.store.list_leases("sub_pull")) == KEPT_LIMIT
    for number in range(HELD_LIMIT):
        await reserve(house, f"consumer {number}", limit=1)
    with pytest.raises(StoreBusyError, match="64 batches are being processed"):
        await reserve(house, "one more", limit=1)
    assert len(await look(house)) == 15


async def test_a_changed_filter_begins_a_new_epoch_at_the_same_place(house: PullHouse) -> None:
    await fill(house, 9)
    await read(house, limit=2)
    await reserve(house, "one", limit=2)
    house.subscription = structs.replace(house.subscription, types=("email.clicked",), epoch=2)
    await house.words.open(house.subscription)
    assert await read(house) == [3, 6, 9], "what was in hand is told again"
    assert await recall(house, 2) is None
    line = house.words.standing(house.subscription)["words"]["CLICK"]
    assert line["sequence"] == 3
    assert (await house.store.get("sub_pull/OPEN")).epoch == 2  # type: ignore[union-attr]


async def test_a_change_that_is_not_the_filters_leaves_everything_as_it_was(house: PullHouse) -> None:
    await fill(house, 6)
    await reserve(house, "one", limit=2)
    house.subscription = structs.replace(house.subscription, reason="renamed")
    await house.words.open(house.subscription)
    assert await look(house) == [3, 4, 5, 6]


async def test_a_line_that_nobody_asks_for_holds_the_log_and_one_that_is_read_does_not(house: PullHouse) -> None:
    await fill(house, 6)
    await house.words.open(house.subscription)
    assert house.words.holding() == {"sub_pull": 0}
    house.now += DAY
    await read(house)
    assert house.words.holding() == {"sub_pull": 6, "sub_pull/recall": 0}
    house.now += DAY
    await look(house)
    assert house.words.holding() == {"sub_pull": 6}
    house.words.close("sub_pull")
    assert house.words.holding() == {}


async def test_words_without_events_are_passed(house: PullHouse) -> None:
    await fill(house, 6)
    await look(house, "BOUNCE")
    house.now += 6 * SECOND
    await look(house, "BOUNCE")
    cursor = await house.store.get("sub_pull/BOUNCE")
    assert cursor is not None
    assert (cursor.position, cursor.sequence) == (6, 0)
    await fill(house, 3, 7)
    await look(house, "BOUNCE")
    await house.words.flush()
    assert (await house.store.get("sub_pull/BOUNCE")).position == 9  # type: ignore[union-attr]


async def test_a_log_is_looked_through_once_for_a_rare_word(house: PullHouse) -> None:
    for start in range(0, 10_000, 500):
        await house.keep(*[event(number) for number in range(start, start + 500)], event(90_000 + start, CLICK))
    assert await look(house, "CLICK", limit=5) == [90_000, 90_500, 91_000, 91_500, 92_000]
    assert len(await look(house, "CLICK")) == 20
    seen = Counting(house.store)
    house.words._pullers["sub_pull"]._search.log = seen  # type: ignore[assignment]
    assert len(await look(house, "CLICK", limit=5)) == 5
    assert seen.events <= 5 * 501
    assert len(await read(house, "CLICK")) == 20
    before = seen.events
    assert await read(house, "CLICK") == []
    assert seen.events == before


class Counting:
    """A log that counts what is read of it."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.events = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, position: int, limit: int) -> Any:
        found = await self._store.read(position, limit)
        self.events += sum(len(recorded.events) for recorded in found)
        return found


async def test_a_fault_of_the_store_loses_nothing(house: PullHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(house, 6)
    await read(house, limit=2)

    async def failing(*_: object) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "settle_leases", failing)
        for take in (read(house), reserve(house, "one")):
            with pytest.raises(StoreError):
                await take
    assert await read(house) == [3, 4, 5, 6]


async def test_events_that_retention_took_are_passed(tmp_path: Path) -> None:
    async with pulled(tmp_path, max_file_bytes=20_000) as house:
        for start in range(0, 3_000, 100):
            await house.keep(*[event(n, url=Random(n).randbytes(100).hex()) for n in range(start, start + 100)])
        assert len(await look(house, limit=50)) == 50
        await house.store.retain(0, 100_000, {})
        tail = house.store.tail()
        assert tail > 50
        assert await read(house, limit=3) == [tail, tail + 1, tail + 2]


async def test_two_requests_of_one_login_never_take_the_same_events(house: PullHouse) -> None:
    await fill(house, 300)
    batches = await asyncio.gather(*[read(house, limit=30) for _ in range(10)])
    assert sorted(number for batch in batches for number in batch) == list(range(1, 301))


async def test_no_more_requests_wait_than_the_limit(house: PullHouse) -> None:
    await fill(house, 3)
    async with house.words.taking(house.subscription):
        waiting = [asyncio.ensure_future(look(house)) for _ in range(WAITING_LIMIT)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        with pytest.raises(StoreBusyError, match="come again"):
            done.pop().result()
    assert len(await asyncio.gather(*waiting, return_exceptions=True)) == WAITING_LIMIT


async def test_leases_of_another_kind_of_puller_are_left_alone(house: PullHouse) -> None:
    others = [Lease("one", "sub_pull", "somebody", ((1, 2),), 0), Lease("two", "sub_pull/late", "x", ((1, 2),), 0)]
    await house.store.settle_leases(others)
    await fill(house, 3)
    assert await read(house) == [1, 2, 3]
    assert [lease for lease in await house.store.list_leases("sub_pull") if lease.state == "leased"] == others


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_in_between_every_event_is_told_and_read_once(tmp_path: Path, seed: int) -> None:
    """Readers read, reserve, crash, acknowledge and restart: no event is lost, and none that is read comes again."""
    chance = Random(seed)
    async with pulled(tmp_path) as house:
        done, held, count = set[int](), dict[str, list[int]](), 0
        for step in range(80):
            house.now += chance.randrange(0, LEASE // 3)
            words = chance.choice([(), ("OPEN",), ("CLICK",), ("OPEN", "CLICK")])
            limit = chance.choice([1, 3, 10, 50])
            match chance.randrange(6):
                case 0:
                    await fill(house, 10, count + 1)
                    count += 10
                case 1:
                    batch = await read(house, *words, limit=limit)
                    assert not done & set(batch)
                    done |= set(batch)
                case 2:
                    name = f"consumer {step}"
                    held[name] = await reserve(house, name, *words, limit=limit)
                    assert not done & set(held[name])
                case 3 if held:
                    name, batch = held.popitem()
                    if await acknowledge(house, name):
                        done |= set(batch)
                case 4:
                    house.restart()
                    held.clear()
                case _:
                    assert not done & set(await look(house, *words, limit=limit))
        house.now += LEASE
        house.restart()
        rest = await read(house, limit=10_000)
        assert not done & set(rest)
        assert done | set(rest) == set(range(1, count + 1))

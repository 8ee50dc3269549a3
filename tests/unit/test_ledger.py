"""Where subscriptions stand: in memory at once, on disk soon after, and never on disk before it is true."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aftersend.contracts import Cursor, Lease, Manifest, SetAside
from aftersend.core.errors import StoreFullError
from aftersend.core.event import Event
from aftersend.core.outcome import Tally
from aftersend.core.tallying import tally_of
from aftersend.core.timestamps import DAY
from aftersend.keyring import Keyring
from aftersend.pipeline.ledger import COMMIT_INTERVAL, Ledger
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import NOW, SetClock, event, events


class Cursors:
    """The store's cursors; counts the writes, and refuses them while the disk is full."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.get, self.manifests = store.get, store.manifests
        self.writes: list[dict[str, Cursor]] = []
        self.is_full = False

    async def move(
        self, moves: Mapping[str, Cursor], set_aside: Sequence[SetAside] = (), manifests: Sequence[Manifest] = ()
    ) -> None:
        if self.is_full:
            raise StoreFullError
        self.writes.append(dict(moves))
        await self.store.move(moves, set_aside, manifests)


@asynccontextmanager
async def cursors(folder: Path) -> AsyncIterator[Cursors]:
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=SetClock(), keyring=keyring, create=True)
    try:
        yield Cursors(store)
    finally:
        await store.close()


def aside(position: int) -> SetAside:
    return SetAside("s", position, event(position), 1, NOW, "400: no")


def ids_sum(told: Sequence[Event]) -> str:
    return f"{sum(int(event.id.replace('-', ''), 16) for event in told) % (1 << 128):032x}"


async def test_a_subscription_begins_at_its_start_and_goes_on_where_it_stood(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        assert await Ledger(kept).open("s", Cursor(7)) == Cursor(7)
        assert await kept.get("s") == Cursor(7)
        assert await Ledger(kept).open("s", Cursor(99)) == Cursor(7)


async def test_what_was_told_is_in_memory_at_once_and_on_disk_with_the_next_flush(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 10, events(0, 3), NOW)
        await ledger.told("s", 20, events(3, 5), NOW)
        assert ledger.cursor("s") == ledger.cursors()["s"] == Cursor(20, 1, 5)
        assert await kept.get("s") == Cursor(0)
        await ledger.flush()
        assert await kept.get("s") == Cursor(20, 1, 5)
        await ledger.flush()
        assert len(kept.writes) == 2, "nothing moved, so nothing is written"


async def test_many_subscriptions_are_written_down_together_while_it_runs(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        names = [f"s{number}" for number in range(50)]
        for name in names:
            await ledger.open(name, Cursor(0))
            await ledger.told(name, 5, [event(1)], NOW)
        kept.writes.clear()
        running = asyncio.create_task(ledger.run())
        async with asyncio.timeout(5):
            while not kept.writes:
                await asyncio.sleep(0.002)
        await asyncio.sleep(COMMIT_INTERVAL * 2)
        running.cancel()
        await asyncio.wait([running])
        assert [set(write) for write in kept.writes] == [set(names)]


async def test_a_cursor_that_only_passes_unwanted_events_never_goes_back_and_wakes_nobody(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        for position in (5, 9, 3):
            ledger.passed("s", position)
        assert ledger.cursor("s") == Cursor(9)
        assert not ledger._written.is_set()
        await ledger.flush()
        assert await kept.get("s") == Cursor(9)
        assert await kept.manifests("s") == []


async def test_a_flush_that_fails_is_made_up_for_by_the_next(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        for name in ("s", "t"):
            await ledger.open(name, Cursor(0))
        await ledger.told("s", 3, events(0, 3), NOW)
        ledger.passed("t", 8)
        kept.is_full = True
        with pytest.raises(StoreFullError):
            await ledger.flush()
        kept.is_full = False
        await ledger.flush()
        assert (await kept.get("s"), await kept.get("t")) == (Cursor(3, 1, 3), Cursor(8))
        (manifest,) = await kept.manifests("s")
        assert manifest.last_sequence == 3


async def test_events_that_leave_the_line_move_the_cursor_with_them(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 4, events(0, 4), NOW)
        await ledger.set_aside("s", 6, [aside(4), aside(5)])
        assert ledger.cursor("s") == await kept.get("s") == Cursor(6, 1, 6)
        assert [item.position for item in await kept.store.list_set_aside("s", 10)] == [4, 5]
        (manifest,) = await kept.manifests("s")
        assert (manifest.types, manifest.ids_sum) == ({"email.clicked": 4}, ids_sum(events(0, 4)))


async def test_events_that_could_not_be_written_aside_are_not_passed_over(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 4, events(0, 4), NOW)
        kept.is_full = True
        with pytest.raises(StoreFullError):
            await ledger.set_aside("s", 5, [aside(4)])
        kept.is_full = False
        await ledger.flush()
        assert ledger.cursor("s") == await kept.get("s") == Cursor(4, 1, 4)


async def test_a_new_epoch_counts_anew_from_where_it_begins(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 3, events(0, 3), NOW)
        await ledger.restart("s", 2, 3)
        await ledger.told("s", 5, events(3, 5), NOW)
        await ledger.flush()
        assert await kept.get("s") == Cursor(5, 2, 2)
        manifests = await kept.manifests("s")
        assert [(item.epoch, item.first_sequence, item.last_sequence) for item in manifests] == [(2, 1, 2), (1, 1, 3)]


async def test_a_closed_subscription_is_written_down_no_more(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 3, events(0, 3), NOW)
        ledger.close("s")
        await ledger.flush()
        assert await kept.get("s") == Cursor(0)
        assert ledger.cursors() == {}


async def test_a_days_manifest_goes_on_after_a_restart_and_the_next_day_has_its_own(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        for start in (0, 3):
            ledger = Ledger(kept)
            await ledger.open("s", Cursor(0))
            await ledger.told("s", start + 3, events(start, start + 3), NOW)
            await ledger.flush()
        await ledger.told("s", 8, events(6, 8), NOW + DAY)
        await ledger.flush()
        today, before = await kept.manifests("s")
        assert (before.first_sequence, before.last_sequence, before.ids_sum) == (1, 6, ids_sum(events(0, 6)))
        assert (today.first_sequence, today.last_sequence, today.types) == (7, 8, {"email.clicked": 2})
        assert len(ledger._manifests) == 1, "days that are over leave the memory"


async def test_a_counted_run_is_on_disk_with_what_left_the_line_when_it_is_settled(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        told = events(0, 9)
        await ledger.settle("s", 12, tally_of(told), NOW, [aside(9)])
        assert ledger.cursor("s") == await kept.get("s") == Cursor(12, 1, 10)
        assert [item.position for item in await kept.store.list_set_aside("s", 10)] == [9]
        (manifest,) = await kept.manifests("s")
        assert (manifest.first_sequence, manifest.last_sequence, manifest.ids_sum) == (1, 9, ids_sum(told))
        assert sum(manifest.types.values()) == 9
        assert len(kept.writes) == 2, "one transaction"


async def test_a_run_that_cannot_be_settled_is_counted_when_it_can(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        first, second = events(0, 3), events(3, 7)
        for told, position in ((first, 3), (second, 7)):
            kept.is_full = True
            with pytest.raises(StoreFullError):
                await ledger.settle("s", position, tally_of(told), NOW)
            assert ledger.cursor("s").position == position - len(told)
            kept.is_full = False
            await ledger.flush()
            await ledger.settle("s", position, tally_of(told), NOW)
        (manifest,) = await kept.manifests("s")
        assert (manifest.last_sequence, manifest.ids_sum) == (7, ids_sum([*first, *second]))
        assert await kept.get("s") == Cursor(7, 1, 7)


async def test_leases_and_the_cursor_move_in_memory_when_they_are_on_disk(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        lease = Lease("l", "s", "", ((2, 5),), NOW)
        told = tally_of(events(0, 2))
        moved = asyncio.create_task(
            ledger.settle_leases("s", Cursor(2, 1, 2), told, leases=kept.store, put=[lease], drop=[], now=NOW)
        )
        await asyncio.sleep(0)
        assert ledger.cursor("s") == Cursor(0)
        await moved
        assert ledger.cursor("s") == await kept.get("s") == Cursor(2, 1, 2)
        assert await kept.store.list_leases("s") == [lease]
        (manifest,) = await kept.manifests("s")
        assert (manifest.last_sequence, manifest.ids_sum) == (2, ids_sum(events(0, 2)))


async def test_what_a_settled_lease_finds_unwritten_is_written_later(tmp_path: Path) -> None:
    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 3, events(0, 3), NOW)
        await ledger.settle_leases("s", Cursor(3, 1, 3), Tally(), leases=kept.store, put=[], drop=[], now=NOW)
        await ledger.flush()
        (manifest,) = await kept.manifests("s")
        assert manifest.last_sequence == 3
        ledger.passed("s", 9)
        await ledger.settle_leases("s", Cursor(9, 1, 3), Tally(), leases=kept.store, put=[], drop=[], now=NOW)
        await ledger.flush()
        assert await kept.get("s") == Cursor(9, 1, 3)


async def test_where_a_lease_cannot_be_written_nothing_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*arguments: object) -> None:
        raise StoreFullError

    async with cursors(tmp_path / "d") as kept:
        ledger = Ledger(kept)
        await ledger.open("s", Cursor(0))
        await ledger.told("s", 1, events(0, 1), NOW)
        with monkeypatch.context() as patch:
            patch.setattr(kept.store, "settle_leases", full)
            with pytest.raises(StoreFullError):
                await ledger.settle_leases(
                    "s", Cursor(3, 1, 3), tally_of(events(1, 3)), leases=kept.store, put=[], drop=[], now=NOW
                )
        assert ledger.cursor("s") == Cursor(1, 1, 1)
        await ledger.flush()
        assert await kept.get("s") == Cursor(1, 1, 1)
        (manifest,) = await kept.manifests("s")
        assert manifest.types == {"email.clicked": 1}

"""What becomes of a receipt: kept as events or in quarantine, once however often it is sent, all of it or nothing."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

import msgspec
import pytest
from msgspec import structs

from aftersend.contracts import Entry, Quarantined, Taken
from aftersend.core.errors import StoreBusyError
from aftersend.core.event import Event, Receipt, Rejected
from aftersend.core.timestamps import DAY, SECOND
from aftersend.dialects import activatepro, canonical, halon, pure360
from aftersend.keyring import Keyring
from aftersend.pipeline.intake import THREAD_ABOVE, Intake
from aftersend.stores.sqlite import Limits, SqliteStore
from aftersend.testing.stores import NOW, SetClock, event

FEED = Path(__file__).parents[1] / "fixtures/dialects/activatepro/feed/event_history_20220111001500.json"
CANONICAL = canonical.Dialect()
TIMELESS = {"type": "email.opened", "recipient": "ann@mail.example"}
TIMED = TIMELESS | {"time": "2026-01-15T08:00:00Z"}


class House:
    """A store and its intake; every receipt arrives a second after the one before."""

    def __init__(self, store: SqliteStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self.intake = Intake(store, store)

    def receipt(self, told: object, **fields: object) -> Receipt:
        body = told if isinstance(told, bytes) else msgspec.json.encode(told)
        self.clock.now += SECOND
        return structs.replace(Receipt(body, self.clock.now, source="shop"), **fields)

    async def take(
        self, told: object, request: str = "", dialect: object = CANONICAL, *, keep: bool = False, **fields: object
    ) -> Taken:
        receipt = self.receipt(told, **fields)
        return await self.intake.take(dialect, receipt, request, keep_unreadable=keep)  # type: ignore[arg-type]

    async def events(self) -> list[Event]:
        return [event for recorded in await self.store.read(0, 100_000) for event in recorded.events]

    async def quarantined(self) -> list[Quarantined]:
        return [item for _, item in await self.store.list_quarantined(None, 100_000)]


@asynccontextmanager
async def house(folder: Path, **limits: int) -> AsyncIterator[House]:
    clock = SetClock()
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=clock, keyring=keyring, create=True, limits=Limits(**limits))
    try:
        yield House(store, clock)
    finally:
        await store.close()


def counts(taken: Taken) -> tuple[int, int, int]:
    return taken.accepted, taken.duplicates, len(taken.rejected)


# --- requests that name themselves


async def test_a_repeat_with_the_same_body_is_answered_as_the_first_was(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        body = [TIMELESS, {"type": "email.opened", "time": "yesterday"}, TIMED]
        first = await home.take(body, "batch-7")
        again = await home.take(body, "batch-7")
        assert counts(first) == (2, 0, 1)
        assert (again.accepted, again.duplicates) == (2, 0)
        assert [(item.reason, item.detail, item.index) for item in again.rejected] == [
            (item.reason, item.detail, item.index) for item in first.rejected
        ]
        assert len(await home.events()) == 2
        assert len(await home.quarantined()) == 1


async def test_a_repeat_after_a_restart_is_one_too(tmp_path: Path) -> None:
    for _ in range(2):
        async with house(tmp_path / "d") as home:
            assert counts(await home.take(TIMELESS, "batch-7")) == (1, 0, 0)
            assert len(await home.events()) == 1


async def test_the_same_name_with_another_body_is_read_with_the_first_time_and_counted_honestly(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.take(TIMELESS, "batch-7")
        more = [TIMELESS, TIMELESS | {"recipient": "bob@mail.example"}]
        assert counts(await home.take(more, "batch-7")) == (1, 1, 0)
        assert counts(await home.take(more, "batch-7")) == (0, 2, 0)
        first, second = await home.events()
        assert first.time == second.time == first.received_at == second.received_at


async def test_the_same_bytes_in_another_dialect_are_no_repeat(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        form = b"type=OPEN&email=ann%40mail.example"
        assert counts(await home.take(form, "x", halon.Dialect(), keep=True)) == (0, 0, 1)
        assert counts(await home.take(form, "x", pure360.Dialect(), keep=True)) == (1, 0, 0)


async def test_a_repeat_that_overtakes_the_first_ones_commit_is_seen_to_be_one(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        taken = await asyncio.gather(*[home.take(TIMELESS, "batch-7") for _ in range(5)])
        assert [counts(item) for item in taken] == [(1, 0, 0)] * 5
        assert len(await home.events()) == 1
        assert not home.intake._turns, "nothing is held in memory once all are answered"


async def test_one_who_gives_up_does_not_hold_up_the_repeat(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        first = asyncio.create_task(home.take(TIMELESS, "batch-7"))
        await asyncio.sleep(0)
        first.cancel()
        assert counts(await asyncio.wait_for(home.take(TIMELESS, "batch-7"), 5)) == (1, 0, 0)
        await asyncio.wait([first])
        assert len(await home.events()) == 1


async def test_names_are_a_sources_own_and_a_tenants_own(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for fields in ({}, {"source": "other"}, {"tenant": "acme"}):
            assert (await home.take(TIMELESS, "batch-7", **fields)).accepted == 1
        assert len(await home.events()) == 3


async def test_without_a_name_every_arrival_of_an_event_without_a_time_is_another(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        assert [counts(await home.take(TIMELESS)) for _ in range(2)] == [(1, 0, 0)] * 2
        assert [counts(await home.take(TIMED)) for _ in range(2)] == [(1, 0, 0), (0, 1, 0)]


async def test_a_very_long_name_is_a_name(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for name in ("x" * 100_000, "x" * 100_001, "x" * 100_000):
            await home.take(TIMELESS, name)
        assert len(await home.events()) == 2


async def test_a_file_is_remembered_longer_than_a_request(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for days in (0, 8):
            home.clock.now = NOW + days * DAY
            await home.take(TIMELESS | {"recipient": "r"}, "sha", source="request")
            await home.take(TIMELESS | {"recipient": "f"}, "sha", source="file", file_name="events.json")
        assert sorted(event.recipient or "" for event in await home.events()) == ["f", "r", "r"]


async def test_a_file_that_is_taken_in_anew_brings_nothing_new(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        body = [TIMELESS, {"type": "email.opened", "time": "yesterday"}]
        assert counts(await home.take(body, "sha", file_name="events.json")) == (1, 0, 1)
        assert counts(await home.take(body, "sha", file_name="again.json")) == (0, 1, 1)
        assert len(await home.quarantined()) == 1


# --- quarantine


async def test_a_bad_member_is_kept_alone_with_its_reason(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        assert counts(await home.take([TIMED, {"type": "email.opened", "time": "yesterday"}])) == (1, 0, 1)
        (kept,) = await home.quarantined()
        assert (kept.source, kept.dialect, kept.reason) == ("shop", "canonical", "invalid_time")
        assert msgspec.json.decode(kept.body) == {"type": "email.opened", "time": "yesterday"}


async def test_a_body_that_cannot_be_split_is_kept_only_of_a_proven_sender(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        refused = await home.take(b"\x00{", "name")
        assert (counts(refused), refused.unreadable) == ((0, 0, 1), refused.rejected[0])
        assert not await home.quarantined()
        for _ in range(2):
            kept = await home.take(b"\x00{", "name", keep=True)
            assert kept.unreadable is not None
            assert kept.unreadable.reason == refused.rejected[0].reason
        (item,) = await home.quarantined()
        assert item.body == b"\x00{"


async def test_a_damaged_part_of_an_archive_does_not_make_the_other_parts_unreadable(tmp_path: Path) -> None:
    archive = BytesIO()
    with ZipFile(archive, "w") as parts:
        parts.writestr("a.json", FEED.read_bytes())
        parts.writestr("b.json", "{broken")
    async with house(tmp_path / "d") as home:
        taken = await home.take(archive.getvalue(), "", activatepro.Dialect(), form="feed")
        assert counts(taken) == (8, 0, 1)
        assert taken.unreadable is None, "what is kept is answered with success"
        (kept,) = await home.quarantined()
        assert kept.reason == "invalid_json"


async def test_members_without_bytes_of_their_own_share_one_copy_of_the_body(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(70):
        deep = [deep]
    body = msgspec.json.encode([{"type": "email.opened", "extra": {"x": deep}}] * 50)
    async with house(tmp_path / "d") as home:
        assert counts(await home.take(body)) == (0, 0, 50)
        assert [kept.body for kept in await home.quarantined()] == [body]


async def test_of_very_many_bad_members_only_as_many_are_kept_as_a_quarantine_holds(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        taken = await home.take(b"[" + b"1," * 10_050 + b"2]")
        assert len(taken.rejected) == 10_051
        kept = await home.quarantined()
        assert (len(kept), kept[-1].body) == (10_000, b"2")


async def test_an_empty_batch_keeps_nothing(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        assert await home.take([], "name", keep=True) == Taken(0, 0, [])
        assert home.store.head() == 0
        assert counts(await home.take(TIMELESS, "name")) == (1, 0, 0)


# --- threads and faults


class Noting(canonical.Dialect):
    """The canonical dialect; notes in which thread it reads."""

    threads: list[bool]

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        self.threads.append(threading.current_thread() is threading.main_thread())
        return super().decode(receipt)


async def test_a_large_body_is_read_beside_the_loop_and_a_small_one_in_it(tmp_path: Path) -> None:
    noting = Noting()
    object.__setattr__(noting, "threads", [])
    large = [TIMED | {"recipient": f"r{number}@mail.example"} for number in range(THREAD_ABOVE // 80)]
    async with house(tmp_path / "d") as home:
        await home.take(TIMED, dialect=noting)
        assert (await home.take(large, dialect=noting)).accepted == len(large)
    assert noting.threads == [True, False]


async def test_a_busy_store_leaves_nothing_half_done(tmp_path: Path) -> None:
    async with house(tmp_path / "d", queued_events=1) as home:
        body = [TIMELESS, {"type": "email.opened", "time": "yesterday"}]
        await home.store.find_request("the reading threads are up")
        waiting = asyncio.create_task(home.store.append(Entry("default", [event(1), event(2)])))
        await asyncio.sleep(0)
        with pytest.raises(StoreBusyError):
            await home.take(body)
        await waiting
        assert len(await home.events()) == 2
        assert not await home.quarantined()
        assert counts(await home.take(body, "batch-7")) == (1, 0, 1)


class Full:
    """A log that refuses once, after the request was looked up."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.is_busy = True

    async def append(self, entry: Entry) -> object:
        if self.is_busy:
            self.is_busy = False
            raise StoreBusyError
        return await self.store.append(entry)


async def test_a_named_request_that_was_refused_is_taken_when_it_comes_again(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.intake = Intake(Full(home.store), home.store)  # type: ignore[arg-type]
        with pytest.raises(StoreBusyError):
            await home.take(TIMELESS, "batch-7", keep=True)
        assert await home.store.find_request("default/shop/batch-7") is None
        assert counts(await home.take(TIMELESS, "batch-7", keep=True)) == (1, 0, 0)

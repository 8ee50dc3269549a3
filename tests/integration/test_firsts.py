"""First opens and clicks: made once for each person and message, whatever happens to the process in between."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from aftersend.contracts import Entry
from aftersend.core.errors import StoreBusyError, StoreError
from aftersend.core.event import Event, Recorded, Source
from aftersend.core.identity import make_id
from aftersend.core.timestamps import DAY, SECOND
from aftersend.keyring import Keyring
from aftersend.pipeline.firsts import KEPT, FirstsFollower
from aftersend.stores.sqlite import SqliteStore
from aftersend.stores.sqlite.followers import SqliteFirsts
from aftersend.testing.stores import NOW, SetClock

NATIVE = frozenset({"altcraft", "aftersend"})


def hit(number: int, type_: str = "email.opened", dialect: str = "halon", **fields: object) -> Event:
    """A hit of one person on one message, at a time of its own."""
    time = NOW + number * SECOND
    fields = {"recipient": "ann@mail.example", "message_id": "m1", "received_at": time} | fields
    return Event(make_id(time, f"{number} {type_}".encode()), type_, time, Source("s", dialect, "w"), **fields)  # type: ignore[arg-type]


class House:
    """A store, the memory of firsts, and the follower while it runs."""

    def __init__(self, store: SqliteStore, firsts: SqliteFirsts) -> None:
        self.store = store
        self.firsts = firsts
        self.follower = FirstsFollower(store, firsts, NATIVE)

    async def keep(self, *events: Event, tenant: str = "default") -> None:
        await self.store.append(Entry(tenant, events))

    async def follow(self) -> None:
        """Run the follower until it has read all there is."""
        task = asyncio.create_task(self.follower.run())
        try:
            async with asyncio.timeout(10):
                while self.follower.position < self.store.head():
                    await asyncio.sleep(0.002)
                    if task.done():
                        task.result()
                while await self.firsts.bookmark() < self.store.head():
                    await asyncio.sleep(0.002)
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def all(self) -> list[Event]:
        found = await self.store.read(0, 1_000_000)
        return [event for recorded in found for event in recorded.events]

    async def made(self) -> list[Event]:
        return [event for event in await self.all() if event.source.dialect == "aftersend"]


@asynccontextmanager
async def house(folder: Path, clock: SetClock | None = None) -> AsyncIterator[House]:
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=clock or SetClock(), keyring=keyring, create=True)
    firsts = SqliteFirsts.open(folder)
    try:
        yield House(store, firsts)
    finally:
        await firsts.close()
        await store.close()


async def firsts_of(folder: Path, *events: Event) -> list[Event]:
    async with house(folder) as home:
        await home.keep(*events)
        await home.follow()
        return await home.made()


async def test_of_two_hits_in_one_chunk_the_first_makes_a_first(tmp_path: Path) -> None:
    one, two = hit(1), hit(2)
    (first,) = await firsts_of(tmp_path / "d", one, two)
    assert (first.type, first.time, first.source) == (
        "email.first_opened",
        one.time,
        Source("s", "aftersend", "first_opened", one.id),
    )
    assert first.id[:13] == one.id[:13], "the id begins with the hit's millisecond"


async def test_an_earlier_hit_that_arrives_later_changes_nothing(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(5))
        await home.follow()
        await home.keep(hit(1), hit(5, "email.clicked"))
        await home.follow()
        assert [(first.type, first.time) for first in await home.made()] == [
            ("email.first_opened", hit(5).time),
            ("email.first_clicked", hit(5).time),
        ]


async def test_each_person_message_channel_row_and_tenant_has_its_own(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(
            hit(1),
            hit(2, recipient="bob@mail.example"),
            hit(3, message_id="m2"),
            hit(4, "email.clicked"),
            hit(5, "whatsapp.clicked"),
        )
        await home.keep(hit(6, tenant="acme"), tenant="acme")
        await home.follow()
        assert [first.time for first in await home.made()] == [hit(number).time for number in range(1, 7)]
        assert [first.tenant for first in await home.made()] == ["default"] * 5 + ["acme"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"job_id": "j1"}, {"job_id": "j2"}),
        ({"campaign_id": "c1"}, {"campaign_id": "c2"}),
        ({"message_id": "m1", "job_id": "j"}, {"message_id": "m2", "job_id": "j"}),
        ({"job_id": "j1", "campaign_id": "c"}, {"job_id": "j2", "campaign_id": "c"}),
        ({"message_id": "m", "recipient": None, "profile_id": "p1"}, {"message_id": "m", "recipient": "p2"}),
        (
            {"message_id": "m", "recipient": None, "device_id": "d1"},
            {"message_id": "m", "recipient": None, "device_id": "d2"},
        ),
    ],
)
async def test_what_stands_in_for_a_message_or_a_person_tells_them_apart(
    tmp_path: Path, one: dict[str, str], other: dict[str, str]
) -> None:
    bare = {"message_id": None}
    hits = [hit(1, **bare | one), hit(2, **bare | other), hit(3, **bare | one), hit(4, **bare | other)]
    assert [first.time for first in await firsts_of(tmp_path / "d", *hits)] == [hits[0].time, hits[1].time]


async def test_without_a_message_or_a_person_there_is_no_first(tmp_path: Path) -> None:
    assert not await firsts_of(tmp_path / "d", hit(1, message_id=None), hit(2, recipient=None))


async def test_dialects_that_tell_firsts_and_other_rows_make_none(tmp_path: Path) -> None:
    hits = [hit(1, dialect="altcraft"), hit(2, "email.delivered"), hit(3, "email.read"), hit(4, "web.pixel_opened")]
    assert not await firsts_of(tmp_path / "d", *hits)


async def test_a_first_keeps_what_the_hit_says_of_person_place_and_doubt(tmp_path: Path) -> None:
    told = {"url": "https://x.example", "ip": "192.0.2.1", "campaign_id": "c", "test": True, "suspect": ["time"]}
    clicked = hit(1, "email.clicked", **told, extra={"own": 1})
    (first,) = await firsts_of(tmp_path / "d", clicked)
    assert {name: getattr(first, name) for name in told} == told
    assert first.extra == {}


async def test_firsts_are_made_once_over_restarts(tmp_path: Path) -> None:
    for start in (0, 3, 6):
        async with house(tmp_path / "d") as home:
            await home.keep(*[hit(number, message_id=f"m{number % 4}") for number in range(start, start + 3)])
            await home.follow()
            kept = await home.made()
    assert [first.message_id for first in kept] == ["m0", "m1", "m2", "m3"]


class CrashError(Exception):
    """The process ends here."""


class Unremembering(SqliteFirsts):
    """The firsts are in the log, and the bookmark is never written."""

    async def remember(self, keys: object, bookmark: int) -> None:
        raise CrashError


async def test_a_crash_before_the_bookmark_makes_the_same_firsts_again_and_the_log_drops_them(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(1), hit(2, message_id="m2"))
        crashing = Unremembering.open(tmp_path / "d")
        with pytest.raises(CrashError):
            await FirstsFollower(home.store, crashing, NATIVE).run()
        await crashing.close()
        before = await home.made()
        assert len(before) == 2
    async with house(tmp_path / "d") as home:
        assert await home.firsts.bookmark() == 0
        await home.follow()
        assert await home.made() == before


async def test_a_memory_of_firsts_that_was_lost_is_built_anew_without_doubles(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(1), hit(2))
        await home.follow()
        before = await home.made()
    for file in (tmp_path / "d" / "followers").iterdir():
        file.unlink()
    async with house(tmp_path / "d") as home:
        await home.keep(hit(3))
        await home.follow()
        assert await home.made() == before


class BusyOnce:
    """A log that is busy when it is first written to."""

    def __init__(self, store: SqliteStore) -> None:
        self.read, self.wait, self.tail = store.read, store.wait, store.tail
        self._append = store.append
        self._is_busy = True

    async def append(self, entry: Entry) -> object:
        if self._is_busy:
            self._is_busy = False
            raise StoreBusyError
        return await self._append(entry)


async def test_a_busy_log_moves_nothing_and_the_next_run_makes_the_firsts(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(1))
        home.follower = FirstsFollower(BusyOnce(home.store), home.firsts, NATIVE)  # type: ignore[arg-type]
        with pytest.raises(StoreBusyError):
            await home.follow()
        assert await home.firsts.bookmark() == 0
        await home.follow()
        assert len(await home.made()) == 1


async def test_after_400_days_a_hit_is_a_first_again(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(1))
        await home.follow()
        await home.firsts.forget(NOW + DAY * 399 - KEPT)
        later = msgspec.structs.replace(hit(2), id=make_id(NOW + 400 * DAY, b""), time=NOW + 400 * DAY)
        await home.keep(later)
        await home.follow()
        assert len(await home.made()) == 1
        await home.firsts.forget(NOW + 401 * DAY - KEPT)
        await home.keep(msgspec.structs.replace(later, id=make_id(NOW + 401 * DAY, b""), time=NOW + 401 * DAY))
        await home.follow()
        assert [first.time for first in await home.made()] == [hit(1).time, NOW + 401 * DAY]


async def test_old_events_that_arrive_now_are_remembered_from_now(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        old = NOW - 2 * KEPT
        for number in range(2):
            time = old + number * SECOND
            await home.keep(msgspec.structs.replace(hit(1), id=make_id(time, b""), time=time))
            await home.follow()
            await home.firsts.forget(NOW - KEPT)
        assert [first.time for first in await home.made()] == [old]


async def test_what_retention_took_before_it_was_read_is_passed_over(tmp_path: Path) -> None:
    clock = SetClock()
    async with house(tmp_path / "d", clock) as home:
        for day in range(3):
            clock.now = NOW + day * DAY
            await home.keep(hit(day, message_id=f"m{day}"))
        await home.store.retain(NOW + DAY, None, {})
    async with house(tmp_path / "d", clock) as home:
        assert home.store.tail() == 1
        await home.follow()
        assert [first.message_id for first in await home.made()] == ["m1", "m2"]


class Hollow:
    """A log whose every position below the head was taken away, until something new arrives."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store
        self.append, self.reads = store.append, 0

    def tail(self) -> int:
        return 7

    async def wait(self, position: int) -> int:
        return await self._store.wait(0) if position < 7 else await asyncio.Event().wait()  # type: ignore[return-value]

    async def read(self, position: int, limit: int) -> Sequence[Recorded]:
        self.reads += 1
        return []


async def test_a_log_with_nothing_left_to_read_is_not_asked_again_and_again(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(hit(1))
        log = Hollow(home.store)
        follower = FirstsFollower(log, home.firsts, NATIVE)  # type: ignore[arg-type]
        running = asyncio.create_task(follower.run())
        async with asyncio.timeout(5):
            while follower.position < 7:
                await asyncio.sleep(0.002)
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])
        assert (follower.position, log.reads) == (7, 1)


async def test_many_hits_over_many_chunks_make_one_first_each(tmp_path: Path) -> None:
    hits = [hit(number, message_id=f"m{number % 700}") for number in range(9_000)]
    assert len(await firsts_of(tmp_path / "d", *hits)) == 700


async def test_a_damaged_memory_of_firsts_is_told_in_one_line(tmp_path: Path) -> None:
    async with house(tmp_path / "d"):
        pass
    (tmp_path / "d" / "followers" / "firsts.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(StoreError) as told:
        SqliteFirsts.open(tmp_path / "d")
    assert "firsts.db" in str(told.value)
    assert "\n" not in str(told.value)

"""The log as a row of files: when a new one begins, which one is asked, and when the oldest goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aftersend.contracts import Appended, Entry, Gap, Quarantined, Request
from aftersend.core.timestamps import DAY, SECOND
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import Limits, SqliteStore
from aftersend.stores.sqlite.blocks import keys_of
from aftersend.stores.sqlite.days import runs
from aftersend.stores.sqlite.readers import Readers
from aftersend.testing.stores import NOW, SetClock, entry, event, events, read_all

FIVE_YEARS = 5 * 365


async def open_store(folder: Path, clock: SetClock, max_file_bytes: int = 1 << 30) -> SqliteStore:
    """The store of a test."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    return await SqliteStore.open(
        folder, clock=clock, keyring=keyring, create=True, max_file_bytes=max_file_bytes, limits=Limits(recent_events=0)
    )


def log_files(folder: Path) -> list[int]:
    """The first positions of the log's files."""
    return [int(path.stem) for path in sorted((folder / "log").glob("*.db"))]


@contextmanager
def files_asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the files that are opened for reading meanwhile."""
    asked: list[str] = []
    borrow = Readers.borrow
    with monkeypatch.context() as patch:
        patch.setattr(Readers, "borrow", lambda self, path: (asked.append(path.stem), borrow(self, path))[1])
        yield asked


async def append_days(store: SqliteStore, clock: SetClock, days: int, size: int = 10) -> None:
    """Some events of the moment on each of some days."""
    for _ in range(days):
        clock.now += DAY
        start = store.head()
        await store.append(entry(*events(start, start + size, clock.now)))


async def test_every_day_begins_a_file(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 3)
    await store.append(entry(event(1, clock.now)))
    assert log_files(tmp_path) == [0, 10, 20]
    assert [position for position, _ in await read_all(store)] == list(range(31))
    await store.close()


async def test_a_large_file_is_followed_by_a_new_one(tmp_path: Path) -> None:
    store = await open_store(tmp_path, SetClock(), max_file_bytes=150_000)
    for start in range(0, 12_000, 1_000):
        await store.append(entry(*events(start, start + 1_000)))
    files = log_files(tmp_path)
    assert 3 <= len(files) <= 11
    assert await read_all(store, limit=900) == list(enumerate(events(0, 12_000)))
    await store.close()
    sizes = [path.stat().st_size for path in sorted((tmp_path / "log").glob("*.db"))]
    assert all(150_000 <= size < 300_000 for size in sizes[:-1]), sizes


async def test_a_day_without_events_begins_no_file(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    for number in range(3):
        clock.now += DAY
        await store.append(Entry("default", (), request=Request(f"key{number}", clock.now)))
    assert log_files(tmp_path) == [0]
    await store.close()


async def test_a_file_that_was_just_begun_is_found_empty_after_a_restart(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 2)
    await store.close()
    (tmp_path / "log" / f"{20:020d}.db.new").write_bytes(b"half a file")
    (tmp_path / "log" / f"{20:020d}.db.new-wal").write_bytes(b"")
    (tmp_path / "log" / f"{7:020d}.db-wal").write_bytes(b"of a file that was dropped")
    store = await open_store(tmp_path, clock)
    assert store.head() == 20
    await append_days(store, clock, 1)
    assert log_files(tmp_path) == [0, 10, 20]
    await store.close()
    assert {path.suffix for path in (tmp_path / "log").iterdir()} == {".db"}


async def test_ids_of_five_years_are_kept_once_over_a_month_of_files(tmp_path: Path) -> None:
    clock = SetClock()
    spread = [event(day, NOW - day * DAY) for day in range(FIVE_YEARS)]
    store = await open_store(tmp_path, clock)
    assert await store.append(entry(*spread)) == Appended(FIVE_YEARS, 0)
    for _ in range(2):
        await append_days(store, clock, 15)
        head = store.head()
        assert await store.append(entry(*spread)) == Appended(0, FIVE_YEARS)
        others = [event(day + 10_000_000 + head, NOW - day * DAY) for day in range(FIVE_YEARS)]
        assert await store.append(entry(*others)) == Appended(FIVE_YEARS, 0)
        assert await store.append(entry(*others, *spread)) == Appended(0, 2 * FIVE_YEARS)
        await store.close()
        store = await open_store(tmp_path, clock)
    assert len(log_files(tmp_path)) == 31
    ids = [event.id for _, event in await read_all(store, limit=5_000)]
    assert len(ids) == len(set(ids)) == store.head() == 30 * 10 + 3 * FIVE_YEARS
    await store.close()


async def test_events_of_just_now_ask_no_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 5)
    with files_asked(monkeypatch) as asked:
        await append_days(store, clock, 2)
        assert asked == []
        late = event(7, NOW + DAY)
        assert await store.append(entry(late)) == Appended(0, 1)
        assert [int(name) for name in asked] == [0]
    await store.close()


async def test_an_event_whose_day_a_file_has_but_not_its_range_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await open_store(tmp_path, SetClock(), max_file_bytes=1)
    for second in range(5):
        await store.append(entry(*events(0, 20, NOW + second * SECOND)))
    with files_asked(monkeypatch) as asked:
        await store.append(entry(*events(0, 20, NOW + 5 * SECOND)))
    assert (asked, len(log_files(tmp_path))) == ([], 6)
    await store.close()


def test_the_first_six_bytes_of_a_key_are_its_time() -> None:
    (key,) = keys_of([event(1, NOW)])
    assert int.from_bytes(key[:6]) == NOW // 1_000_000


async def test_retention_drops_what_is_old_and_passed_by_all(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 5)
    await store.read(0, 1)
    begun = NOW + DAY
    assert await store.retain(begun + DAY - 1, None, {"a": 50}) == []
    assert log_files(tmp_path) == [0, 10, 20, 30, 40]
    assert await store.retain(begun + 2 * DAY, None, {"a": 50, "b": 15}) == []
    assert (log_files(tmp_path), store.tail()) == ([10, 20, 30, 40], 10)
    assert await store.retain(begun + 9 * DAY, None, {"a": 50}) == []
    assert (log_files(tmp_path), store.tail(), store.head()) == ([40], 40, 50)
    assert [position for position, _ in await read_all(store, 3)] == list(range(40, 50))
    await store.close()
    store = await open_store(tmp_path, clock)
    assert (store.tail(), store.head()) == (40, 50)
    assert not [path for path in (tmp_path / "log").iterdir() if not path.stem.endswith("40")]
    await store.close()


async def test_past_the_size_the_oldest_goes_and_who_was_overtaken_is_told(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 4)
    size = sum(path.stat().st_size for path in (tmp_path / "log").iterdir() if path.suffix != ".db-shm")
    assert await store.retain(0, size, {"behind": 3}) == []
    gaps = await store.retain(0, size // 2 + 1, {"behind": 3, "ahead": 40, "within": 12})
    tail = store.tail()
    assert tail in (20, 30)
    assert gaps == [Gap("behind", 3, tail, tail - 3), Gap("within", 12, tail, tail - 12)]
    assert await store.retain(0, 0, {"behind": tail, "ahead": 40}) == [Gap("behind", tail, 30, 30 - tail)][: tail < 30]
    assert log_files(tmp_path) == [30]
    await store.close()


async def test_a_dropped_event_may_come_again(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    await append_days(store, clock, 3)
    old = event(0, NOW + DAY)
    assert await store.append(entry(old)) == Appended(0, 1)
    await store.retain(clock.now, None, {})
    assert await store.append(entry(old)) == Appended(1, 0)
    await store.close()


async def test_quarantined_bodies_keep_their_numbers_over_files(tmp_path: Path) -> None:
    def bad(number: int) -> Quarantined:
        return Quarantined("default", "shop", "halon", "odd", "", NOW, b"%d" % number)

    clock = SetClock()
    store = await open_store(tmp_path, clock)
    for number in range(6):
        clock.now += DAY
        await store.append(Entry("default", [event(number, clock.now)], [bad(number)], quarantine_limit=4))
    found = await store.list_quarantined(None, 3)
    assert found == [(3, bad(2)), (4, bad(3)), (5, bad(4))]
    await store.discard([3, 5, 77])
    await store.close()
    store = await open_store(tmp_path, clock)
    assert await store.list_quarantined("default", 9, 3) == [(4, bad(3)), (6, bad(5))]
    await store.close()


async def test_a_request_is_found_in_an_older_file(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    for name in ("key", "file:key"):
        await store.append(Entry("default", [event(1)], request=Request(name, NOW)))
    await append_days(store, clock, 3)
    assert await store.find_request("key") == Request("key", NOW, b"", 1, 0)
    assert await store.find_request("file:key") == Request("file:key", NOW, b"", 0, 1)
    await append_days(store, clock, 5)
    assert await store.find_request("key") is None
    assert await store.find_request("file:key") is not None
    await store.close()


async def test_named_requests_do_not_pile_up_in_a_log_without_events(tmp_path: Path) -> None:
    clock = SetClock()
    store = await open_store(tmp_path, clock)
    for name in ("old", "file:old"):
        await store.append(Entry("default", (), request=Request(name, NOW)))
    clock.now += 8 * DAY
    await store.append(Entry("default", (), request=Request("new", clock.now)))
    await store.retain(0, None, {})
    kept = store._log._end.connection.execute("SELECT key FROM requests").fetchall()
    assert kept == [("file:old",), ("new",)]
    await store.close()


def test_an_event_of_the_last_possible_day_has_a_day() -> None:
    last = [b"\xff" * 16, b"\xff" * 6 + b"\x00" * 10]
    first = [b"\x00" * 16]
    assert [(start, end) for _, start, end in runs(sorted(first + last))] == [(0, 1), (1, 3)]

"""What the store does when the disk is full or fails, when too much waits, and when two want it."""

import asyncio
import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from aftersend.contracts import Appended, Cursor
from aftersend.core.errors import StoreBusyError, StoreError, StoreFullError
from aftersend.core.registry import Tenant
from aftersend.core.timestamps import DAY
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import DEFAULT_LIMITS, Limits, SqliteStore, head
from aftersend.stores.sqlite.connections import transaction
from aftersend.testing.stores import SetClock, entry, event, events, flat, read_all


async def open_store(folder: Path, clock: SetClock | None = None, limits: Limits = DEFAULT_LIMITS) -> SqliteStore:
    """The store of a test."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    return await SqliteStore.open(folder, clock=clock or SetClock(), keyring=keyring, create=True, limits=limits)


async def fill(store: SqliteStore, size: int = 200) -> int:
    """Append until the disk is full; returns how many events were acknowledged."""
    for start in range(0, 1_000_000, size):
        try:
            await store.append(entry(*events(start, start + size)))
        except StoreFullError as error:
            assert "the disk is full" in str(error)
            assert "\n" not in str(error)
            return start
    raise AssertionError("the disk never got full")


async def until_well(store: SqliteStore) -> None:
    """Wait as somebody who asks /readyz would."""
    for _ in range(200):
        if not store.fault():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(store.fault())


async def test_a_full_file_refuses_and_then_goes_on(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(event(-1)))
    connection = store._log._end.connection
    connection.execute("PRAGMA max_page_count = 200")
    kept = await fill(store)
    assert kept > 200
    assert "the disk is full" in store.fault()
    assert store.head() == kept + 1
    connection.execute("PRAGMA max_page_count = 100000")
    assert await store.append(entry(*events(kept - 100, kept + 200))) == Appended(200, 100)
    assert store.fault() == ""
    expected = [event(-1), *events(0, kept + 200)]
    assert [event for _, event in await read_all(store)] == expected
    await store.close()
    store = await open_store(tmp_path)
    assert [event for _, event in await read_all(store)] == expected
    await store.close()


async def test_everything_that_shared_a_full_commit_is_refused_whole(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    connection = store._log._end.connection
    connection.execute(f"PRAGMA max_page_count = {connection.execute('PRAGMA page_count').get}")
    told = [store.append(entry(*events(start, start + 500))) for start in range(0, 5_000, 500)]
    results = await asyncio.gather(*told, return_exceptions=True)
    assert {type(result) for result in results} == {StoreFullError}
    assert (store.head(), await store.read(0, 10)) == (0, [])
    await store.close()


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of a few megabytes; needs root."""
    path.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True)
    if done.returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", path], check=True)


async def test_a_full_disk_refuses_and_then_goes_on(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    with small_disk(place, "3m"):
        ballast = place / "ballast"
        ballast.write_bytes(bytes(1_000_000))
        store = await open_store(place)
        try:
            await store.move({"s": Cursor(1)})
            kept = await fill(store)
            assert kept > 0
            with contextlib.suppress(StoreFullError):
                await store.put(Tenant(name="acme"))
            assert "the disk is full" in store.fault()
            ballast.unlink()
            await until_well(store)
            assert await store.append(entry(*events(kept - 100, kept + 50))) == Appended(50, 100)
            await store.put(Tenant(name="acme"))
            await store.close()
            store = await open_store(place)
            assert [event for _, event in await read_all(store)] == events(0, kept + 50)
            assert await store.get("s") == Cursor(1)
            assert await store.list(Tenant) == [Tenant(name="acme")]
        finally:
            await store.close()


async def test_a_full_disk_at_a_change_of_file_keeps_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    clock = SetClock()
    with small_disk(place, "1m"):
        store = await open_store(place, clock)
        try:
            await store.append(entry(*events(0, 10)))
            clock.now += DAY
            with (place / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
                while ballast.write(bytes(4_096)):
                    pass
            with pytest.raises(StoreFullError):
                await store.append(entry(*events(10, 20)))
            (place / "ballast").unlink()
            assert await store.append(entry(*events(10, 20))) == Appended(10, 0)
            assert len(list((place / "log").glob("*.db"))) == 2
            assert await read_all(store) == list(enumerate(events(0, 20)))
        finally:
            await store.close()


@contextlib.contextmanager
def failing_writes(above: int) -> Iterator[None]:
    """Writes beyond some bytes of any file fail with EFBIG, which SQLite takes for a broken disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (above, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_after_an_input_output_error_the_store_goes_on(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 1_000)))
    await store.move({"s": Cursor(1)})
    with failing_writes(100):
        with pytest.raises(StoreError, match=r"^[^\n]*\.db: [^\n]*$") as raised:
            await store.append(entry(*events(1_000, 2_000)))
        assert not isinstance(raised.value, StoreFullError | StoreBusyError)
        with pytest.raises(StoreError):
            await store.move({"s": Cursor(2)})
        assert store.fault() != ""
    await until_well(store)
    assert await store.append(entry(*events(500, 1_500))) == Appended(500, 500)
    assert await store.get("s") == Cursor(1)
    await store.move({"s": Cursor(3)})
    assert await read_all(store) == list(enumerate(events(0, 1_500)))
    await store.close()
    store = await open_store(tmp_path)
    assert await read_all(store) == list(enumerate(events(0, 1_500)))
    assert await store.get("s") == Cursor(3)
    await store.close()


async def test_a_commit_that_may_have_reached_the_disk_is_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def losing_the_answer(connection: apsw.Connection) -> Iterator[None]:
        with transaction(connection):
            yield
        raise apsw.IOError("the disk did not answer")

    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    with monkeypatch.context() as patch:
        patch.setattr(head, "transaction", losing_the_answer)
        with pytest.raises(StoreError, match="the disk did not answer"):
            await store.append(entry(*events(10, 20)))
    assert await store.append(entry(*events(15, 25))) == Appended(5, 5)
    assert await read_all(store, limit=3) == list(enumerate(events(0, 25)))
    await store.close()


async def test_a_damaged_block_is_named_by_its_position(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    await store.append(entry(*events(10, 20)))
    store._log._end.connection.execute("UPDATE blocks SET body = x'00' WHERE position = 10")
    await store.close()
    store = await open_store(tmp_path)
    assert flat(await store.read(0, 10)) == list(enumerate(events(0, 10)))
    with pytest.raises(StoreError, match=r"a block of the log is damaged.*at position 10"):
        await store.read(0, 11)
    await store.close()


async def test_too_many_events_in_the_queue_are_refused(tmp_path: Path) -> None:
    store = await open_store(tmp_path, limits=Limits(queued_events=100))
    told = [store.append(entry(*events(start, start + 10))) for start in range(0, 300, 10)]
    results = await asyncio.gather(*told, return_exceptions=True)
    assert [type(result) for result in results] == [Appended] * 10 + [StoreBusyError] * 20
    assert await store.append(entry(*events(0, 300))) == Appended(200, 100), "a larger one is taken when none waits"
    await store.close()


async def test_too_many_bytes_in_the_queue_are_refused(tmp_path: Path) -> None:
    store = await open_store(tmp_path, limits=Limits(queued_bytes=20_000))
    told = [store.append(entry(event(number))) for number in range(50)]
    results = await asyncio.gather(*told, return_exceptions=True)
    kept = results.count(Appended(1, 0))
    assert 5 < kept < 20
    assert {type(result) for result in results[kept:]} == {StoreBusyError}
    await store.close()


async def test_what_was_queued_meanwhile_shares_a_commit(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await asyncio.gather(*[store.append(entry(event(number))) for number in range(500)])
    blocks = await store.read(0, 1_000)
    assert len(flat(blocks)) == 500
    assert len(blocks) < 50
    await store.close()


async def test_cursors_that_move_meanwhile_share_a_commit(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    commits = 0

    def count() -> bool:
        nonlocal commits
        commits += 1
        return False

    store._control._connection.set_commit_hook(count)
    await asyncio.gather(*[store.move({f"s{number}": Cursor(number)}) for number in range(1_000)])
    assert commits < 100
    assert await store.get("s999") == Cursor(999)
    await store.close()


async def test_a_change_that_fails_does_not_undo_those_it_shares_a_commit_with(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    results = await asyncio.gather(
        store.put(Tenant(name="a")),
        store.move({"s": Cursor(1), "t": Cursor(1 << 70)}),
        store.put(Tenant(name="b")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    assert await store.list(Tenant) == [Tenant(name="a"), Tenant(name="b")]
    assert await store.get("s") is None
    await store.close()


async def test_near_the_head_nothing_is_read_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = await open_store(tmp_path, limits=Limits(recent_events=100))
    for start in range(0, 300, 10):
        await store.append(entry(*events(start, start + 10)))

    def refuse(position: int, limit: int, head: int) -> None:
        raise StoreError(f"read {position} from disk")

    with monkeypatch.context() as patch:
        patch.setattr(store._log._archive, "read", refuse)
        assert await read_all(store, 205, 10) == list(enumerate(events(205, 300), 205))
        with pytest.raises(StoreError, match="read 199 from disk"):
            await store.read(199, 10)
    assert await read_all(store, 3, 10) == list(enumerate(events(3, 300), 3))
    await store.close()


async def test_who_gives_up_waiting_for_a_commit_disturbs_nobody(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    tasks = [asyncio.create_task(store.append(entry(event(number)))) for number in range(20)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert results[1::2] == [Appended(1, 0)] * 10
    await store.append(entry(event(99)))
    assert store.head() == 21
    await store.close()


async def test_who_waits_for_events_is_told_that_the_store_closes(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    waiting = asyncio.create_task(store.wait(0))
    await asyncio.sleep(0)
    await store.close()
    for late in (waiting, store.wait(0), store.find_request("x"), store.get("s")):
        with pytest.raises(StoreError, match="closed"):
            await late

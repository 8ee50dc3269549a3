"""The data folder: who may use it, which versions are read, and that no secret or erased byte lies in it."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import msgspec
import pytest

from aftersend.contracts import Appended, Cursor, Entry, Lease, Manifest, Quarantined, Request, SetAside
from aftersend.core.errors import NotFoundError, StoreError, StoreLockedError, StoreVersionError, UsageError
from aftersend.core.registry import SourceRecord, Subscription, Tenant
from aftersend.core.secret import Secret
from aftersend.core.timestamps import DAY
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore, control, files
from aftersend.testing.stores import NOW, SetClock, entry, event, events, read_all

OLD = Path(__file__).parents[1] / "fixtures" / "stores"
SUBSCRIPTION = Subscription(
    id="sub_1", name="crm", url="https://crm.example/hook", headers={"authorization": Secret("Bearer hush")}
)


async def open_store(folder: Path, clock: SetClock | None = None, **options: bool) -> SqliteStore:
    """The store of a test."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    return await SqliteStore.open(folder, clock=clock or SetClock(), keyring=keyring, **{"create": True} | options)


def bytes_of(folder: Path) -> bytes:
    """Everything that lies in a folder."""
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


async def test_a_new_folder_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = await open_store(tmp_path / "data")
    await store.append(entry(event(1)))
    await store.put(Tenant(name="acme"))
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").rglob("*")}
    assert len(modes) >= 10
    assert set(modes.values()) == {0}, modes
    await store.close()


async def test_a_second_process_is_told_who_holds_the_store(tmp_path: Path) -> None:
    code = (
        "import asyncio, pathlib, sys; from aftersend.keyring import Keyring\n"
        "from aftersend.stores.sqlite import SqliteStore\n"
        "folder = pathlib.Path(sys.argv[1]); keyring = Keyring.open(folder / 'keyring.json', create=True)\n"
        "async def main():\n"
        "    store = await SqliteStore.open(folder, clock=lambda: 0, keyring=keyring, create=True)\n"
        "    print('open', flush=True); sys.stdin.read()\n"
        "asyncio.run(main())\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(StoreLockedError, match=rf"is held by process {other.pid}; stop it first"):
            await open_store(tmp_path)
        other.kill()
    await (await open_store(tmp_path)).close()


async def test_a_store_may_be_looked_at_while_another_writes_it(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    looking = await open_store(tmp_path, read_only=True)
    await store.append(entry(*events(10, 20)))
    assert await read_all(looking) == list(enumerate(events(0, 10)))
    for change in (looking.append(entry(event(99))), looking.put(Tenant(name="acme")), looking.discard([1])):
        with pytest.raises(StoreError):
            await change
    await looking.close()
    await store.close()
    looking = await open_store(tmp_path, read_only=True)
    assert looking.head() == 20
    await looking.close()


@pytest.mark.parametrize("read_only", [True, False])
async def test_a_missing_folder_is_told_in_one_line(tmp_path: Path, read_only: bool) -> None:
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    with pytest.raises(
        StoreError, match=r"^there is no store in [^\n]*/data; `aftersend init --data [^\n]*` makes it$"
    ):
        await SqliteStore.open(tmp_path / "data", clock=SetClock(), keyring=keyring, read_only=read_only)


async def test_a_file_in_the_folders_place_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    with pytest.raises(StoreError, match=r"^[^\n]* is not a folder; [^\n]*$"):
        await SqliteStore.open(tmp_path / "data", clock=SetClock(), keyring=keyring, create=True)


async def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    bound = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", tmp_path / "data"], capture_output=True)
    if bound.returncode:
        (tmp_path / "data").chmod(0o500)
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    try:
        with pytest.raises(StoreError, match=r"^[^\n]* cannot be used: (read-only file system|permission denied); "):
            await SqliteStore.open(tmp_path / "data", clock=SetClock(), keyring=keyring, create=True)
    finally:
        if not bound.returncode:
            subprocess.run(["umount", tmp_path / "data"], check=True)


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    await (await open_store(tmp_path)).close()
    (tmp_path / "control.db").write_text("this is not a database, however long one looks at it")
    with pytest.raises(StoreError, match=r"control\.db: file is not a database$"):
        await open_store(tmp_path)


async def test_a_failed_opening_leaves_the_folder_free(tmp_path: Path) -> None:
    await (await open_store(tmp_path)).close()
    name = f"{0:020d}.db"
    (tmp_path / "log" / name).rename(tmp_path / name)
    (tmp_path / "log" / name).write_text("no database")
    with pytest.raises(StoreError):
        await open_store(tmp_path)
    (tmp_path / name).rename(tmp_path / "log" / name)
    await (await open_store(tmp_path)).close()


# Versions.


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the store that version 1 wrote."""
    folder = tmp_path / "old"
    shutil.copytree(OLD / "version_1", folder)
    (folder / "keyring.json").chmod(0o600)
    return folder


async def check_old(store: SqliteStore) -> None:
    """What was written into the old store is there."""
    assert [event for _, event in await read_all(store)] == [*events(0, 30), *events(0, 5, NOW + DAY, "acme")]
    assert await store.append(entry(*events(0, 30))) == Appended(0, 30)
    assert [number for number, _ in await store.list_quarantined(None, 10)] == [1]
    assert await store.find_request("file:1") == Request("file:1", NOW, b"answer", 30, 0)
    assert await store.get("sub_1") == Cursor(7, 2, 3)
    assert await store.list_set_aside("sub_1", 10) == [SetAside("sub_1", 3, event(3), 1, NOW, "400")]
    assert await store.manifests("sub_1") == [Manifest("sub_1", "2026-02-01", 2, 1, 3, {"email.clicked": 3}, "ff")]
    assert await store.list(Subscription) == [SUBSCRIPTION]


async def write_old(folder: Path) -> None:
    """Make the fixture; done once for each version, with the code of that version."""
    clock = SetClock()
    store = await open_store(folder, clock)
    bad = Quarantined("default", "shop", "halon", "odd", "", NOW, b"bytes")
    await store.append(Entry("default", events(0, 30), [bad], Request("file:1", NOW, b"answer")))
    clock.now += DAY
    await store.append(entry(*events(0, 5, NOW + DAY, "acme")))
    manifest = Manifest("sub_1", "2026-02-01", 2, 1, 3, {"email.clicked": 3}, "ff")
    await store.move({"sub_1": Cursor(7, 2, 3)}, [SetAside("sub_1", 3, event(3), 1, NOW, "400")], [manifest])
    await store.put(SUBSCRIPTION)
    await store.close()
    (folder / "lock").unlink()
    (folder / "followers").rmdir()


async def test_a_store_of_version_1_is_read(old: Path) -> None:
    for _ in range(2):
        store = await open_store(old, SetClock(NOW + DAY))
        await check_old(store)
        await store.close()


async def test_an_old_store_is_brought_to_a_new_version(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    later = "ALTER TABLE blocks ADD COLUMN note TEXT; CREATE TABLE later (x); INSERT INTO later VALUES (1)"
    with monkeypatch.context() as patch:
        patch.setattr(files, "LOG_VERSIONS", (*files.LOG_VERSIONS, later))
        patch.setattr(control, "CONTROL_VERSIONS", (*control.CONTROL_VERSIONS, "CREATE TABLE later (x)"))
        for _ in range(2):
            store = await open_store(old, SetClock(NOW + DAY))
            await store.close()
    versions = []
    for path in (old / "control.db", *(old / "log").glob("*.db")):
        connection = apsw.Connection(str(path))
        versions.append(connection.execute("PRAGMA user_version").get)
        connection.execute("SELECT x FROM later").fetchall()
        connection.close()
    assert versions == [len(control.CONTROL_VERSIONS) + 1, *[len(files.LOG_VERSIONS) + 1] * 2]


async def test_an_old_store_takes_leases(old: Path) -> None:
    for round_ in range(2):
        store = await open_store(old, SetClock(NOW + DAY))
        lease = Lease("l1", "sub_1", "worker", ((7, 9),), NOW + DAY)
        assert await store.list_leases("sub_1") == [lease] * round_
        await store.settle_leases([lease])
        await check_old(store)
        await store.close()


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize("name", ["control.db", f"log/{30:020d}.db"])
async def test_a_store_of_a_newer_version_is_refused(old: Path, name: str, read_only: bool) -> None:
    connection = apsw.Connection(str(old / name))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    known = len(control.CONTROL_VERSIONS if name == "control.db" else files.LOG_VERSIONS)
    said = rf"^[^\n]*\.db has version 99, this aftersend knows {known}; install the one that wrote it, or newer$"
    with pytest.raises(StoreVersionError, match=said):
        await open_store(old, read_only=read_only)


async def test_a_migration_that_fails_changes_nothing(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = "CREATE TABLE later (x); INSERT INTO nowhere VALUES (1)"
    with monkeypatch.context() as patch:
        patch.setattr(control, "CONTROL_VERSIONS", (*control.CONTROL_VERSIONS, bad))
        with pytest.raises(StoreError, match=r"control\.db: no such table"):
            await open_store(old)
    store = await open_store(old, SetClock(NOW + DAY))
    await check_old(store)
    await store.close()


# Secrets and keys.


async def test_secrets_lie_sealed_on_disk(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.put(SUBSCRIPTION)
    await store.put(SourceRecord(name="shop", dialect="halon", signing_secret=Secret("whsec_hush")))
    await store.close()
    assert b"hush" not in bytes_of(tmp_path)
    assert b"crm.example" in bytes_of(tmp_path)


async def test_a_sealed_secret_cannot_be_moved_to_another_record(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.put(SUBSCRIPTION)
    await store.close()
    connection = apsw.Connection(str(tmp_path / "control.db"))
    connection.execute("UPDATE registry SET tenant = 'thief'")
    connection.close()
    store = await open_store(tmp_path)
    with pytest.raises(StoreError, match="Subscription/thief/sub_1: a sealed secret is damaged, or was moved"):
        await store.list(Subscription)
    await store.close()


async def test_an_option_cannot_pretend_to_be_sealed(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    with pytest.raises(UsageError, match="no option may be called"):
        await store.put(msgspec.structs.replace(SUBSCRIPTION, options={"x": {"$sealed": "s1.aaaa.bbbb"}}))
    await store.put(msgspec.structs.replace(SUBSCRIPTION, options={"x": '{"$sealed": 1}'}))
    assert len(await store.list(Subscription)) == 1
    await store.close()


async def test_after_a_rotation_secrets_are_sealed_with_the_new_key(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    keyring = store._control._keyring
    old = keyring.active_id
    await store.put(SUBSCRIPTION)
    await store.put(Tenant(name="acme"))
    keyring.rotate()
    assert await store.reseal() == 1
    assert await store.list(Subscription) == [SUBSCRIPTION]
    await store.close()
    said = bytes_of(tmp_path)
    assert f"s1.{keyring.active_id}.".encode() in said
    assert f"s1.{old}.".encode() not in said


async def test_a_lost_key_is_named_and_may_be_done_without(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.put(SUBSCRIPTION)
    lost = store._control._keyring.active_id
    await store.close()
    (tmp_path / "keyring.json").unlink()
    with pytest.raises(StoreError, match=rf"the keyring lacks key {lost}, .*--without-old-keys"):
        await open_store(tmp_path)
    store = await open_store(tmp_path, without_old_keys=True)
    (found,) = await store.list(Subscription)
    assert found.headers["authorization"] != SUBSCRIPTION.headers["authorization"]
    assert len(found.headers["authorization"].reveal()) > 30, "nobody can guess it"
    await store.close()


async def test_a_removed_subscription_leaves_nothing_behind(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.put(SUBSCRIPTION)
    kept = ("sub_1", "sub_1/OPEN")
    other = ("sub_11", "sub_1-/OPEN", "sub_2/OPEN")
    for line in kept + other:
        aside = SetAside(line, 3, event(3), 1, NOW, "400")
        manifest = Manifest(line, "2026-02-01", 1, 1, 1, {}, "0")
        await store.settle_leases([Lease("l1", line, "", ((4, 5),), NOW)], (), {line: Cursor(7)}, [aside], [manifest])
    await store.remove(SUBSCRIPTION)
    for line in kept + other:
        left = 0 if line in kept else 1
        assert await store.get(line) == (Cursor(7) if left else None)
        assert len(await store.list_set_aside(line, 10)) == left
        assert len(await store.manifests(line)) == left
        assert len(await store.list_leases(line.partition("/")[0])) == left
    await store.close()


# Erasure.


async def test_a_rewritten_block_keeps_its_positions_and_leaves_no_old_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SetClock()
    monkeypatch.setattr("aftersend.stores.sqlite.blocks.pack", lambda compress, data: data)
    monkeypatch.setattr("aftersend.stores.sqlite.blocks.unpack", msgspec.json.Decoder(list[type(event(0))]).decode)
    store = await open_store(tmp_path, clock)
    for start in (0, 200):
        await store.append(entry(*events(start, start + 200, clock.now)))
        clock.now += DAY
    blank = [msgspec.structs.replace(item, recipient=None, url=None) for item in events(0, 200)]
    assert b"person77@mail.example" in bytes_of(tmp_path)
    assert b"person377@mail.example" in bytes_of(tmp_path)
    await store.rewrite(0, blank)
    assert [event for _, event in (await read_all(store))[:200]] == blank
    await store.rewrite(200, [msgspec.structs.replace(item, recipient="gone") for item in events(200, 400, NOW + DAY)])
    left = bytes_of(tmp_path)
    assert b"person377@mail.example" not in left
    assert b"person77@mail.example" not in left
    assert b"https://shop.example/377" in left
    assert [event.recipient for _, event in await read_all(store, 200)] == ["gone"] * 200
    assert await store.append(entry(*events(0, 200))) == Appended(0, 200), "what was erased does not come back"
    await store.close()


async def test_only_a_whole_block_is_rewritten(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    with pytest.raises(NotFoundError, match="no block of the log begins at position 3"):
        await store.rewrite(3, events(0, 10))
    with pytest.raises(StoreError, match="the block at position 0 holds 10 events, not 9"):
        await store.rewrite(0, events(0, 9))
    assert await read_all(store) == list(enumerate(events(0, 10)))
    await store.close()


async def test_a_discarded_body_leaves_no_byte_once_the_store_is_closed(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    bodies = [Quarantined("default", "shop", "halon", "odd", "", NOW, b"body-%d-" % number * 900) for number in (1, 2)]
    await store.append(Entry("default", (), bodies))
    await store.discard([1])
    await store.close()
    assert b"body-1-" not in bytes_of(tmp_path)
    assert b"body-2-" in bytes_of(tmp_path)


if __name__ == "__main__":
    asyncio.run(write_old(OLD / "version_1"))

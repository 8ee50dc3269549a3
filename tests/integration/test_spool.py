"""Hits while the log stands still, hangs or is full: people go on at once, and every hit is in the log once."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.integration.tracking import Tracker, tracker

from aftersend.capture import recorder as recording
from aftersend.capture.recorder import Recorder
from aftersend.capture.spool import Spool
from aftersend.capture.spool_file import SpoolFile
from aftersend.capture.tokens import Purpose
from aftersend.contracts import Appended, Entry
from aftersend.core.consent import Level
from aftersend.core.errors import StoreBusyError, StoreError, StoreFullError, StoreLockedError
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore
from aftersend.telemetry import Telemetry

REDIRECT_SECONDS = 0.2
NOW = 1_768_464_000_000_000_000


class Moody:
    """The real log, which stops or hangs on command."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.error: StoreError | None = None
        self.awake = asyncio.Event()
        self.awake.set()
        self.delay = 0.0

    async def append(self, entry: Entry) -> Appended:
        if self.error is not None:
            raise self.error
        await self.awake.wait()
        appended = await self.store.append(entry)
        await asyncio.sleep(self.delay)
        return appended

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)


async def clicks(tracked: Tracker, visitors: int, each: int) -> list[float]:
    """Many visitors at once, each clicking again and again; returns how long each redirect took."""
    took: list[float] = []

    async def visitor(number: int) -> None:
        path = tracked.link(recipient=f"person{number}@example.org")
        for _ in range(each):
            began = time.perf_counter()
            answer = await tracked.get(path)
            took.append(time.perf_counter() - began)
            assert answer.status == 302

    await asyncio.gather(*[visitor(number) for number in range(visitors)])
    return took


async def drained(tracked: Tracker, hits: int) -> list[Event]:
    """The events in the log once there are so many and none waits in the spool."""
    async with asyncio.timeout(10):
        while tracked.spool.backlog or tracked.store.head() < hits:
            await asyncio.sleep(0.02)
    return await tracked.events()


def moody(tracked: Tracker) -> Moody:
    log = tracked.recorder._log
    assert isinstance(log, Moody)
    return log


# --- the log stops, hangs, is slow


@pytest.mark.parametrize("error", [StoreError("stopped"), StoreFullError(), StoreBusyError()])
async def test_a_log_that_refuses_delays_nobody_and_loses_nothing(tmp_path: Path, error: StoreError) -> None:
    async with tracker(tmp_path, Moody) as tracked:  # type: ignore[arg-type]
        await clicks(tracked, 8, 4)
        moody(tracked).error = error
        took = await clicks(tracked, 16, 10)
        assert max(took) < REDIRECT_SECONDS
        assert tracked.store.head() == 32
        moody(tracked).error = None
        events = await drained(tracked, 192)
        assert len({event.id for event in events}) == len(events) == 192


async def test_a_log_that_hangs_delays_nobody_for_long_and_loses_nothing(tmp_path: Path) -> None:
    async with tracker(tmp_path, Moody) as tracked:  # type: ignore[arg-type]
        moody(tracked).awake.clear()
        took = await clicks(tracked, 16, 12)
        assert max(took) < REDIRECT_SECONDS
        assert sorted(took)[len(took) // 2] < 0.05
        assert (await tracked.post(tracked.link(Purpose.UNSUBSCRIBE), "List-Unsubscribe=One-Click")).status == 200
        assert tracked.store.head() == 0
        assert tracked.recorder.fault() == ""
        moody(tracked).awake.set()
        events = await drained(tracked, 193)
        assert len({event.id for event in events}) == len(events) == 193


async def test_a_hit_that_reached_log_and_spool_is_one(tmp_path: Path) -> None:
    async with tracker(tmp_path, Moody) as tracked:  # type: ignore[arg-type]
        moody(tracked).delay = 0.15
        await clicks(tracked, 10, 3)
        moody(tracked).delay = 0.0
        assert "hits_spooled_total" in tracked.telemetry.text()
        assert len(await drained(tracked, 30)) == 30


async def test_hits_that_the_log_keeps_never_touch_the_spool(tmp_path: Path) -> None:
    async with tracker(tmp_path) as tracked:
        took = await clicks(tracked, 32, 10)
        assert len(await tracked.events()) == 320
        assert sorted(took)[len(took) // 2] < 0.1
        if max(took) < 0.08:
            assert "hits_spooled_total" not in tracked.telemetry.text()


async def test_what_waits_in_the_spool_outlives_the_process(tmp_path: Path) -> None:
    async with tracker(tmp_path, Moody) as tracked:  # type: ignore[arg-type]
        moody(tracked).error = StoreError("stopped")
        await clicks(tracked, 4, 2)
    async with tracker(tmp_path) as tracked:
        assert len(await drained(tracked, 8)) == 8


# --- the spool is full or broken


async def test_a_full_spool_sends_people_on_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with tracker(tmp_path, Moody, spool_bytes=64_000) as tracked:  # type: ignore[arg-type]
        moody(tracked).error = StoreError("stopped")
        took = await clicks(tracked, 16, 20)
        assert max(took) < REDIRECT_SECONDS
        assert "full" in tracked.recorder.fault()
        path = tracked.link(Purpose.UNSUBSCRIBE)
        answers = [(await tracked.post(path, "List-Unsubscribe=One-Click")).status for _ in range(8)]
        assert answers[-1] == 503
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        lost = lost_of(tracked)
        assert lost > 1
        moody(tracked).error = None
        events = await drained(tracked, 328 - lost)
        assert len(events) == 328 - lost
        async with asyncio.timeout(5):
            while tracked.recorder.fault():
                await asyncio.sleep(0.05)


def lost_of(tracked: Tracker) -> int:
    lines = tracked.telemetry.text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("aftersend_hits_lost_total "))


async def test_a_spool_that_cannot_be_opened_is_told_and_mended(tmp_path: Path) -> None:
    place = tmp_path / "disk"
    async with tracker(tmp_path, Moody, spool=place / "spool") as tracked:  # type: ignore[arg-type]
        assert "cannot be used" in tracked.recorder.fault()
        assert (await tracked.get(tracked.link())).status == 302
        moody(tracked).error = StoreError("stopped")
        assert (await tracked.get(tracked.link())).status == 302
        assert lost_of(tracked) == 1
        place.mkdir()
        async with asyncio.timeout(5):
            while tracked.recorder.fault():
                await asyncio.sleep(0.05)
        await tracked.get(tracked.link())
        moody(tracked).error = None
        assert len(await drained(tracked, 2)) == 2


async def test_a_spool_that_hangs_too_holds_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with tracker(tmp_path, Moody) as tracked:  # type: ignore[arg-type]
        moody(tracked).awake.clear()
        write = SpoolFile.write
        monkeypatch.setattr(SpoolFile, "write", lambda *given: time.sleep(0.5) or write(*given))
        took = await clicks(tracked, 8, 2)
        assert max(took) < REDIRECT_SECONDS + 0.05
        assert "does not answer" in tracked.recorder.fault()
        monkeypatch.undo()
        moody(tracked).awake.set()
        assert len(await drained(tracked, 16)) == 16
        assert lost_of(tracked) == 0


# --- levels that cannot be read


async def test_a_hit_whose_persons_level_cannot_be_read_waits_and_is_judged_when_it_leaves(tmp_path: Path) -> None:
    async with tracker(tmp_path) as tracked:
        await tracked.people.set_level("acme", "alice@example.org", Level.NONE)
        await tracked.people.set_level("acme", "bob@example.org", Level.ANONYMOUS)
        levels, tracked.people._levels = tracked.people._levels, None
        for person in ("alice", "bob", "carol"):
            assert (await tracked.get(tracked.link(recipient=f"{person}@example.org"))).status == 302
        assert (await tracked.get(tracked.link(Purpose.PREFERENCES))).status == 503
        unsubscribing = tracked.link(Purpose.UNSUBSCRIBE)
        assert (await tracked.post(unsubscribing, "List-Unsubscribe=One-Click")).status == 200
        assert [event.type for event in await tracked.events()] == ["email.unsubscribed"]
        tracked.people._levels = levels
        events = await drained(tracked, 3)
        assert sorted(event.recipient or "" for event in events[1:]) == ["", "carol@example.org"]


async def test_an_event_that_cannot_be_written_down_spoils_no_other(tmp_path: Path) -> None:
    async with tracker(tmp_path) as tracked:
        bad = msgspec.structs.replace(hit(1), extra={"n": object()})
        await asyncio.gather(tracked.recorder.record(bad), *[tracked.recorder.record(hit(n)) for n in range(2, 6)])
        assert len(await drained(tracked, 4)) == 4
        assert lost_of(tracked) == 1


async def test_a_judge_that_breaks_loses_no_hit(tmp_path: Path) -> None:
    async with tracker(tmp_path) as tracked:
        tracked.recorder._judge = lambda event: hit(1 // 0)
        assert (await tracked.get(tracked.link())).status == 302
        assert len(await tracked.events()) == 1


# --- the file


def test_the_file_is_its_owners_alone_and_takes_its_room_at_once(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    file = SpoolFile(path, 200_000)
    found = path.stat()
    assert (found.st_mode & 0o777, found.st_size) == (0o600, 200_000)
    assert found.st_blocks * 512 >= 200_000
    with pytest.raises(StoreLockedError):
        SpoolFile(path, 200_000)
    file.close()


def emptied(file: SpoolFile) -> list[bytes]:
    found: list[bytes] = []
    while (portion := file.read(1_000)) is not None:
        segment, payloads, end = portion
        found += payloads
        file.drained(segment, end)
    return found


def test_a_file_that_never_runs_empty_takes_ever_more(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool", 64_000)
    written: list[bytes] = []
    read: list[bytes] = []
    for number in range(400):
        written.append(b"%d." % number * 100)
        file.write([written[-1]])
        if number % 2:
            segment, payloads, end = file.read(700) or pytest.fail("nothing waits")
            read += payloads
            file.drained(segment, end)
    assert sorted(read + emptied(file)) == sorted(written)
    file.close()


def test_what_was_drained_is_wiped(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    file = SpoolFile(path, 64_000)
    file.write([b"alice@example.org"] * 50)
    assert b"alice" in path.read_bytes()
    assert len(emptied(file)) == 50
    assert b"alice" not in path.read_bytes()
    file.close()


@pytest.mark.parametrize("cut", range(1, 30, 4))
def test_a_torn_record_ends_what_is_read_and_the_file_goes_on(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "spool"
    file = SpoolFile(path, 64_000)
    file.write([b"first", b"second record"])
    end = file._segments[0].end
    file.close()
    with path.open("r+b") as raw:
        raw.seek(end - min(cut, 20))
        raw.write(bytes(min(cut, 20)))
    file = SpoolFile(path, 64_000)
    file.write([b"third"])
    assert emptied(file) == [b"first", b"third"]
    file.close()


def test_a_full_file_takes_what_has_room_and_more_when_it_is_drained(tmp_path: Path) -> None:
    file = SpoolFile(tmp_path / "spool", 64_000)
    taken = file.write([b"x" * 1_000] * 100)
    assert 60 <= taken <= 64
    assert file.write([b"x" * 1_000]) == 0
    assert len(emptied(file)) == taken
    assert file.write([b"y"]) == 1
    file.close()


# --- kill -9

DRAINER = """
import asyncio, sys, time
from pathlib import Path
from tests.integration.test_spool import drain_for_ever
asyncio.run(drain_for_ever(Path(sys.argv[1])))
"""
HITS = 6_000


class Unasked:
    def level(self, tenant: str, person_key: bytes) -> Level:
        return Level.FULL

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        raise AssertionError


async def recorder_on(folder: Path) -> tuple[SqliteStore, Spool, Recorder]:
    keyring = Keyring.open(folder / "keyring.json", create=True)
    store = await SqliteStore.open(folder / "data", clock=time.time_ns, keyring=keyring, create=True)
    spool = Spool(folder / "spool", 8_000_000)
    recorder = Recorder(log=store, spool=spool, people=Unasked(), consent_key=lambda: b"0" * 32, telemetry=Telemetry())
    return store, spool, recorder


async def drain_for_ever(folder: Path) -> None:
    """What a process does that will be killed."""
    recording._PORTION_BYTES = 5_000
    _, _, recorder = await recorder_on(folder)
    print("draining", flush=True)
    await recorder.run()


def hit(number: int) -> Event:
    time_ = NOW + number * 1_000_000
    return Event(
        make_id(time_, b"%d" % number), "email.clicked", time_, Source("tracking", "aftersend", "click"), "acme"
    )


async def test_a_process_killed_while_it_drains_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    store, spool, recorder = await recorder_on(tmp_path)
    assert await spool.write([msgspec.json.encode((hit(number), None)) for number in range(HITS)]) == HITS
    await spool.close()
    await store.close()
    root = Path(__file__).parents[2]
    for wait in (0.0, 0.01, 0.02, 0.03, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", DRAINER, str(tmp_path)],
            stdout=subprocess.PIPE,
            cwd=root,
            env=os.environ | {"PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"draining\n"
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait(10)
        process.stdout.close()
    store, spool, recorder = await recorder_on(tmp_path)
    assert 0 < store.head() < HITS
    assert await recorder.drain()
    chunks = await store.read(0, HITS * 2)
    ids = [event.id for chunk in chunks for event in chunk.events]
    assert len(ids) == len(set(ids)) == HITS
    await spool.close()
    await store.close()


# --- a disk that is really full


def can_unshare() -> bool:
    """Whether this user may have a small disk of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def clicks_on_a_full_disk(disk: Path, spool: Path) -> None:
    """Runs in a process that has a small disk of its own; prints what it saw."""
    async with tracker(disk, spool_bytes=4_000_000, spool=spool) as tracked:
        await clicks(tracked, 8, 2)
        ballast = disk / "ballast"
        file = os.open(ballast, os.O_WRONLY | os.O_CREAT)
        with contextlib.suppress(OSError):
            while True:
                os.write(file, bytes(4_096))
        os.close(file)
        took = await clicks(tracked, 16, 50)
        fault, waiting = tracked.store.fault(), tracked.spool.backlog
        ballast.unlink()
        events = await drained(tracked, 816)
        ids = {event.id for event in events}
        print(msgspec.json.encode([max(took), fault, waiting, len(events), len(ids)]).decode(), flush=True)


FULL_DISK = """
mount -t tmpfs -o size=12m tmpfs "$1" && exec {python} -c '
import asyncio, sys
from pathlib import Path
from tests.integration.test_spool import clicks_on_a_full_disk
asyncio.run(clicks_on_a_full_disk(Path(sys.argv[1]), Path(sys.argv[2])))
' "$1" "$2"
"""


@pytest.mark.skipif(not can_unshare(), reason="this user cannot mount a small disk (unshare --user --mount)")
async def test_clicks_on_a_full_disk_go_on_and_are_all_in_the_log_later(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    root = Path(__file__).parents[2]
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        *(FULL_DISK.format(python=sys.executable), "sh", str(disk), str(tmp_path / "spool")),
        stdout=asyncio.subprocess.PIPE,
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    longest, fault, waiting, stored, ids = msgspec.json.decode(out)
    assert longest < REDIRECT_SECONDS
    assert "full" in fault
    assert waiting > 0
    assert stored == ids == 816

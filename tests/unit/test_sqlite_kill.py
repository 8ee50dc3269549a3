"""Whatever was acknowledged is there exactly once, whenever the process is killed.

`AFTERSEND_KILLS=200 pytest tests/unit/test_sqlite_kill.py` kills more often than the few times of every run.
"""

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from aftersend.contracts import Appended, Cursor, Entry, Lease, Quarantined, Request, SetAside
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import NOW, SetClock, entry, event, events, read_all

ROUNDS = int(os.environ.get("AFTERSEND_KILLS", "6"))
FILE_BYTES = 60_000
"""So small that a file is changed several times a second."""
STRIDE = 1_000_000
"""Each task of each round has its own numbers."""


async def open_store(folder: Path) -> SqliteStore:
    """The store of a test."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    return await SqliteStore.open(folder, clock=SetClock(), keyring=keyring, create=True, max_file_bytes=FILE_BYTES)


async def append_for_ever(folder: Path, first: int) -> None:
    """In the process that is killed: append, and say so once it is acknowledged."""
    store = await open_store(folder)
    chance = random.Random(first)

    async def run(start: int) -> None:
        while True:
            end = start + chance.choice((1, 5, 60))
            bad = Quarantined("default", "shop", "halon", "odd", "", NOW, str(start).encode())
            request = Request(f"request/{start}", NOW)
            await store.append(Entry("default", events(start, end), [bad], request, quarantine_limit=1_000_000))
            lease, aside = (
                Lease("l", f"s{first}", "", ((start, end),), NOW),
                SetAside(f"s{first}", 1, event(start), 1, 0, ""),
            )
            await store.settle_leases([lease], (), {f"s{first}": Cursor(start)}, [aside])
            os.write(1, f"{start} {end}\n".encode())
            start = end

    await asyncio.gather(*[run(first + task * STRIDE) for task in range(3)])


def kill_once(folder: Path, first: int, chance: random.Random) -> list[tuple[int, int]]:
    """Let a process append, kill it at some moment, and return the runs of events it was told are kept."""
    command = [sys.executable, __file__, str(folder), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        told = child.stdout.readline()
        time.sleep(chance.uniform(0, 0.25))
        child.kill()
        lines = [told, *child.stdout.read().splitlines(keepends=True)]
    runs = [line.split() for line in lines if line.endswith(b"\n")]
    return [(int(start), int(end)) for start, end in runs]


async def check(folder: Path, acknowledged: list[tuple[int, int]]) -> set[int]:
    """What is in the store: every acknowledged event once, its quarantine and its request; returns the numbers."""
    store = await open_store(folder)
    recorded = await read_all(store, limit=1_000)
    assert [position for position, _ in recorded] == list(range(store.head()))
    numbers = [int(event.source.id or 0) for _, event in recorded]
    kept = set(numbers)
    assert len(kept) == len(numbers), "something is there twice"
    missing = [run for run in acknowledged if not kept.issuperset(range(*run))]
    assert not missing
    bodies = {int(item.body) for _, item in await store.list_quarantined(None, 1_000_000)}
    assert bodies >= {start for start, _ in acknowledged}
    assert bodies <= kept, "what was quarantined shares the transaction"
    for start, _ in acknowledged[-3:]:
        assert await store.find_request(f"request/{start}") is not None
    again = [event(number) for number in sorted(kept)]
    assert await store.append(entry(*again)) == Appended(0, len(again)), "an id is missing"
    await store.close()
    return kept


def test_what_was_acknowledged_survives_a_kill_at_any_moment(tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    acknowledged: list[tuple[int, int]] = []
    files = 0
    for number in range(ROUNDS):
        acknowledged += kill_once(tmp_path, number * 10 * STRIDE, chance)
        asyncio.run(check(tmp_path, acknowledged))
        files = len(list((tmp_path / "log").glob("*.db")))
    assert len(acknowledged) > 5 * ROUNDS, f"seed {seed}: hardly anything was appended"
    assert files > ROUNDS // 2, f"seed {seed}: no file was changed"


async def effects(folder: Path, first: int) -> set[int]:
    """The numbers that a killed round's cursor, lease and event set aside were last written with."""
    store = await open_store(folder)
    try:
        cursor = await store.get(f"s{first}")
        (lease,) = await store.list_leases(f"s{first}")
        (aside,) = await store.list_set_aside(f"s{first}", 10)
        return {cursor.position if cursor else -1, lease.positions[0][0], int(aside.event.source.id or -1)}
    finally:
        await store.close()


def test_a_cursor_survives_a_kill_together_with_its_lease_and_what_was_set_aside(tmp_path: Path) -> None:
    runs = kill_once(tmp_path, 0, random.Random(1))
    (start,) = asyncio.run(effects(tmp_path, 0))
    assert start in {start for start, _ in runs} | {end for _, end in runs}


if __name__ == "__main__":
    asyncio.run(append_for_ever(Path(sys.argv[1]), int(sys.argv[2])))

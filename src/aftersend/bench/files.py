"""Files: from the log into one file of many events, and from there into a folder, in a process of its own.

    python -m aftersend.bench.files DATA TARGET FORMAT COMPRESSION COUNT

is that process; it prints what it took as JSON.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import uvloop
from msgspec import Struct

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.bench.storage import BATCH, Supply, append_all, opened_store
from aftersend.contracts import Cursor
from aftersend.core.errors import StoreError
from aftersend.core.registry import Subscription
from aftersend.core.rotation import Rotation
from aftersend.core.timestamps import DAY
from aftersend.dialects.canonical import Dialect
from aftersend.pipeline.feed import Feed
from aftersend.pipeline.filing import Filer
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.voice import Voice
from aftersend.stores.sqlite import SqliteStore
from aftersend.transports.folder import Transport

RATE = Row("files, NDJSON into a folder", "events", 60_000, 90_000)
MEMORY = Row("memory while a file of {} events is written", "MB", 150, 120, rising=False)

SECONDS = 300.0
"""How long a run may take."""


class Taken(Struct):
    """What a run took."""

    cpu: float
    seconds: float
    size: int
    memory: int
    """Most bytes of memory that the process had."""


def files(scale: Scale, report: Report) -> Iterator[Reading]:
    """One file of everything, as fast as it goes."""
    count = scale.of(1_000_000, BATCH) // BATCH * BATCH
    report(RATE.name)
    reference = bare_rate()
    taken = measure(count, report=report)
    yield Reading(RATE, count / taken.cpu, count, (reference + bare_rate()) / 2)
    row = Row(MEMORY.name.format(f"{count:,}"), MEMORY.unit, MEMORY.floor, MEMORY.reach, MEMORY.rising)
    yield Reading(row, taken.memory / 1e6, count)


def measure(count: int, form: str = "ndjson", compression: str = "none", report: Report = print) -> Taken:
    """What a file of so many events takes."""
    with TemporaryDirectory(prefix="aftersend-bench-") as name:
        folder = Path(name)
        (folder / "in").mkdir()
        uvloop.run(_fill(folder, count))
        report(f"{count:,} events are stored")
        command = [sys.executable, "-m", __name__, name, str(folder / "in"), form, compression, str(count)]
        child = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)  # noqa: S603
        if child.returncode:
            raise StoreError(f"the file was not written: {child.stderr.decode()[-300:]}")
        return msgspec.json.decode(child.stdout, type=Taken)


async def _fill(folder: Path, count: int) -> None:
    supply = Supply(time.time_ns())
    async with opened_store(folder) as store:
        for start in range(0, count, 100 * BATCH):
            await append_all(store, [supply.batch() for _ in range(min(100, (count - start) // BATCH))])


async def _tell(folder: Path, target: Path, rotation: Rotation, count: int) -> Taken:
    async with opened_store(folder) as store:
        ledger, feed = Ledger(store), Feed(store)
        await ledger.open("sub_bench", Cursor())
        filer = _filer(folder, target, rotation, store, ledger, feed)
        began = time.perf_counter()
        with stopwatch() as watch:
            tasks = [asyncio.create_task(work()) for work in (filer.run, feed.run)]
            async with asyncio.timeout(SECONDS):
                while ledger.cursor("sub_bench").sequence < count:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        seconds = time.perf_counter() - began
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        size = sum(path.stat().st_size for path in await asyncio.to_thread(lambda: list(target.iterdir())))
        return Taken(watch.seconds, seconds, size, _most_memory())


def _filer(folder: Path, target: Path, rotation: Rotation, store: SqliteStore, ledger: Ledger, feed: Feed) -> Filer:
    return Filer(
        Subscription(id="sub_bench", name="bench", start="beginning"),
        Voice(Dialect(), ""),
        Transport(url=target.as_uri(), folders=(target,)),
        rotation=rotation,
        data=folder / "data",
        feed=feed,
        ledger=ledger,
        cursors=store,
        clock=lambda: time.time_ns() + 14 * DAY,
        chance=lambda: 0.5,
        disable=_raise,
    )


async def _raise(subscription: Subscription, reason: str) -> None:
    raise StoreError(reason)


def _most_memory() -> int:
    text = Path("/proc/self/status").read_text()
    return int(text.partition("VmHWM:")[2].split()[0]) * 1024


if __name__ == "__main__":
    data, target_, form_, compression_, count_ = sys.argv[1:]
    rotation_ = Rotation(
        every="week",
        max_events=10_000_000,
        max_bytes=10_000_000_000,
        format=form_,  # type: ignore[arg-type]
        compression=compression_,  # type: ignore[arg-type]
    )
    print(msgspec.json.encode(uvloop.run(_tell(Path(data), Path(target_), rotation_, int(count_)))).decode())  # noqa: T201

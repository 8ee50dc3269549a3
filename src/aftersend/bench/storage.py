"""Keeping: appends to the log from within, with what it remembers growing, and the bytes on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.contracts import Entry
from aftersend.core.event import Event, Receipt, Source
from aftersend.core.identity import make_id
from aftersend.core.timestamps import MILLISECOND
from aftersend.dialects.canonical import Dialect
from aftersend.keyring import Keyring
from aftersend.simulation.campaign import hits
from aftersend.simulation.vendors import tell
from aftersend.stores.sqlite import SqliteStore

APPEND = Row("append, 1000 events a batch", "events", 110_000, 160_000)
GROWN = Row("append rate with {} stored, against {}", "×", 0.9, 1.0)
DISK = Row("bytes on disk of a 400-byte event", "bytes", 150, 100, rising=False)

BATCH = 1_000


@asynccontextmanager
async def opened_store(folder: Path) -> AsyncIterator[SqliteStore]:
    """A new store in a folder."""
    keyring = Keyring.open(folder / "keys", create=True)
    store = await SqliteStore.open(folder / "data", clock=time.time_ns, keyring=keyring, create=True)
    try:
        yield store
    finally:
        await store.close()


def events(count: int, start: int, campaigns: int = 100) -> list[Event]:
    """Distinct, realistic events, a ms apart."""
    bodies = tell("canonical", list(hits(count, start & 0xFFFF_FFFF, start, campaigns)))
    found = [item for body in bodies for item in Dialect().decode(Receipt(body.data, start))]
    return [item for item in found if isinstance(item, Event)]


class Supply:
    """Any number of distinct events at little cost: the same thousand with new ids, times and messages."""

    def __init__(self, start: int) -> None:
        self._models = events(BATCH, start)
        self._time = start

    def batch(self) -> list[Event]:
        """The next thousand."""
        self._time += BATCH * MILLISECOND
        return [self._anew(model, self._time + number * MILLISECOND) for number, model in enumerate(self._models)]

    def _anew(self, model: Event, now: int) -> Event:
        id_ = make_id(now, b"supply")
        source = Source(model.source.name, model.source.dialect, model.source.word, id_)
        return msgspec.structs.replace(model, id=id_, time=now, source=source, message_id=id_[-24:])


def append(scale: Scale, report: Report) -> Iterator[Reading]:
    """Appends of a thousand events, four under way at once; ids are looked up, nothing is a duplicate."""
    report(APPEND.name)
    count = scale.of(200_000, BATCH) // BATCH * BATCH
    reference = bare_rate()
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        rate = uvloop.run(_append_rate(Path(folder), count))
    yield Reading(APPEND, rate, count, (reference + bare_rate()) / 2)


async def _append_rate(folder: Path, count: int) -> float:
    batches = [
        batch for supply in [Supply(time.time_ns())] for batch in [supply.batch() for _ in range(count // BATCH)]
    ]
    async with opened_store(folder) as store:
        with stopwatch() as watch:
            await append_all(store, batches)
    return watch.rate(count)


async def append_all(store: SqliteStore, batches: list[list[Event]]) -> None:
    """Append batches in order, four under way at once."""
    waiting = iter(batches)

    async def work() -> None:
        for batch in waiting:
            await store.append(Entry("default", batch))

    await asyncio.gather(*(work() for _ in range(4)))


def growth(scale: Scale, report: Report) -> Iterator[Reading]:
    """The rate of appends behind many stored events against behind few."""
    many = 20_000_000 if scale.full else scale.of(3_000_000, 20 * BATCH)
    few = many // 20 if scale.full else many // 10
    row = msgspec.structs.replace(GROWN, name=GROWN.name.format(f"{many:,}", f"{few:,}"))
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        value = uvloop.run(_growth(Path(folder), few, many, report))
    yield Reading(row, value, many)


async def _growth(folder: Path, few: int, many: int, report: Report) -> float:
    supply = Supply(time.time_ns())
    window = max(1, min(few // BATCH // 2, 100))
    async with opened_store(folder) as store:
        await _fill(store, supply, few // BATCH - window, report)
        early = await _window(store, supply, window)
        await _fill(store, supply, (many - few) // BATCH - window, report)
        return await _window(store, supply, window) / early


async def _fill(store: SqliteStore, supply: Supply, batches: int, report: Report) -> None:
    for number in range(0, batches, 100):
        await append_all(store, [supply.batch() for _ in range(min(100, batches - number))])
        report(f"{store.head():,} events stored")


async def _window(store: SqliteStore, supply: Supply, batches: int) -> float:
    """Appends a CPU-second, against the bare loop at the same time."""
    prepared = [supply.batch() for _ in range(batches)]
    reference = bare_rate()
    with stopwatch() as watch:
        await append_all(store, prepared)
    return watch.rate(batches * BATCH) / (reference + bare_rate())


def disk(scale: Scale, report: Report) -> Iterator[Reading]:
    """What the data folder takes, write-ahead log put away, for events with nothing in common but the vocabulary."""
    report(DISK.name)
    count = scale.of(100_000, BATCH)
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        size = uvloop.run(_stored_bytes(Path(folder), count))
    yield Reading(DISK, size, count)


async def _stored_bytes(folder: Path, count: int) -> float:
    """Bytes of disk for each 400 bytes of JSON."""
    told = 0
    async with opened_store(folder) as store:
        for start in range(0, count, BATCH):
            batch = events(BATCH, time.time_ns() + start * MILLISECOND)
            told += len(msgspec.json.encode(batch))
            await store.append(Entry("default", batch))
    files = [path for path in (folder / "data" / "log").rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) * 400 / told

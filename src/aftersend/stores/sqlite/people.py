"""people.db: the levels of those who want less than everything to be kept, in a file and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import apsw

from aftersend.contracts import Clock, People
from aftersend.core.consent import Level, person_key
from aftersend.core.errors import StoreError
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, transaction
from aftersend.stores.sqlite.folder import make_file
from aftersend.stores.sqlite.statements import read_script

FILE_NAME = "people.db"

_PUT = "INSERT OR REPLACE INTO people (key, tenant, level, changed_at, method) VALUES (?, ?, ?, ?, ?)"
_LOWER = "SELECT key, level FROM people WHERE level < ?"
_LEVELS = tuple(Level)

P = ParamSpec("P")
T = TypeVar("T")


class Levels:
    """Levels by key, 15 bytes each and half a megabyte besides: what a million people take is 20 MB."""

    _BUCKETS = 1 << 16
    _HEAD = 2
    _TAIL = 14

    def __init__(self, pairs: Iterable[tuple[bytes, int]] = ()) -> None:
        grouped: dict[int, list[bytes]] = {}
        self.is_empty = True
        for key, level in pairs:
            self.is_empty = False
            grouped.setdefault(self._bucket(key), []).append(key[self._HEAD :] + bytes((level,)))
        self._buckets = [b""] * self._BUCKETS
        for number, entries in grouped.items():
            self._buckets[number] = b"".join(entries)

    def get(self, key: bytes) -> Level:
        """The level of a key; FULL where there is none."""
        bucket = self._buckets[self._bucket(key)]
        at = self._find(bucket, key) if bucket else -1
        return Level.FULL if at < 0 else _LEVELS[bucket[at + self._TAIL]]

    def put(self, key: bytes, level: Level) -> None:
        """Change a level; FULL takes no room."""
        number = self._bucket(key)
        bucket = self._buckets[number]
        at = self._find(bucket, key)
        if at >= 0:
            bucket = bucket[:at] + bucket[at + self._TAIL + 1 :]
        if level is not Level.FULL:
            self.is_empty = False
            bucket += key[self._HEAD :] + bytes((level,))
        self._buckets[number] = bucket

    def _bucket(self, key: bytes) -> int:
        return int.from_bytes(key[: self._HEAD], "big")

    def _find(self, bucket: bytes, key: bytes) -> int:
        """Where the entry of a key begins, or -1; the bytes of two neighbours may look like a key."""
        tail = key[self._HEAD :]
        at = bucket.find(tail)
        while at > 0 and at % (self._TAIL + 1):
            at = bucket.find(tail, at + 1)
        return at


class SqlitePeople:
    """People's levels; see `contracts.People`. All work on the file runs in one thread of its own."""

    def __init__(self, path: Path, connection: apsw.Connection, clock: Clock) -> None:
        self._path = path
        self._connection = connection
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "aftersend-people")
        self._levels: Levels | None = None

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> SqlitePeople:
        """The file in a data folder; made where there is none. Raises StoreError. `load` comes next."""
        path = folder / FILE_NAME
        with faults_of(path):
            make_file(path)
            connection = connect(path, writing=True)
            try:
                migrate(connection, [read_script("people_1.sql")], path)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, clock)

    async def load(self) -> None:
        """Read every level into memory; until that is done none can be told. Raises StoreError."""
        self._levels = await self._run(self._load)

    def _load(self) -> Levels:
        return Levels(self._connection.execute(_LOWER, (Level.FULL,)))

    def level(self, tenant: str, person_key: bytes) -> Level:
        """The level of a person; FULL where nothing was said. Raises StoreError before `load` is done."""
        if self._levels is None:
            raise StoreError(f"{self._path}: the levels have not been read")
        return self._levels.get(person_key)

    def is_any_lowered(self) -> bool:
        """Whether anybody asked for less, as far as is known. Raises StoreError before `load` is done."""
        if self._levels is None:
            raise StoreError(f"{self._path}: the levels have not been read")
        return not self._levels.is_empty

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        """Write a person's level down, durably. Raises StoreError; then the old level holds."""
        key = person_key(tenant, person)
        await self._run(self._put, (key, tenant, int(level), self._clock(), method))
        if self._levels is not None:
            self._levels.put(key, level)

    def _put(self, row: tuple[bytes, str, int, int, str]) -> None:
        with transaction(self._connection):
            self._connection.execute(_PUT, row)

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        def guarded() -> T:
            with faults_of(self._path):
                return work(*arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


_proof: type[People] = SqlitePeople

"""The files of followers: each with its effect and its bookmark, moved in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import apsw

from aftersend.contracts import Firsts
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, transaction
from aftersend.stores.sqlite.folder import make_file
from aftersend.stores.sqlite.statements import read_script

P = ParamSpec("P")
T = TypeVar("T")


class SqliteFirsts:
    """First opens and clicks that were seen; see `contracts.Firsts`. All work runs in one thread of its own."""

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, "aftersend-firsts")

    @classmethod
    def open(cls, folder: Path) -> SqliteFirsts:
        """The file in a data folder; made where there is none. Raises StoreError."""
        path = folder / "followers" / "firsts.db"
        with faults_of(path):
            make_file(path)
            connection = connect(path, writing=True)
            migrate(connection, [read_script("firsts_1.sql")], path)
        return cls(path, connection)

    async def bookmark(self) -> int:
        """The position to read from."""
        return await self._run(self._bookmark)

    def _bookmark(self) -> int:
        return int(self._connection.execute("SELECT position FROM bookmark").get)

    async def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of these keys that were seen before."""
        return await self._run(self._known, tuple(keys))

    def _known(self, keys: tuple[bytes, ...]) -> set[bytes]:
        values = apsw.carray(keys, flags=apsw.SQLITE_CARRAY_BLOB)
        rows = self._connection.execute("SELECT value FROM carray(?) WHERE value IN (SELECT key FROM seen)", (values,))
        return {row[0] for row in rows}

    async def remember(self, keys: Mapping[bytes, int], bookmark: int) -> None:
        """Keep keys and move the bookmark, in one transaction."""
        await self._run(self._remember, sorted(keys.items()), bookmark)

    def _remember(self, keys: list[tuple[bytes, int]], bookmark: int) -> None:
        with transaction(self._connection):
            self._connection.executemany("INSERT OR IGNORE INTO seen VALUES (?, ?)", keys)
            self._connection.execute("UPDATE bookmark SET position = ?", (bookmark,))

    async def forget(self, before: int) -> None:
        """Drop keys whose hit is older than a time."""
        await self._run(self._forget, before)

    def _forget(self, before: int) -> None:
        with transaction(self._connection):
            self._connection.execute("DELETE FROM seen WHERE hit_at < ?", (before,))

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._close)
        self._thread.shutdown()

    def _close(self) -> None:
        self._connection.close()

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        def guarded() -> T:
            with faults_of(self._path):
                return work(*arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


_proof: type[Firsts] = SqliteFirsts

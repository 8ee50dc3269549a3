"""references.db: what the short links of text messages stand for."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ParamSpec, TypeVar

import apsw

from aftersend.contracts import Clock, Reference, References
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, transaction
from aftersend.stores.sqlite.folder import make_file
from aftersend.stores.sqlite.statements import read_script

FILE_NAME = "references.db"
REMEMBERED = 10_000
"""References held in memory, those that were asked for last."""

_PUT = 'INSERT INTO "references" (id, token, channel, made_at) VALUES (?, ?, ?, ?)'
_FIND = 'SELECT token, channel FROM "references" WHERE id = ?'
_FORGET = 'DELETE FROM "references" WHERE made_at < ?'

P = ParamSpec("P")
T = TypeVar("T")


class SqliteReferences:
    """See `contracts.References`. All work on the file runs in one thread of its own."""

    def __init__(self, path: Path, connection: apsw.Connection, clock: Clock) -> None:
        self._path = path
        self._connection = connection
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "aftersend-references")
        self._known: OrderedDict[bytes, Reference] = OrderedDict()

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> SqliteReferences:
        """The file in a data folder; made where there is none. Raises StoreError."""
        path = folder / FILE_NAME
        with faults_of(path):
            make_file(path)
            connection = connect(path, writing=True)
            try:
                migrate(connection, [read_script("references_1.sql")], path)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, clock)

    async def keep(self, references: Sequence[Reference]) -> None:
        """Write them down, all or none, durably. Raises StoreError."""
        now = self._clock()
        await self._run(self._put, [(item.id, item.token, item.channel, now) for item in references])

    def _put(self, rows: list[tuple[bytes, str, str, int]]) -> None:
        with transaction(self._connection):
            self._connection.executemany(_PUT, rows)

    async def find(self, id_: bytes) -> Reference | None:
        """What a reference stands for, from memory where it was asked for lately. Raises StoreError."""
        found = self._known.get(id_)
        if found is not None:
            self._known.move_to_end(id_)
            return found
        row = await self._run(lambda: self._connection.execute(_FIND, (id_,)).get)
        if row is None:
            return None
        found = self._known[id_] = Reference(id_, *row)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    async def forget(self, before: int) -> None:
        """Drop references made before a time (ns, UTC)."""
        if await self._run(self._forget, before):
            self._known.clear()

    def _forget(self, before: int) -> int:
        with transaction(self._connection):
            self._connection.execute(_FORGET, (before,))
            return self._connection.changes()

    async def close(self) -> None:
        """Close the file."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        def guarded() -> T:
            with faults_of(self._path):
                return work(*arguments, **named)

        return await asyncio.get_running_loop().run_in_executor(self._thread, guarded)


_proof: type[References] = SqliteReferences

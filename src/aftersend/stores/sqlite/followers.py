"""The files of followers: each with its effect and its bookmark, moved in one transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar, ParamSpec, TypeVar
from uuid import UUID

import apsw
import msgspec

from aftersend.contracts import Firsts, Verdict, Verdicts
from aftersend.core.event import Actor
from aftersend.core.timestamps import SECOND
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, transaction
from aftersend.stores.sqlite.folder import make_file
from aftersend.stores.sqlite.statements import read_script

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound="FollowerFile")

HOUR = 3_600 * SECOND
"""How exactly it is remembered when something was seen, rounded up."""

_encode = msgspec.json.Encoder().encode
_decode_actor = msgspec.json.Decoder(Actor).decode


class FollowerFile:
    """One follower's file, `followers/<name>.db`, made by `<name>_1.sql`. All work runs in one thread of its own."""

    name: ClassVar[str]

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection
        self._thread = ThreadPoolExecutor(1, f"aftersend-{self.name}")

    @classmethod
    def open(cls: type[F], folder: Path) -> F:
        """The file in a data folder; made where there is none. Raises StoreError."""
        path = folder / "followers" / f"{cls.name}.db"
        with faults_of(path):
            make_file(path)
            connection = connect(path, writing=True)
            migrate(connection, [read_script(f"{cls.name}_1.sql")], path)
        return cls(path, connection)

    async def bookmark(self) -> int:
        """The position to read from."""
        return await self._run(self._bookmark)

    def _bookmark(self) -> int:
        return int(self._connection.execute("SELECT position FROM bookmark").get)

    def _move(self, bookmark: int) -> None:
        self._connection.execute("UPDATE bookmark SET position = ?", (bookmark,))

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


class SqliteFirsts(FollowerFile):
    """First opens and clicks that were seen; see `contracts.Firsts`."""

    name = "firsts"

    async def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of these keys that were seen before."""
        return await self._run(self._known, tuple(keys))

    def _known(self, keys: tuple[bytes, ...]) -> set[bytes]:
        values = apsw.carray(keys, flags=apsw.SQLITE_CARRAY_BLOB)
        rows = self._connection.execute("SELECT value FROM carray(?) WHERE value IN (SELECT key FROM seen)", (values,))
        return {row[0] for row in rows}

    async def remember(self, keys: Mapping[bytes, int], bookmark: int) -> None:
        """Keep keys and move the bookmark, in one transaction."""
        await self._run(self._remember, keys, bookmark)

    def _remember(self, keys: Mapping[bytes, int], bookmark: int) -> None:
        # One statement for all keys of an hour: between two statements the event loop may take its turn for 5 ms.
        by_hour: dict[int, list[bytes]] = {}
        for key, hit_at in keys.items():
            by_hour.setdefault(-(-hit_at // HOUR), []).append(key)
        with transaction(self._connection):
            for hour, alike in by_hour.items():
                values = apsw.carray(tuple(sorted(alike)), flags=apsw.SQLITE_CARRAY_BLOB)
                insert = "INSERT OR IGNORE INTO seen SELECT value, ? FROM carray(?)"
                self._connection.execute(insert, (hour * HOUR, values))
            self._move(bookmark)

    async def forget(self, before: int) -> None:
        """Drop keys whose hit is older than a time."""
        await self._run(self._forget, before)

    def _forget(self, before: int) -> None:
        with transaction(self._connection):
            self._connection.execute("DELETE FROM seen WHERE hit_at < ?", (before,))


class SqliteVerdicts(FollowerFile):
    """What was last thought of hits; see `contracts.Verdicts`."""

    name = "verdicts"

    async def latest(self, events: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts on those of these hits that have one."""
        return await self._run(self._latest, [UUID(event).bytes for event in events]) if events else {}

    def _latest(self, events: list[bytes]) -> dict[str, Verdict]:
        values = apsw.carray(tuple(events), flags=apsw.SQLITE_CARRAY_BLOB)
        rows = self._connection.execute(
            "SELECT event, id, actor FROM carray(?) JOIN verdicts ON event = value", (values,)
        )
        found = [Verdict(str(UUID(bytes=event)), id_, _decode_actor(actor)) for event, id_, actor in rows]
        return {verdict.event: verdict for verdict in found}

    async def remember(self, verdicts: Sequence[Verdict], now: int, bookmark: int | None = None) -> None:
        """Keep verdicts and move the bookmark, in one transaction."""
        rows = [(UUID(item.event).bytes, item.id, _encode(item.actor), now) for item in verdicts]
        await self._run(self._remember, rows, bookmark)

    def _remember(self, rows: list[tuple[bytes, str, bytes, int]], bookmark: int | None) -> None:
        with transaction(self._connection):
            self._connection.executemany("INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?)", rows)
            if bookmark is not None:
                self._move(bookmark)

    async def forget(self, before: int) -> None:
        """Drop verdicts that were kept before a time."""
        await self._run(self._forget, before)

    def _forget(self, before: int) -> None:
        with transaction(self._connection):
            self._connection.execute("DELETE FROM verdicts WHERE kept_at < ?", (before,))


_firsts: type[Firsts] = SqliteFirsts
_verdicts: type[Verdicts] = SqliteVerdicts

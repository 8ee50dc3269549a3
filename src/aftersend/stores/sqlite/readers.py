"""Connections for reading, kept open for the files that were read last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import apsw

from aftersend.stores.sqlite.connections import connect


class Readers:
    """A bounded set of idle connections; past the limit the one that was idle longest is closed. For all threads."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._idle: list[tuple[Path, apsw.Connection]] = []
        self._forgotten: set[Path] = set()
        self._lock = Lock()

    @contextmanager
    def borrow(self, path: Path) -> Iterator[apsw.Connection]:
        """A connection to a file. It may not be kept, nor a cursor of it left open."""
        connection = self._take(path) or connect(path, writing=False)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        self._give_back(path, connection)

    def _take(self, path: Path) -> apsw.Connection | None:
        with self._lock:
            for index in range(len(self._idle) - 1, -1, -1):
                if self._idle[index][0] == path:
                    return self._idle.pop(index)[1]
        return None

    def _give_back(self, path: Path, connection: apsw.Connection) -> None:
        surplus = connection
        with self._lock:
            if path not in self._forgotten:
                self._idle.append((path, connection))
                if len(self._idle) <= self._limit:
                    return
                surplus = self._idle.pop(0)[1]
        surplus.close()

    def forget(self, path: Path) -> None:
        """Close what is open for a file that will never come back."""
        with self._lock:
            self._forgotten.add(path)
            gone = [connection for other, connection in self._idle if other == path]
            self._idle = [item for item in self._idle if item[0] != path]
        for connection in gone:
            connection.close()

    def close(self) -> None:
        """Close everything that is idle."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, connection in idle:
            connection.close()

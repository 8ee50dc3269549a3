"""Connections to SQLite: how they are opened and migrated, and what their errors mean."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from aftersend.core.errors import StoreBusyError, StoreError, StoreFullError, StoreVersionError

BUSY_TIMEOUT = 5_000
"""Milliseconds that a statement waits for a lock that somebody else (a shell, a backup) holds."""

WRITER_CACHE = 64 * 1024
"""KiB of pages that a writer keeps in memory; a reader keeps an eighth of a megabyte."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


def connect(path: Path, *, writing: bool) -> apsw.Connection:
    """A connection to a file that exists."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        connection.set_busy_timeout(BUSY_TIMEOUT)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute(f"PRAGMA cache_size = -{WRITER_CACHE if writing else 128}")
        connection.execute("PRAGMA journal_size_limit = 16777216")
        if not writing:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def rows(connection: apsw.Connection, statement: str, bindings: apsw.Bindings | None = None) -> list[Any]:
    """All rows of a statement, each a tuple."""
    return connection.execute(statement, bindings).fetchall()


@contextmanager
def transaction(connection: apsw.Connection, *, writing: bool = True) -> Iterator[None]:
    """All of it on disk, synced, or none of it."""
    connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def faults_of(path: Path) -> Iterator[None]:
    """What SQLite and the system say about a file, told as errors of the store."""
    try:
        yield
    except (apsw.Error, OSError) as error:
        raise store_error(error, path) from error


def store_error(error: Exception, path: Path) -> StoreError:
    """The store's word for an error of SQLite or the system."""
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in _FULL):
        return StoreFullError(f"{path}: the disk is full; free space, and the process goes on by itself")
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StoreBusyError(f"{path}: somebody else is writing to it; try again in a moment")
    if isinstance(error, OSError):
        return StoreError(f"{path}: {(error.strerror or str(error)).lower()}")
    return StoreError(f"{path}: {error}")


def migrate(connection: apsw.Connection, scripts: Sequence[str], path: Path) -> None:
    """Bring a file to the newest version. Raises StoreVersionError where it is newer than this code."""
    version = version_of(connection, len(scripts), path)
    for number, script in enumerate(scripts[version:], version + 1):
        with transaction(connection):
            connection.execute(script)
            connection.execute(f"PRAGMA user_version = {number}")


def version_of(connection: apsw.Connection, newest: int, path: Path) -> int:
    """The version of a file. Raises StoreVersionError where it is newer than this code."""
    version = int(connection.execute("PRAGMA user_version").get)
    if version > newest:
        raise StoreVersionError(
            f"{path} has version {version}, this aftersend knows {newest}; install the one that wrote it, or newer"
        )
    return version

"""What is read from disk, in the threads for reading."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from aftersend.contracts import Quarantined, Request
from aftersend.core.errors import StoreError
from aftersend.core.event import Recorded
from aftersend.core.timestamps import DAY
from aftersend.stores.sqlite import blocks
from aftersend.stores.sqlite.connections import faults_of
from aftersend.stores.sqlite.files import Catalogue, LogFile
from aftersend.stores.sqlite.readers import Readers
from aftersend.stores.sqlite.recent import from_position
from aftersend.stores.sqlite.statements import LOG

REQUESTS_KEPT = 7 * DAY
"""How long a request is remembered; one for a file (`file:…`) as long as the log."""


class Archive:
    """The files of the log, for reading; every method may be called in any thread."""

    def __init__(self, catalogue: Catalogue, readers: Readers) -> None:
        self._catalogue = catalogue
        self._readers = readers

    @contextmanager
    def _reading(self, file: LogFile) -> Iterator[apsw.Connection | None]:
        """A connection to a file, or None where retention took it away meanwhile."""
        with faults_of(file.path):
            try:
                with self._readers.borrow(file.path) as connection:
                    yield connection
            except apsw.CantOpenError:
                if file in self._catalogue.files:
                    raise
                yield None

    def read(self, position: int, limit: int, head: int) -> list[Recorded]:
        """About `limit` events from a position on, below the head."""
        found: list[Recorded] = []
        for file in self._catalogue.since(position):
            with self._reading(file) as connection:
                if connection is not None:
                    limit -= _read_file(connection, position, limit, head, found)
            if limit <= 0:
                break
        return found

    def position_at(self, received_at: int) -> int | None:
        """The lowest position of a block received at or after a time; None where there is none."""
        files = self._catalogue.files
        index = bisect_left(files, received_at, key=lambda file: file.created_at)
        for file in files[max(index - 1, 0) :]:
            with self._reading(file) as connection:
                found = None if connection is None else connection.execute(LOG["position_at"], (received_at,)).get
            if found is not None:
                return int(found)
        return None

    def find_request(self, key: str, now: int) -> Request | None:
        """A request that is remembered."""
        for file in self._with_requests(key, now - REQUESTS_KEPT):
            with self._reading(file) as connection:
                row = None if connection is None else connection.execute(LOG["find_request"], (key,)).get
            if row is not None:
                request = Request(*row)
                is_kept = key.startswith("file:") or request.received_at >= now - REQUESTS_KEPT
                return request if is_kept else None
        return None

    def _with_requests(self, key: str, oldest: int) -> Iterator[LogFile]:
        """The files that can remember a request, the newest first."""
        is_file = key.startswith("file:")
        ended_at = None
        for file in reversed(self._catalogue.files):
            if (is_file and file.file_requests) or (not is_file and (ended_at is None or ended_at >= oldest)):
                yield file
            ended_at = file.created_at

    def list_quarantined(self, tenant: str | None, limit: int, after: int) -> list[tuple[int, Quarantined]]:
        """Numbered entries above `after`, the oldest first."""
        found: list[tuple[int, Quarantined]] = []
        for file in self._catalogue.numbered(after + 1):
            if len(found) >= limit:
                break
            if not file.quarantined.total():
                continue
            with self._reading(file) as connection:
                if connection is not None:
                    asked = {"tenant": tenant, "after": after, "limit": limit - len(found)}
                    rows = connection.execute(LOG["list_quarantined"], asked)
                    found.extend((number, Quarantined(*row)) for number, *row in rows)
        return found


def _read_file(connection: apsw.Connection, position: int, limit: int, head: int, found: list[Recorded]) -> int:
    """How many events of one file were added to what is found."""
    count = 0
    cursor = connection.execute(LOG["read_blocks"], {"position": position, "head": head})
    try:
        for start, tenant, body in cursor:
            recorded = from_position(_unpacked(start, tenant, body), position)
            if recorded.events:
                found.append(recorded)
            count += len(recorded.events)
            if count >= limit:
                break
    finally:
        cursor.close(True)
    return count


def _unpacked(position: int, tenant: str, body: bytes) -> Recorded:
    try:
        return Recorded(position, tenant, blocks.unpack(body))
    except StoreError as error:
        raise StoreError(f"{error}, at position {position}") from None

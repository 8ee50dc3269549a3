"""Upkeep of the log: dropping what is too old, rewriting blocks, forgetting quarantined bodies.

Runs in the writer's thread, between commits; each change stays within one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise

import apsw

from aftersend.contracts import Gap
from aftersend.core.errors import NotFoundError, StoreError
from aftersend.core.event import Event
from aftersend.stores.sqlite import blocks
from aftersend.stores.sqlite.archive import REQUESTS_KEPT
from aftersend.stores.sqlite.connections import connect, faults_of, transaction
from aftersend.stores.sqlite.files import Catalogue, LogFile, remove_file, size_of
from aftersend.stores.sqlite.head import Head
from aftersend.stores.sqlite.readers import Readers
from aftersend.stores.sqlite.statements import LOG
from aftersend.stores.sqlite.writer import Job


class Chore(Job):
    """Something to do in the writer's thread between commits."""

    __slots__ = ("do",)

    def __init__(self, do: Callable[[], object]) -> None:
        super().__init__()
        self.do = do


class Upkeep:
    """What changes files after their commits."""

    def __init__(self, catalogue: Catalogue, readers: Readers, head: Head) -> None:
        self._catalogue = catalogue
        self._readers = readers
        self._head = head

    @contextmanager
    def _changing(self, file: LogFile) -> Iterator[apsw.Connection]:
        """A connection that may change a file; the head has one already."""
        with faults_of(file.path):
            if file is self._catalogue.head:
                yield self._head.connection
                return
            connection = connect(file.path, writing=True)
            try:
                yield connection
            finally:
                connection.close()

    def retain(self, before: int, max_log_bytes: int | None, cursors: Mapping[str, int], now: int) -> list[Gap]:
        """Drop whole files, the oldest first; see `EventLog.retain`."""
        self._forget_requests(now - REQUESTS_KEPT)
        tail = self._catalogue.files[0].first_position
        lowest = min(cursors.values(), default=self._head.position)
        size = sum(size_of(file) for file in self._catalogue.files)
        for file, following in list(pairwise(self._catalogue.files)):
            is_over = following.created_at <= before and following.first_position <= lowest
            if not is_over and (max_log_bytes is None or size <= max_log_bytes):
                break
            size -= size_of(file)
            self._drop(file)
        return _gaps(cursors, tail, self._catalogue.files[0].first_position)

    def _drop(self, file: LogFile) -> None:
        self._catalogue.remove(file)
        self._readers.forget(file.path)
        remove_file(file)

    def _forget_requests(self, before: int) -> None:
        """Other files go as a whole, but a head without events is never replaced."""
        with self._changing(self._catalogue.head) as connection, transaction(connection):
            connection.execute(LOG["forget_requests"], (before,))

    def rewrite(self, position: int, events: Sequence[Event]) -> None:
        """Put other events in the place of a block's; see `EventLog.rewrite`."""
        file = self._catalogue.holding(position)
        with self._changing(file) as connection:
            if file is self._catalogue.head:
                self._head.gather_ids()
            found = connection.execute(LOG["block"], (position,)).get
            if found is None:
                raise NotFoundError(f"no block of the log begins at position {position}")
            if found[1] != len(events):
                raise StoreError(f"the block at position {position} holds {found[1]} events, not {len(events)}")
            piece = blocks.piece_of(list(events))
            with transaction(connection):
                body = blocks.pack(blocks.compressor(), piece.data)
                connection.execute(LOG["rewrite_block"], (body, position))
            connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def discard(self, numbers: Sequence[int]) -> None:
        """Forget quarantined bodies."""
        by_file: dict[LogFile, list[int]] = {}
        for number in numbers:
            by_file.setdefault(self._catalogue.numbered(number)[0], []).append(number)
        for file, own in by_file.items():
            with self._changing(file) as connection, transaction(connection):
                gone = [row for number in own for row in connection.execute(LOG["discard"], (number,))]
            file.quarantined.subtract(gone)

    def trim(self, limits: Mapping[tuple[str, str], int]) -> None:
        """Forget the oldest bodies of each source past its limit."""
        for source, limit in limits.items():
            surplus = sum(file.quarantined[source] for file in self._catalogue.files) - limit
            for file in self._catalogue.files:
                if surplus <= 0:
                    break
                count = min(surplus, file.quarantined[source])
                if count:
                    self._discard_oldest(file, source, count)
                surplus -= count

    def _discard_oldest(self, file: LogFile, source: tuple[str, str], count: int) -> None:
        with self._changing(file) as connection, transaction(connection):
            connection.execute(LOG["discard_oldest"], (*source, count))
        file.quarantined[source] -= count


def _gaps(cursors: Mapping[str, int], tail: int, new_tail: int) -> list[Gap]:
    """Who was overtaken: these will never see the events in between."""
    return [
        Gap(name, max(position, tail), new_tail, new_tail - max(position, tail))
        for name, position in cursors.items()
        if position < new_tail and tail < new_tail
    ]

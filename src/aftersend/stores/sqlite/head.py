"""The head: the file that is written, and the transaction that keeps entries. Runs in the writer's thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import apsw

from aftersend.contracts import Appended, Clock, Entry
from aftersend.core.errors import StoreBusyError, StoreError, StoreFullError
from aftersend.core.timestamps import DAY
from aftersend.stores.sqlite import blocks
from aftersend.stores.sqlite.blocks import Block, Piece
from aftersend.stores.sqlite.connections import connect, faults_of, store_error, transaction
from aftersend.stores.sqlite.days import Span, widened
from aftersend.stores.sqlite.files import Catalogue, LogFile, create_file, describe, remove_file
from aftersend.stores.sqlite.ids import Ids, array
from aftersend.stores.sqlite.readers import Readers
from aftersend.stores.sqlite.statements import LOG
from aftersend.stores.sqlite.writer import Job


class Append(Job):
    """An entry on its way into the log."""

    __slots__ = ("count", "entry", "pieces", "size")

    def __init__(self, entry: Entry, pieces: Sequence[Piece], size: int) -> None:
        super().__init__()
        self.entry = entry
        self.pieces = pieces
        self.count = len(entry.events)
        self.size = size


class _Kept(NamedTuple):
    """What of an entry is new."""

    entry: Entry
    pieces: Sequence[Piece]
    appended: Appended


class Head:
    """The end of the log."""

    def __init__(
        self,
        catalogue: Catalogue,
        readers: Readers,
        clock: Clock,
        max_file_bytes: int,
        *,
        read_only: bool,
    ) -> None:
        self._catalogue = catalogue
        self._readers = readers
        self._clock = clock
        self._max_file_bytes = max_file_bytes
        self._read_only = read_only
        self._compress = blocks.compressor()
        self._is_doubtful = False
        with faults_of(self.file.path):
            self._connection = self._open()

    @property
    def file(self) -> LogFile:
        """The file that is written."""
        return self._catalogue.head

    @property
    def connection(self) -> apsw.Connection:
        """The one connection that writes the file, opened again after a fault."""
        if self._is_doubtful:
            self._connection.close()
            self._connection = self._open()
            describe(self.file, self._connection)
            self._is_doubtful = False
        return self._connection

    def _open(self, file: LogFile | None = None) -> apsw.Connection:
        file = file or self.file
        connection = connect(file.path, writing=not self._read_only)
        end = connection.execute(LOG["end"]).get
        self.position: int = file.first_position if end is None else end
        """The position that the next event gets."""
        self._is_empty = end is None
        if not self._read_only:
            self._ids = Ids(connection)
        return connection

    def gather_ids(self) -> None:
        """Put all ids into their table, so that they stay known whatever becomes of the blocks."""
        self._ids.gather(self.position)

    def commit(self, appends: Sequence[Append]) -> list[Block]:
        """Keep entries in one transaction; sets each one's result, or the same error for all."""
        try:
            now = self._clock()
            self._begin_file_if_due(now)
            self._ids.begin_if_many(self.position)
            return self._commit(appends, now)
        except (apsw.Error, OSError, StoreError) as error:
            fault = self._failed(error)
            for append in appends:
                append.error = fault
            return []

    def probe(self) -> None:
        """Write something without a meaning, to see whether it reaches the disk."""
        try:
            with transaction(self.connection):
                self._connection.execute(LOG["touch"])
        except (apsw.Error, OSError) as error:
            raise self._failed(error) from error

    def _failed(self, error: apsw.Error | OSError | StoreError) -> StoreError:
        """The store's word for an error; where it says nothing of what reached the disk, that is looked up again."""
        fault = error if isinstance(error, StoreError) else store_error(error, self.file.path)
        self._is_doubtful = self._is_doubtful or not isinstance(fault, StoreFullError | StoreBusyError)
        return fault

    def _commit(self, appends: Sequence[Append], now: int) -> list[Block]:
        keys = [key for append in appends for piece in append.pieces for key in piece.keys]
        ordered = sorted(set(keys))
        known = self._known(ordered)
        added = [key for key in ordered if key not in known] if known else ordered
        all_kept = _all_of(appends) if len(added) == len(keys) else _new_of(appends, set(added))
        with transaction(self.connection):
            gathered = self._ids.put()
            spans = widened(self.file.days, added)
            self._connection.executemany(LOG["put_day"], [(day, *span) for day, span in spans.items()])
            written = self._add_blocks(all_kept, now)
            self._add_quarantined(all_kept)
            self._add_requests(all_kept)
        self._ids.gathered(gathered)
        self._ids.add(added)
        self._note(all_kept, written, spans)
        for append, kept in zip(appends, all_kept, strict=True):
            append.result = kept.appended
        return written

    def _known(self, ordered: Sequence[bytes]) -> set[bytes]:
        """The ids that are kept already."""
        known = self._ids.known(ordered)
        for file, asked in self._catalogue.to_ask(ordered).items():
            with faults_of(file.path), self._readers.borrow(file.path) as connection:
                known.update([key for (key,) in connection.execute(LOG["known_ids"], (array(asked),))])
        return known

    def _add_blocks(self, all_kept: Sequence[_Kept], now: int) -> list[Block]:
        pieces = [(kept.entry.tenant, piece) for kept in all_kept for piece in kept.pieces]
        built = blocks.build(pieces, self.position)
        for recorded, data in built:
            row = (recorded.position, recorded.tenant, len(recorded.events), now, blocks.pack(self._compress, data))
            self._connection.execute(LOG["insert_block"], row)
        return built

    def _add_quarantined(self, all_kept: Sequence[_Kept]) -> None:
        for kept in all_kept:
            for item in kept.entry.quarantined:
                row = (item.tenant, item.source, item.dialect, item.reason, item.detail, item.received_at)
                row += (item.body, item.content_type, item.form)  # type: ignore[assignment]
                self._connection.execute(LOG["insert_quarantined"], row)

    def _add_requests(self, all_kept: Sequence[_Kept]) -> None:
        for entry, _, appended in all_kept:
            request = entry.request
            if request is not None:
                row = (request.key, request.received_at, request.answer, appended.accepted, appended.duplicates)
                self._connection.execute(LOG["insert_request"], row)

    def _note(self, all_kept: Sequence[_Kept], written: Sequence[Block], spans: dict[int, Span]) -> None:
        """What is known of the file, once it is true on disk."""
        file = self.file
        file.days.update(spans)
        for kept in all_kept:
            file.quarantined.update(Counter((item.tenant, item.source) for item in kept.entry.quarantined))
            request = kept.entry.request
            file.file_requests |= request is not None and request.key.startswith("file:")
        if written:
            self.position = written[-1].recorded.next_position
            self._is_empty = False

    def _begin_file_if_due(self, now: int) -> None:
        """A new file by day of arrival or size. An empty one is kept: its name is the position it begins with."""
        old = self.connection
        if self._is_empty or (now // DAY <= self.file.day and self._size() < self._max_file_bytes):
            return
        self.gather_ids()
        last_number = old.execute(LOG["last_number"]).get
        file = create_file(self.file.path.parent, self.position, last_number, now)
        try:
            connection = self._open(file)
        except apsw.Error:
            # Left there, it would claim positions that the old file may still be given.
            remove_file(file)
            raise
        self._catalogue.add(file)
        self._connection = connection
        old.close()

    def _size(self) -> int:
        pages, size = (self._connection.execute(f"PRAGMA page_{what}").get for what in ("count", "size"))
        return int(pages * size) + self._ids.size

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _all_of(appends: Sequence[Append]) -> list[_Kept]:
    return [_Kept(append.entry, append.pieces, Appended(append.count, 0)) for append in appends]


def _new_of(appends: Sequence[Append], fresh: set[bytes]) -> list[_Kept]:
    """What of each entry is new; the first of two entries has what both say."""
    all_kept = []
    for append in appends:
        pieces = [kept for piece in append.pieces if (kept := blocks.without(piece, fresh)) is not None]
        accepted = sum(len(piece.events) for piece in pieces)
        all_kept.append(_Kept(append.entry, pieces, Appended(accepted, append.count - accepted)))
    return all_kept

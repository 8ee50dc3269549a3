"""The log: entries go in through a bounded queue, and come out in one order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, ParamSpec, TypeVar

from aftersend.contracts import Appended, Clock, Entry, Gap, Quarantined, Request
from aftersend.core.errors import AftersendError, StoreBusyError, StoreError
from aftersend.core.event import Event, Recorded
from aftersend.stores.sqlite import blocks
from aftersend.stores.sqlite.archive import Archive
from aftersend.stores.sqlite.blocks import Block
from aftersend.stores.sqlite.files import Catalogue, create_file, load_files
from aftersend.stores.sqlite.folder import Folder
from aftersend.stores.sqlite.head import Append, Head
from aftersend.stores.sqlite.limits import Limits
from aftersend.stores.sqlite.readers import Readers
from aftersend.stores.sqlite.recent import Recent
from aftersend.stores.sqlite.upkeep import Chore, Upkeep
from aftersend.stores.sqlite.writer import Writer

_OVERHEAD = 1_000
"""Bytes that an entry counts for in the queue besides its content."""

P = ParamSpec("P")
T = TypeVar("T")


class _Committed(NamedTuple):
    """What the writer's thread tells the event loop."""

    blocks: Sequence[Block]
    head: int


class EventLog:
    """The files of one log. Its methods are called in the event loop that opened it."""

    def __init__(self, folder: Folder, clock: Clock, limits: Limits, max_file_bytes: int, *, read_only: bool) -> None:
        files = load_files(folder.log, read_only=read_only)
        if not files:
            if read_only:
                raise StoreError(f"{folder.path} holds no log yet; `aftersend serve` begins one")
            files = [create_file(folder.log, 0, 0, clock())]
        self._clock = clock
        self._limits = limits
        self._catalogue = Catalogue(files)
        self._readers = Readers(limits.open_files)
        self._archive = Archive(self._catalogue, self._readers)
        self._end = Head(self._catalogue, self._readers, clock, max_file_bytes, read_only=read_only)
        self._upkeep = Upkeep(self._catalogue, self._readers, self._end)
        self._recent = Recent(limits.recent_events, limits.recent_bytes)
        self._head = self._end.position
        self._waiting: list[tuple[int, asyncio.Future[int]]] = []
        self._queued_events = self._queued_bytes = 0
        self._fault = ""
        self._probe: Chore | None = None
        self._threads = ThreadPoolExecutor(limits.reading_threads, "aftersend-read")
        self._read_only = read_only
        self._writer: Writer[Append | Chore, _Committed] = Writer("aftersend-log", self._work, self._done)

    # In the event loop.

    async def append(self, entry: Entry) -> Appended:
        """Keep an entry; returns when it is on disk, synced."""
        self._refuse_if_read_only()
        if not (entry.events or entry.quarantined or entry.request):
            return Appended(0, 0)
        pieces = blocks.cut(entry.events)
        size = _OVERHEAD + sum(len(piece.data) for piece in pieces) + sum(len(item.body) for item in entry.quarantined)
        append = Append(entry, pieces, size)
        self._admit(append)
        appended: Appended = await self._writer.do(append)
        return appended

    def _admit(self, append: Append) -> None:
        events = self._queued_events + append.count
        size = self._queued_bytes + append.size
        if self._queued_bytes and (events > self._limits.queued_events or size > self._limits.queued_bytes):
            raise StoreBusyError
        self._queued_events = events
        self._queued_bytes = size

    def _done(self, jobs: Sequence[Append | Chore], committed: _Committed) -> None:
        for job in jobs:
            if isinstance(job, Append):
                self._queued_events -= job.count
                self._queued_bytes -= job.size
                self._note_fault(job.error)
            elif job is self._probe:
                self._probe = None
                self._note_fault(job.error)
        for recorded, data in committed.blocks:
            self._recent.add(recorded, len(data))
        if committed.head > self._head:
            self._head = committed.head
            self._wake()

    def _note_fault(self, error: Exception | None) -> None:
        self._fault = "" if error is None else str(error)

    def fault(self) -> str:
        """Why entries cannot be kept now, in one line; empty: they can. A fault that is over is found out by itself."""
        if self._fault and self._probe is None and not self._writer.closed:
            self._probe = Chore(self._end.probe)
            self._probe.future.add_done_callback(asyncio.Future.exception)
            self._writer.post(self._probe)
        return self._fault

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for position, future in waiting:
            if future.done():
                continue
            if self._head > position:
                future.set_result(self._head)
            else:
                self._waiting.append((position, future))

    async def wait(self, position: int) -> int:
        """Returns the head as soon as the log reaches past a position."""
        if self._head > position:
            return self._head
        self._writer.refuse_if_closed()
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((position, future))
        try:
            return await future
        finally:
            if future.cancelled():
                self._waiting = [item for item in self._waiting if item[1] is not future]

    def head(self) -> int:
        """The position that the next event will get."""
        return self._head

    def tail(self) -> int:
        """The lowest position that is still kept."""
        return min(self._catalogue.files[0].first_position, self._head)

    async def read(self, position: int, limit: int) -> list[Recorded]:
        """About `limit` events from a position on (from the tail where that is higher), in order."""
        if position >= self._head:
            return []
        found = self._recent.read(position, limit)
        if found is None:
            found = await self._in_thread(self._archive.read, position, limit, self._head)
        return found

    async def position_at(self, received_at: int) -> int:
        """The lowest position of a block received at or after a time (ns, UTC); the head where there is none."""
        found = await self._in_thread(self._archive.position_at, received_at)
        return self._head if found is None else min(found, self._head)

    async def find_request(self, key: str) -> Request | None:
        """The first arrival of a request."""
        return await self._in_thread(self._archive.find_request, key, self._clock())

    async def list_quarantined(self, tenant: str | None, limit: int, after: int = 0) -> list[tuple[int, Quarantined]]:
        """Numbered entries with a number above `after`, the oldest first."""
        return await self._in_thread(self._archive.list_quarantined, tenant, limit, after)

    async def _in_thread(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._writer.refuse_if_closed()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: function(*args, **kwargs))

    async def discard(self, numbers: Sequence[int]) -> None:
        """Forget quarantined entries."""
        await self._between_commits(lambda: self._upkeep.discard(numbers))

    async def rewrite(self, position: int, events: Sequence[Event]) -> None:
        """Put other events in the place of a whole block's, one for one; nothing of the old ones stays on disk.

        Ids stay known as they were: what was erased is still a duplicate when it comes again. Raises NotFoundError
        where no block begins at the position.
        """
        await self._between_commits(lambda: self._upkeep.rewrite(position, events))
        self._recent.forget()

    async def retain(self, before: int, max_log_bytes: int | None, cursors: Mapping[str, int]) -> list[Gap]:
        """Drop the oldest files, never the head, and say whom that overtook.

        A file goes when everything in it arrived before a time (ns, UTC) and every cursor has passed it; while the
        log takes more than `max_log_bytes`, the oldest goes anyway.
        """
        now = self._clock()
        return await self._between_commits(lambda: self._upkeep.retain(before, max_log_bytes, cursors, now))

    async def _between_commits(self, do: Callable[[], T]) -> T:
        self._refuse_if_read_only()
        result: T = await self._writer.do(Chore(do))
        return result

    def _refuse_if_read_only(self) -> None:
        if self._read_only:
            raise StoreError("the store was opened for reading only")

    async def close(self) -> None:
        """Finish what is queued, then let go of the files. Those who wait for more events get a StoreError."""
        await self._writer.close()
        for _, future in self._waiting:
            if not future.done():
                future.set_exception(StoreError("the store is closed"))
        await asyncio.to_thread(self._threads.shutdown)
        self._end.close()
        self._readers.close()

    # In the writer's thread.

    def _work(self, jobs: Sequence[Append | Chore]) -> _Committed:
        appends = [job for job in jobs if isinstance(job, Append)]
        written: Sequence[Block] = ()
        try:
            if appends:
                written = self._end.commit(appends)
                self._trim(appends)
        except Exception as error:  # A fault of ours must end neither the thread nor those who wait.
            for append in appends:
                append.error = _told(error)
        for job in jobs:
            if isinstance(job, Chore):
                _do(job)
        return _Committed(written, self._end.position)

    def _trim(self, appends: Sequence[Append]) -> None:
        limits = {
            (item.tenant, item.source): append.entry.quarantine_limit
            for append in appends
            if append.error is None
            for item in append.entry.quarantined
        }
        try:
            self._upkeep.trim(limits)
        except StoreError:
            # What is too much stays until the next body of that source arrives; the entries are kept all the same.
            return


def _do(chore: Chore) -> None:
    try:
        chore.result = chore.do()
    except Exception as error:
        chore.error = _told(error)


def _told(error: Exception) -> AftersendError:
    return error if isinstance(error, AftersendError) else StoreError(f"the store failed: {error!r}")

"""The spool: where hits wait while the log cannot take them.

Whatever is asked for while one group is being synced is the next group. One thread does all the work on the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from aftersend.capture.spool_file import SIZE, Segment, SpoolFile
from aftersend.core.errors import StoreError

QUEUED_LIMIT = 8_000_000
"""Bytes of records that wait for their sync; what comes past it is lost."""

_RECORD_OVERHEAD = 8

T = TypeVar("T")

log = logging.getLogger("aftersend.capture")


class Portion(NamedTuple):
    """Records on their way out."""

    segment: Segment
    payloads: list[bytes]
    end: int


class _Job(NamedTuple):
    payloads: Sequence[bytes]
    size: int
    future: asyncio.Future[int]


class Spool:
    """Keeps records, synced, in a file of a fixed size; for the event loop that made it."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        """A file that cannot be opened now is a `fault`; each `read` tries again."""
        self._path = path
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "aftersend-spool")
        self._file: SpoolFile | None = None
        self._waiting: list[_Job] = []
        self._queued = 0
        self._is_writing = False
        self._fault = ""
        self._is_full = False
        self._filled = asyncio.Event()
        try:
            self._file = SpoolFile(path, size)
        except StoreError as error:
            self._broke(str(error))
        if self._file is None or self._file.backlog:
            self._filled.set()

    def fault(self) -> str:
        """Why nothing can be kept now, in one line; empty: it can."""
        return self._fault

    @property
    def backlog(self) -> int:
        """Bytes of records that wait to be drained."""
        return 0 if self._file is None else self._file.backlog

    # In.

    async def write(self, payloads: Sequence[bytes]) -> int:
        """Keep records; returns how many of them, the first ones, are synced.

        The others have no room, or the file is broken, or too many are waiting.
        """
        size = sum(map(len, payloads)) + len(payloads) * _RECORD_OVERHEAD
        if self._file is None or self._queued + size > QUEUED_LIMIT:
            return 0
        job = _Job(payloads, size, self._loop.create_future())
        self._waiting.append(job)
        self._queued += size
        if not self._is_writing:
            self._write_next(self._file)
        return await job.future

    def _write_next(self, file: SpoolFile) -> None:
        jobs, self._waiting = self._waiting, []
        self._is_writing = True
        payloads = [payload for job in jobs for payload in job.payloads]
        written = self._loop.run_in_executor(self._thread, file.write, payloads)
        written.add_done_callback(partial(self._written, jobs, len(payloads)))

    def _written(self, jobs: Sequence[_Job], count: int, written: asyncio.Future[int]) -> None:
        error = written.exception()
        kept = 0 if error is not None else written.result()
        if error is not None:
            self._broke(str(error))
        elif kept < count:
            self._is_full = True
            self._broke(f"the spool {self._path} is full")
        elif not self._is_full:
            self._fault = ""
        self._filled.set()
        for job in jobs:
            own = min(kept, len(job.payloads))
            kept -= own
            self._queued -= job.size
            if not job.future.done():
                job.future.set_result(own)
        self._is_writing = False
        if self._waiting and self._file is not None:
            self._write_next(self._file)

    def _broke(self, fault: str) -> None:
        """One line for each fault, not for each hit that meets it."""
        if fault != self._fault:
            log.error("%s; hits that the log cannot take are lost", fault)
        self._fault = fault

    # Out.

    async def filled(self) -> None:
        """Returns as soon as there is something to drain or to mend."""
        await self._filled.wait()

    async def read(self, limit: int) -> Portion | None:
        """About `limit` bytes of what waits; the same again until it is `drained`. Raises StoreError.

        Where nothing waits, a fault is looked at again.
        """
        file = self._file or await self._reopened()
        found = await self._run(lambda: file.read(limit))
        if found is not None:
            return Portion(*found)
        if self._fault:
            await self._run(lambda: file.write(()))
            self._mended()
        self._filled.clear()
        if file.backlog:
            self._filled.set()
        return None

    async def _reopened(self) -> SpoolFile:
        self._file = await self._run(lambda: SpoolFile(self._path, self._size))
        self._mended()
        return self._file

    def _mended(self) -> None:
        self._fault = ""
        self._is_full = False

    async def drained(self, portion: Portion) -> None:
        """What was read is kept elsewhere. Raises StoreError."""
        file = self._file or await self._reopened()
        await self._run(lambda: file.drained(portion.segment, portion.end))
        if self._is_full and not portion.segment.backlog:
            self._mended()

    async def _run(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Finish what was asked for, then let go of the file; what waits in it is drained at the next start."""
        waiting = [job.future for job in self._waiting]
        if waiting:
            await asyncio.wait(waiting)
        await asyncio.to_thread(self._thread.shutdown)
        if self._file is not None:
            self._file.close()
            self._file = None

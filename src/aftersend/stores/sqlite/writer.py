"""The writer: one thread that does whatever was queued while it did the last things, all of it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from aftersend.core.errors import StoreError

J = TypeVar("J", bound="Job")
T = TypeVar("T")


class Job:
    """One thing to do, and who waits for it."""

    __slots__ = ("error", "future", "result")

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.result: Any = None
        self.error: Exception | None = None


class Writer(Generic[J, T]):
    """A thread with a queue; `work` runs in the thread, `done` in the event loop, once for all that was queued.

    Whoever puts jobs in bounds the queue. `work` sets each job's result or error.
    """

    def __init__(self, name: str, work: Callable[[list[J]], T], done: Callable[[list[J], T], None]) -> None:
        self._work = work
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[J | None] = SimpleQueue()
        self.closed = False
        self._started = False
        self._thread = Thread(target=self._run, name=name, daemon=True)

    async def do(self, job: J) -> Any:
        """The result of a job, once it is done."""
        self.post(job)
        return await job.future

    def post(self, job: J) -> None:
        """Queue a job."""
        self.refuse_if_closed()
        if not self._started:
            self._started = True
            self._thread.start()
        self._queue.put(job)

    def refuse_if_closed(self) -> None:
        """Raises StoreError once the writer is closed."""
        if self.closed:
            raise StoreError("the store is closed")

    async def close(self) -> None:
        """Returns when everything queued is done and the thread has ended."""
        self.closed = True
        self._queue.put(None)
        if self._started:
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            jobs, ended = self._take()
            if jobs:
                self._finish_later(jobs, self._work(jobs))
            if ended:
                return

    def _take(self) -> tuple[list[J], bool]:
        """Everything queued, waiting for the first; and whether that was the end."""
        jobs: list[J] = []
        job = self._queue.get()
        while job is not None:
            jobs.append(job)
            try:
                job = self._queue.get_nowait()
            except Empty:
                return jobs, False
        return jobs, True

    def _finish_later(self, jobs: list[J], outcome: T) -> None:
        try:
            self._loop.call_soon_threadsafe(self._finish, jobs, outcome)
        except RuntimeError:
            # The loop was closed before the store was: nobody waits any more.
            return

    def _finish(self, jobs: list[J], outcome: T) -> None:
        self._done(jobs, outcome)
        for job in jobs:
            if job.future.done():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)

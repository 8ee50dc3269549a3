"""Waits of those who ask for what is not there yet: each has a limit, and all end when the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import Request


class Waits:
    """All waits of one server."""

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self.is_over = False
        """Whether the server stops: nobody is kept waiting any more."""

    @asynccontextmanager
    async def at_most(self, seconds: float) -> AsyncIterator[asyncio.Timeout]:
        """Wait inside for so long; afterwards it goes on behind, however it ended.

        Not wait_for: Python 3.11's loses a cancellation that comes together with what it waits for.
        """
        try:
            async with asyncio.timeout(0 if self.is_over else seconds) as limit:
                self._waits.add(limit)
                try:
                    yield limit
                finally:
                    self._waits.discard(limit)
        except TimeoutError:
            pass

    def end(self) -> None:
        """The server stops."""
        self.is_over = True
        for limit in self._waits:
            _cut(limit)


class Client:
    """Whether who asked is still there; what they wait for ends when they go."""

    def __init__(self) -> None:
        self._is_gone = False
        self.limit: asyncio.Timeout | None = None
        """The wait that it ends."""

    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._is_gone

    async def watch(self, request: Request) -> None:
        """Returns when the client has gone, or where it cannot be told."""
        while (message := await request.receive())["type"] == "http.request" and message.get("more_body"):
            pass
        if message["type"] == "http.request":
            message = await request.receive()
        if message["type"] != "http.disconnect":
            return
        self._is_gone = True
        if self.limit is not None:
            _cut(self.limit)


@asynccontextmanager
async def watched(request: Request) -> AsyncIterator[Client]:
    """The client of a request without a body."""
    client = Client()
    watch = asyncio.create_task(client.watch(request))
    try:
        yield client
    finally:
        watch.cancel()


def _cut(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(asyncio.get_running_loop().time())

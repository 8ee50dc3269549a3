"""A connection that is kept between two uses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Generic, Protocol, TypeVar


class Connection(Protocol):
    """What can be kept."""

    async def is_alive(self) -> bool:
        """Whether the other side still answers. Never raises for what it does."""
        ...

    async def close(self) -> None:
        """Say goodbye."""
        ...

    def drop(self) -> None:
        """Let go at once."""
        ...


C = TypeVar("C", bound=Connection)


class Kept(Generic[C]):
    """One connection, in the hands of one at a time, and let go where nobody has used it for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._connection: C | None = None
        self._idle: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def use(self, open_new: Callable[[], Awaitable[C]]) -> AsyncIterator[C]:
        """The connection of last time, if it still answers, else a new one; what raises inside ends it."""
        async with self._turn:
            connection = await self._alive() or await open_new()
            try:
                yield connection
            except BaseException:
                connection.drop()
                raise
            self._connection = connection
            self._idle = asyncio.get_running_loop().call_later(self._seconds, self._let_go)

    async def close(self) -> None:
        """Say goodbye, if there is a connection."""
        connection = self._take()
        if connection is not None:
            await connection.close()

    async def _alive(self) -> C | None:
        connection = self._take()
        if connection is None:
            return None
        is_alive = False
        try:
            is_alive = await connection.is_alive()
        finally:
            if not is_alive:
                connection.drop()
        return connection if is_alive else None

    def _take(self) -> C | None:
        connection, self._connection = self._connection, None
        if self._idle is not None:
            self._idle.cancel()
        return connection

    def _let_go(self) -> None:
        connection = self._take()
        if connection is not None:
            connection.drop()

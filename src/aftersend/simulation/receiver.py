"""A bare HTTP receiver. As a program it takes everything at once and ends with its standard input:
`python -m aftersend.simulation.receiver` prints its port."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, cast

_END = b"\r\n\r\n"
_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Delivery(NamedTuple):
    """A request that came in."""

    path: str
    headers: dict[str, str]
    """By lower-case name."""
    body: bytes


Reaction = Callable[[Delivery], Awaitable[int]]
"""From a request to the status it is answered with, in its own time."""


class Exchange(asyncio.Protocol):
    """A connection to a receiver: whole requests in, answers out. Without a reaction everything is taken at once."""

    def __init__(self, react: Reaction | None = None) -> None:
        self._react = react
        self._parts: list[bytes] = []
        self._missing = 0
        self._transport: asyncio.Transport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Hang up, whatever is under way."""
        for task in self._tasks:
            task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody calls."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Put a request together."""
        self._parts.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        whole = b"".join(self._parts)
        head, found, body = whole.partition(_END)
        length = _length(head) if found else len(body) + 1
        self._parts, self._missing = [whole], length - len(body)
        if found and self._missing <= 0:
            self._parts, self._missing = [], 0
            self._take(head, body)

    def _take(self, head: bytes, body: bytes) -> None:
        if self._react is None:
            self._write(_TAKEN)
            return
        task = asyncio.create_task(self._answer(self._react, head, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, react: Reaction, head: bytes, body: bytes) -> None:
        status = await react(_delivery(head, body))
        self._write(b"HTTP/1.1 %d .\r\nContent-Length: 0\r\n\r\n" % status)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    return int(head[start + 15 :].split(b"\r\n", 1)[0]) if start > 0 else 0


def _delivery(head: bytes, body: bytes) -> Delivery:
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = [line.partition(":") for line in lines]
    return Delivery(first.split(" ")[1], {name.lower(): value.strip() for name, _, value in pairs}, body)


class Listening:
    """A receiver on a free port of this machine."""

    def __init__(self, react: Reaction | None) -> None:
        self._react = react
        self._exchanges: list[Exchange] = []
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.get_running_loop().create_server(self._exchange, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def _exchange(self) -> Exchange:
        exchange = Exchange(self._react)
        self._exchanges.append(exchange)
        return exchange

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for exchange in self._exchanges:
            exchange.close()
        await asyncio.sleep(0)


async def listen(react: Reaction | None = None) -> Listening:
    """A receiver that answers as `react` says; without it everything is taken at once."""
    listening = Listening(react)
    await listening.start()
    return listening


@contextmanager
def dead() -> Iterator[str]:
    """The address of nobody: its port is taken, and nothing listens there."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


async def serve() -> None:
    """Take everything until standard input ends."""
    listening = await listen()
    sys.stdout.write(f"{listening.port}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)
    await listening.close()


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())

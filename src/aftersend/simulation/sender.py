"""Bare HTTP senders: keep-alive connections that post ready-made requests and cost next to nothing themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, cast

from aftersend.core.errors import StoreError

ANSWER_SECONDS = 30.0
"""How long an answer may take."""

_END = b"\r\n\r\n"


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes


def request(
    path: str,
    body: bytes = b"",
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> bytes:
    """The bytes of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def bearer(token: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"Authorization": f"Bearer {token}"}


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[Answer] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready to send."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)

    async def send(self, data: bytes) -> Answer:
        """Send a request and return its answer. Raises OSError where the connection ends, TimeoutError."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Put an answer together."""
        self._buffer += data
        head, found, rest = self._buffer.partition(_END)
        if not found:
            return
        length = _length(head)
        if len(rest) >= length and self._answer is not None and not self._answer.done():
            self._buffer = b""
            self._answer.set_result(Answer(int(head[9:12]), rest[:length]))

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody answers any more."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the connection was closed before an answer came"))

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


def _length(head: bytes) -> int:
    start = head.lower().find(b"content-length:")
    return int(head[start + 15 :].split(b"\r\n", 1)[0]) if start > 0 else 0


class Sender:
    """Some connections to one address on this machine."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    @classmethod
    async def connect(cls, port: int, count: int = 1) -> Sender:
        """So many connections. Raises OSError."""
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(count)]
        return cls([connection for _, connection in made])

    async def send(self, data: bytes) -> Answer:
        """Send one request over the first connection."""
        return await self._connections[0].send(data)

    async def post_all(self, requests: Iterable[bytes]) -> list[Answer]:
        """Send requests over all connections at once, each as soon as one is free. Raises StoreError at a refusal."""
        waiting = iter(requests)
        answers: list[Answer] = []
        await asyncio.gather(*(_drain(connection, waiting, answers) for connection in self._connections))
        return answers

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()


async def _drain(connection: Connection, waiting: Iterator[bytes], answers: list[Answer]) -> None:
    for data in waiting:
        answer = await connection.send(data)
        if answer.status >= 300:
            raise StoreError(f"the server answered {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")
        answers.append(answer)

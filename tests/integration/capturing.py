"""A capture handler served for real on loopback, and what it keeps."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any, NamedTuple

import uvicorn

from aftersend.core.consent import Level
from aftersend.core.event import Event

App = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
NOW = 1_790_000_000_000_000_000


class Kept:
    """Where events go; like the log, it keeps one of each id. `takes` says whether it can."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.levels: list[int] = []
        self.takes = True
        self.now = NOW
        self.chance = Random(1).randbytes

    async def record(self, event: Event, level: Level = Level.FULL) -> bool:
        if self.takes and event.id not in {one.id for one in self.events}:
            self.events.append(event)
            self.levels.append(int(level))
        return self.takes

    def clock(self) -> int:
        return self.now


class Head(NamedTuple):
    """Status and headers of an answer."""

    status: int
    headers: dict[str, str]


@asynccontextmanager
async def serving(app: App) -> AsyncIterator[int]:
    """The port that an application is served at, with the settings of `aftersend serve`."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    config = uvicorn.Config(
        app, http="httptools", lifespan="off", log_config=None, server_header=False, date_header=False, ws="none"
    )
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[sock])
    try:
        yield sock.getsockname()[1]
    finally:
        server.force_exit = True
        await server.shutdown(sockets=[sock])


async def raw(port: int, data: bytes) -> bytes:
    """Everything that is answered to these bytes until the other side closes or has answered in full."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
        )
        return head + await asyncio.wait_for(reader.readexactly(0 if data.startswith(b"HEAD") else length), 10)
    finally:
        writer.close()


async def exchange(
    port: int, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> tuple[Head, bytes]:
    """One request, sent as it is, and its answer."""
    given = {"Host": "t", **(headers or {})}
    if body:
        given["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
    head, _, rest = (await raw(port, "\r\n".join(lines).encode() + body)).partition(b"\r\n\r\n")
    first, *others = head.decode().split("\r\n")
    fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in others)}
    return Head(int(first.split()[1]), fields), rest

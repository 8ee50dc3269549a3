"""Answers on their way out: gathered to pieces, packed where that was asked for, given up where nobody takes them."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Awaitable, Callable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PIECE_BYTES = 65_536
"""Bytes that are gathered before they are sent."""
SEND_SECONDS = 60.0
"""How long a client may take none of what is sent to it."""


class AbandonedError(Exception):
    """An answer stays without its end."""


class _Sink:
    """What a zip is written to: it can only be appended to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class Zipper:
    """A zip of one file, made as the file comes; it may be 2 GB at most. The same file gives the same bytes."""

    def __init__(self, name: str) -> None:
        self._sink = _Sink()
        self._archive = zipfile.ZipFile(self._sink, "w")
        entry = zipfile.ZipInfo(name)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.create_system = 3
        entry.external_attr = 0o600 << 16
        self._entry = self._archive.open(entry, "w")

    def add(self, data: bytes) -> bytes:
        """What is ready when these bytes are packed too. Raises RuntimeError past 2 GB."""
        self._entry.write(data)
        return self._sink.take()

    def end(self) -> bytes:
        """The rest."""
        self._entry.close()
        self._archive.close()
        return self._sink.take()


class Plain:
    """Bytes as they are."""

    def add(self, data: bytes) -> bytes:
        """The bytes."""
        return data

    def end(self) -> bytes:
        """Nothing."""
        return b""


class Answer:
    """One answer of status 200. Until the first piece is full nothing has left, and another answer can be given."""

    def __init__(self, send: Send, headers: Headers, packing: Zipper | Plain) -> None:
        self._send = send
        self._headers = headers
        self._packing = packing
        self._parts: list[bytes] = []
        self._size = 0
        self.is_begun = False

    async def add(self, data: bytes) -> None:
        """Say more. Raises AbandonedError where the client takes nothing any more, or a zip grows past 2 GB."""
        try:
            packed = self._packing.add(data)
        except RuntimeError:
            raise AbandonedError("a zip holds 2 GB at most; ask for it without UseCompression") from None
        self._parts.append(packed)
        self._size += len(packed)
        if self._size >= PIECE_BYTES:
            await self._flush(more=True)

    async def whole(self, data: bytes) -> None:
        """Say this and no more."""
        await self.add(data)
        await self.end()

    async def end(self) -> None:
        """Say that this was all."""
        self._parts.append(self._packing.end())
        if not self.is_begun:
            self._headers.append((b"content-length", b"%d" % sum(map(len, self._parts))))
        await self._flush(more=False)

    async def _flush(self, *, more: bool) -> None:
        body = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if not self.is_begun:
                    self.is_begun = True
                    await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
                await self._send({"type": "http.response.body", "body": body, "more_body": more})
        except TimeoutError:
            raise AbandonedError(f"the client took nothing for {SEND_SECONDS:g} s") from None


async def respond(send: Send, status: int, kind: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    """Send a short answer."""
    length = (b"content-length", b"%d" % len(body))
    await send(
        {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), length, *headers]}
    )
    await send({"type": "http.response.body", "body": body})

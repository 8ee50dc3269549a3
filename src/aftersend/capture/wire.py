"""One SMTP connection as bytes: lines that end in CRLF, and messages that end in a lone dot.

A line that ends in anything but CRLF is no line: two programs that disagree on that can be made to see two messages
where one was sent. Whoever sends bare CR or LF is told so and cut off.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from typing import Any, cast

from aftersend.capture.envelope import Reply

LINE_LIMIT = 12_288
"""Octets of a command; RFC 4954 wants that many for AUTH, all others are far shorter."""

READY_FOR_TLS = Reply(220, "2.0.0 Ready to start TLS")

_END = b"\r\n.\r\n"
_PAUSED_PAST = 1 << 18
_HANDSHAKE_SECONDS = 30.0


class WireError(Exception):
    """The connection cannot be gone on with."""

    reply: Reply | None = None
    """What is said before it is closed; None: nobody listens."""


class BareError(WireError):
    """A line ended in a bare CR or LF."""

    reply = Reply(521, "5.5.2 Lines end in CRLF; a bare CR or LF came")


class LongLineError(WireError):
    """A line is too long."""

    reply = Reply(500, "5.5.2 The line is too long")


class InjectedError(WireError):
    """Something came between STARTTLS and TLS."""

    reply = Reply(503, "5.5.0 Nothing may follow STARTTLS")


class GoneError(WireError):
    """The other side closed the connection."""


class TooLargeError(Exception):
    """The message is larger than was allowed; it was read to its end."""


Serve = Callable[["Wire"], Coroutine[Any, Any, None]]


class Wire(asyncio.Protocol):
    """A connection that a client opened; `serve` runs for as long as it lasts and is cancelled when it breaks."""

    def __init__(self, serve: Serve, timeout: float) -> None:
        self._serve = serve
        self._timeout = timeout
        self._buffer = bytearray()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport
        self.peer = ""
        self.encrypted = False

    # --- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve."""
        self._transport = cast(asyncio.Transport, transport)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        self._task = asyncio.get_running_loop().create_task(self._serve(self))

    def data_received(self, data: bytes) -> None:
        """Keep bytes; a client that is ahead by much has to wait."""
        self._buffer += data
        self._arrived.set()
        if len(self._buffer) > _PAUSED_PAST and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """The client says nothing more, but may still listen."""
        self._ended = True
        self._arrived.set()
        return not self.encrypted

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody hears the answer any more, so what was begun for it ends."""
        self._ended = True
        self._writable.set()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """The client does not read."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client reads."""
        self._writable.set()

    # --- what the session calls

    async def line(self) -> bytes:
        """The next line, without its end. Raises WireError, and TimeoutError for a silent client."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0 and len(self._buffer) <= LINE_LIMIT:
            searched = len(self._buffer)
            await self._more()
        if end < 0 or end > LINE_LIMIT:
            raise LongLineError
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise BareError
        return line[:-2]

    async def message(self, grows: Callable[[int], bool]) -> bytes:
        """A message up to its lone dot, without the dots that were added to it.

        `grows` is told how many octets came and says whether more may be held; once it says no, nothing is kept and
        TooLargeError is raised after the end. Raises WireError too.
        """
        body, self._buffer = bytearray(b"\r\n") + self._buffer, bytearray()
        kept = grows(len(body))
        searched = 0
        while (end := body.find(_END, searched)) < 0:
            searched = max(0, len(body) - len(_END) + 1)
            if not kept:
                del body[:searched]
                searched = 0
            await self._more()
            kept = kept and grows(len(self._buffer))
            body += self._buffer
            self._buffer.clear()
        self._buffer = body[end + len(_END) :] + self._buffer
        if not kept:
            raise TooLargeError
        del body[end + 2 :]
        content = bytes(body.replace(b"\r\n.", b"\r\n"))[2:]
        if not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
            raise BareError
        return content

    def write(self, data: bytes) -> None:
        """Say something short, without waiting."""
        self._transport.write(data)

    async def send(self, data: bytes) -> None:
        """Say something; waits while the client does not read."""
        self._transport.write(data)
        if not self._writable.is_set():
            async with asyncio.timeout(self._timeout):
                await self._writable.wait()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        """Go on encrypted. What a third party slipped in before that is cut off with the connection (CVE-2011-0411)."""
        if self._buffer:
            raise InjectedError
        self._transport.write(READY_FOR_TLS.line())
        loop = asyncio.get_running_loop()
        try:
            transport = await loop.start_tls(
                self._transport, self, context, server_side=True, ssl_handshake_timeout=_HANDSHAKE_SECONDS
            )
        except (OSError, ssl.SSLError) as error:
            raise GoneError from error
        if transport is None:
            raise GoneError
        self._transport = transport
        self.encrypted = True

    def close(self) -> None:
        """End the connection, when what was said has gone out."""
        self._transport.close()

    def end(self) -> None:
        """End what is served too, for a process that stops."""
        if self._task is not None:
            self._task.cancel()
        self._transport.close()

    async def _more(self) -> None:
        if self._ended:
            raise GoneError
        self._arrived.clear()
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        async with asyncio.timeout(self._timeout):
            await self._arrived.wait()
        if self._is_over():
            raise GoneError

    def _is_over(self) -> bool:
        """Nothing is left to be read, and nothing will come."""
        return self._ended and not self._buffer

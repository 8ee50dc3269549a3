"""The control connection of FTP: commands out, bounded replies in."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable

from msgspec import Struct

from aftersend.core.excerpts import one_line
from aftersend.egress.connecting import is_ours
from aftersend.egress.faults import why

REPLY_LIMIT = 100
"""Lines of one reply."""
LINE_LIMIT = 4_096
"""Bytes of one line of a reply."""

_FIRST = re.compile(r"([1-5][0-9]{2})([ -]|$)")
_MINUTES = re.compile(r"\b(\d{1,4}) ?min")
_UNSAID = ("the connection was closed", "no answer in time")

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Reply(Struct, frozen=True):
    """What a server answered."""

    code: int
    lines: tuple[str, ...]

    @property
    def done(self) -> bool:
        """Whether the command was carried out."""
        return 200 <= self.code < 300

    @property
    def text(self) -> str:
        """The last line that says something, without the code."""
        return next((line[4:] for line in reversed(self.lines) if line[4:].strip()), "")


class StepError(Exception):
    """A step that failed, in words for a person."""

    def __init__(self, step: str, said: str, reply: Reply | None = None, *, ours: bool = False) -> None:
        super().__init__(f"{step}: {said}")
        self.reply, self.ours = reply, ours

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked for: `120 Service ready in nnn minutes`."""
        found = _MINUTES.search(self.reply.text) if self.reply is not None and self.reply.code == 120 else None
        return float(found[1]) * 60 if found else None


def broken(step: str, error: OSError) -> StepError:
    """What the network or TLS did, as a failure of a step."""
    if isinstance(error, socket.gaierror):
        return StepError("name lookup", one_line(error.strerror or error), ours=is_ours(error))
    if isinstance(error, ssl.SSLError):
        return StepError(step, one_line(why(error)))
    text = why(error) or _UNSAID[isinstance(error, TimeoutError)]
    return StepError(step, one_line(text), ours=is_ours(error))


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write unless the connection is closed; what waits next (an answer, `drain`) tells that it is."""
    if not writer.is_closing():
        writer.write(data)


class Control:
    """Commands and replies, each reply within a time limit. Every failure is a StepError."""

    def __init__(self, streams: Streams, limit: float, masked: Callable[[str], str]) -> None:
        self._reader, self.writer = streams
        self._limit, self._masked = limit, masked

    def replace(self, streams: Streams) -> None:
        """Go on over other streams, which lie on the ones so far."""
        # A writer that is let go of closes its connection (Python 3.13).
        self._under = self.writer
        self._reader, self.writer = streams

    async def order(self, command: str, step: str = "") -> Reply:
        """Give a command that must be carried out."""
        reply = await self.ask(command, step)
        if not reply.done:
            raise self.refused(step or command, reply)
        return reply

    async def ask(self, command: str, step: str = "", limit: float = 0.0) -> Reply:
        """Give a command and hear the reply, whatever it is."""
        step = step or command
        if any(character in command for character in "\r\n\0"):
            raise StepError(step, "a control character stands in the command", ours=True)
        write(self.writer, f"{command}\r\n".encode())
        return await self.hear(step, limit)

    async def hear(self, step: str, limit: float = 0.0) -> Reply:
        """The next reply."""
        limit = limit or self._limit
        try:
            async with asyncio.timeout(limit):
                return await self._reply(step)
        except TimeoutError:
            raise StepError(step, f"no answer within {limit:g} s") from None
        except OSError as error:
            raise broken(step, error) from None

    def refused(self, step: str, reply: Reply) -> StepError:
        """A reply as a failure of a step."""
        return StepError(step, f"answered {reply.code}: {self._told(reply.text)}", reply)

    async def _reply(self, step: str) -> Reply:
        line = await self._line(step)
        first = _FIRST.match(line)
        if first is None:
            raise StepError(step, f"what came back is not FTP: {self._told(line)}")
        lines, last = [line], f"{first[1]} "
        while first[2] == "-" and (len(lines) == 1 or not f"{lines[-1]} ".startswith(last)):
            if len(lines) == REPLY_LIMIT:
                raise StepError(step, f"a reply of more than {REPLY_LIMIT} lines came back")
            lines.append(await self._line(step))
        return Reply(int(first[1]), tuple(lines))

    async def _line(self, step: str) -> str:
        try:
            line = await self._reader.readline()
        except ValueError:
            line = bytes(LINE_LIMIT + 1)
        if len(line) > LINE_LIMIT:
            raise StepError(step, f"a line of more than {LINE_LIMIT} bytes came back")
        if not line.endswith(b"\n"):
            raise StepError(step, "the connection was closed")
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _told(self, text: str) -> str:
        return one_line(self._masked(text))

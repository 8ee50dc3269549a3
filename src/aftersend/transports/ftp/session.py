"""A server that was logged in to, in the folder that files go to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import BinaryIO

from msgspec import Struct

from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.transports.ftp.control import Control, Reply, StepError, broken, write
from aftersend.transports.ftp.security import Context, secure, tls_object

CHUNK = 256 * 1024
"""Bytes given at once; the other side must take as many within the time limit."""
REASON_LIMIT = 5.0
"""Seconds to wait for the reason why an upload broke off, or for a sign of life."""
GOODBYE_LIMIT = 2.0
PRIVILEGED = 1_024
"""Data connections go to ports from here on: below it other services listen."""

_EXTENDED_PORT = re.compile(r"\((.)\1\1(\d{1,5})\1\)")
_PASSIVE_PORT = re.compile(r"\d{1,3},\d{1,3},\d{1,3},\d{1,3},(\d{1,3}),(\d{1,3})")
_CANNOT_RESUME = frozenset((451, 500, 501, 502, 503, 504, 550, 553, 554))


class Place(Struct, frozen=True):
    """Where files go, and who brings them."""

    host: str
    port: int
    folder: str
    """Empty: where the login leads."""
    user: str
    password: Secret | None
    context: Context | None
    """None: everything in the clear."""
    implicit: bool
    """TLS from the first byte on."""
    limit: float
    """Seconds that each step has."""


class ResumeError(StepError):
    """The server does not go on with an upload that broke off; it may take the file from its beginning."""


class Session:
    """One control connection, and a data connection for each file. Every failure is a StepError or EgressError."""

    def __init__(self, place: Place, egress: Egress, control: Control) -> None:
        self._place, self._egress, self._control = place, egress, control
        self._passive = ["EPSV", "PASV"]
        self.resumes = False
        """Whether an upload may go on where an earlier one broke off."""

    @classmethod
    async def open(cls, place: Place, egress: Egress, masked: Callable[[str], str]) -> Session:
        """Connect, log in, choose binary mode, go to the folder."""
        if place.context is not None:
            place.context.resumed = None
        try:
            async with asyncio.timeout(place.limit):
                streams = await egress.connect(place.host, place.port, place.context if place.implicit else None)
        except OSError as error:
            raise broken("connect", error) from None
        session = cls(place, egress, Control(streams, place.limit, masked))
        try:
            await session._greet()
            await session._log_in()
            await session._settle()
        except BaseException:
            session.drop()
            raise
        return session

    async def is_alive(self) -> bool:
        """Whether a connection that was kept still answers."""
        try:
            return (await self._control.ask("NOOP", limit=min(REASON_LIMIT, self._place.limit))).done
        except StepError:
            return False

    async def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none or the server does not say."""
        reply = await self._control.ask(f"SIZE {name}")
        text = reply.text.strip()
        return int(text) if reply.code == 213 and text.isascii() and text.isdecimal() and len(text) < 20 else None

    async def remove(self, name: str) -> bool:
        """Delete a file; whether it was."""
        return (await self._control.ask(f"DELE {name}")).done

    async def rename(self, old: str, new: str) -> None:
        """Give a file its name; one that has the name already is replaced."""
        reply = await self._try_rename(old, new)
        if reply.code >= 500 and await self.size(new) is not None and await self.remove(new):
            reply = await self._try_rename(old, new)
        if not reply.done:
            raise self._control.refused(f"renaming to {new}", reply)

    async def store(self, name: str, file: BinaryIO | None, start: int = 0, size: int = 0) -> None:
        """Upload a file of this side from `start` to `size`; without one an empty file."""
        clear = writer = await self._data_connection()
        try:
            await self._begin(name, start)
            if self._place.context is not None:
                writer = await self._secured(clear, self._place.context)
            if file is not None:
                await self._send(writer, file, start, size)
            await _end(writer, self._place.limit)
        except BaseException:
            writer.transport.abort()
            raise
        final = await self._control.hear("upload")
        if not final.done:
            raise self._control.refused("upload", final)

    async def close(self) -> None:
        """Say goodbye."""
        writer = self._control.writer
        try:
            write(writer, b"QUIT\r\n")
            await _end(writer, GOODBYE_LIMIT)
        finally:
            writer.transport.abort()

    def drop(self) -> None:
        """Let go of the connection at once."""
        self._control.writer.transport.abort()

    async def _greet(self) -> None:
        greeting = await self._control.hear("greeting")
        if not greeting.done:
            raise self._control.refused("greeting", greeting)
        context = self._place.context
        if context is not None and not self._place.implicit:
            await self._control.order("AUTH TLS")
            self._control.replace(await self._under_tls(self._control.writer, context, "AUTH TLS"))

    async def _log_in(self) -> None:
        place, control = self._place, self._control
        reply = await control.ask(f"USER {place.user}", "login")
        if reply.code == 331:
            if place.password is None:
                raise StepError("login", "the server asks for a password; set the option password", reply)
            reply = await control.ask(f"PASS {place.password.reveal()}", "login")
        if not reply.done:
            raise control.refused("login", reply)
        if place.context is not None:
            await control.ask("PBSZ 0")
            await control.order("PROT P")

    async def _settle(self) -> None:
        control = self._control
        reply = await control.ask("FEAT")
        features = {" ".join(line.split()).upper() for line in reply.lines[1:-1] if reply.done}
        self.resumes = "REST STREAM" in features
        if "UTF8" in features:
            await control.ask("OPTS UTF8 ON")
        await control.order("TYPE I")
        if self._place.folder:
            await control.order(f"CWD {self._place.folder}", f"folder {self._place.folder}")

    async def _try_rename(self, old: str, new: str) -> Reply:
        reply = await self._control.ask(f"RNFR {old}")
        if reply.code != 350:
            raise self._control.refused(f"renaming to {new}", reply)
        return await self._control.ask(f"RNTO {new}")

    async def _data_connection(self) -> asyncio.StreamWriter:
        """A connection to the port that the server names, always at the address of the control connection.

        A server that could name an address as well would have us connect anywhere.
        """
        fault = StepError("data connection", "the server has no passive mode")
        for command in tuple(self._passive):
            reply = await self._control.ask(command)
            if not reply.done:
                self._passive.remove(command)
                fault = self._control.refused(command, reply)
                continue
            address = self._control.writer.get_extra_info("peername")[0]
            try:
                return (await self._egress.connect(address, self._data_port(command, reply)))[1]
            except OSError as error:
                fault = broken("data connection", error)
        raise fault

    def _data_port(self, command: str, reply: Reply) -> int:
        extended, usual = _EXTENDED_PORT.search(reply.text), _PASSIVE_PORT.search(reply.text)
        port = 0
        if reply.code == 229 and extended:
            port = int(extended[2])
        elif reply.code == 227 and usual:
            port = int(usual[1]) * 256 + int(usual[2])
        if not PRIVILEGED <= port < 65_536:
            raise self._control.refused(f"{command} (no port from {PRIVILEGED} on)", reply)
        return port

    async def _begin(self, name: str, start: int) -> None:
        control = self._control
        if start:
            reply = await control.ask(f"REST {start}")
            if reply.code != 350:
                raise ResumeError("resuming", str(control.refused("REST", reply)), reply)
        reply = await control.ask(f"STOR {name}")
        if reply.code in (125, 150):
            return
        fault = control.refused("upload", reply)
        if start and reply.code in _CANNOT_RESUME:
            raise ResumeError("resuming", str(fault), reply)
        raise fault

    async def _secured(self, writer: asyncio.StreamWriter, context: Context) -> asyncio.StreamWriter:
        context.resumed = tls_object(self._control.writer)
        try:
            return (await self._under_tls(writer, context, "data connection"))[1]
        except StepError as fault:
            raise await self._reason(fault) from None

    async def _under_tls(
        self, writer: asyncio.StreamWriter, context: Context, step: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self._place.limit):
                return await secure(writer, context, self._place.host)
        except TimeoutError:
            raise StepError(step, f"TLS: no answer within {self._place.limit:g} s") from None
        except OSError as error:
            raise broken(step, error) from None

    async def _send(self, writer: asyncio.StreamWriter, file: BinaryIO, start: int, size: int) -> None:
        file.seek(start)
        for offset in range(start, size, CHUNK):
            await self._give(writer, await _read(file, min(CHUNK, size - offset)))

    async def _give(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        try:
            async with asyncio.timeout(self._place.limit):
                write(writer, data)
                await writer.drain()
        except TimeoutError:
            fault = StepError("upload", f"the server took nothing within {self._place.limit:g} s")
        except OSError as error:
            fault = broken("upload", error)
        else:
            return
        raise await self._reason(fault)

    async def _reason(self, fault: StepError) -> StepError:
        """What the server says about a data connection that broke, or else what was seen of it."""
        try:
            reply = await self._control.hear("upload", min(REASON_LIMIT, self._place.limit))
        except StepError:
            return fault
        return fault if reply.done else self._control.refused("upload", reply)


async def _end(writer: asyncio.StreamWriter, limit: float) -> None:
    """Give what is left and close; whether it arrived is said on the control connection."""
    writer.close()
    try:
        async with asyncio.timeout(limit):
            await writer.wait_closed()
    except OSError:
        writer.transport.abort()


async def _read(file: BinaryIO, count: int) -> bytes:
    try:
        data = await asyncio.to_thread(file.read, count)
    except OSError as error:
        raise StepError("reading the file on this side", error.strerror or str(error), ours=True) from None
    if len(data) < count:
        raise StepError("reading the file on this side", "it is shorter than it was", ours=True)
    return data

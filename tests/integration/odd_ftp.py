"""An FTP server in a test's hands: it can be old, odd or hostile, and notes what it was told."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Answer = bytes | Callable[[], bytes]

FEATURES = b"211-Features:\r\n REST STREAM\r\n SIZE\r\n UTF8\r\n211 End\r\n"


@dataclass
class OddServer:
    """What it answers to a command, unless it does as it should."""

    answers: dict[str, Answer] = field(default_factory=dict)
    greeting: bytes = b"220 ready\r\n"
    replaces: bool = True
    """Whether RNTO to a name that is taken is done."""
    files: dict[str, bytearray] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    """Implicit, on both connections."""
    resumed: list[bool] = field(default_factory=list)
    """Whether each data connection resumed a session."""
    port: int = 0
    data_port: int = 0
    peers: list[asyncio.StreamWriter] = field(default_factory=list)
    _data: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _speaker: asyncio.StreamWriter = field(init=False)
    _start: int = 0
    _renamed: str = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[OddServer]:
        control = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        data = await asyncio.start_server(self._receive, "127.0.0.1", 0, ssl=self.tls)
        self.port, self.data_port = control.sockets[0].getsockname()[1], data.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            for server in (control, data):
                server.close()
            for peer in self.peers:
                peer.transport.abort()
            await asyncio.sleep(0.01)

    def passive(self, address: str) -> bytes:
        """The reply to PASV that names an address."""
        high, low = divmod(self.data_port, 256)
        return f"227 Entering Passive Mode ({address.replace('.', ',')},{high},{low}).\r\n".encode()

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer)
        data = self._data
        if self.tls is not None:
            self.resumed.append(writer.get_extra_info("ssl_object").session_reused)
        data.put_nowait(await reader.read(-1))
        writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer)
        writer.write(self.greeting)
        with suppress(OSError):
            while line := await reader.readline():
                text = line.decode(errors="replace").rstrip("\r\n")
                self.told.append(text)
                self._speaker = writer
                for reply in await self._answer(*text.partition(" ")[::2]):
                    writer.write(reply)
        writer.close()

    async def _answer(self, command: str, name: str) -> list[bytes]:
        if command in self.answers:
            answer = self.answers[command]
            return [answer if isinstance(answer, bytes) else answer()]
        does = getattr(self, f"_do_{command.lower()}", None)
        return [b"500 what?\r\n"] if does is None else [await does(name)]

    async def _do_user(self, name: str) -> bytes:
        return b"331 password?\r\n"

    async def _do_pass(self, name: str) -> bytes:
        return b"230 in\r\n"

    async def _do_noop(self, name: str) -> bytes:
        return b"200 here\r\n"

    async def _do_type(self, name: str) -> bytes:
        return b"200 binary\r\n"

    async def _do_opts(self, name: str) -> bytes:
        return b"200 so be it\r\n"

    async def _do_cwd(self, name: str) -> bytes:
        return b"250 there\r\n"

    async def _do_pbsz(self, name: str) -> bytes:
        return b"200 so be it\r\n"

    async def _do_prot(self, name: str) -> bytes:
        return b"200 so be it\r\n"

    async def _do_feat(self, name: str) -> bytes:
        return FEATURES

    async def _do_epsv(self, name: str) -> bytes:
        self._data = asyncio.Queue()
        return f"229 Entering Extended Passive Mode (|||{self.data_port}|)\r\n".encode()

    async def _do_pasv(self, name: str) -> bytes:
        return self.passive("127.0.0.1")

    async def _do_size(self, name: str) -> bytes:
        return f"213 {len(self.files[name])}\r\n".encode() if name in self.files else b"550 none\r\n"

    async def _do_rest(self, name: str) -> bytes:
        self._start = int(name)
        return b"350 from there\r\n"

    async def _do_stor(self, name: str) -> bytes:
        start, self._start = self._start, 0
        self._speaker.write(b"150 give\r\n")
        data = await self._data.get()
        self.files[name] = self.files.get(name, bytearray())[:start] + data
        return b"226 got it\r\n"

    async def _do_dele(self, name: str) -> bytes:
        return b"550 none\r\n" if self.files.pop(name, None) is None else b"250 gone\r\n"

    async def _do_rnfr(self, name: str) -> bytes:
        self._renamed = name
        return b"350 to what?\r\n" if name in self.files else b"550 none\r\n"

    async def _do_rnto(self, name: str) -> bytes:
        if name in self.files and not self.replaces:
            return b"553 taken\r\n"
        self.files[name] = self.files.pop(self._renamed)
        return b"250 done\r\n"

    async def _do_quit(self, name: str) -> bytes:
        return b"221 bye\r\n"

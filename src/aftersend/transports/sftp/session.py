"""An SSH connection with one SFTP session on it, to an address that the guard judged."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import BinaryIO

import asyncssh

from aftersend.core.errors import EgressError
from aftersend.egress import Egress
from aftersend.egress.connecting import dial, is_ours
from aftersend.egress.faults import why
from aftersend.transports.sftp.keys import HostKeys
from aftersend.transports.sftp.place import Place, StepError

WINDOW = 4 << 20
"""Bytes that are under way without an answer, at most."""
BLOCK_LIMIT = 256 * 1024
"""Bytes of one write; the server may want fewer."""
ALIVE_LIMIT = 5.0
"""Seconds for a sign of life of a connection that was kept."""
GOODBYE_LIMIT = 2.0

asyncssh.set_log_level("WARNING")


class _Client(asyncssh.SSHClient):
    """What the library asks while it connects."""

    def __init__(self, host_keys: HostKeys) -> None:
        self._host_keys = host_keys
        self.refused: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Whether the server is the one that is wanted."""
        if key in self._host_keys:
            return True
        self.refused = key
        return False


class Session:
    """A connection that was logged in to. Every failure is a StepError or EgressError."""

    def __init__(self, place: Place, connection: asyncssh.SSHClientConnection, sftp: asyncssh.SFTPClient) -> None:
        self._place, self._connection, self._sftp = place, connection, sftp

    @classmethod
    async def open(cls, place: Place, egress: Egress) -> Session:
        """Connect, compare the host key, log in, start SFTP."""
        async with _step(place, "connect"):
            sock = await dial(await egress.resolve(place.host, place.port), place.port)
        connection = await _logged_in(place, sock)
        try:
            async with _step(place, "starting SFTP"):
                sftp = await connection.start_sftp_client(env=None, send_env=None)
        except BaseException:
            connection.abort()
            raise
        return cls(place, connection, sftp)

    async def is_alive(self) -> bool:
        """Whether a connection that was kept still answers."""
        try:
            async with _step(self._place, "stat", min(ALIVE_LIMIT, self._place.limit)):
                await self._sftp.stat(".")
        except StepError:
            return False
        return True

    async def upload(self, part: str, name: str, mode: int | None, file: BinaryIO, size: int) -> None:
        """Upload a file of this side under the first name, from where it broke off, and give it the second."""
        reached = await self._size(part)
        await self._store(part, mode, file, max(0, reached - WINDOW) if reached <= size else 0, size)
        await self._rename(part, name)

    async def rehearse(self, part: str, name: str, mode: int | None) -> None:
        """Do all of it with an empty file, and delete that."""
        await self._store(part, mode)
        await self._rename(part, name)
        async with _step(self._place, "deleting"):
            await self._sftp.remove(self._place.path(name))

    async def close(self) -> None:
        """Say goodbye."""
        self._connection.close()
        try:
            async with asyncio.timeout(GOODBYE_LIMIT):
                await self._connection.wait_closed()
        except (TimeoutError, OSError, asyncssh.Error):
            self.drop()

    def drop(self) -> None:
        """Let go of the connection at once."""
        self._connection.abort()

    async def _size(self, name: str) -> int:
        """Bytes of a file; 0 where there is none."""
        async with _step(self._place, f"folder {self._place.folder or '.'}"):
            try:
                return (await self._sftp.stat(self._place.path(name))).size or 0
            except asyncssh.SFTPNoSuchFile:
                return 0

    async def _store(
        self, name: str, mode: int | None, file: BinaryIO | None = None, start: int = 0, size: int = 0
    ) -> None:
        """Upload a file of this side from `start` to `size`, synced where the server can; without one an empty file."""
        flags = asyncssh.FXF_WRITE | asyncssh.FXF_CREAT | (0 if start else asyncssh.FXF_TRUNC)
        async with _step(self._place, f"creating a file in the folder {self._place.folder or '.'}"):
            # With a block size of its own the library splits writes into tasks that it forgets when it is called off.
            remote = await self._sftp.open(self._place.path(name), flags, encoding=None, block_size=0)
        if file is not None:
            file.seek(start)
            await self._send(remote, file, start, size)
        await self._finish(remote, mode, size)

    async def _rename(self, old: str, new: str) -> None:
        """Give a file its name; one that has the name already is replaced."""
        old, new = self._place.path(old), self._place.path(new)
        async with _step(self._place, f"renaming to {new}"):
            try:
                await self._sftp.posix_rename(old, new)
            except asyncssh.SFTPOpUnsupported:
                await self._rename_plainly(old, new)

    async def _send(self, remote: asyncssh.SFTPClientFile, file: BinaryIO, start: int, size: int) -> None:
        """Write without waiting for each answer; what is not answered lies within the last `WINDOW` bytes."""
        block = min(self._sftp.limits.max_write_len, BLOCK_LIMIT)
        pending: deque[asyncio.Task[int]] = deque()
        try:
            for offset in range(start, size, block):
                if len(pending) == WINDOW // block:
                    await self._answered(pending)
                data = await _read(file, min(block, size - offset))
                pending.append(asyncio.ensure_future(remote.write(data, offset)))
            while pending:
                await self._answered(pending)
        finally:
            await _call_off(pending)

    async def _answered(self, pending: deque[asyncio.Task[int]]) -> None:
        async with _step(self._place, "upload"):
            await pending[0]
        pending.popleft()

    async def _finish(self, remote: asyncssh.SFTPClientFile, mode: int | None, size: int) -> None:
        async with _step(self._place, "ending the upload"):
            if mode is not None:
                await remote.chmod(mode)
            try:
                await remote.fsync()
            except asyncssh.SFTPOpUnsupported:
                pass
            arrived = (await remote.stat()).size
            await remote.close()
        if arrived not in (None, size):
            raise StepError("upload", f"the server has {arrived} of {size} bytes")

    async def _rename_plainly(self, old: str, new: str) -> None:
        """As servers do that know no other way: they refuse a name that is taken."""
        try:
            await self._sftp.rename(old, new)
        except (asyncssh.SFTPFailure, asyncssh.SFTPFileAlreadyExists):
            if not await self._sftp.exists(new):
                raise
            await self._sftp.remove(new)
            await self._sftp.rename(old, new)


@asynccontextmanager
async def _step(place: Place, name: str, limit: float = 0.0) -> AsyncIterator[None]:
    """One thing within its time limit, a failure of it told under its name."""
    limit = limit or place.limit
    try:
        async with asyncio.timeout(limit):
            yield
    except TimeoutError:
        raise StepError(name, f"no answer within {limit:g} s") from None
    except asyncssh.SFTPFailure as error:
        text = f"{place.masked(error.reason) or 'failure'} (all that SFTP says of a full disk or a quota)"
        raise StepError(name, text) from None
    except asyncssh.SFTPBadMessage:
        raise StepError(name, "what came back is not SFTP; does the account's shell print something?") from None
    except asyncssh.Error as error:
        raise StepError(name, place.masked(error.reason) or type(error).__name__) from None
    except socket.gaierror as error:
        text = place.masked(error.strerror or str(error))
        raise StepError("name lookup", text, ours=is_ours(error)) from None
    except OSError as error:
        text = place.masked(why(error)) or "the connection broke"
        raise StepError(name, text, ours=is_ours(error)) from None
    except (StepError, EgressError):
        raise
    except Exception as error:
        # What the library trips over is what a stranger sent.
        raise StepError(name, f"what came back is not understood: {place.masked(str(error))}") from None


async def _logged_in(place: Place, sock: socket.socket) -> asyncssh.SSHClientConnection:
    client = _Client(place.host_keys)
    try:
        async with _step(place, "login"):
            return await asyncssh.connect(
                sock=sock,
                config=None,
                client_factory=lambda: client,
                known_hosts=([], [], []),
                server_host_key_algs=place.host_keys.kinds,
                x509_trusted_certs=None,
                x509_trusted_cert_paths=[],
                username=place.user,
                password=place.password.reveal() if place.password is not None else None,
                client_keys=[place.key] if place.key is not None else None,
                client_username="",
                agent_path=None,
                pkcs11_provider=None,
                gss_host=None,
                host_based_auth=False,
                preferred_auth=("publickey", "keyboard-interactive", "password"),
                compression_algs=None,
                connect_timeout=None,
            )
    except BaseException as error:
        sock.close()
        if client.refused is not None and isinstance(error, StepError):
            raise StepError("host key", place.host_keys.fault(client.refused)) from None
        raise


async def _read(file: BinaryIO, count: int) -> bytes:
    try:
        data = await asyncio.to_thread(file.read, count)
    except OSError as error:
        raise StepError("reading the file on this side", error.strerror or str(error), ours=True) from None
    if len(data) < count:
        raise StepError("reading the file on this side", "it is shorter than it was", ours=True)
    return data


async def _call_off(tasks: deque[asyncio.Task[int]]) -> None:
    """End writes that nobody waits for any more."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        # Otherwise their failures are told as forgotten.
        if not task.cancelled():
            task.exception()

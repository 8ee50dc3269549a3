"""FTP, FTPS and SFTP keep the contract of a transport that carries files, against real servers."""

from __future__ import annotations

import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncssh
import pytest
from tests.integration.file_servers import (
    LOOPBACK,
    PASSWORD,
    TOO_LARGE,
    FileServer,
    authority,
    host_key,
    sshd,
    vsftpd,
)

from aftersend.core.secret import Secret
from aftersend.testing.depots import DepotSuite, DepotTransport, Shelf
from aftersend.transports import ftp, sftp


@asynccontextmanager
async def shelved(server: FileServer, depot: DepotTransport, *secrets: str) -> AsyncIterator[Shelf]:
    """A depot with its server in the hands of a test."""

    async def files() -> dict[str, bytes]:
        return server.files()

    async def refuse() -> None:
        await server.kill()
        await server.start(TOO_LARGE)

    try:
        yield Shelf(depot, files, server.kill, server.start, refuse, secrets)
    finally:
        await depot.close()


@pytest.mark.server("vsftpd")
class TestFtp(DepotSuite):
    module = ftp
    is_on_uvloop = True
    tls = ""

    @pytest.fixture(autouse=True)
    def _begin(self, programs: dict[str, str], tmp_path: Path) -> None:
        self.program, self.place = programs["vsftpd"], tmp_path

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Shelf]:
        async with vsftpd(self.program, self.place, tls=self.tls) as server:
            depot = ftp.Transport(
                url=f"{'ftps' if self.tls else 'ftp'}://localhost:{server.port}",
                user="anonymous",
                password=Secret(PASSWORD),
                tls="implicit" if self.tls == "implicit" else "auto",
                ca=authority(server) if self.tls else "",
                egress=LOOPBACK,
            )
            async with shelved(server, depot, PASSWORD) as shelf:
                yield shelf


class TestExplicitFtps(TestFtp):
    tls = "explicit"


class TestExplicitFtpsOnPythonsLoop(TestExplicitFtps):
    is_on_uvloop = False


class TestImplicitFtps(TestFtp):
    tls = "implicit"


@pytest.mark.server("sshd")
class TestSftp(DepotSuite):
    module = sftp
    is_on_uvloop = True

    @pytest.fixture(autouse=True)
    def _begin(self, programs: dict[str, str], tmp_path: Path) -> None:
        self.program, self.place = programs["sshd"], tmp_path

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Shelf]:
        key = asyncssh.generate_private_key("ssh-ed25519")
        secret = key.export_private_key().decode()
        async with sshd(self.program, self.place, keys=key.export_public_key().decode()) as server:
            depot = sftp.Transport(
                url=f"sftp://localhost:{server.port}",
                user=getpass.getuser(),
                host_key=host_key(server),
                private_key=Secret(secret),
                egress=LOOPBACK,
            )
            async with shelved(server, depot, secret) as shelf:
                yield shelf


class TestSftpOnPythonsLoop(TestSftp):
    is_on_uvloop = False

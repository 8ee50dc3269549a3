"""Real servers for files, each a test's own: vsftpd and OpenSSH's sshd on a loopback port, gone after the test."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from ipaddress import ip_network
from pathlib import Path

import asyncssh
from tests.integration.relaying import certificate

from aftersend.egress import Egress

HOST = "localhost"
LOOPBACK = Egress(allowed=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
PASSWORD = "hunter2-hunter3"
TOO_LARGE = 100_000

# Without root there are no local users: the anonymous one has the list of passwords that may come in.
VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
anonymous_enable=YES
secure_email_list_enable=YES
email_password_file={home}/passwords
anon_root={folder}
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_other_write_enable=YES
anon_world_readable_only=NO
anon_umask=022
connect_from_port_20=NO
delay_failed_login=0
xferlog_enable=NO
{more}
"""

VSFTPD_TLS = """
ssl_enable=YES
allow_anon_ssl=YES
force_anon_data_ssl=YES
force_anon_logins_ssl=YES
rsa_cert_file={certificate}
strict_ssl_read_eof=YES
"""

SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host_key
PidFile none
AuthorizedKeysFile {home}/authorized_keys
StrictModes no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
LogLevel ERROR
ForceCommand {sftp} -d {folder}
Subsystem sftp internal-sftp
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


class FileServer:
    """A server program with a folder."""

    def __init__(self, home: Path, folder: Path, command: Callable[[FileServer], list[str]]) -> None:
        self.home, self.folder, self._command = home, folder, command
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self, file_limit: int = resource.RLIM_INFINITY) -> None:
        """Start it; past `file_limit` a write to a file fails."""

        def bounded() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, resource.RLIM_INFINITY))

        # Python ignores the signal for files that grow past a limit: a child that inherits this sees an error.
        log = (self.home / "log").open("ab")
        self.process = subprocess.Popen(
            self._command(self),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            restore_signals=False,
            preexec_fn=bounded,
        )
        log.close()
        async with asyncio.timeout(10):
            while not listens(self.port):
                assert self.process.poll() is None, (self.home / "log").read_text()
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """Cut everything: the server and the processes of its connections."""
        if self.process is None:
            return
        for pid in [*descendants(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def files(self) -> dict[str, bytes]:
        found = {}
        for path in self.folder.iterdir():
            with suppress(FileNotFoundError):
                found[path.name] = path.read_bytes()
        return found


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(entry.name))
    found = list(parents.get(pid, ()))
    for child in found:
        found.extend(parents.get(child, ()))
    return found


@contextmanager
def home_for(name: str, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """A folder for the server's own things, and one for files."""
    home, folder = tmp_path / name, tmp_path / f"{name}-files"
    home.mkdir()
    folder.mkdir(exist_ok=True)
    yield home, folder


@asynccontextmanager
async def running(server: FileServer) -> AsyncIterator[FileServer]:
    await server.start()
    try:
        yield server
    finally:
        await server.kill()


@asynccontextmanager
async def vsftpd(
    program: str, tmp_path: Path, *, tls: str = "", more: str = "", name: str = HOST, wrapped: tuple[str, ...] = ()
) -> AsyncIterator[FileServer]:
    """A running vsftpd: `tls` nothing, explicit or implicit; its certificate stands in `home/NAME.pem`."""
    with home_for("vsftpd", tmp_path) as (home, folder):
        (home / "passwords").write_text(f"{PASSWORD}\n")
        if tls:
            more += VSFTPD_TLS.format(certificate=certificate(home, name))
        if tls == "implicit":
            more += "implicit_ssl=YES\n"

        def command(server: FileServer) -> list[str]:
            text = VSFTPD.format(port=server.port, home=home, folder=folder, more=more)
            (home / "conf").write_text(text)
            return [*wrapped, program, str(home / "conf")]

        async with running(FileServer(home, folder, command)) as server:
            yield server


def authority(server: FileServer) -> str:
    """The certificate of a server alone, as PEM."""
    [path] = server.home.glob("*.pem")
    return path.read_text().partition("-----BEGIN PRIVATE")[0]


@asynccontextmanager
async def sshd(
    program: str, tmp_path: Path, *, keys: str = "", sftp: str = "internal-sftp", more: str = ""
) -> AsyncIterator[FileServer]:
    """A running sshd that takes these public keys, and gives SFTP in its folder to the user of this process."""
    with home_for("sshd", tmp_path) as (home, folder):
        (home / "authorized_keys").write_text(keys)
        asyncssh.generate_private_key("ssh-ed25519").write_private_key(home / "host_key")
        (home / "host_key").chmod(0o600)
        if os.geteuid() == 0:
            # Root's sshd separates its privileges in this folder, which is compiled in.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)

        def command(server: FileServer) -> list[str]:
            text = SSHD.format(port=server.port, home=home, folder=folder, sftp=sftp) + more
            (home / "conf").write_text(text)
            return [program, "-D", "-e", "-f", str(home / "conf")]

        async with running(FileServer(home, folder, command)) as server:
            yield server


def host_key(server: FileServer) -> str:
    """The server's public key as a line."""
    return asyncssh.read_private_key(server.home / "host_key").export_public_key().decode().strip()


class Wire:
    """A TCP connection's way to a server, in the hands of a test."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.connections = 0
        self.carried = 0
        """Bytes from clients to the server."""
        self.cut_after: int | None = None
        self.held_after: int | None = None
        self.release = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    @asynccontextmanager
    async def laid(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.cut()
            server.close()
            await asyncio.sleep(0.01)

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, server = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers += [writer, server]
        with suppress(OSError):
            await asyncio.gather(self._carry(reader, server, counted=True), self._carry(there, writer))
        writer.close()
        server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counted: bool = False) -> None:
        while data := await reader.read(65_536):
            if counted:
                self.carried += len(data)
                if self.cut_after is not None and self.carried > self.cut_after:
                    return self.cut()
                if self.held_after is not None and self.carried > self.held_after:
                    await self.release.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
        return None


class SmallDisk:
    """A disk of a few MB for a server to fill."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self._folder = folder
        self.within = ("nsenter", "--target", str(process.pid), "--user", "--mount", "--preserve-credentials")
        """What a command begins with that shall see the disk."""
        self.seen = Path(f"/proc/{process.pid}/root{folder}")
        """Where its files are from outside."""

    async def grow(self) -> None:
        """Give it room."""
        command = (*self.within, "mount", "-o", "remount,size=64m", str(self._folder))
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0


@asynccontextmanager
async def small_disk(folder: Path, megabytes: int) -> AsyncIterator[SmallDisk]:
    """A disk on a folder, visible to what is started within it alone."""
    folder.mkdir(exist_ok=True)
    script = f'mount -t tmpfs -o size={megabytes}m tmpfs "$1" && echo ready && exec sleep 100'
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"ready\n"
        yield SmallDisk(process, folder)
    finally:
        process.kill()
        await process.wait()


def can_unshare() -> bool:
    """Whether this user may have a small disk of its own."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


async def run(*command: str, limit: float = 20) -> tuple[int, str]:
    """What a program printed, and how it ended."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, stdin=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(limit):
            out, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return await process.wait(), out.decode()

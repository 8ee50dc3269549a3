"""Files to servers: one of NDJSON by FTP to a local vsftpd and by SFTP to a local OpenSSH, encrypted there as ever."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncssh
import msgspec
import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale
from aftersend.bench.storage import BATCH, Supply
from aftersend.core.errors import StoreError
from aftersend.core.outcome import Tally, Verdict, Volume
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.transports.ftp import Transport as Ftp
from aftersend.transports.sftp import Transport as Sftp

FTP = Row("files by FTP to a local server, NDJSON", "events", 60_000, 200_000)
SFTP = Row("files by SFTP to a local server, NDJSON", "events", 60_000, 120_000)

START_SECONDS = 10.0

_SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
_EGRESS = Egress.read(["127.0.0.0/8"])

_VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
anonymous_enable=YES
anon_root={folder}/there
anon_upload_enable=YES
anon_other_write_enable=YES
write_enable=YES
xferlog_enable=NO
"""

_SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
LogLevel ERROR
Subsystem sftp internal-sftp
ForceCommand internal-sftp -d {folder}/there
"""


def remote_files(scale: Scale, report: Report) -> Iterator[Reading]:
    """One file, as fast as it goes, by the clock on the wall; a server that is not installed is left out."""
    count = scale.of(200_000, BATCH) // BATCH * BATCH
    for row, program, rate in ((FTP, "vsftpd", _by_ftp), (SFTP, "sshd", _by_sftp)):
        path = shutil.which(program, path=_SEARCHED)
        if path is None:
            report(f"{row.name}: {program} is not installed")
            continue
        report(row.name)
        with TemporaryDirectory(prefix="aftersend-bench-") as name:
            (Path(name) / "there").mkdir()
            yield Reading(row, rate(path, Path(name), _file(Path(name), count)), count)


def _file(folder: Path, count: int) -> Volume:
    """A file of so many events."""
    path, supply = folder / "events.ndjson", Supply(time.time_ns())
    with path.open("wb") as file:
        for _ in range(count // BATCH):
            file.write(msgspec.json.Encoder().encode_lines(supply.batch()))
    return Volume(
        id="vol_bench",
        name=path.name,
        path=str(path),
        size=path.stat().st_size,
        content_type="application/x-ndjson",
        epoch=1,
        first_sequence=1,
        last_sequence=count,
        since=0,
        until=0,
        tally=Tally(count),
    )


def _by_ftp(program: str, folder: Path, volume: Volume) -> float:
    def command(port: int) -> list[str]:
        (folder / "conf").write_text(_VSFTPD.format(port=port, folder=folder))
        return [program, str(folder / "conf")]

    with _serving(command) as port:
        return uvloop.run(_rate(Ftp(url=f"ftp://127.0.0.1:{port}", user="anonymous", egress=_EGRESS), volume))


def _by_sftp(program: str, folder: Path, volume: Volume) -> float:
    own, host = asyncssh.generate_private_key("ssh-ed25519"), asyncssh.generate_private_key("ssh-ed25519")
    (folder / "authorized_keys").write_bytes(own.export_public_key())
    host.write_private_key(folder / "host_key")
    (folder / "host_key").chmod(0o600)

    def command(port: int) -> list[str]:
        (folder / "conf").write_text(_SSHD.format(port=port, folder=folder))
        return [program, "-D", "-f", str(folder / "conf")]

    # Root's sshd separates its privileges in this folder, which is compiled in.
    with suppress(OSError):
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with _serving(command) as port:
        depot = Sftp(
            url=f"sftp://127.0.0.1:{port}",
            user=getpass.getuser(),
            host_key=host.export_public_key().decode(),
            private_key=Secret(own.export_private_key().decode()),
            egress=_EGRESS,
        )
        return uvloop.run(_rate(depot, volume))


async def _rate(depot: Ftp | Sftp, volume: Volume) -> float:
    """Events a second, once it is logged in."""
    await depot.probe()
    began = time.perf_counter()
    outcome = await depot.put(volume)
    seconds = time.perf_counter() - began
    await depot.close()
    if outcome.verdict is not Verdict.TAKEN:
        raise StoreError(f"the file was not taken: {outcome.detail}")
    return volume.tally.count / seconds


@contextmanager
def _serving(command: Callable[[int], list[str]]) -> Iterator[int]:
    """A server on a free port of this machine, gone afterwards."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = int(sock.getsockname()[1])
    process = subprocess.Popen(command(port), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        limit = time.monotonic() + START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > limit:
                raise StoreError("the server did not start")
            time.sleep(0.02)
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0

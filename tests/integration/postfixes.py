"""A real Postfix of a test's own: its own folder, queue and log, on a loopback port, gone after the test."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
command_directory = {commands}
daemon_directory = {daemons}
mail_owner = postfix
setgid_group = postdrop
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
myhostname = {name}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
local_header_rewrite_clients =
smtp_dns_support_level = disabled
smtp_host_lookup = native
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = {domains}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
relayhost = {relay}
default_destination_recipient_limit = 1
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 1s
destination_concurrency_feedback_debug = no
default_destination_concurrency_failed_cohort_limit = 1000
{more}
"""

MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 1 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
"""


class Postfix:
    """One instance."""

    def __init__(self, folder: Path, port: int, program: str) -> None:
        self.folder, self.port, self._program = folder, port, program

    def delivered(self) -> list[bytes]:
        """The messages in its mailbox, the oldest first."""
        found = sorted((self.folder / "mail/box/new").glob("*"), key=lambda path: path.stat().st_mtime_ns)
        return [path.read_bytes().replace(b"\n", b"\r\n") for path in found]

    def waiting(self) -> list[str]:
        """Why each recipient in its queue waits; empty for one that was not tried yet."""
        command = (str(Path(self._program).parent / "postqueue"), "-c", str(self.folder / "conf"), "-j")
        lines = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout.splitlines()
        return [one.get("delay_reason", "") for line in lines for one in msgspec.json.decode(line)["recipients"]]

    async def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        try:
            async with asyncio.timeout(seconds):
                while not done():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError((self.folder / "log").read_text()[-4000:]) from None


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@asynccontextmanager
async def postfix(program: str, *, relay: str = "", domains: str = "", more: str = "") -> AsyncIterator[Postfix]:
    """A running Postfix that relays to `[HOST]:PORT`, or keeps mail for `domains`. Only root can start one."""
    # Its processes are not root, so what is above its folder must be open to them.
    folder = Path(tempfile.mkdtemp(prefix="postfix-", dir="/tmp"))
    folder.chmod(0o755)
    made = Postfix(folder, free_port(), program)
    _configure(made, program, relay, domains, more)
    await _run(program, "-c", str(folder / "conf"), "start")
    try:
        await made.until(lambda: _listens(made.port))
        yield made
    finally:
        # Its master has a session of its own, so it is ended through its own command, by the id in its folder.
        await _run(program, "-c", str(folder / "conf"), "abort")
        shutil.rmtree(folder, ignore_errors=True)


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    await asyncio.wait_for(process.wait(), 30)


def _configure(made: Postfix, program: str, relay: str, domains: str, more: str) -> None:
    owner, nobody = pwd.getpwnam("postfix"), pwd.getpwnam("nobody")
    for name in ("conf", "queue", "data", "mail"):
        (made.folder / name).mkdir()
    os.chown(made.folder / "data", owner.pw_uid, owner.pw_gid)
    os.chown(made.folder / "mail", nobody.pw_uid, nobody.pw_gid)
    daemons = subprocess.run(
        (str(Path(program).parent / "postconf"), "-d", "-h", "daemon_directory"), check=True, capture_output=True
    ).stdout.decode()
    text = MAIN.format(
        folder=made.folder,
        commands=Path(program).parent,
        daemons=daemons.strip(),
        name=f"p{made.port}.example",
        domains=domains,
        uid=nobody.pw_uid,
        gid=nobody.pw_gid,
        relay=relay,
        more=more,
    )
    (made.folder / "conf/main.cf").write_text(text)
    (made.folder / "conf/master.cf").write_text(MASTER.format(port=made.port))


def _listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0

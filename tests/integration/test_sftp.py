"""Files by SFTP to a real OpenSSH server, and to one that asks for passwords."""

from __future__ import annotations

import asyncio
import base64
import getpass
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from tests.integration.file_servers import (
    LOOPBACK,
    FileServer,
    Wire,
    can_unshare,
    free_port,
    host_key,
    run,
    small_disk,
    sshd,
)

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.outcome import Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.testing.depots import volume
from aftersend.testing.transports import assert_told
from aftersend.transports import sftp
from aftersend.transports.sftp.session import WINDOW

KEY = asyncssh.generate_private_key("ssh-ed25519")
PUBLIC = KEY.export_public_key().decode()
PRIVATE = KEY.export_private_key().decode()
PASSWORD = "hunter2-hunter3"
DATA = b'{"id":"01890a5d-ac96-774b-bcce-b302099a8057","type":"email.opened"}\n' * 150_000

needs_sshd = pytest.mark.server("sshd")


made: list[sftp.Transport] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """No test leaves a connection."""
    yield
    for transport in made:
        await transport.close()
    made.clear()


def depot(port: int, path: str = "", **options: Any) -> sftp.Transport:
    options = {"user": getpass.getuser(), "private_key": Secret(PRIVATE), "egress": LOOPBACK} | options
    made.append(sftp.Transport(url=f"sftp://localhost:{port}{path}", **options))
    return made[-1]


@cache
def locked() -> str:
    return KEY.export_private_key(passphrase="tr0ub4dor", rounds=50).decode()


@asynccontextmanager
async def served(programs: dict[str, str], tmp_path: Path, **options: str) -> AsyncIterator[FileServer]:
    async with sshd(programs["sshd"], tmp_path, keys=PUBLIC, **options) as server:
        yield server


def known(server: FileServer, port: int) -> list[str]:
    """What OpenSSH's own clients need to log in to a server."""
    (server.home / "id").write_text(PRIVATE)
    (server.home / "id").chmod(0o600)
    (server.home / "known").write_text(f"[localhost]:{port} {host_key(server)}\n")
    settings = ["-F", "none", "-i", str(server.home / "id")]
    return [*settings, "-o", f"UserKnownHostsFile={server.home / 'known'}", "-o", "IdentitiesOnly=yes"]


async def listed(server: FileServer, *command: str) -> str:
    """What OpenSSH's sftp prints for a command."""
    batch = server.home / "batch"
    batch.write_text("\n".join(command))
    words = ["sftp", *known(server, server.port), "-P", str(server.port), "-b", str(batch), "localhost"]
    code, text = await run(*words)
    assert code == 0, text
    return text


@pytest.mark.server("sshd", "sftp", "lftp")
async def test_other_clients_see_a_file_when_it_is_whole(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path) as server, Wire(server.port).laid() as wire:
        wire.held_after = 2_000_000
        transport = depot(wire.port, host_key=host_key(server))
        under_way = asyncio.create_task(transport.put(volume(tmp_path, "events-1.json", DATA)))
        while wire.carried < wire.held_after:
            await asyncio.sleep(0.01)
        during = await listed(server, "ls -a")
        assert "events-1.json" not in during
        assert ".aftersend-" in during
        wire.release.set()
        assert (await under_way).verdict is Verdict.TAKEN
        fetched = tmp_path / "fetched"
        assert "events-1.json" in await listed(server, "ls -a", f"get events-1.json {fetched}")
        assert fetched.read_bytes() == DATA
        ssh = " ".join(["ssh", "-a", "-x", *known(server, server.port)])
        script = (
            f"set sftp:connect-program '{ssh}'; open -p {server.port} -u {getpass.getuser()}, sftp://localhost; cls -aB"
        )
        code, text = await run(programs["lftp"], "--norc", "-c", script)
        assert (code, sorted(text.split())) == (0, ["../", "./", "events-1.json"]), text


@needs_sshd
async def test_an_upload_that_was_cut_goes_on_where_it_stopped(programs: dict[str, str], tmp_path: Path) -> None:
    whole = volume(tmp_path, "events-1.json", DATA)
    async with served(programs, tmp_path) as server, Wire(server.port).laid() as wire:
        transport = depot(wire.port, host_key=host_key(server))
        wire.cut_after = 9_500_000
        outcome = await transport.put(whole)
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        [(name, half)] = server.files().items()
        assert name.startswith(".aftersend-")
        assert len(half) > WINDOW
        await server.kill()
        await server.start()
        wire.cut_after, wire.carried = None, 0
        assert (await transport.put(whole)).verdict is Verdict.TAKEN
        assert server.files() == {"events-1.json": DATA}
        assert wire.carried < len(DATA) - len(half) + WINDOW + 300_000


@needs_sshd
async def test_holes_that_a_cut_left_are_filled(programs: dict[str, str], tmp_path: Path) -> None:
    whole = volume(tmp_path, "events-1.json", DATA)
    async with served(programs, tmp_path) as server, Wire(server.port).laid() as wire:
        transport = depot(wire.port, host_key=host_key(server))
        wire.cut_after = 9_500_000
        await transport.put(whole)
        [name] = server.files()
        with (server.folder / name).open("r+b") as half:
            # A server that writes in another order than it was asked to.
            half.seek(-WINDOW, 2)
            half.write(bytes(WINDOW - 100_000))
        wire.cut_after = None
        assert (await transport.put(whole)).verdict is Verdict.TAKEN
        assert server.files() == {"events-1.json": DATA}


@needs_sshd
async def test_one_connection_serves_many_files_and_is_let_go_when_idle(
    programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sftp, "IDLE_LIMIT", 0.2)
    async with served(programs, tmp_path) as server, Wire(server.port).laid() as wire:
        transport = depot(wire.port, host_key=host_key(server))
        for number in range(5):
            assert (await transport.put(volume(tmp_path, f"{number}.json", b"[]"))).verdict is Verdict.TAKEN
        assert wire.connections == 1
        await asyncio.sleep(0.4)
        assert transport._kept._connection is None
        assert (await transport.put(volume(tmp_path, "6.json", b"[]"))).verdict is Verdict.TAKEN
        assert wire.connections == 2
        wire.cut()
        assert (await transport.put(volume(tmp_path, "7.json", b"[]"))).verdict is Verdict.TAKEN, "told as a failure"
        assert len(server.files()) == 7


@pytest.mark.server("sshd")
@pytest.mark.skipif(not can_unshare(), reason="this user cannot mount a small disk (unshare --user --mount)")
async def test_a_full_disk_over_there_is_told_and_outlived(programs: dict[str, str], tmp_path: Path) -> None:
    whole = volume(tmp_path, "events-1.json", DATA)
    async with small_disk(tmp_path / "sshd-files", 5) as disk:
        within = " ".join([*disk.within, "/usr/lib/openssh/sftp-server"])
        async with served(programs, tmp_path, sftp=within) as server:
            server.folder = disk.seen
            transport = depot(server.port, host_key=host_key(server))
            outcome = await transport.put(whole)
            assert outcome.verdict is Verdict.FAILED
            assert "full disk" in outcome.detail
            assert_told(outcome)
            assert "events-1.json" not in server.files()
            await disk.grow()
            assert (await transport.put(whole)).verdict is Verdict.TAKEN
            assert server.files() == {"events-1.json": DATA}


@needs_sshd
async def test_an_account_whose_shell_talks_is_told(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path, sftp="echo This account is currently not available. #") as server:
        outcome = await depot(server.port, host_key=host_key(server)).probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail == "starting SFTP: what came back is not SFTP; does the account's shell print something?"


@needs_sshd
async def test_a_folder_that_is_read_only_is_told_by_a_probe(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path, sftp="internal-sftp -R") as server:
        for outcome in (
            await depot(server.port, host_key=host_key(server)).probe(),
            await depot(server.port, host_key=host_key(server)).put(volume(tmp_path, "a.json", b"[]")),
        ):
            assert outcome.verdict is Verdict.FAILED
            assert outcome.detail == "creating a file in the folder .: Permission denied"


@needs_sshd
async def test_folders_are_named_from_the_root_or_from_the_login_on(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path) as server:
        (server.folder / "out box").mkdir()
        for path in ("/~/out%20box", f"{server.folder}/out%20box/"):
            transport = depot(server.port, path, host_key=host_key(server))
            assert (await transport.put(volume(tmp_path, f"{len(path)}.json", b"[]"))).verdict is Verdict.TAKEN
        assert len(list((server.folder / "out box").iterdir())) == 2
        outcome = await depot(server.port, "/nowhere", host_key=host_key(server)).probe()
        assert outcome.detail == "creating a file in the folder /nowhere: No such file"


@needs_sshd
async def test_files_get_the_mode_that_is_asked_for(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path) as server:
        transport = depot(server.port, host_key=host_key(server), mode="0640")
        await transport.put(volume(tmp_path, "a.json", b"[]"))
        assert (server.folder / "a.json").stat().st_mode & 0o777 == 0o640


@needs_sshd
async def test_a_key_that_the_server_does_not_know_is_told(programs: dict[str, str], tmp_path: Path) -> None:
    other = Secret(asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode())
    async with served(programs, tmp_path) as server:
        outcome = await depot(server.port, host_key=host_key(server), private_key=other).probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith("login: Permission denied")
        assert_told(outcome)


# --- host keys


@needs_sshd
async def test_without_a_pinned_key_the_fingerprint_is_told_and_nothing_is_sent(
    programs: dict[str, str], tmp_path: Path
) -> None:
    async with served(programs, tmp_path) as server:
        outcome = await depot(server.port).probe()
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        fingerprint = next(word.rstrip(":") for word in outcome.detail.split() if word.startswith("SHA256:"))
        assert "set host_key" in outcome.detail
        assert (await depot(server.port).put(volume(tmp_path, "a.json", b"[]"))).verdict is Verdict.FAILED
        assert (await depot(server.port, host_key=fingerprint).probe()).verdict is Verdict.TAKEN


@pytest.mark.server("sshd", "ssh-keyscan")
async def test_what_keyscan_prints_can_be_pasted(programs: dict[str, str], tmp_path: Path) -> None:
    async with served(programs, tmp_path) as server:
        _, printed = await run(programs["ssh-keyscan"], "-p", str(server.port), "localhost")
        assert (await depot(server.port, host_key=printed).probe()).verdict is Verdict.TAKEN


class Accounts(asyncssh.SSHServer):
    """A server that asks for passwords, and notes which it was told."""

    told: list[str]
    connections: list[asyncssh.SSHServerConnection]

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self.connections.append(conn)

    def begin_auth(self, username: str) -> bool:
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self.told.append(password)
        return (username, password) == ("events", PASSWORD)


class Questions(Accounts):
    """One that asks for them as a question."""

    def password_auth_supported(self) -> bool:
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(self, username: str, lang: str, submethods: str) -> Any:
        return "", "", "en-US", [("Password:", False)]

    def validate_kbdint_response(self, username: str, responses: Any) -> bool:
        return self.validate_password(username, responses[0])


@asynccontextmanager
async def asking(
    folder: Path, factory: type[asyncssh.SSHServer] = Accounts, files: type[asyncssh.SFTPServer] = asyncssh.SFTPServer
) -> AsyncIterator[tuple[int, str]]:
    """A server's port and host key."""
    folder.mkdir(exist_ok=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    Accounts.told, Accounts.connections = [], []
    server = await asyncssh.create_server(
        factory,
        "127.0.0.1",
        0,
        server_host_keys=[key],
        sftp_factory=lambda channel: files(channel, chroot=str(folder)),
    )
    try:
        yield server.sockets[0].getsockname()[1], key.export_public_key().decode()
    finally:
        server.close()
        for connection in Accounts.connections:
            connection.abort()
            await connection.wait_closed()
        await server.wait_closed()


@pytest.mark.parametrize("factory", [Accounts, Questions])
async def test_a_password_logs_in(tmp_path: Path, factory: type[asyncssh.SSHServer]) -> None:
    async with asking(tmp_path / "there", factory) as (port, pinned):
        login = {"user": "events", "password": Secret(PASSWORD), "private_key": None, "host_key": pinned}
        transport = depot(port, **login)
        assert (await transport.put(volume(tmp_path, "a.json", DATA))).verdict is Verdict.TAKEN
        assert (tmp_path / "there/a.json").read_bytes() == DATA
        outcome = await depot(port, **login | {"password": Secret("hunter4-wrong")}).probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith("login: Permission denied")
        assert "hunter4" not in f"{outcome}"


async def test_a_server_with_another_key_hears_no_password(tmp_path: Path) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    async with asking(tmp_path / "there") as (port, _):
        for pinned in (other, ""):
            transport = depot(port, user="events", password=Secret(PASSWORD), private_key=None, host_key=pinned)
            outcome = await transport.put(volume(tmp_path, "a.json", b"[]"))
            assert outcome.verdict is Verdict.FAILED
            assert outcome.detail.startswith("host key: ")
            assert Accounts.told == []


async def test_nothing_of_the_users_own_ssh_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, asked = tmp_path / "home", []
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/config").write_text(f"Host *\n  ProxyCommand touch {home}/proxied\n  User somebody\n")
    monkeypatch.setenv("HOME", str(home))
    agent = await asyncio.start_unix_server(lambda reader, writer: asked.append(writer), str(home / "agent"))
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
    async with asking(tmp_path / "there") as (port, pinned):
        (home / ".ssh/known_hosts").write_text(f"[localhost]:{port},[127.0.0.1]:{port} {pinned}\n")
        login = {"user": "events", "password": Secret(PASSWORD), "private_key": None}
        outcome = await depot(port, **login).probe()
        assert "none is pinned" in outcome.detail
        assert (await depot(port, **login, host_key=pinned).probe()).verdict is Verdict.TAKEN
        assert (await depot(port, **login | {"private_key": Secret(PRIVATE)}, host_key=pinned).probe()).verdict is (
            Verdict.TAKEN
        )
    agent.close()
    assert not asked
    assert not (home / "proxied").exists()


class OldServer(asyncssh.SFTPServer):
    """One that refuses to rename to a name that is taken, as the protocol's text has it."""

    def rename(self, oldpath: bytes, newpath: bytes) -> None:
        if Path(self.map_path(newpath).decode()).exists():
            raise asyncssh.SFTPFailure("File exists")
        super().rename(oldpath, newpath)


async def test_a_server_that_cannot_replace_a_file_is_helped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from asyncssh import sftp as library

    few = [name for name in library.SFTPServerHandler._extensions if b"openssh" not in name[0]]
    monkeypatch.setattr(library.SFTPServerHandler, "_extensions", few)
    async with asking(tmp_path / "there", files=OldServer) as (port, pinned):
        transport = depot(port, user="events", password=Secret(PASSWORD), private_key=None, host_key=pinned)
        for data in (b"first", b"second"):
            outcome = await transport.put(volume(tmp_path, "a.json", data))
            assert outcome.verdict is Verdict.TAKEN, outcome
            assert (tmp_path / "there/a.json").read_bytes() == data
        assert (await transport.probe()).verdict is Verdict.TAKEN
        assert [path.name for path in (tmp_path / "there").iterdir()] == ["a.json"]


# --- silence and noise


@asynccontextmanager
async def saying(greeting: bytes) -> AsyncIterator[int]:
    """A port where something is said that is not SSH, and then nothing."""
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(greeting)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (b"", "login: no answer within 0.4 s"),
        (b"SSH-2.0-Silent\r\n", "login: no answer within 0.4 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "login: "),
        (b"x" * 10_000_000, "login: "),
        (b"SSH-2.0-\x1b[31mred\r\n" + bytes(5_000), "login: "),
    ],
)
async def test_silence_and_noise_end_in_one_line(greeting: bytes, told: str) -> None:
    async with saying(greeting) as port:
        async with asyncio.timeout(5):
            outcome = await depot(port, host_key="", timeout=0.4).probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith(told)
        assert_told(outcome)


@needs_sshd
async def test_a_server_that_stops_amid_a_file_is_not_waited_for_for_ever(
    programs: dict[str, str], tmp_path: Path
) -> None:
    async with served(programs, tmp_path) as server, Wire(server.port).laid() as wire:
        wire.held_after = 5_000_000
        transport = depot(wire.port, host_key=host_key(server), timeout=0.7)
        async with asyncio.timeout(5):
            outcome = await transport.put(volume(tmp_path, "a.json", DATA))
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail == "upload: no answer within 0.7 s"


async def test_nobody_there_is_told() -> None:
    outcome = await depot(free_port()).probe()
    assert outcome.verdict is Verdict.FAILED
    assert not outcome.ours
    assert outcome.detail.startswith("connect: ")


async def test_addresses_are_judged_before_anything_is_sent() -> None:
    with pytest.raises(EgressError):
        sftp.Transport(url="sftp://169.254.169.254", user="u", password=Secret("p"), egress=Egress())

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    transport = sftp.Transport(url="sftp://files.example", user="u", password=Secret("p"), egress=Egress(lookup=lookup))
    outcome = await transport.probe()
    assert outcome.ours
    assert outcome.detail.startswith("refused: files.example leads to 127.0.0.1")


# --- options


def test_a_locked_key_is_opened_by_its_passphrase() -> None:
    assert depot(22, private_key=Secret(locked()), passphrase=Secret("tr0ub4dor"))
    for passphrase in (None, Secret("wrong-one")):
        with pytest.raises(ConfigurationError, match=r"^private_key: ") as caught:
            depot(22, private_key=Secret(locked()), passphrase=passphrase)
        assert "wrong-one" not in str(caught.value)


def test_a_passphrase_that_takes_minutes_is_refused_at_once() -> None:
    armour = locked().splitlines()
    body = bytearray(base64.b64decode("".join(armour[1:-1])))
    rounds = body.index(b"bcrypt") + len("bcrypt") + 4 + 4 + 16
    body[rounds : rounds + 4] = (2**31).to_bytes(4, "big")
    slow = "\n".join([armour[0], base64.encodebytes(body).decode(), armour[-1]])
    with pytest.raises(ConfigurationError, match="more than 256 rounds"):
        depot(22, private_key=Secret(slow), passphrase=Secret("x"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"user": " "}, "user: "),
        ({"private_key": None}, "password or private_key is missing"),
        ({"private_key": Secret("rubbish")}, "private_key: it is not a private key"),
        ({"host_key": "rubbish"}, "host_key: 'rubbish' is neither"),
        ({"host_key": "\n".join([PUBLIC] * 20)}, "host_key: more than 16 keys"),
        ({"mode": "rw"}, "mode: "),
        ({"mode": "0077"}, "mode: "),
        ({"timeout": 0}, "timeout: "),
        ({"path": "/a%0d%0aDELE%20x"}, "url: the folder's name"),
        ({"path": "/a%FF"}, "url: the folder's name"),
        ({"path": "/a?b"}, "url: write"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        depot(22, **options)
    assert str(caught.value).startswith(told)
    assert str(caught.value).isprintable()


async def test_a_name_that_is_none_is_our_own_fault(tmp_path: Path) -> None:
    for name in ("../a.json", "a\nb", ".hidden", "a b", ""):
        outcome = await depot(22).put(volume(tmp_path, name, b"[]"))
        assert outcome.verdict is Verdict.FAILED
        assert outcome.ours
        assert_told(outcome)

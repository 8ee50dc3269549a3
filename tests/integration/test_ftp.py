"""Files by FTP and FTPS to a real vsftpd, and to servers that are old, odd or hostile."""

from __future__ import annotations

import asyncio
import shlex
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.file_servers import (
    LOOPBACK,
    PASSWORD,
    FileServer,
    authority,
    can_unshare,
    free_port,
    run,
    small_disk,
    vsftpd,
)
from tests.integration.odd_ftp import FEATURES, OddServer
from tests.integration.relaying import certificate, server_context

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.options import build
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.testing.depots import volume
from aftersend.testing.transports import assert_told
from aftersend.transports import ftp
from aftersend.transports.ftp import OVERLAP, session

DATA = b'{"id":"01890a5d-ac96-774b-bcce-b302099a8057","type":"email.opened"}\n' * 150_000
LOGGED = "xferlog_enable=YES\nxferlog_std_format=NO\nlog_ftp_protocol=YES\nvsftpd_log_file={}/ftp.log\n"

needs_vsftpd = pytest.mark.server("vsftpd")
made: list[ftp.Transport] = []


@pytest.fixture(autouse=True)
async def closed() -> AsyncIterator[None]:
    """No test leaves a connection."""
    yield
    for transport in made:
        await transport.close()
    made.clear()


def depot(port: int, path: str = "", *, scheme: str = "ftp", **options: Any) -> ftp.Transport:
    options = {"user": "anonymous", "password": Secret(PASSWORD), "egress": LOOPBACK} | options
    made.append(ftp.Transport(url=f"{scheme}://localhost:{port}{path}", **options))
    return made[-1]


def secure_depot(server: FileServer, manner: str, **options: Any) -> ftp.Transport:
    options = {"ca": authority(server), "tls": "implicit" if manner == "implicit" else "auto"} | options
    return depot(server.port, scheme="ftps", **options)


def commands(server: FileServer) -> list[str]:
    """What vsftpd was told."""
    lines = (server.home / "ftp.log").read_text(errors="replace").splitlines()
    return [line.rpartition('"')[0].rpartition('"')[2] for line in lines if "FTP command" in line]


# --- a real server


@pytest.mark.server("vsftpd", "curl", "lftp")
@pytest.mark.parametrize("manner", ["", "explicit", "implicit"])
async def test_other_clients_see_a_file_when_it_is_whole(programs: dict[str, str], tmp_path: Path, manner: str) -> None:
    more = "anon_max_rate=12000000\nforce_dot_files=YES\n"
    async with vsftpd(programs["vsftpd"], tmp_path, tls=manner, more=more) as server:
        transport = secure_depot(server, manner) if manner else depot(server.port)
        under_way = asyncio.create_task(transport.put(volume(tmp_path, "events-1.json", DATA)))
        while not any(server.files().values()):
            await asyncio.sleep(0.01)
        there = f"{'ftps' if manner == 'implicit' else 'ftp'}://localhost:{server.port}/"
        words, settings = ["-sS", "--user", f"anonymous:{PASSWORD}"], "set ftp:ssl-allow no"
        if manner:
            (tmp_path / "ca.pem").write_text(authority(server))
            words += ["--ssl-reqd", "--cacert", str(tmp_path / "ca.pem")]
            settings = f"set ssl:ca-file {tmp_path / 'ca.pem'}; set ftp:ssl-force yes"
        _, during = await run(programs["curl"], *words, "--list-only", there)
        assert not under_way.done()
        assert [name[:11] for name in during.split() if name.strip(".")] == [".aftersend-"]
        assert (await under_way).verdict is Verdict.TAKEN
        code, _ = await run(programs["curl"], *words, "-o", str(tmp_path / "fetched"), f"{there}events-1.json")
        assert code == 0
        assert (tmp_path / "fetched").read_bytes() == DATA
        login = f"open -u anonymous,{shlex.quote(PASSWORD)} {there}"
        code, text = await run(programs["lftp"], "--norc", "-c", f"{settings}; {login}; cls -B")
        assert (code, text.split()) == (0, ["events-1.json"]), text


@needs_vsftpd
@pytest.mark.parametrize("manner", ["", "explicit"])
async def test_an_upload_that_was_cut_goes_on_where_it_stopped(
    programs: dict[str, str], tmp_path: Path, manner: str
) -> None:
    whole = volume(tmp_path, "events-1.json", DATA)
    more = "anon_max_rate=16000000\n" + LOGGED.format(tmp_path / "vsftpd")
    async with vsftpd(programs["vsftpd"], tmp_path, tls=manner, more=more) as server:
        transport = secure_depot(server, manner) if manner else depot(server.port)
        under_way = asyncio.create_task(transport.put(whole))
        while sum(map(len, server.files().values())) < 3 * OVERLAP:
            await asyncio.sleep(0.01)
        await server.kill()
        outcome = await under_way
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        [(name, half)] = server.files().items()
        assert name.startswith(".aftersend-")
        assert DATA.startswith(half)
        await server.start()
        assert (await transport.put(whole)).verdict is Verdict.TAKEN
        assert server.files() == {"events-1.json": DATA}
        assert f"REST {len(half) - OVERLAP}" in commands(server)


@needs_vsftpd
async def test_a_connection_is_kept_for_many_files_and_let_go_when_idle(
    programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp, "IDLE_LIMIT", 0.2)
    more = LOGGED.format(tmp_path / "vsftpd")
    async with vsftpd(programs["vsftpd"], tmp_path, tls="explicit", more=more) as server:
        transport = secure_depot(server, "explicit")
        for number in range(10):
            outcome = await transport.put(volume(tmp_path, f"{number}.json", b"[]"))
            assert outcome.verdict is Verdict.TAKEN, outcome
        assert commands(server).count("USER anonymous") == 1
        await asyncio.sleep(0.4)
        assert transport._kept._connection is None
        assert (await transport.put(volume(tmp_path, "a.json", b"[]"))).verdict is Verdict.TAKEN
        assert commands(server).count("USER anonymous") == 2


@needs_vsftpd
async def test_a_server_that_was_restarted_between_two_files_is_logged_in_to_again(
    programs: dict[str, str], tmp_path: Path
) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path) as server:
        transport = depot(server.port)
        for name in ("a.json", "b.json"):
            assert (await transport.put(volume(tmp_path, name, b"[]"))).verdict is Verdict.TAKEN
            await server.kill()
            await server.start()
        assert len(server.files()) == 2


@needs_vsftpd
async def test_vsftpd_wants_the_session_of_the_control_connection_and_gets_it(
    programs: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path, tls="explicit") as server:
        assert (await secure_depot(server, "explicit").probe()).verdict is Verdict.TAKEN
        monkeypatch.setattr(session, "tls_object", lambda writer: None)
        outcome = await secure_depot(server, "explicit").probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.status == 522
        assert "session reuse required" in outcome.detail
        assert_told(outcome)


@needs_vsftpd
async def test_a_wrong_password_is_told_without_it(programs: dict[str, str], tmp_path: Path) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path) as server:
        transport = depot(server.port, password=Secret("hunter4-wrong"))
        for outcome in (await transport.probe(), await transport.put(volume(tmp_path, "a.json", b"[]"))):
            assert outcome.verdict is Verdict.FAILED
            assert outcome.status == 530
            assert outcome.detail == "login: answered 530: Login incorrect."


@needs_vsftpd
@pytest.mark.parametrize("manner", ["explicit", "implicit"])
async def test_a_certificate_for_another_name_is_refused(programs: dict[str, str], tmp_path: Path, manner: str) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path, tls=manner, name="files.example") as server:
        outcome = await secure_depot(server, manner).probe()
        assert outcome.verdict is Verdict.FAILED
        assert "TLS: Hostname mismatch" in outcome.detail
        assert_told(outcome)


@needs_vsftpd
@pytest.mark.parametrize("manner", ["explicit", "implicit"])
async def test_a_certificate_of_an_unknown_authority_is_refused(
    programs: dict[str, str], tmp_path: Path, manner: str
) -> None:
    other = certificate(tmp_path, "localhost").read_text().partition("-----BEGIN PRIVATE")[0]
    async with vsftpd(programs["vsftpd"], tmp_path, tls=manner) as server:
        for ca in (other, ""):
            outcome = await secure_depot(server, manner, ca=ca).probe()
            assert outcome.verdict is Verdict.FAILED
            assert "TLS: self-signed certificate" in outcome.detail


@needs_vsftpd
async def test_a_server_without_tls_gets_no_password(programs: dict[str, str], tmp_path: Path) -> None:
    more = LOGGED.format(tmp_path / "vsftpd")
    async with vsftpd(programs["vsftpd"], tmp_path, more=more) as server:
        outcome = await depot(server.port, scheme="ftps").probe()
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith("AUTH TLS: answered 530")
        assert commands(server) == ["AUTH TLS"]


@needs_vsftpd
async def test_a_folder_that_is_read_only_or_missing_is_told(programs: dict[str, str], tmp_path: Path) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path, more="write_enable=NO\n") as server:
        for outcome in (
            await depot(server.port).probe(),
            await depot(server.port).put(volume(tmp_path, "a.json", b"[]")),
        ):
            assert (outcome.verdict, outcome.status) == (Verdict.FAILED, 550)
            assert outcome.detail == "upload: answered 550: Permission denied."
        outcome = await depot(server.port, "/nowhere").probe()
        assert outcome.detail == "folder nowhere: answered 550: Failed to change directory."


@needs_vsftpd
async def test_files_go_to_the_folder_that_is_named(programs: dict[str, str], tmp_path: Path) -> None:
    async with vsftpd(programs["vsftpd"], tmp_path) as server:
        (server.folder / "out" / "é box").mkdir(parents=True)
        for path in ("/out/%C3%A9%20box", "/~/out/é%20box/", f"/{server.folder}/out/%C3%A9%20box"):
            transport = depot(server.port, path)
            outcome = await transport.put(volume(tmp_path, f"{len(path)}.json", b"[]"))
            assert outcome.verdict is Verdict.TAKEN, outcome
        assert len(list((server.folder / "out" / "é box").iterdir())) == 3


@pytest.mark.server("vsftpd")
@pytest.mark.skipif(not can_unshare(), reason="this user cannot mount a small disk (unshare --user --mount)")
async def test_a_full_disk_over_there_is_told_and_outlived(programs: dict[str, str], tmp_path: Path) -> None:
    whole = volume(tmp_path, "events-1.json", DATA)
    async with (
        small_disk(tmp_path / "vsftpd-files", 5) as disk,
        vsftpd(programs["vsftpd"], tmp_path, wrapped=disk.within) as server,
    ):
        server.folder = disk.seen
        transport = depot(server.port)
        outcome = await transport.put(whole)
        assert (outcome.verdict, outcome.status) == (Verdict.FAILED, 451)
        assert outcome.detail == "upload: answered 451: Failure writing to local file."
        assert "events-1.json" not in server.files()
        await disk.grow()
        assert (await transport.put(whole)).verdict is Verdict.TAKEN
        assert server.files() == {"events-1.json": DATA}


# --- odd servers


async def put(server: OddServer, tmp_path: Path, data: bytes = b"[1]", **options: Any) -> Outcome:
    async with asyncio.timeout(8):
        return await depot(server.port, **options).put(volume(tmp_path, "a.json", data))


@pytest.mark.parametrize("address", ["169.254.169.254", "127.0.0.2", "8.8.8.8", "0.0.0.0"])
async def test_data_goes_to_the_control_connections_host_whatever_address_is_named(
    tmp_path: Path, address: str
) -> None:
    odd = OddServer({"EPSV": b"502 no\r\n"})
    odd.answers["PASV"] = lambda: odd.passive(address)
    async with odd.running() as server:
        assert (await put(server, tmp_path)).verdict is Verdict.TAKEN
        assert server.files == {"a.json": b"[1]"}
        assert sum(peer.get_extra_info("sockname")[0] == "127.0.0.1" for peer in server.peers) == 2


@pytest.mark.parametrize("port", [22, 25, 0, 65_536])
async def test_a_port_of_another_service_is_not_connected_to(tmp_path: Path, port: int) -> None:
    async with OddServer({"EPSV": f"229 go (|||{port}|)\r\n".encode()}).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.verdict is Verdict.FAILED
        assert "no port from 1024 on" in outcome.detail
        assert_told(outcome)


async def test_a_data_port_where_nobody_listens_is_told(tmp_path: Path) -> None:
    nobody = free_port()
    answers = {"EPSV": f"229 go (|||{nobody}|)\r\n".encode(), "PASV": b"502 no\r\n"}
    async with OddServer(answers).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith(("data connection: ", "PASV: "))


async def test_a_file_that_cannot_be_replaced_is_deleted_first(tmp_path: Path) -> None:
    async with OddServer(replaces=False).running() as server:
        for data in (b"first", b"second"):
            assert (await put(server, tmp_path, data)).verdict is Verdict.TAKEN
        assert server.files == {"a.json": b"second"}
        assert [line for line in server.told if line.startswith("DELE")] == ["DELE a.json"]


@pytest.mark.parametrize("answers", [{"RNFR": b"550 may not\r\n"}, {"RNTO": b"450 not now\r\n"}])
async def test_a_file_is_not_deleted_where_renaming_itself_fails(tmp_path: Path, answers: dict[str, bytes]) -> None:
    async with OddServer(answers, files={"a.json": bytearray(b"before")}).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith("renaming to a.json: answered ")
        assert server.files["a.json"] == b"before"


@pytest.mark.parametrize(
    "answers",
    [
        {"REST": b"501 no\r\n"},
        {"FEAT": b"500 what?\r\n"},
        {"FEAT": FEATURES.replace(b" REST STREAM\r\n", b"")},
    ],
)
async def test_a_server_that_cannot_go_on_gets_the_file_anew(
    tmp_path: Path, answers: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp, "OVERLAP", 1)
    whole = volume(tmp_path, "a.json", b"0123456789")
    part = whole.hidden_name
    async with OddServer(answers, files={part: bytearray(b"01234")}).running() as server:
        assert (await depot(server.port).put(whole)).verdict is Verdict.TAKEN
        assert server.files == {"a.json": b"0123456789"}
        assert f"DELE {part}" in server.told


async def test_a_restart_that_is_refused_at_the_upload_gets_the_file_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ftp, "OVERLAP", 1)
    whole = volume(tmp_path, "a.json", b"0123456789")

    class Proud(OddServer):
        async def _do_stor(self, name: str) -> bytes:
            if self._start:
                self._start = 0
                return b"451 Restart not permitted\r\n"
            return await super()._do_stor(name)

    async with Proud(files={whole.hidden_name: bytearray(b"01234")}).running() as server:
        assert (await depot(server.port).put(whole)).verdict is Verdict.TAKEN
        assert server.files == {"a.json": b"0123456789"}


async def test_a_half_file_that_is_too_long_is_not_gone_on_with(tmp_path: Path) -> None:
    whole = volume(tmp_path, "a.json", b"0123456789")
    async with OddServer(files={whole.hidden_name: bytearray(b"x" * 11)}).running() as server:
        assert (await depot(server.port).put(whole)).verdict is Verdict.TAKEN
        assert server.files == {"a.json": b"0123456789"}


async def test_a_server_that_keeps_another_size_is_not_believed(tmp_path: Path) -> None:
    async with OddServer({"SIZE": b"213 2\r\n"}).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail == "upload: the server has 2 of 3 bytes"
        assert "a.json" not in server.files


async def test_a_server_without_sizes_is_believed(tmp_path: Path) -> None:
    async with OddServer({"SIZE": b"500 what?\r\n"}).running() as server:
        assert (await put(server, tmp_path)).verdict is Verdict.TAKEN


async def test_what_is_said_instead_of_an_upload_is_told(tmp_path: Path) -> None:
    async with OddServer({"STOR": b"452 no room\r\n"}).running() as server:
        outcome = await put(server, tmp_path)
        assert (outcome.status, outcome.detail) == (452, "upload: answered 452: no room")


async def test_a_login_that_needs_no_password_is_one(tmp_path: Path) -> None:
    async with OddServer({"USER": b"230 come in\r\n"}).running() as server:
        assert (await put(server, tmp_path, user="somebody", password=None)).verdict is Verdict.TAKEN
    async with OddServer().running() as server:
        outcome = await put(server, tmp_path, user="somebody", password=None)
        assert outcome.detail == "login: the server asks for a password; set the option password"


async def test_a_password_that_is_echoed_is_masked(tmp_path: Path) -> None:
    echo = f"530-no\r\n530 user anonymous password {PASSWORD} \x1b[31m wrong\r\n".encode()
    async with OddServer({"PASS": echo}).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.detail == "login: answered 530: user anonymous password ******** [31m wrong"


@pytest.mark.parametrize(
    ("greeting", "after"), [(b"120 Service ready in 007 minutes.\r\n", 420.0), (b"421 too many\r\n", None)]
)
async def test_a_server_that_says_when_it_is_ready_is_left_alone_until_then(
    tmp_path: Path, greeting: bytes, after: float | None
) -> None:
    async with OddServer(greeting=greeting).running() as server:
        outcome = await put(server, tmp_path)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.retry_after == after
        assert server.told == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_every_data_connection_resumes_the_session(tmp_path: Path, version: ssl.TLSVersion) -> None:
    pem = certificate(tmp_path, "localhost")
    context = server_context(pem)
    context.minimum_version = context.maximum_version = version
    async with OddServer(tls=context).running() as server:
        ca = pem.read_text().partition("-----BEGIN PRIVATE")[0]
        transport = depot(server.port, scheme="ftps", tls="implicit", ca=ca)
        for number in range(4):
            outcome = await transport.put(volume(tmp_path, f"{number}.json", b"[1]"))
            assert outcome.verdict is Verdict.TAKEN, outcome
        assert server.resumed == [True] * 4
        assert server.told.count("USER anonymous") == 1


# --- noise and silence


@pytest.mark.parametrize(
    ("greeting", "told"),
    [
        (b"", "greeting: no answer within 0.4 s"),
        (b"220-welcome\r\n", "greeting: no answer within 0.4 s"),
        (b"220-welcome\r\n" * 100_000, "greeting: a reply of more than 100 lines came back"),
        (b"220 " + b"x" * 10_000_000, "greeting: a line of more than 4096 bytes came back"),
        (b"220 " + b"x" * 5_000 + b"\r\n", "greeting: a line of more than 4096 bytes came back"),
        (b"SSH-2.0-OpenSSH\r\n", "greeting: what came back is not FTP: SSH-2.0-OpenSSH"),
        (b"\xff\xfe\x00\r\n", "greeting: what came back is not FTP: "),
        (b"999 what\r\n", "greeting: what came back is not FTP: 999 what"),
    ],
)
async def test_noise_and_silence_end_in_one_line(tmp_path: Path, greeting: bytes, told: str) -> None:
    async with OddServer(greeting=greeting).running() as server:
        outcome = await put(server, tmp_path, timeout=0.4)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith(told)
        assert_told(outcome)


@pytest.mark.parametrize("command", ["USER", "PASS", "FEAT", "TYPE", "SIZE", "EPSV", "STOR", "RNFR", "RNTO"])
async def test_silence_ends_at_every_step(tmp_path: Path, command: str) -> None:
    async with OddServer({command: b""}).running() as server:
        outcome = await put(server, tmp_path, timeout=0.3)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.endswith("no answer within 0.3 s")


async def test_a_reply_that_drips_does_not_hold_for_ever(tmp_path: Path) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"2")
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with asyncio.timeout(3):
        outcome = await depot(server.sockets[0].getsockname()[1], timeout=0.5).probe()
    assert outcome.detail == "greeting: no answer within 0.5 s"
    server.close()
    await asyncio.sleep(0.1)


async def test_a_server_that_takes_no_data_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    stuck = OddServer()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stuck.peers.append(writer)
        await asyncio.sleep(5)

    stuck._receive = hold  # type: ignore[method-assign]
    async with stuck.running() as server:
        outcome = await put(server, tmp_path, DATA * 3, timeout=0.5)
        assert outcome.detail == "upload: the server took nothing within 0.5 s"
        assert "a.json" not in server.files


async def test_what_is_slipped_in_before_tls_is_not_heard(tmp_path: Path) -> None:
    """A stranger on the way may put replies behind the one to AUTH TLS; none of them counts once TLS has begun."""
    slipped = b"234 go\r\n230 you are in\r\n230 you are in\r\n"
    async with OddServer({"AUTH": slipped}).running() as server:
        outcome = await put(server, tmp_path, tls="explicit", timeout=0.5)
        assert outcome.verdict is Verdict.FAILED
        assert outcome.detail.startswith("AUTH TLS: ")
        assert not any(line.startswith(("USER", "PASS")) for line in server.told)


@pytest.mark.parametrize("answer", [b"500 what?\r\n", b"234", b"421 bye\r\n"])
async def test_without_tls_nothing_is_said_in_the_clear(tmp_path: Path, answer: bytes) -> None:
    async with OddServer({"AUTH": answer}).running() as server:
        outcome = await put(server, tmp_path, tls="explicit", timeout=0.5)
        assert outcome.verdict is Verdict.FAILED
        assert server.told == ["AUTH TLS"]


async def test_nobody_there_is_told() -> None:
    outcome = await depot(free_port()).probe()
    assert outcome.verdict is Verdict.FAILED
    assert not outcome.ours
    assert outcome.detail.startswith("connect: ")


# --- options


async def test_addresses_are_judged_before_anything_is_sent() -> None:
    with pytest.raises(EgressError):
        ftp.Transport(url="ftp://169.254.169.254", user="u", password=Secret("p"), egress=Egress())

    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    transport = ftp.Transport(url="ftp://files.example", user="u", password=Secret("p"), egress=Egress(lookup=lookup))
    outcome = await transport.probe()
    assert outcome.ours
    assert outcome.detail.startswith("refused: files.example leads to 127.0.0.1")


@pytest.mark.parametrize(
    ("scheme", "port", "tls", "manner"),
    [
        ("ftp", "", "auto", ""),
        ("ftp", "", "explicit", "explicit"),
        ("ftps", "", "auto", "implicit"),
        ("ftps", ":990", "auto", "implicit"),
        ("ftps", ":21", "auto", "explicit"),
        ("ftps", ":2121", "implicit", "implicit"),
    ],
)
def test_the_url_says_how_tls_begins(scheme: str, port: str, tls: Any, manner: str) -> None:
    place = ftp.Transport(url=f"{scheme}://localhost{port}", user="u", tls=tls, egress=LOOPBACK)._place
    assert (place.context is not None, place.implicit) == (bool(manner), manner == "implicit")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"user": ""}, "user: "),
        ({"user": "a\r\nDELE x"}, "user: "),
        ({"password": Secret("a\r\nDELE x")}, "password: "),
        ({"path": "/a%0d%0aDELE%20x"}, "url: "),
        ({"path": "/a%FFb"}, "url: "),
        ({"path": "/a?b"}, "url: "),
        ({"timeout": 301}, "timeout: "),
        ({"ca": "x"}, "ca: this connection is without TLS"),
        ({"ca": "x", "tls": "explicit"}, "ca: certificates in PEM"),
    ],
)
def test_options_that_cannot_be_used_are_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        depot(21, **options)
    assert str(caught.value).startswith(told)
    assert str(caught.value).isprintable()


def test_nobody_is_anonymous_by_oversight() -> None:
    with pytest.raises(ConfigurationError, match="user is missing"):
        build(ftp.Transport, {"url": "ftp://localhost"}, "ftp", {"egress": LOOPBACK})


async def test_a_name_that_is_none_is_our_own_fault(tmp_path: Path) -> None:
    for name in ("../a.json", "a\r\nDELE b", ".hidden", "a b", ""):
        outcome = await depot(21).put(volume(tmp_path, name, b"[]"))
        assert outcome.verdict is Verdict.FAILED
        assert outcome.ours
        assert_told(outcome)

"""The HTTP transport against real servers on this machine, the ill-behaved ones included."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import standardwebhooks
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from multidict import CIMultiDict
from yarl import URL

from aftersend import __version__
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.options import options_of
from aftersend.core.outcome import Acknowledgement, Outcome, Parcel, Verdict
from aftersend.core.secret import Secret
from aftersend.core.signing import Verifier, format_private_key, format_secret, public_key
from aftersend.core.timestamps import SECOND
from aftersend.egress import Egress
from aftersend.testing.transports import OtherSide, TransportSuite, assert_told
from aftersend.transports import http
from aftersend.transports.http import HttpClient, Transport

LOOPBACK = Egress.read(["127.0.0.0/8"])
PARCEL = Parcel("batch-1", b'[{"id":"1"}]', "application/json", (("aftersend-epoch", "1"),))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Reads whole requests, keeps them, and answers each as it was told."""

    def __init__(self, answer: bytes | Answer = OK) -> None:
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    tls: ssl.SSLContext | None = None

    async def __aexit__(self, *_: object) -> None:
        await self.vanish()

    async def vanish(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?x=1"

    async def bodies(self) -> list[bytes]:
        return [body for _, _, body in self.requests]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while not reader.at_eof():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
                body = await reader.readexactly(int(headers["content-length"]))
                self.requests.append((head[0], headers, body))
                await self._answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        if isinstance(self.answer, bytes):
            writer.write(self.answer)
        else:
            await self.answer(writer)
        await writer.drain()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient(LOOPBACK)
    yield made
    await made.close()


def endpoint(client: HttpClient, url: str, **options: Any) -> Transport:
    return Transport(client=client, clock=options.pop("clock", time.time_ns), url=url, **options)


def said(status: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def outcome_of(client: HttpClient, answer: bytes | Answer, **options: Any) -> Outcome:
    async with Server(answer) as server:
        return await endpoint(client, server.url, **options).send(PARCEL)


class TestHttp(TransportSuite):
    module = http

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[OtherSide]:
        client = HttpClient(LOOPBACK)
        try:
            async with Server() as server:
                yield OtherSide(endpoint(client, server.url), server.bodies, server.vanish)
        finally:
            await client.close()


async def test_a_request_says_what_it_is(client: HttpClient) -> None:
    async with Server() as server:
        transport = endpoint(client, server.url, headers={"Authorization": Secret("Bearer x"), "X-Team": "a"})
        assert await transport.send(PARCEL) == Outcome(Verdict.TAKEN, status=200)
    line, headers, body = server.requests[0]
    assert line == "POST /hook?x=1 HTTP/1.1"
    assert body == PARCEL.body
    assert headers["host"] == f"127.0.0.1:{server.port}"
    assert headers["user-agent"] == f"aftersend/{__version__}"
    assert headers["content-type"] == "application/json"
    assert headers["aftersend-epoch"] == "1"
    assert headers["authorization"] == "Bearer x"
    assert headers["x-team"] == "a"
    assert headers["webhook-id"] == "batch-1"
    assert "webhook-signature" not in headers


async def test_signatures_verify_with_the_reference_library_while_keys_rotate(client: HttpClient) -> None:
    new, old, foreign = (format_secret(bytes([number]) * 32) for number in range(3))
    asymmetric = format_private_key(b"s" * 32)
    async with Server() as server:
        secrets = tuple(Secret(text) for text in (asymmetric, new, old))
        await endpoint(client, server.url, signing_secrets=secrets).send(PARCEL)
    _, headers, body = server.requests[0]
    hmac_only = {**headers, "webhook-signature": headers["webhook-signature"].partition(" ")[2]}
    for secret in (new, old):
        assert standardwebhooks.Webhook(secret).verify(body, headers) == [{"id": "1"}]
        assert standardwebhooks.Webhook(secret).verify(body, hmac_only) == [{"id": "1"}]
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(foreign).verify(body, headers)
    Verifier([public_key(asymmetric)]).verify(headers, body, int(time.time()))


async def test_each_attempt_has_its_own_timestamp_and_the_same_id(client: HttpClient) -> None:
    times = iter([1_700_000_000 * SECOND + 999, 1_700_000_030 * SECOND])
    async with Server() as server:
        transport = endpoint(client, server.url, clock=lambda: next(times))
        for _ in range(2):
            await transport.send(PARCEL)
    assert [headers["webhook-timestamp"] for _, headers, _ in server.requests] == ["1700000000", "1700000030"]
    assert {headers["webhook-id"] for _, headers, _ in server.requests} == {"batch-1"}


async def test_connections_are_kept(client: HttpClient) -> None:
    async with Server() as server:
        transport = endpoint(client, server.url)
        for _ in range(5):
            await transport.send(PARCEL)
    assert server.connections == 1


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.TAKEN) for status in (200, 201, 202, 204, 299)),
        *((status, Verdict.REFUSED) for status in (400, 422)),
        (413, Verdict.TOO_LARGE),
        (410, Verdict.GONE),
        *((status, Verdict.FAILED) for status in (300, 301, 302, 303, 304, 307, 308, 101)),
        *((status, Verdict.FAILED) for status in (401, 402, 403, 404, 405, 406, 408, 409, 425, 429, 451, 499)),
        *((status, Verdict.FAILED) for status in (500, 501, 502, 503, 504, 599)),
    ],
)
async def test_a_status_has_its_meaning(client: HttpClient, status: int, verdict: Verdict) -> None:
    outcome = await outcome_of(client, said(f"{status} Whatever"))
    assert (outcome.verdict, outcome.status, outcome.ours) == (verdict, status, False)
    assert bool(outcome.detail) == (verdict is not Verdict.TAKEN)


async def test_a_refusal_is_told_with_what_the_other_side_said(client: HttpClient) -> None:
    outcome = await outcome_of(client, said("503 No", b"  <p>Down\r\n\x1b[31mfor\x00 repair</p>" + b"x" * 500))
    assert outcome.detail.startswith("answered 503: <p>Down [31mfor repair</p>xxx")
    assert_told(outcome)
    assert len(outcome.detail) < 220


async def test_an_echoed_secret_is_masked(client: HttpClient) -> None:
    headers = {"Authorization": Secret("Bearer hush-hush")}
    outcome = await outcome_of(client, said("403 No", b"you sent Bearer hush-hush"), headers=headers)
    assert outcome.detail == "answered 403: you sent ********"


async def test_a_redirect_is_not_followed(client: HttpClient) -> None:
    async with Server() as elsewhere:
        target = f"Location: {elsewhere.url}"
        for status in ("301", "302", "303", "307", "308"):
            outcome = await outcome_of(client, said(f"{status} Moved", b"", target))
            assert outcome.verdict is Verdict.FAILED
            assert outcome.detail == f"answered {status}, redirecting to {elsewhere.url} (never followed)"
    assert elsewhere.requests == []


@pytest.mark.parametrize(
    ("acknowledgement", "answer", "verdict"),
    [
        (Acknowledgement(body="OK"), said("200 x", b"it is OK"), Verdict.TAKEN),
        (Acknowledgement(body=".*OK.*"), said("200 x", b'{\n"status":"OK"\n}'), Verdict.TAKEN),
        (Acknowledgement(body="OK"), said("200 x", b"<html>login</html>"), Verdict.REFUSED),
        (Acknowledgement(body="OK"), said("200 x"), Verdict.REFUSED),
        (Acknowledgement("200"), said("200 x"), Verdict.TAKEN),
        (Acknowledgement("200"), said("204 x"), Verdict.REFUSED),
        (Acknowledgement("200", "OK"), said("202 x", b"OK"), Verdict.REFUSED),
        (Acknowledgement("302"), said("302 x"), Verdict.TAKEN),
        (Acknowledgement("200"), said("500 x"), Verdict.FAILED),
        (Acknowledgement(body="OK"), said("500 x", b"OK"), Verdict.FAILED),
    ],
)
async def test_taken_is_what_the_vendor_calls_taken(
    client: HttpClient, acknowledgement: Acknowledgement, answer: bytes, verdict: Verdict
) -> None:
    outcome = await outcome_of(client, answer, acknowledgement=acknowledgement)
    assert outcome.verdict is verdict, outcome


@pytest.mark.parametrize(
    ("answer", "verdict", "failed"),
    [
        (said("200 x", b'{"failed":["a","b"]}'), Verdict.PARTLY, ("a", "b")),
        (said("207 x", b' {"taken": 3, "failed": [{"id": "a", "why": "no"}]}'), Verdict.PARTLY, ("a",)),
        (said("200 x", b'{"failed":[]}'), Verdict.TAKEN, ()),
        (said("207 x", b'{"failed":[]}'), Verdict.TAKEN, ()),
        (said("200 x", b'{"failed":0}'), Verdict.TAKEN, ()),
        (said("200 x", b'[{"failed":["a"]}]'), Verdict.TAKEN, ()),
        (said("201 x", b'{"failed":["a"]}'), Verdict.TAKEN, ()),
        (said("207 x", b"<multistatus/>"), Verdict.FAILED, ()),
        (said("207 x"), Verdict.FAILED, ()),
        (said("200 x", b'{"failed":["a",7]}'), Verdict.FAILED, ()),
        (said("200 x", b'{"failed":[' + b'"aaaaaaaa",' * 8000 + b'"a"]}'), Verdict.TOO_LARGE, ()),
    ],
)
async def test_a_partial_answer_names_the_events(
    client: HttpClient, answer: bytes, verdict: Verdict, failed: tuple[str, ...]
) -> None:
    outcome = await outcome_of(client, answer)
    assert (outcome.verdict, outcome.failed) == (verdict, failed), outcome


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        ("999999", 86_400.0),
        ("soon", None),
        ("-5", None),
        ("1e9", None),
        ("9" * 30, None),
        (format_datetime(datetime(2026, 2, 1, 0, 1, tzinfo=UTC), usegmt=True), 60.0),
        (format_datetime(datetime(2026, 1, 1, tzinfo=UTC), usegmt=True), 0.0),
        (format_datetime(datetime(2027, 1, 1, tzinfo=UTC), usegmt=True), 86_400.0),
    ],
)
async def test_retry_after_is_understood_in_both_forms(client: HttpClient, text: str, seconds: float | None) -> None:
    now = int(datetime(2026, 2, 1, tzinfo=UTC).timestamp()) * SECOND
    for status in (429, 503, 413):
        outcome = await outcome_of(client, said(f"{status} x", b"", f"Retry-After: {text}"), clock=lambda: now)
        assert outcome.retry_after == seconds


async def drip_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(200):
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


async def drip_interim(writer: asyncio.StreamWriter) -> None:
    for _ in range(200):
        writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def keep_silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(10)


async def flood_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    for number in range(100_000):
        writer.write(b"X-%d: y\r\n" % number)
        await writer.drain()


async def flood_one_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    for _ in range(10_000):
        writer.write(b"y" * 1000)
        await writer.drain()


async def flood_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(10_000):
        writer.write(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
        await writer.drain()


async def reset(writer: asyncio.StreamWriter) -> None:
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()


async def break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nOK")
    await writer.drain()
    writer.close()


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        (drip_headers, "no answer within 0.4 s"),
        (drip_interim, "no answer within 0.4 s"),
        (keep_silent, "no answer within 0.4 s"),
        (drip_body, "answered 200, but the body of the answer did not end within 0.4 s"),
        (flood_headers, "what came back is not HTTP: "),
        (flood_one_header, "what came back is not HTTP: "),
        (hang_up, "the connection was closed before an answer came"),
        (reset, "the connection broke: "),
        (break_off, "answered 200, but the connection broke off within the body of the answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "what came back is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -4\r\n\r\n", "what came back is not HTTP: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nOK", "what came back is not HTTP: "),
    ],
)
async def test_an_ill_behaved_receiver_fails_in_bounded_time(
    client: HttpClient, answer: bytes | Answer, detail: str
) -> None:
    started = time.monotonic()
    outcome = await outcome_of(client, answer, timeout=0.4)
    assert time.monotonic() - started < 1.5
    assert outcome.verdict is Verdict.FAILED
    assert outcome.detail.startswith(detail), outcome
    assert not outcome.ours
    assert_told(outcome)


async def test_a_huge_answer_is_cut_and_its_connection_dropped(client: HttpClient) -> None:
    async with Server(flood_body) as server:
        transport = endpoint(client, server.url, timeout=5.0)
        assert (await transport.send(PARCEL)).verdict is Verdict.TAKEN
        server.answer = OK
        assert (await transport.send(PARCEL)).verdict is Verdict.TAKEN
    assert server.connections == 2


async def test_a_compressed_answer_is_not_unpacked(client: HttpClient) -> None:
    packed = gzip.compress(b'{"failed":["a"]}' + b" " * 10_000_000)
    outcome = await outcome_of(client, said("200 x", packed, "Content-Encoding: gzip"))
    assert outcome.verdict is Verdict.TAKEN, "nothing is read out of it"


async def test_cookies_are_not_kept(client: HttpClient) -> None:
    async with Server(said("200 OK", b"", "Set-Cookie: a=b")) as server:
        transport = endpoint(client, server.url)
        for _ in range(2):
            await transport.send(PARCEL)
    assert all("cookie" not in headers for _, headers, _ in server.requests)


async def test_the_environments_proxy_is_not_used(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server() as proxy, Server() as server:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        made = HttpClient(LOOPBACK)
        assert (await endpoint(made, server.url).send(PARCEL)).verdict is Verdict.TAKEN
        await made.close()
    assert proxy.connections == 0


async def test_a_closed_port_is_told(client: HttpClient) -> None:
    async with Server() as server:
        url = server.url
    outcome = await endpoint(client, url).send(PARCEL)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.detail.startswith("connect: ")
    assert not outcome.ours


async def test_the_address_that_was_judged_is_the_one_connected_to() -> None:
    """A name server that gives a good address first and a bad one afterwards."""
    answers = iter([["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "10.0.0.1"]])
    asked = []

    async def lookup(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    client = HttpClient(Egress(LOOPBACK.allowed, lookup=lookup))
    async with Server(said("200 OK", b"", "Connection: close")) as server:
        transport = endpoint(client, f"http://rebinding.example:{server.port}/")
        assert (await transport.send(PARCEL)).verdict is Verdict.TAKEN
        second = await transport.send(PARCEL)
        third = await transport.send(PARCEL)
    await client.close()
    assert asked == ["rebinding.example"] * 3, "each connection asks once"
    assert server.requests[0][1]["host"] == f"rebinding.example:{server.port}"
    assert server.connections == 1
    assert second == Outcome(
        Verdict.FAILED,
        "refused: rebinding.example leads to 169.254.169.254, which is in 169.254.0.0/16 (link-local, cloud metadata); "
        "allow it with --egress-allow-metadata 169.254.169.254/32",
        ours=True,
    )
    assert "10.0.0.1" in third.detail


async def test_a_literal_address_is_judged_where_it_is_connected_to(client: HttpClient) -> None:
    for host in ("10.1.2.3", "[::ffff:10.1.2.3]", "[::1]", "169.254.169.254"):
        url = URL(f"http://{host}:8080/")
        reply = await client.post(url, CIMultiDict(), b"", aiohttp.ClientTimeout(total=1, sock_connect=1))
        assert reply.fault.startswith("refused: "), reply
        assert reply.ours


@pytest.mark.parametrize(
    ("code", "ours"), [(socket.EAI_NONAME, False), (socket.EAI_AGAIN, True), (socket.EAI_FAIL, True)]
)
async def test_a_name_without_address_is_theirs_and_a_dead_name_server_ours(code: int, ours: bool) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror(code, "what the resolver says")

    client = HttpClient(Egress(lookup=lookup))
    outcome = await endpoint(client, "https://nowhere.example/").send(PARCEL)
    await client.close()
    assert outcome == Outcome(Verdict.FAILED, "name lookup: nowhere.example: what the resolver says", ours=ours)


async def test_no_more_file_handles_is_our_own_fault(client: HttpClient) -> None:
    async with Server() as server:
        transport = endpoint(client, server.url)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            outcome = await transport.send(PARCEL)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (outcome.verdict, outcome.ours) == (Verdict.FAILED, True), outcome
        assert "too many open files" in outcome.detail
        assert (await transport.send(PARCEL)).verdict is Verdict.TAKEN


def certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for this machine, and a server's context with it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("hooks.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return path, context


async def test_tls_is_verified_for_the_name_and_told_in_one_line(tmp_path: Path) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    path, context = certificate(tmp_path)
    egress = Egress(LOOPBACK.allowed, lookup=lookup)
    strict, trusting = HttpClient(egress), HttpClient(egress, tls=ssl.create_default_context(cafile=path))
    server = Server()
    server.tls = context
    async with server, Server() as plain:
        url = f"https://hooks.example:{server.port}/"
        unknown = await endpoint(strict, url).send(PARCEL)
        other_name = await endpoint(trusting, f"https://other.example:{server.port}/").send(PARCEL)
        not_tls = await endpoint(trusting, f"https://hooks.example:{plain.port}/", timeout=0.4).send(PARCEL)
        taken = await endpoint(trusting, url).send(PARCEL)
        await strict.close()
        await trusting.close()
    assert unknown.detail == "TLS: self-signed certificate"
    assert other_name.detail.startswith("TLS: Hostname mismatch")
    assert not_tls.verdict is Verdict.FAILED
    assert taken.verdict is Verdict.TAKEN
    for outcome in (unknown, other_name, not_tls):
        assert_told(outcome)
        assert not outcome.ours


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"},
        {"Content-Length": "1"},
        {"transfer-encoding": "chunked"},
        {"webhook-signature": "x"},
        {"a b": "x"},
        {"": "x"},
        {"X-A": "a\r\nX-B: b"},
        {"X-A": Secret("a\nb")},
        {"X-A": "é"},
    ],
)
async def test_headers_that_would_change_the_request_are_refused(client: HttpClient, headers: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="headers: "):
        endpoint(client, "https://hooks.example/", headers=headers)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0.0},
        {"timeout": 301.0},
        {"acknowledgement": Acknowledgement("3xx")},
        {"acknowledgement": Acknowledgement(body="(a+)+$")},
        {"acknowledgement": Acknowledgement(body="[")},
        {"signing_secrets": (Secret("hush"),)},
        {"signing_secrets": (Secret("whsec_" + b64encode(b"short").decode()),)},
    ],
)
async def test_a_wrong_option_is_told_at_creation(client: HttpClient, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        endpoint(client, "https://hooks.example/", **options)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "ftp://hooks.example/", "https://a:b@hooks.example/", "hooks"])
async def test_a_refused_address_is_told_at_creation(client: HttpClient, url: str) -> None:
    with pytest.raises(EgressError, match="refused: "):
        endpoint(client, url)


async def test_an_id_that_cannot_be_signed_is_our_own_fault(client: HttpClient) -> None:
    transport = endpoint(client, "https://hooks.example/", signing_secrets=(Secret(format_secret(b"k" * 32)),))
    outcome = await transport.send(Parcel("a.b", b"", "text/plain"))
    assert (outcome.verdict, outcome.ours) == (Verdict.FAILED, True)


async def test_options_are_told_with_help_and_secrets_are_masked(client: HttpClient) -> None:
    options = {item.name: item.metadata for item in options_of(Transport)}
    assert list(options) == ["url", "timeout", "headers", "signing_secrets", "acknowledgement"]
    assert [name for name, metadata in options.items() if metadata["secret"]] == ["headers", "signing_secrets"]
    secret = format_secret(b"k" * 32)
    transport = endpoint(client, "https://hooks.example/", signing_secrets=(Secret(secret),))
    assert secret not in repr(transport)

"""The NATS transport against a real server."""

from __future__ import annotations

import asyncio
import base64
import ssl
from binascii import crc_hqx
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from nats.js.api import DiscardPolicy
from tests.integration.nats_server import Server, server
from tests.integration.relaying import certificate

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.testing.pieces import PieceSuite, Queue, ids, parcel_of, piece
from aftersend.testing.transports import assert_told
from aftersend.transports import nats
from aftersend.transports.nats import Transport

LISTED = Egress.read(["127.0.0.0/8"], brokers=["127.0.0.1", "localhost", "nats.example.com"])
TAKEN = Outcome(Verdict.TAKEN)
LOGIN = 'authorization { user: ann, password: "hunter2" }'
ANN = {"user": "ann", "password": Secret("hunter2")}


def transport(url: str, **options: Any) -> Transport:
    return Transport(url=url, egress=LISTED, **{"tls": False, "timeout": 5.0, **options})


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Transport]:
    made = transport(url, **options)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Server]:
    async with server(tmp_path) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


class TestNats(PieceSuite):
    module = nats
    large = 1_000_000
    too_large = 1_048_576

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Queue]:
        async with server(self.folder, LOGIN, user="ann", password="hunter2") as made:
            await made.add()
            async with opened(made.url, **ANN) as transport_:
                yield Queue(transport_, made.arrived, made.stop, secrets=("hunter2",))


async def test_the_stream_drops_what_is_told_again(running: Server) -> None:
    await running.add()
    pieces = [piece(number) for number in range(50)]
    async with opened(running.url) as transport_:
        for _ in range(3):
            assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert ids(await running.arrived()) == [one.id for one in pieces]


async def test_an_unused_connection_is_closed_and_made_anew(running: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await running.add()
    monkeypatch.setattr(nats, "IDLE_LIMIT", -4.8)
    async with opened(running.url, timeout=5.0) as transport_:
        for number in range(2):
            assert await transport_.send(parcel_of([piece(number)])) == TAKEN
            session = transport_._session
            assert session is not None
            await asyncio.sleep(0.4)
            assert session.client.is_closed
    assert len(await running.arrived()) == 2


async def test_the_subject_names_the_type(running: Server) -> None:
    await running.add("clicks", ["mail.*.clicked"])
    async with opened(running.url, subject="mail.{type}") as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == TAKEN
    assert len(await running.arrived("clicks")) == 1


async def test_a_type_that_can_be_no_subject_is_refused_and_writes_no_command_of_its_own(running: Server) -> None:
    await running.add()
    types = ["email.clicked", "a b", "x 0\r\nPUB events.y 0\r\n\r\nPUB z", "", "*", "email.opened"]
    pieces = [msgspec.structs.replace(piece(number), type=one) for number, one in enumerate(types)]
    async with opened(running.url) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
    assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, tuple(one.id for one in pieces[1:5]))
    assert_told(outcome)
    assert ids(await running.arrived()) == [pieces[0].id, pieces[5].id]


async def test_a_server_killed_amid_a_parcel_and_started_again_has_every_event_once(running: Server) -> None:
    await running.add()
    pieces = [piece(number, b"x" * 2_000, f"key {number % 5}") for number in range(1_000)]
    async with opened(running.url) as transport_:
        async with running.passed(300):
            task = asyncio.create_task(transport_.send(parcel_of(pieces)))
        await running.stop()
        outcome = await task
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        assert (await transport_.send(parcel_of(pieces))).verdict is Verdict.FAILED
        await running.start()
        before = len(await running.arrived())
        assert 0 < before < 1_000
        # As after a crash of ours, everything is told again.
        async with opened(running.url) as another:
            assert await another.send(parcel_of(pieces)) == TAKEN
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert ids(await running.arrived()) == [one.id for one in pieces]


async def test_a_full_stream_is_a_failure_told_and_gets_the_rest_when_it_has_room(running: Server) -> None:
    await running.add(max_msgs=30, discard=DiscardPolicy.NEW)
    pieces = [piece(number) for number in range(50)]
    async with opened(running.url) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
        assert (outcome.verdict, outcome.detail) == (Verdict.FAILED, "maximum messages exceeded")
        assert ids(await running.arrived()) == [one.id for one in pieces[:30]]
        await running.purge()
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert ids(await running.arrived()) == [one.id for one in pieces[30:]]


async def test_a_message_that_the_stream_will_not_have_is_the_only_one_refused(running: Server) -> None:
    await running.add(max_msg_size=500)
    pieces = [piece(1), piece(2, b"x" * 1_000), piece(3)]
    async with opened(running.url) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
    assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[1].id,))
    assert "maximum" in outcome.detail
    assert ids(await running.arrived()) == [pieces[0].id, pieces[2].id]


async def test_without_a_stream_nothing_is_taken_and_the_look_says_so(running: Server) -> None:
    async with opened(running.url) as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == Outcome(Verdict.FAILED, "no stream keeps this subject")
        assert "no stream keeps the subject events.email.delivered" in (await transport_.probe()).detail


async def test_another_stream_than_the_named_one_gets_nothing(running: Server) -> None:
    await running.add("other")
    async with opened(running.url, stream="events") as transport_:
        assert (await transport_.send(parcel_of([piece(1)]))).verdict is Verdict.FAILED
        assert "other" in (await transport_.probe()).detail
    assert await running.arrived("other") == []


async def test_a_wrong_password_is_told_without_it(folder: Path) -> None:
    wrong = {"user": "ann", "password": Secret("wrong-one")}
    async with server(folder, LOGIN) as made, opened(made.url, **wrong) as transport_:
        for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
            assert "Authorization" in outcome.detail
            assert "wrong-one" not in outcome.detail


async def test_a_token_logs_in(folder: Path) -> None:
    async with server(folder, 'authorization { token: "hunter2" }', token="hunter2") as made:
        await made.add()
        async with opened(made.url, token=Secret("hunter2")) as transport_:
            assert await transport_.send(parcel_of([piece(1)])) == TAKEN


async def test_a_server_that_says_nothing_is_a_failure_in_time() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        async with opened(f"nats://127.0.0.1:{port}", timeout=0.5) as transport_:
            outcome = await transport_.send(parcel_of([piece(1)]))
    assert outcome.verdict is Verdict.FAILED
    assert_told(outcome)


# --- encryption


async def test_an_encrypted_connection_verifies_the_name(folder: Path) -> None:
    pem = certificate(folder, "localhost")
    tls = f'tls {{ cert_file: "{pem}", key_file: "{pem}" }}'
    context = ssl.create_default_context(cafile=str(pem))
    async with server(folder, tls, tls=context, tls_hostname="localhost") as made:
        await made.add()
        named = {"tls": True, "ca": pem.read_text()}
        async with opened(f"nats://localhost:{made.port}", **named) as transport_:
            assert await transport_.send(parcel_of([piece(1)])) == TAKEN
        for url, options in ((made.url, named), (f"nats://localhost:{made.port}", {"tls": True})):
            async with opened(url, **options) as transport_:
                outcome = await transport_.probe()
                assert (outcome.verdict, "certificate" in outcome.detail) == (Verdict.FAILED, True)


async def test_no_password_is_said_to_a_server_that_offers_no_encryption() -> None:
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.0","headers":true,"max_payload":1048576}\r\n')
        while data := await reader.read(4_096):
            heard.extend(data)
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        for login in (ANN, {"token": Secret("hunter2")}):
            async with opened(f"nats://127.0.0.1:{port}", tls=True, timeout=1.0, **login) as transport_:
                outcome = await transport_.probe()
                assert "no TLS" in outcome.detail
    assert b"hunter2" not in heard


# --- credentials, as `nsc` makes them


def nkey(kind: int, key: Ed25519PrivateKey, *, seed: bool = False) -> str:
    """A key in NATS's own spelling: what it is, the bytes, a checksum (CRC-16/XMODEM)."""
    raw = serialization.Encoding.Raw
    if seed:
        secret = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        data = bytes((18 << 3 | kind >> 5, (kind & 31) << 3)) + secret
    else:
        data = bytes((kind,)) + key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    return base64.b32encode(data + crc_hqx(data, 0).to_bytes(2, "little")).decode().rstrip("=")


def token(issuer: tuple[int, Ed25519PrivateKey], subject: str, kind: str, **claims: Any) -> str:
    """A token as NATS signs them."""

    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")

    body = {"jti": "x", "iat": 1, "iss": nkey(*issuer), "sub": subject, "nats": {"type": kind, "version": 2, **claims}}
    text = f"{part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{part(body)}"
    return f"{text}.{base64.urlsafe_b64encode(issuer[1].sign(text.encode())).decode().rstrip('=')}"


OPERATOR, ACCOUNT, USER = 14 << 3, 0, 20 << 3


async def test_a_file_of_credentials_logs_in(folder: Path) -> None:
    operator, account, system, user = (Ed25519PrivateKey.generate() for _ in range(4))
    names = ("subs", "data", "payload", "imports", "exports", "conn", "leaf", "mem_storage", "disk_storage", "streams")
    limits = dict.fromkeys((*names, "consumer"), -1) | {"wildcards": True}
    main, other = nkey(ACCOUNT, account), nkey(ACCOUNT, system)
    settings = (
        f"operator: {token((OPERATOR, operator), nkey(OPERATOR, operator), 'operator')}\n"
        f"system_account: {other}\nresolver: MEMORY\nresolver_preload: {{\n"
        f"  {main}: {token((OPERATOR, operator), main, 'account', limits=limits)}\n"
        f"  {other}: {token((OPERATOR, operator), other, 'account')}\n}}\n"
    )
    jwt = token((ACCOUNT, account), nkey(USER, user), "user", subs=-1, data=-1, payload=-1, pub={}, sub={})
    text = (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{nkey(USER, user, seed=True)}\n------END USER NKEY SEED------\n"
    )
    login = {
        "user_jwt_cb": lambda: jwt.encode(),
        "signature_cb": lambda nonce: base64.b64encode(user.sign(nonce.encode())),
    }
    async with server(folder, settings, **login) as made:
        await made.add()
        async with opened(made.url, credentials=Secret(text)) as transport_:
            assert await transport_.send(parcel_of([piece(1)])) == TAKEN


# --- options


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "nats://127.0.0.1:4222/events"}, "url"),
        ({"url": "nats://127.0.0.1:4222/?a=b"}, "url"),
        ({"timeout": 0.0}, "timeout"),
        ({"subject": "events.*"}, "subject"),
        ({"subject": "events..a"}, "subject"),
        ({"stream": "a\r\nb"}, "stream"),
        ({"subject": "events.{who}"}, "subject"),
        ({"user": "ann"}, "password"),
        ({**ANN, "token": Secret("x")}, "one of them"),
        ({"credentials": Secret("x")}, "creds"),
        ({"ca": "x"}, "tls"),
        ({"ca": "x", "tls": True}, "PEM"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        transport(options.pop("url", "nats://127.0.0.1:4222"), **options)


def test_a_server_must_be_listed() -> None:
    with pytest.raises(EgressError, match="listed broker"):
        transport("nats://other.example.com")
    with pytest.raises(EgressError, match="user name or password"):
        transport("nats://ann:hunter2@nats.example.com")

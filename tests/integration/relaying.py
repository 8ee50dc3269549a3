"""A relay on loopback between a client and a next hop; as a program: `relaying.py LISTEN NEXT_HOP [CERTIFICATE]`."""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
from aiosmtpd.smtp import SMTP
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from aftersend.capture.links import Link, Links
from aftersend.capture.relay import Relay
from aftersend.capture.rewriting import Way, signer
from aftersend.capture.tokens import split_path
from aftersend.core.errors import AccessError
from aftersend.core.relay import RelaySettings
from aftersend.core.secret import read_secret
from aftersend.telemetry import Telemetry

HOST = "t.example.net"
KEY = "as_0123456789ab_secret"
LINKS = Links(lambda purpose, key_id: sha256(f"{purpose} {key_id}".encode()).digest())

BODY = (
    b'<html><body>\r\n<p><a href="https://www.example.com/a?x=1&amp;y=2">one</a>\r\n'
    b".a line that begins with a dot\r\n..and one with two\r\n.\t\r\n"
    b'<a href="https://www.example.com/b">two</a> \xd1\x8f\xff</p>\r\n</body></html>\r\n\r\n'
)
MESSAGE = (
    b"From: News <news@example.com>\r\nTo: alice@example.org\r\nSubject: =?utf-8?q?Spring?=\r\n"
    b"Message-ID: <m1@example.com>\r\nX-Aftersend-Campaign: spring\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + BODY
)


class Inlet:
    """A next hop (aiosmtpd) that keeps what it is handed and answers as it is told."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], bytes]] = []
        self.options: list[list[str]] = []
        self.sessions: set[int] = set()
        self.answers: dict[str, str] = {}
        self.delay = 0.0
        self.port = 0

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if "RCPT" in self.answers or address in self.answers:
            return self.answers.get(address) or self.answers["RCPT"]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:  # noqa: N802
        if "MAIL" in self.answers:
            return self.answers["MAIL"]
        envelope.mail_from = address
        self.options.append(options)
        return "250 2.1.0 Ok"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        await asyncio.sleep(self.delay)
        if "DATA" in self.answers:
            return self.answers["DATA"]
        self.sessions.add(id(session))
        self.messages.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return f"250 2.0.0 Ok: queued as {len(self.messages)}"


@asynccontextmanager
async def listening(inlet: Inlet, **options: Any) -> AsyncIterator[Inlet]:
    """The inlet as a server; options are aiosmtpd's."""
    loop = asyncio.get_running_loop()
    sessions: list[SMTP] = []

    def session() -> SMTP:
        sessions.append(SMTP(inlet, hostname="next.example", loop=loop, enable_SMTPUTF8=True, **options))
        return sessions[-1]

    server = await loop.create_server(session, "127.0.0.1", inlet.port)
    inlet.port = server.sockets[0].getsockname()[1]
    try:
        yield inlet
    finally:
        server.close()
        for one in sessions:
            if one.transport is not None:
                one.transport.close()
        await asyncio.sleep(0.01)


def login(password: str) -> str:
    """The tenant of the one key."""
    if password != KEY:
        raise AccessError
    return "acme"


def way(tenant: str, domain: str = "") -> Way:
    """Everybody's way; the tenant can be told by its number."""
    number = {"default": 1, "acme": 2}[tenant]
    return Way(number, 5, frozenset({HOST}), signer(LINKS, "0badf00d", f"https://{HOST}"))


def settings_of(next_hop: str, **options: Any) -> RelaySettings:
    """Settings as they would stand in aftersend.toml."""
    table = {"listen": "127.0.0.1:0", "domain": HOST, "next_hop": next_hop, "next_hop_tls": "none"}
    table |= {"next_hop_allow": ["127.0.0.0/8"], "hostname": "relay.example"}
    return msgspec.convert(table | options, RelaySettings, dec_hook=read_secret)


def make_relay(settings: RelaySettings, telemetry: Telemetry | None = None) -> Relay:
    return Relay(
        settings,
        ways=way,
        login=login,
        clock=time.time_ns,
        chance=os.urandom,
        telemetry=telemetry or Telemetry(),
    )


@asynccontextmanager
async def relaying(next_hop: str, telemetry: Telemetry | None = None, **options: Any) -> AsyncIterator[Relay]:
    """A relay to a next hop."""
    relay = make_relay(settings_of(next_hop, **options), telemetry)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.stop()


class Client:
    """A client that says exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.port: int = writer.get_extra_info("peername")[1]

    async def reply(self) -> str:
        """One reply, all its lines; empty where the connection was closed."""
        lines = b""
        while line := await asyncio.wait_for(self.reader.readline(), 20):
            lines += line
            if line[3:4] != b"-":
                break
        return lines.decode().replace("\r\n", "\n").strip()

    async def say(self, line: str | bytes) -> str:
        data = line if isinstance(line, bytes) else line.encode() + b"\r\n"
        self.writer.write(data)
        await self.writer.drain()
        return await self.reply()

    async def send(self, message: bytes, to: str = "alice@example.org", sender: str = "news@example.com") -> str:
        """A whole transaction; the first answer that is not positive, or the last."""
        for line in (f"MAIL FROM:<{sender}>", f"RCPT TO:<{to}>", "DATA"):
            reply = await self.say(line)
            if reply[0] not in "23":
                return reply
        return await self.say(stuffed(message))

    async def start_tls(self, context: ssl.SSLContext, host: str = "relay.example") -> None:
        assert (await self.say("STARTTLS")).startswith("220")
        await self.writer.start_tls(context, server_hostname=host)


def stuffed(message: bytes) -> bytes:
    """A message as DATA carries it."""
    return (b"\r\n" + message).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"


@asynccontextmanager
async def connected(port: int, *, greet: bool = True) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    try:
        if greet:
            assert (await client.reply()).startswith("220")
            await client.say("EHLO client.example")
        yield client
    finally:
        writer.close()


@asynccontextmanager
async def passing(
    inlet: Inlet, *, telemetry: Telemetry | None = None, greet: bool = True, patience: float = 300, **options: Any
) -> AsyncIterator[tuple[Client, Inlet]]:
    """A client of a relay to this inlet."""
    async with (
        listening(inlet, timeout=patience),
        relaying(f"smtp://127.0.0.1:{inlet.port}", telemetry, **options) as relay,
        connected(relay.port, greet=greet) as client,
    ):
        yield client, inlet


def split_trace(message: bytes) -> tuple[bytes, bytes]:
    """The relay's own Received field, and the rest."""
    end = message.index(b"\r\n", message.index(b"\r\n\tby ") + 2)
    while message[end + 2 : end + 3] == b"\t":
        end = message.index(b"\r\n", end + 2)
    return message[: end + 2], message[end + 2 :]


def links_in(message: bytes) -> Iterator[Link]:
    """The links that were written, opened."""
    for piece in message.split(f"https://{HOST}".encode())[1:]:
        path = piece.replace(b"=\r\n", b"").split(b'"')[0].split(b">")[0].decode()
        purpose, token = split_path(path)
        yield LINKS.open(token, purpose)


def certificate(folder: Path, name: str) -> Path:
    """A self-signed certificate for a name or an address, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    try:
        named: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        named = x509.DNSName(name)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([named]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    path.chmod(0o600)
    return path


def server_context(path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


async def started(port: int, inlet: Inlet, *more: str) -> tuple[asyncio.subprocess.Process, int]:
    """The relay as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, f"127.0.0.1:{port}", f"smtp://127.0.0.1:{inlet.port}", *more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    return process, int(line.split()[1])


async def main(listen: str, next_hop: str, tls: str = "") -> None:
    relay = make_relay(settings_of(next_hop, listen=listen, certificate=tls))
    await relay.start()
    print("ready", relay.port, flush=True)
    # It ends with the test that holds the other end.
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main(*sys.argv[1:]))

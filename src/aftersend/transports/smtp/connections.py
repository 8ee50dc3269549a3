"""Connections to a mail relay: judged, encrypted, logged in, kept for a while, and every wait on them bounded."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import cast

from aiosmtplib import SMTP, SMTPException, SMTPServerDisconnected

from aftersend.core.errors import EgressError
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Address, Egress, Target
from aftersend.egress.connecting import dial
from aftersend.transports.smtp.answers import Answer, Masked, broken

IDLE_SECONDS = 20.0
"""How long an unused connection is kept."""
USES_LIMIT = 100
"""Mails that go over one connection."""
SLOWEST = 50_000
"""Bytes a second that a relay must take, besides the time for its answer."""


@dataclass(slots=True, kw_only=True)
class Access:
    """How the relay is reached."""

    target: Target
    egress: Egress = field(repr=False)
    tls: str
    """required, opportunistic or none."""
    context: ssl.SSLContext = field(repr=False)
    user: str
    password: Secret | None
    hostname: str
    """What we call ourselves; empty: our address."""
    timeout: float
    """Seconds for each step."""


class Fault(Exception):  # noqa: N818
    """A step that did not go well."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.detail)
        self.outcome = outcome


def failure(detail: str) -> Fault:
    """A fault of the relay."""
    return Fault(Outcome(Verdict.FAILED, detail))


class Connection:
    """One connection."""

    def __init__(self, client: SMTP, masked: Masked, timeout: float) -> None:
        self.client = client
        self.uses = 0
        self.since = 0.0
        self._masked = masked
        self._timeout = timeout

    @property
    def is_open(self) -> bool:
        """Whether the other side has not closed it, as far as is known."""
        return self.client.is_connected

    @property
    def size_limit(self) -> int:
        """Bytes of the largest mail that the relay takes; 0: it did not say."""
        text = self.client.esmtp_extensions.get("size", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else 0

    def offers(self, extension: str) -> bool:
        """Whether the relay has an extension."""
        return bool(self.client.supports_extension(extension))

    @asynccontextmanager
    async def step(self, name: str, seconds: float = 0.0) -> AsyncIterator[None]:
        """Something that may go wrong, under a name for people, in bounded time. Raises Fault."""
        limit = seconds or self._timeout
        try:
            async with asyncio.timeout(limit):
                yield
        except (SMTPException, OSError, EgressError, ValueError) as error:
            if type(error) is TimeoutError and error.errno is None:
                raise failure(f"{name}: no answer within {limit:.3g} s") from None
            raise Fault(broken(name, error, self._masked)) from None

    async def say(self, step: str, *words: bytes) -> Answer:
        """A command and its answer. Raises Fault."""
        async with self.step(step):
            return self._masked(Answer(*await self.client.execute_command(*words)))
        raise AssertionError

    async def write(self, data: bytes) -> Answer:
        """The lines of a mail, after DATA, and the answer to it. Raises Fault."""
        async with self.step("message", self._timeout + len(data) / SLOWEST):
            client = self.client
            if client.protocol is None or client.transport is None:
                raise SMTPServerDisconnected("the connection broke")
            # aiosmtplib would look for bare line breaks first; there are none.
            stuffed = (b"\r\n" + data).replace(b"\r\n.", b"\r\n..")[2:]
            cast(asyncio.WriteTransport, client.transport).write(stuffed + b".\r\n")
            return self._masked(Answer(*await client.protocol.read_response(None)))
        raise AssertionError

    async def reset(self) -> None:
        """Make it fit for another mail, or close it."""
        if not self.is_open:
            return
        try:
            if (await self.say("reset", b"RSET")).code == 250:
                return
        except Fault:
            pass
        self.client.close()

    def close(self) -> None:
        """Say goodbye without waiting for an answer."""
        if self.is_open and self.client.protocol is not None:
            self.client.protocol.write(b"QUIT\r\n")
        self.client.close()


class Connections:
    """Opens connections and keeps those that are not in use."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._masked = Masked(access.user, access.password.reveal() if access.password else "")
        self._idle: list[Connection] = []
        self._sweeper: asyncio.TimerHandle | None = None

    def kept(self) -> Connection | None:
        """One that was kept; it may turn out to have been closed by the other side."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open and now - connection.since < IDLE_SECONDS:
                return connection
            connection.close()
        return None

    def keep(self, connection: Connection) -> None:
        """Take one back that is fit for another mail."""
        loop = asyncio.get_running_loop()
        connection.since = loop.time()
        connection.uses += 1
        if not connection.is_open or connection.uses >= USES_LIMIT:
            connection.close()
            return
        self._idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what was not used for a while."""
        loop = asyncio.get_running_loop()
        now, self._sweeper = loop.time(), None
        old = [one for one in self._idle if now - one.since >= IDLE_SECONDS]
        self._idle = [one for one in self._idle if now - one.since < IDLE_SECONDS]
        for one in old:
            one.close()
        if self._idle:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)

    def close(self) -> None:
        """Close all that are not in use."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        while self._idle:
            self._idle.pop().close()

    async def open(self) -> Connection:
        """A new one, encrypted and logged in as the options say. Raises Fault."""
        access = self._access
        client = SMTP(
            hostname=access.target.host,
            use_tls=access.target.scheme == "smtps",
            start_tls=False,
            tls_context=access.context,
            timeout=None,
        )
        connection = Connection(client, self._masked, access.timeout)
        async with connection.step("connect"):
            sock = await self._dial()
        try:
            await self._greet(connection, sock)
        except BaseException:
            client.close()
            raise
        return connection

    async def _greet(self, connection: Connection, sock: socket.socket) -> None:
        access, client = self._access, connection.client
        async with connection.step("greeting"):
            await client.connect(sock=sock, local_hostname=access.hostname or _literal(sock))
        async with connection.step("EHLO"):
            await client.ehlo()
        if access.target.scheme == "smtp" and self._wants_tls(connection):
            async with connection.step("STARTTLS"):
                await client.starttls()
                await client.ehlo()
        if access.user and access.password is not None:
            async with connection.step("log in"):
                await client.login(access.user.encode(), access.password.reveal().encode())

    def _wants_tls(self, connection: Connection) -> bool:
        offered = connection.offers("starttls")
        if self._access.tls == "required" and not offered:
            raise failure("STARTTLS: the relay does not offer it, and tls is required")
        return self._access.tls != "none" and offered

    async def _dial(self) -> socket.socket:
        """A connection to a judged address."""
        target = self._access.target
        addresses = await self._access.egress.resolve(target.host, target.port)
        for address in addresses:
            self._check_address(address)
        return await dial(addresses, target.port)

    def _check_address(self, address: Address) -> None:
        """What anybody on the way could read goes only to networks that the operator opened."""
        access = self._access
        if access.tls == "required" or any(address in network for network in access.egress.allowed):
            return
        raise EgressError(
            f"refused: without verified TLS mail goes only to networks opened with --egress-allow; {address} is in none"
        )


def _literal(sock: socket.socket) -> str:
    """Our address as EHLO takes it where a host has no name (RFC 5321, 4.1.4)."""
    address = ip_address(sock.getsockname()[0].partition("%")[0])
    return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"

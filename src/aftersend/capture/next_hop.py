"""The server that every message is handed on to, and what its answers mean for the one who waits.

A hand-over ends before the client is answered, so nothing has to be kept here and no queue is needed: until the client
has heard 250 the message is its own, and whoever sends mail has a queue already. What the next hop says about a message
is passed back; what it says about us (no TLS, wrong password, no such command) is told as a passing fault.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from aiosmtplib import SMTP, SMTPException, SMTPServerDisconnected

from aftersend.capture.envelope import Envelope, Reply
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.relay import RelaySettings
from aftersend.egress import Egress
from aftersend.egress.connecting import dial

IDLE_SECONDS = 20.0
"""How long an unused connection is kept."""
IDLE_LIMIT = 20
"""Unused connections that are kept; past it they are closed."""
USES_LIMIT = 100
"""Messages that go over one connection, so that load spreads over what a name leads to."""

EXTENSIONS = ("8BITMIME", "SMTPUTF8", "DSN")
"""What is offered to clients where the next hop has it."""
_NEEDED = {"BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "NOTIFY": "DSN", "ORCPT": "DSN"}

_OURS = frozenset((421, 502, 503, 530, 534, 535, 538))
"""Codes that tell of us or of the next hop itself, not of a message."""


class _Line:
    """A connection to the next hop."""

    __slots__ = ("client", "since", "uses")

    def __init__(self, client: SMTP) -> None:
        self.client = client
        self.uses = 0
        self.since = 0.0


class NextHop:
    """Hands messages over, one recipient each, over connections that are kept for a while."""

    def __init__(self, settings: RelaySettings, egress: Egress) -> None:
        """Raises ConfigurationError."""
        try:
            self._target = egress.check_url(settings.next_hop, ("smtp", "smtps"))
        except EgressError as error:
            raise ConfigurationError(f"relay.next_hop: {_with_our_switch(error)}") from None
        self._settings = settings
        self._egress = egress
        self._context = _context(settings, self._target.scheme)
        self._idle: list[_Line] = []
        self.offers: Mapping[str, str] | None = None
        """The extensions it had when it was last reached, in upper case, with their parameters; None: not yet."""

    async def reach(self) -> Reply | None:
        """Learn what the next hop offers, unless that is known; returns why it cannot be reached."""
        if self.offers is not None:
            return None
        try:
            async with asyncio.timeout(self._settings.next_hop_timeout):
                self._keep(await self._open())
        except (SMTPException, OSError, EgressError, ValueError) as error:
            return _unreachable(error)
        return None

    async def hand_over(self, envelope: Envelope, message: bytes) -> Reply:
        """Give a message to the next hop and return its answer. Never raises for what the other side does.

        A message begins with a field, its lines end in CRLF and nothing else.
        """
        try:
            async with asyncio.timeout(self._settings.next_hop_timeout):
                return await self._hand_over(envelope, message)
        except TimeoutError:
            return Reply(451, f"4.4.2 The next hop did not answer within {self._settings.next_hop_timeout:g} s")
        except (SMTPException, OSError, EgressError, ValueError) as error:
            return _unreachable(error)

    async def close(self) -> None:
        """Let go of connections."""
        for line in self._idle:
            line.client.close()
        self._idle.clear()

    async def _hand_over(self, envelope: Envelope, message: bytes) -> Reply:
        line = self._kept()
        if line is not None:
            try:
                return await self._transact(line, envelope, message)
            except _StaleError:
                pass
        return await self._transact(await self._open(), envelope, message)

    async def _transact(self, line: _Line, envelope: Envelope, message: bytes) -> Reply:
        """MAIL, RCPT and DATA. Raises _StaleError where a kept connection had ended before the message was given."""
        try:
            reply = await self._commands(line, envelope, message)
        except BaseException:
            line.client.close()
            raise
        line.uses += 1
        if not reply.positive:
            await _reset(line)
        self._keep(line)
        return _passed(reply)

    async def _commands(self, line: _Line, envelope: Envelope, message: bytes) -> Reply:
        missing = _missing(line, envelope)
        if missing:
            return Reply(451, f"4.3.5 The next hop does not offer {missing} any more")
        reply = await self._mail(line, envelope, len(message))
        if reply.positive:
            reply = await _command(line, b"RCPT", b"TO:", envelope.recipient, envelope.recipient_parameters)
        if not reply.positive:
            return reply
        reply = Reply(*await line.client.execute_command(b"DATA"))
        return await self._data(line.client, message) if reply.code == 354 else reply

    async def _data(self, client: SMTP, message: bytes) -> Reply:
        """The message itself; aiosmtplib would look for bare line breaks first, which takes 0.4 ms for 60 kB."""
        if client.protocol is None or client.transport is None:
            raise SMTPServerDisconnected("the connection broke off before the message")
        transport = cast(asyncio.WriteTransport, client.transport)
        transport.write(message.replace(b"\r\n.", b"\r\n..") + b".\r\n")
        return Reply(*await client.protocol.read_response(self._settings.next_hop_timeout))

    async def _mail(self, line: _Line, envelope: Envelope, size: int) -> Reply:
        parameters = dict(envelope.sender_parameters)
        if line.client.supports_extension("size"):
            parameters["SIZE"] = str(size)
        try:
            reply = await _command(line, b"MAIL", b"FROM:", envelope.sender, parameters)
        except SMTPServerDisconnected:
            if line.uses:
                raise _StaleError from None
            raise
        if line.uses and reply.code == 421:
            raise _StaleError
        return reply

    # --- connections

    def _kept(self) -> _Line | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            line = self._idle.pop()
            if line.client.is_connected and now - line.since < IDLE_SECONDS:
                return line
            line.client.close()
        return None

    def _keep(self, line: _Line) -> None:
        line.since = asyncio.get_running_loop().time()
        if line.client.is_connected and line.uses < USES_LIMIT and len(self._idle) < IDLE_LIMIT:
            line.uses = max(line.uses, 1)
            self._idle.append(line)
        else:
            line.client.close()

    async def _open(self) -> _Line:
        """A new connection, encrypted and logged in as the settings say; raises what goes wrong."""
        settings, target = self._settings, self._target
        client = SMTP(
            hostname=target.host,
            sock=await dial(await self._egress.resolve(target.host, target.port), target.port),
            local_hostname=settings.hostname or settings.domain or None,
            use_tls=target.scheme == "smtps",
            start_tls=target.scheme == "smtp" and settings.next_hop_tls != "none",
            tls_context=self._context,
            username=settings.next_hop_user or None,
            password=settings.next_hop_password.reveal() or None,
            timeout=settings.next_hop_timeout,
        )
        await client.connect()
        try:
            if client.is_ehlo_or_helo_needed:
                await client.ehlo()
        except BaseException:
            client.close()
            raise
        self.offers = {name.upper(): text for name, text in client.esmtp_extensions.items()}
        return _Line(client)


class _StaleError(Exception):
    """A kept connection had been closed by the other side."""


def _context(settings: RelaySettings, scheme: str) -> ssl.SSLContext | None:
    if settings.next_hop_tls == "none" and scheme == "smtp":
        if settings.next_hop_user:
            raise ConfigurationError("relay.next_hop_user: a password is not sent without TLS; set relay.next_hop_tls")
        return None
    authorities = settings.next_hop_authorities
    try:
        context = ssl.create_default_context(cafile=str(Path(authorities)) if authorities else None)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"relay.next_hop_authorities: {authorities}: {reason}") from None
    if settings.next_hop_tls != "verified":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _missing(line: _Line, envelope: Envelope) -> str:
    """An extension that the envelope needs and the next hop has not."""
    parameters = (*envelope.sender_parameters, *envelope.recipient_parameters)
    needed = (_NEEDED[name] for name in parameters if name in _NEEDED)
    return next((name for name in needed if not line.client.supports_extension(name)), "")


async def _command(line: _Line, verb: bytes, keyword: bytes, address: str, parameters: Mapping[str, str]) -> Reply:
    words = [f"{name}={value}" if value else name for name, value in parameters.items()]
    said = [word.encode() for word in (f"<{address}>", *words)]
    return Reply(*await line.client.execute_command(verb, keyword + said[0], *said[1:]))


async def _reset(line: _Line) -> None:
    """Make a connection fit for another message, or close it."""
    try:
        if (await line.client.execute_command(b"RSET")).code == 250:
            return
    except (SMTPException, OSError):
        pass
    line.client.close()


def _passed(reply: Reply) -> Reply:
    """The next hop's answer as ours."""
    if reply.positive or (400 <= reply.code < 600 and reply.code not in _OURS):
        return reply
    return Reply(451, f"4.3.0 The next hop said: {reply.code} {reply.text}")


def _unreachable(error: Exception) -> Reply:
    text = " ".join(_with_our_switch(error).split()) or type(error).__name__
    return Reply(451, f"4.4.1 The next hop cannot be used now: {text}")


def _with_our_switch(error: Exception) -> str:
    """The guard names the switch for webhooks; the next hop has its own."""
    return str(error).replace("--egress-allow ", "relay.next_hop_allow ")

"""An SMTP session with a client: what it may say when, RFC 5321, and what is answered.

Each transaction has one recipient, because what is written into a message is one person's. A further RCPT is answered
452, by which RFC 5321 4.5.3.1.10 lets the client send to the others afterwards: so there is one answer for one
recipient, and never a message that is handed over to some and has to be sent again to all.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aftersend.capture.envelope import Envelope, Path, Refused, Reply, read_path
from aftersend.capture.wire import TooLargeError, Wire, WireError

FAULTS_LIMIT = 20
"""Commands in a row that make no sense, after which the client is cut off."""
TRIES_LIMIT = 3
"""Wrong passwords, after which the client is cut off."""
TRY_SECONDS = 1.0
"""How long a wrong password has to wait for its answer."""

OK = Reply(250, "2.0.0 Ok")
_GO_AHEAD = Reply(354, "End with a dot on a line of its own")
_BYE = Reply(221, "2.0.0 Bye")
_UNKNOWN = Reply(500, "5.5.1 That command is not known here")
_ORDER = "5.5.1 Commands come in the order EHLO, MAIL, RCPT, DATA"
_ONE_EACH = Reply(452, "4.5.3 One recipient at a time: what is written into a message is one person's")
_TOO_LARGE = "5.3.4 The message is too large"
_BUSY = Reply(452, "4.3.1 Too much is in hand; try again in a moment")
_TIMEOUT = Reply(421, "4.4.2 Nothing came for too long")
_TOO_MANY_FAULTS = Reply(421, "4.7.0 Too many mistakes")
_STOPPING = Reply(421, "4.3.2 Stopping; try again in a moment")

# What is read of a message besides itself: the line break before it, and the dot.
_AROUND = 5
_MISTAKES = range(500, 505)
_HOST = re.compile(rb"[A-Za-z0-9._:\[\]-]{1,255}")
_SENDER_PARAMETERS = {"SIZE": "", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN", "AUTH": ""}
_RECIPIENT_PARAMETERS = {"NOTIFY": "DSN", "ORCPT": "DSN"}


class House(Protocol):
    """What a session needs of the relay that it belongs to."""

    hostname: str
    max_message_bytes: int

    def offers(self) -> dict[str, str]:
        """The next hop's extensions that are offered on, with their parameters."""
        ...

    async def reach(self) -> Reply | None:
        """Why mail cannot be handed on now, if it is not known what the next hop offers."""
        ...

    def may_send(self, peer: str) -> bool:
        """Whether this address needs no key."""
        ...

    def needs_tls(self) -> bool:
        """Whether mail is taken over TLS only."""
        ...

    async def start_tls(self, wire: Wire) -> None:
        """Go on encrypted."""
        ...

    def can_start_tls(self) -> bool:
        """Whether there is a certificate."""
        ...

    def login(self, password: str) -> str | None:
        """The tenant of a key, or None for a wrong one."""
        ...

    def hold(self, count: int) -> bool:
        """Count octets that are in hand; False: there is no room."""
        ...

    def stopping(self) -> bool:
        """Whether no further command is to be taken."""
        ...

    async def take(self, session: Session, envelope: Envelope, message: bytes) -> Reply:
        """Rewrite a message and hand it on; the answer to its client."""
        ...


class Session:
    """One client, from its greeting to its end."""

    def __init__(self, wire: Wire, house: House) -> None:
        self._wire = wire
        self._house = house
        self.helo = ""
        self.extended = False
        self.tenant: str | None = None
        """Of the key that was given."""
        self._sender: Path | None = None
        self._recipient: Path | None = None
        self._faults = self._tries = 0
        self._open = True
        self.idle = False
        """Nothing is in hand but waiting for a command."""

    @property
    def peer(self) -> str:
        """The client's address."""
        return self._wire.peer

    @property
    def encrypted(self) -> bool:
        """Whether TLS is in use."""
        return self._wire.encrypted

    async def run(self) -> None:
        """Serve until one side has had enough."""
        try:
            await self._say(Reply(220, f"{self._house.hostname} ESMTP aftersend"))
            while self._open:
                await self._serve_one()
        except TimeoutError:
            self._last(_TIMEOUT)
        except WireError as error:
            if error.reply is not None:
                self._last(error.reply)
        finally:
            self._wire.close()

    def stop(self) -> None:
        """End a session that does nothing but wait."""
        if self.idle:
            self._last(_STOPPING)
            self._wire.end()

    async def _serve_one(self) -> None:
        self.idle = True
        line = await self._wire.line()
        self.idle = False
        reply = await self._answer(line)
        if reply is None:
            return
        self._faults = self._faults + 1 if reply.code in _MISTAKES else 0
        await self._say(reply)
        if self._faults >= FAULTS_LIMIT:
            await self._leave(_TOO_MANY_FAULTS)
        elif self._house.stopping():
            await self._leave(_STOPPING)

    async def _answer(self, line: bytes) -> Reply | None:
        """The answer to a command; None: it has been given."""
        verb, _, argument = line.partition(b" ")
        command = _COMMANDS.get(verb.upper())
        if command is None:
            return _UNKNOWN
        try:
            return await command(self, argument.strip())
        except Refused as refusal:
            return refusal.reply

    async def _say(self, reply: Reply) -> None:
        await self._wire.send(reply.line())
        if reply.code in (421, 521):
            self._open = False

    async def _leave(self, reply: Reply) -> None:
        if self._open:
            await self._say(reply)
        self._open = False

    def _last(self, reply: Reply) -> None:
        self._wire.write(reply.line())

    # --- commands

    async def _helo(self, argument: bytes) -> Reply:
        await self._greet(argument, extended=False)
        return Reply(250, self._house.hostname)

    async def _ehlo(self, argument: bytes) -> Reply:
        await self._greet(argument, extended=True)
        lines = [self._house.hostname, f"SIZE {self._size_limit()}", "PIPELINING", "ENHANCEDSTATUSCODES"]
        lines += [name for name in ("8BITMIME", "SMTPUTF8", "DSN") if name in self._house.offers()]
        if self._house.can_start_tls() and not self.encrypted:
            lines.append("STARTTLS")
        if self.encrypted:
            lines.append("AUTH PLAIN LOGIN")
        return Reply(250, "\n".join(lines))

    async def _greet(self, argument: bytes, *, extended: bool) -> None:
        """A client that was not told what the next hop can do might give up mail that it could take."""
        if not _HOST.fullmatch(argument):
            raise Refused(501, "5.5.4 Say who you are: EHLO HOST")
        fault = await self._house.reach()
        if fault is not None:
            raise Refused(421, fault.text)
        self.helo, self.extended = argument.decode("ascii"), extended
        self._forget()

    async def _start_tls(self, argument: bytes) -> Reply | None:
        if argument or self.encrypted or not self._house.can_start_tls():
            raise Refused(503, "5.5.1 STARTTLS is not possible here")
        await self._house.start_tls(self._wire)
        # RFC 3207 4.2: what was said before is forgotten.
        self.helo, self.extended, self.tenant = "", False, None
        self._forget()
        return None

    async def _auth(self, argument: bytes) -> Reply:
        if not self.helo or self._sender is not None or self.tenant is not None:
            raise Refused(503, _ORDER)
        if not self.encrypted:
            raise Refused(538, "5.7.11 STARTTLS comes first")
        mechanism, _, first = argument.partition(b" ")
        if mechanism.upper() == b"PLAIN":
            password = (await self._asked(b"", first)).rpartition(b"\0")[2]
        elif mechanism.upper() == b"LOGIN":
            await self._asked(b"Username:", first)
            password = await self._asked(b"Password:", b"")
        else:
            raise Refused(504, "5.5.4 There is PLAIN and LOGIN")
        return await self._logged_in(password)

    async def _asked(self, question: bytes, given: bytes) -> bytes:
        """What a client answers in base64."""
        if not given:
            await self._wire.send(b"334 " + b64encode(question) + b"\r\n")
            given = await self._wire.line()
        if given == b"*":
            raise Refused(501, "5.7.0 As you like")
        try:
            return b"" if given == b"=" else b64decode(given, validate=True)
        except Base64Error:
            raise Refused(501, "5.5.2 That is not base64") from None

    async def _logged_in(self, password: bytes) -> Reply:
        self.tenant = self._house.login(password.decode("latin-1"))
        if self.tenant is not None:
            return Reply(235, "2.7.0 Welcome")
        self._tries += 1
        await asyncio.sleep(TRY_SECONDS)
        if self._tries >= TRIES_LIMIT:
            return Reply(421, "4.7.0 Too many wrong passwords")
        return Reply(535, "5.7.8 The password is not a key of ours")

    async def _mail(self, argument: bytes) -> Reply:
        if not self.helo or self._sender is not None:
            raise Refused(503, _ORDER)
        self._check_client()
        path = read_path(argument, "FROM")
        self._check_parameters(path, _SENDER_PARAMETERS)
        if not path.address.isascii() and "SMTPUTF8" not in path.parameters:
            raise Refused(553, "5.6.7 An address that is not ASCII needs SMTPUTF8")
        self._check_size(path.parameters.get("SIZE", ""))
        self._sender = path
        return OK

    async def _rcpt(self, argument: bytes) -> Reply:
        if self._sender is None:
            raise Refused(503, _ORDER)
        path = read_path(argument, "TO")
        self._check_parameters(path, _RECIPIENT_PARAMETERS)
        if not path.address.isascii() and "SMTPUTF8" not in self._sender.parameters:
            raise Refused(553, "5.6.7 An address that is not ASCII needs SMTPUTF8")
        if self._recipient is not None:
            return _ONE_EACH
        self._recipient = path
        return OK

    async def _data(self, argument: bytes) -> Reply:
        if self._sender is None or self._recipient is None or argument:
            raise Refused(503, _ORDER)
        await self._say(_GO_AHEAD)
        message = _Message(self._house, self._size_limit())
        try:
            return await self._house.take(self, self._envelope(), await self._wire.message(message.grows))
        except TooLargeError:
            return message.refusal
        finally:
            message.release()
            self._forget()

    async def _rset(self, argument: bytes) -> Reply:
        self._forget()
        return OK

    async def _noop(self, argument: bytes) -> Reply:
        return OK

    async def _vrfy(self, argument: bytes) -> Reply:
        return Reply(252, "2.5.0 Send it, and the next hop will say")

    async def _quit(self, argument: bytes) -> Reply | None:
        await self._leave(_BYE)
        return None

    # --- rules

    def _forget(self) -> None:
        self._sender = self._recipient = None

    def _envelope(self) -> Envelope:
        assert self._sender is not None
        assert self._recipient is not None
        kept = {name: value for name, value in self._sender.parameters.items() if name not in ("SIZE", "AUTH")}
        return Envelope(self._sender.address, self._recipient.address, kept, self._recipient.parameters)

    def _size_limit(self) -> int:
        """The smaller of our limit and the next hop's."""
        limit, said = self._house.max_message_bytes, self._house.offers().get("SIZE", "")
        return min(limit, int(said)) if said.isascii() and said.isdecimal() and int(said) > 0 else limit

    def _check_client(self) -> None:
        if self._house.needs_tls() and not self.encrypted:
            raise Refused(530, "5.7.0 STARTTLS comes first")
        if self.tenant is None and not self._house.may_send(self.peer):
            raise Refused(530, "5.7.0 STARTTLS, then AUTH with a key of ours as password")

    def _check_parameters(self, path: Path, known: dict[str, str]) -> None:
        offered = self._house.offers()
        for name in path.parameters:
            if name not in known or not self.extended or (known[name] and known[name] not in offered):
                if name == "BODY" and path.parameters[name].upper() == "7BIT":
                    continue
                raise Refused(555, f"5.5.4 The parameter {name} is not offered")

    def _check_size(self, said: str) -> None:
        if said and not (said.isascii() and said.isdecimal() and len(said) <= 20):
            raise Refused(501, "5.5.4 SIZE takes a number")
        if said and int(said) > self._size_limit():
            raise Refused(552, _TOO_LARGE)


class _Message:
    """How much of a message is held, against both limits."""

    def __init__(self, house: House, limit: int) -> None:
        self._house = house
        self._limit = limit
        self._held = 0
        self.refusal = _BUSY

    def grows(self, count: int) -> bool:
        """See Wire.message."""
        if self._held + count > self._limit + _AROUND:
            self.refusal = Reply(552, _TOO_LARGE)
            return False
        if not self._house.hold(count):
            return False
        self._held += count
        return True

    def release(self) -> None:
        """Nothing of it is held any more."""
        self._house.hold(-self._held)


_Command = Callable[[Any, bytes], Awaitable[Reply | None]]
_COMMANDS: dict[bytes, _Command] = {
    b"HELO": Session._helo,
    b"EHLO": Session._ehlo,
    b"STARTTLS": Session._start_tls,
    b"AUTH": Session._auth,
    b"MAIL": Session._mail,
    b"RCPT": Session._rcpt,
    b"DATA": Session._data,
    b"RSET": Session._rset,
    b"NOOP": Session._noop,
    b"VRFY": Session._vrfy,
    b"QUIT": Session._quit,
}

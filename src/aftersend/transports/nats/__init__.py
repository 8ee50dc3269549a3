"""Events as NATS JetStream messages, one by one: each acknowledged by the stream, which drops repeats by their ids.

The messages of a parcel are written one behind the other while their acknowledgements come back. The library's own
reconnecting is off: a connection that broke is made anew by the next parcel, so that nothing is told out of a buffer
that nobody watches, and no server that another server named is connected to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.excerpts import one_line
from aftersend.core.handover import Handovers
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import CONNECT_LIMIT, Egress, Target
from aftersend.egress.connecting import Goodbyes, tls_context
from aftersend.egress.faults import why
from aftersend.transports.nats.session import SUBJECT, Session, Try

if TYPE_CHECKING:
    from nats.aio.client import Client

IDLE_LIMIT = 300.0
"""Seconds that an unused connection is kept."""

_CREDENTIALS = re.compile(r"-----BEGIN [A-Z ]+-----\s*(\S+)\s*-+END [A-Z ]+-+")


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Subjects of a NATS JetStream stream that exists."""

    name: ClassVar[str] = "nats"
    schemes: ClassVar[tuple[str, ...]] = ("nats",)
    brokered: ClassVar[bool] = True

    url: str = option(help="A server: nats://nats.example.com:4222.")
    timeout: float = option(15.0, help="Seconds for a parcel until every message of it is acknowledged.")
    subject: str = option("events.{type}", help="Where messages are published to; {type} is the event's type.")
    stream: str = option("", help="The stream that must keep them; none: whichever keeps the subject.")
    tls: bool = option(True, help="Insist on an encrypted connection.")
    ca: str = option("", help="Certificates of the authorities to trust, as PEM text; none: the machine's.")
    user: str = option("", help="User to log in as.")
    password: Secret | None = option(None, help="The user's password.", secret=True)
    token: Secret | None = option(None, help="A token to log in with, in place of a user.", secret=True)
    credentials: Secret | None = option(
        None, help="The text of a .creds file to log in with, in place of a user.", secret=True
    )

    egress: Egress = field(repr=False)
    _target: Target = field(init=False, repr=False)
    _login: dict[str, Any] = field(init=False, repr=False)
    _context: ssl.SSLContext | None = field(init=False, repr=False, default=None)
    _handovers: Handovers = field(init=False, repr=False, default_factory=Handovers)
    _connecting: asyncio.Lock = field(init=False, repr=False, default_factory=asyncio.Lock)
    _session: Session | None = field(init=False, repr=False, default=None)
    _trouble: str = field(init=False, repr=False, default="")
    _idle: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    _goodbyes: Goodbyes = field(init=False, repr=False, default_factory=Goodbyes)

    def __post_init__(self) -> None:
        """Raises EgressError for a server that is not listed and ConfigurationError for anything else."""
        _library()
        self._target = self.egress.check_url(self.url, self.schemes)
        self.egress.check_broker(self._target.host, self._target.port)
        self._check_options()
        self._login = self._login_of()
        if self.tls:
            self._context = tls_context(self.ca)

    @property
    def carries(self) -> Literal["pieces"]:
        """A message an event."""
        return "pieces"

    async def probe(self) -> Outcome:
        """Connect, log in and look for the stream that keeps the subject."""
        detail = await self._bounded(self._look)
        return Outcome(Verdict.FAILED, detail) if detail else Outcome(Verdict.TAKEN)

    async def send(self, parcel: Parcel) -> Outcome:
        """Publish the pieces and wait for the stream's word on each."""
        attempt = Try(self._handovers.take_up(parcel).pieces)
        attempt.give_up(await self._bounded(lambda session: session.tell(attempt)) or "not sent")
        return self._handovers.settle(parcel, attempt.faults)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._idle is not None:
            self._idle.cancel()
        session, self._session = self._session, None
        if session is not None:
            self._goodbyes.say(session.client.close)
        await self._goodbyes.over()

    # --- the connection

    async def _bounded(self, work: Callable[[Session], Awaitable[None]]) -> str:
        """Do it within the time limit: what went wrong in one line, or nothing."""
        self._trouble = ""
        try:
            async with asyncio.timeout(self.timeout):
                await work(await self._connected())
        except TimeoutError:
            self._drop()
            return self._trouble or f"no answer within {self.timeout:g} s"
        except (_library().Error, OSError) as error:
            self._drop()
            return self._trouble or one_line(why(error), self._secrets()) or "the connection broke"
        return ""

    async def _connected(self) -> Session:
        async with self._connecting:
            session = self._session
            if session is None or not session.client.is_connected:
                session = self._session = await self._opened()
            self._keep()
            return session

    async def _opened(self) -> Session:
        client: Client = import_module("nats.aio.client").Client()
        session = Session(client, self.subject, self.stream)

        async def on_close() -> None:
            session.lose(self._trouble or "the connection broke")

        try:
            await client.connect(
                f"{'tls' if self.tls else 'nats'}://{self._target.authority}",
                name="aftersend",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=max(1, int(min(self.timeout, CONNECT_LIMIT))),
                error_cb=self._on_error,
                closed_cb=on_close,
                tls=self._context,
                **self._guarded(client),
            )
            self._insist(client)
            await session.listen()
        except BaseException:
            self._goodbyes.say(client.close)
            raise
        return session

    def _guarded(self, client: Client) -> dict[str, Any]:
        """How to log in; said only once the connection is encrypted, where it must be.

        The library logs in over a plain connection if the server says that it has no TLS, whatever the URL says.
        """

        def later(value: Callable[..., Any]) -> Callable[..., Any]:
            def say(*given: Any) -> Any:
                self._insist(client)
                return value(*given)

            return say

        return {name: later(value) for name, value in self._login.items()}

    def _insist(self, client: Client) -> None:
        if self.tls and not client._server_info.get("tls_required"):
            raise ConnectionError("the server offers no TLS; with the option tls = false it is done without")

    async def _on_error(self, error: Exception) -> None:
        self._trouble = one_line(why(error) or type(error).__name__, self._secrets())

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.lose("another parcel found the connection broken")
            self._goodbyes.say(session.client.close)

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_LIMIT + self.timeout, self._drop)

    # --- what is asked of it

    async def _look(self, session: Session) -> None:
        errors = import_module("nats.js.errors")
        streams = session.client.jetstream(timeout=self.timeout)
        subject = self.subject.replace("{type}", "email.delivered")
        try:
            found = await streams.find_stream_name_by_subject(subject)
        except errors.NotFoundError:
            raise ConnectionError(f"no stream keeps the subject {subject}") from None
        if self.stream and found != self.stream:
            raise ConnectionError(f"the subject {subject} is kept by the stream {found}, not by {self.stream}")

    # --- options

    def _check_options(self) -> None:
        if urlsplit(self.url).path not in ("", "/") or not self.url.endswith(urlsplit(self.url).path):
            raise ConfigurationError("url: a server and nothing else, as in nats://nats.example.com:4222")
        if not re.fullmatch(r"[^\s.*>/\\]{0,255}", self.stream):
            raise ConfigurationError(f"stream: {self.stream!r} is no name of a stream")
        check_timeout(self.timeout)
        if not SUBJECT.fullmatch(self.subject.replace("{type}", "type")):
            raise ConfigurationError(f"subject: {self.subject!r} is no subject to publish to, such as events.{{type}}")
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("user, password: give both or none")
        if sum(map(bool, (self.user, self.token, self.credentials))) > 1:
            raise ConfigurationError("user, token, credentials: give one of them")
        if self.ca and not self.tls:
            raise ConfigurationError("ca: certificates need tls")

    def _login_of(self) -> dict[str, Callable[..., Any]]:
        if self.password is not None:
            password = self.password
            return {"user": lambda: self.user, "password": password.reveal}
        if self.token is not None:
            return {"token": self.token.reveal}
        if self.credentials is not None:
            jwt, key = _read_credentials(self.credentials)
            return {
                "user_jwt_cb": lambda: jwt,
                "signature_cb": lambda nonce: base64.b64encode(key.sign(nonce.encode())),
            }
        return {}

    def _secrets(self) -> tuple[Secret | None, ...]:
        return self.password, self.token, self.credentials


def _read_credentials(credentials: Secret) -> tuple[bytes, Ed25519PrivateKey]:
    """The token of a user and the key to sign with. Raises ConfigurationError."""
    found = _CREDENTIALS.findall(credentials.reveal())
    if len(found) < 2:
        raise ConfigurationError("credentials: not the text of a .creds file")
    try:
        # Two bytes say what it is, two are a checksum; between them is the key.
        seed = base64.b32decode(found[1] + "=" * (-len(found[1]) % 8))[2:-2]
        return found[0].encode(), Ed25519PrivateKey.from_private_bytes(seed)
    except (binascii.Error, ValueError):
        raise ConfigurationError("credentials: the seed in it cannot be read") from None


def _library() -> Any:
    try:
        return import_module("nats.errors")
    except ImportError:
        raise ConfigurationError(
            "the transport nats needs nats-py; install it with: pip install 'aftersend[nats]'"
        ) from None


_proof: type[Contract] = Transport

"""Events as AMQP 0-9-1 messages (RabbitMQ), one by one: to a queue or an exchange, persistent, each confirmed.

All messages of a parcel are on their way at once; the broker confirms each when it is safe in its queues. What no queue
wants comes back (`mandatory`), what a full queue will not have is refused: nothing is dropped in silence.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from aftersend.contracts import Clock
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.excerpts import one_line
from aftersend.core.handover import Fault, Handovers
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Piece, Verdict
from aftersend.core.secret import Secret
from aftersend.core.timestamps import SECOND
from aftersend.egress import Egress, Target
from aftersend.egress.connecting import Goodbyes, tls_context
from aftersend.egress.faults import why

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractConnection

HEARTBEAT = 30
"""Seconds; a connection on which nothing was heard for three of them is dead."""
IDLE_LIMIT = 300.0
"""Seconds that an unused connection is kept."""
NAME_LIMIT = 155
"""Bytes of a queue's, an exchange's and a routing key's name: AMQP takes 255, of which a type may take 100."""

_SIZE_LIMIT = re.compile(r"larger than (?:configured )?max size (\d+)")


class _Session:
    """One connection with one channel."""

    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self.connection = connection
        self.channel = channel

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as is known."""
        return not self.connection.is_closed and not self.channel.is_closed


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """A queue or exchange of RabbitMQ."""

    name: ClassVar[str] = "amqp"
    schemes: ClassVar[tuple[str, ...]] = ("amqps", "amqp")
    brokered: ClassVar[bool] = True

    url: str = option(
        help="The broker, and the virtual host if it is not /: amqps://rabbit.example.com:5671/customers."
    )
    timeout: float = option(15.0, help="Seconds for a parcel until every message of it is confirmed.")
    queue: str = option("", help="The queue that gets the messages; it must exist.")
    exchange: str = option("", help="The exchange that gets them, in place of a queue; it must exist.")
    routing_key: str = option("{type}", help="With an exchange: the routing key; {type} is the event's type.")
    user: str = option("guest", help="User to log in as.")
    password: Secret | None = option(None, help="The user's password.", secret=True)
    ca: str = option("", help="Certificates of the authorities to trust, as PEM text; none: the machine's.")

    egress: Egress = field(repr=False)
    clock: Clock = field(repr=False)
    _target: Target = field(init=False, repr=False)
    _host: str = field(init=False, repr=False)
    _context: ssl.SSLContext | None = field(init=False, repr=False, default=None)
    _handovers: Handovers = field(init=False, repr=False, default_factory=Handovers)
    _connecting: asyncio.Lock = field(init=False, repr=False, default_factory=asyncio.Lock)
    _session: _Session | None = field(init=False, repr=False, default=None)
    _size_limit: int | None = field(init=False, repr=False, default=None)
    _idle: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    _goodbyes: Goodbyes = field(init=False, repr=False, default_factory=Goodbyes)

    def __post_init__(self) -> None:
        """Raises EgressError for a broker that is not listed and ConfigurationError for anything else."""
        _library()
        self._target = self.egress.check_url(self.url, self.schemes)
        self.egress.check_broker(self._target.host, self._target.port)
        self._host = self._virtual_host()
        self._check_options()
        if self._target.scheme == "amqps":
            self._context = tls_context(self.ca)

    @property
    def carries(self) -> Literal["pieces"]:
        """A message an event."""
        return "pieces"

    async def probe(self) -> Outcome:
        """Connect, log in and look for the queue or the exchange."""
        fault = await self._bounded(self._look)
        return Outcome(Verdict.FAILED, fault) if fault else Outcome(Verdict.TAKEN)

    async def send(self, parcel: Parcel) -> Outcome:
        """Publish the pieces and wait for the broker's word on each."""
        pieces = self._handovers.take_up(parcel).pieces
        before = self._size_limit
        faults = await self._tell(pieces)
        if self._size_limit != before:
            # It told its limit by closing the channel, with whatever else was on it.
            faults = await self._tell(pieces)
        return self._handovers.settle(parcel, faults)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._idle is not None:
            self._idle.cancel()
        self._drop()
        await self._goodbyes.over()

    # --- telling

    async def _tell(self, pieces: Sequence[Piece]) -> dict[str, Fault]:
        limit = self._size_limit
        faults = {
            piece.id: Fault(f"larger than a message may be ({limit} bytes)", True)
            for piece in pieces
            if limit is not None and len(piece.body) > limit
        }
        rest = [piece for piece in pieces if piece.id not in faults]
        told: dict[str, Fault | None] = {}
        failure = await self._bounded(lambda session: self._publish_all(rest, session, told))
        faults |= {piece.id: Fault(failure or "not confirmed") for piece in rest if piece.id not in told}
        return faults | {id_: fault for id_, fault in told.items() if fault is not None}

    async def _publish_all(self, pieces: Sequence[Piece], session: _Session, told: dict[str, Fault | None]) -> None:
        """All at once, in order; the broker's word on each stands in `told`, also where time ran out for others."""
        if not pieces:
            return
        channel = await session.channel.get_underlay_channel()
        published_at = datetime.fromtimestamp(self.clock() // SECOND, UTC)
        tasks = [asyncio.ensure_future(self._publish(channel, piece, published_at)) for piece in pieces]
        try:
            await asyncio.wait(tasks)
        finally:
            for piece, task in zip(pieces, tasks, strict=True):
                if task.done():
                    told[piece.id] = self._fault_in(task)
                else:
                    task.cancel()

    async def _publish(self, channel: Any, piece: Piece, published_at: datetime) -> None:
        message = _library().Message(
            piece.body,
            content_type=piece.content_type,
            delivery_mode=_library().DeliveryMode.PERSISTENT,
            message_id=piece.id,
            type=piece.type,
            timestamp=published_at,
            app_id="aftersend",
        )
        await channel.basic_publish(
            piece.body,
            exchange=self.exchange,
            routing_key=self.queue or self.routing_key.replace("{type}", piece.type),
            properties=message.properties,
            mandatory=True,
            wait=False,
        )

    def _fault_in(self, task: asyncio.Task[None]) -> Fault | None:
        """What the broker's answer says against its message."""
        errors = _library().exceptions
        error = asyncio.CancelledError("the connection broke") if task.cancelled() else task.exception()
        if error is None:
            return None
        if isinstance(error, errors.PublishError):
            # By type, a key may well lead nowhere for one event and somewhere for the next.
            is_final = not self.queue and "{type}" in self.routing_key
            return Fault(f"returned: no queue gets it ({one_line(error.args[0])})", is_final)
        if isinstance(error, errors.DeliveryError):
            return Fault("not taken: the queue is full or cannot be written")
        self._learn(error)
        return Fault(self._told(error))

    def _learn(self, error: BaseException) -> None:
        found = _SIZE_LIMIT.search(str(error))
        if found:
            self._size_limit = int(found[1])

    # --- the connection

    async def _bounded(self, work: Callable[[_Session], Awaitable[None]]) -> str:
        """Do it within the time limit: what went wrong in one line, or nothing."""
        errors = _library().exceptions
        try:
            async with asyncio.timeout(self.timeout):
                session = await self._connected()
                await work(session)
        except TimeoutError:
            self._drop()
            return f"no answer within {self.timeout:g} s; a broker short of disk or memory stops listening"
        except (errors.AMQPError, errors.ChannelInvalidStateError, OSError, RuntimeError) as error:
            self._drop()
            return self._told(error)
        if not session.is_open:
            self._drop()
        return ""

    async def _connected(self) -> _Session:
        async with self._connecting:
            session = self._session
            if session is None or not session.is_open:
                self._drop()
                session = self._session = await self._opened()
            self._keep()
            return session

    async def _opened(self) -> _Session:
        _, host, port = self._target
        connection: AbstractConnection = await _library().connect(
            host=host,
            port=port,
            login=self.user,
            password=self.password.reveal() if self.password else "",
            virtualhost=self._host,
            ssl=self._context is not None,
            ssl_context=self._context,
            heartbeat=HEARTBEAT,
            timeout=self.timeout,
            client_properties={"connection_name": "aftersend"},
        )
        try:
            channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except BaseException:
            self._goodbyes.say(connection.close)
            raise
        return _Session(connection, channel)

    def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            self._goodbyes.say(session.connection.close)

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_LIMIT + self.timeout, self._drop)

    async def _look(self, session: _Session) -> None:
        if self.queue:
            await session.channel.declare_queue(self.queue, passive=True)
        else:
            await session.channel.get_exchange(self.exchange, ensure=True)

    def _told(self, error: BaseException) -> str:
        if "Connection.OpenOk" in str(error):
            # The library drops what the broker says here: NOT_FOUND, NOT_ALLOWED.
            return f"the virtual host {self._host!r} is not there, or {self.user} may not use it"
        cause = error.__cause__ if isinstance(error.__cause__, OSError) else None
        said = one_line(why(cause) if cause else error, (self.password,))
        return said or f"the connection broke ({type(error).__name__})"

    # --- options

    def _virtual_host(self) -> str:
        parts = urlsplit(self.url)
        if parts.query or parts.fragment:
            raise ConfigurationError("url: nothing may follow the virtual host, as in amqps://rabbit.example.com/vhost")
        return unquote(parts.path.removeprefix("/")) or "/"

    def _check_options(self) -> None:
        check_timeout(self.timeout)
        if bool(self.queue) == bool(self.exchange):
            raise ConfigurationError("queue, exchange: give one of them")
        for name in ("queue", "exchange", "routing_key"):
            if len(getattr(self, name).encode()) > NAME_LIMIT:
                raise ConfigurationError(f"{name}: at most {NAME_LIMIT} bytes")
        if self.ca and self._target.scheme != "amqps":
            raise ConfigurationError("ca: certificates need amqps://")


@cache
def _library() -> Any:
    try:
        library = import_module("aio_pika")
    except ImportError:
        raise ConfigurationError(
            "the transport amqp needs aio-pika; install it with: pip install 'aftersend[amqp]'"
        ) from None
    # It writes a stack trace for each broker that is away; outcomes tell that in one line.
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    return library


_proof: type[Contract] = Transport

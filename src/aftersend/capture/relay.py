"""The SMTP relay: any mail server passes its mail through, and it comes out with links, pixel and headers.

A message is answered 250 only after the next hop has said so (see `next_hop`), so the relay keeps nothing and loses
nothing: killed at any moment, the sender still has the message and sends it again. In the worst case one that was
handed over just then arrives twice, as everywhere in SMTP (RFC 1047).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from msgspec import structs

from aftersend.capture.envelope import Envelope, Reply
from aftersend.capture.next_hop import EXTENSIONS, NextHop
from aftersend.capture.plan import Plan, Rewritten
from aftersend.capture.rewrite import rewrite
from aftersend.capture.rewriting import Way, Ways, options_of, plan_of
from aftersend.capture.session import Session
from aftersend.capture.trace import HOPS_LIMIT, PASSES_LIMIT, hops, protocol_name, received
from aftersend.capture.wire import Wire
from aftersend.config import parse_address
from aftersend.contracts import Clock
from aftersend.core.consent import Level
from aftersend.core.errors import AccessError, AftersendError, ConfigurationError
from aftersend.core.relay import RelaySettings
from aftersend.egress import Egress
from aftersend.telemetry import Sample, Telemetry

STOP_SECONDS = 10.0
"""How long hand-overs that are under way get when the relay stops."""
THREAD_PAST = 256 << 10
"""Bytes of a message that is rewritten beside the event loop, so that no click waits for it."""

_BUSY = Reply(421, "4.3.2 Too many connections; try again in a moment")
_CIRCLES = Reply(554, "5.4.6 The message goes in circles")
_FAULT = Reply(451, "4.3.0 The message could not be rewritten; the log says why")
_BROKEN = Reply(451, "4.3.0 A fault of ours; the log says where")

log = logging.getLogger(__name__)


class Relay:
    """The listener with its sessions. Make and start it inside the running loop."""

    def __init__(
        self,
        settings: RelaySettings,
        *,
        ways: Ways,
        login: Callable[[str], str],
        clock: Clock,
        chance: Callable[[int], bytes],
        telemetry: Telemetry,
    ) -> None:
        """`login` says whose key a password is, or raises AccessError. Raises ConfigurationError."""
        self.hostname = settings.hostname or settings.domain or "localhost"
        self.max_message_bytes = settings.max_message_bytes
        self._settings = settings
        self._ways = ways
        self._login = login
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._options = options_of(settings)
        self._clients = _networks(settings.clients)
        self._context = _context(settings)
        self._next_hop = NextHop(settings, Egress.read(settings.next_hop_allow))
        self._sessions: dict[Wire, Session] = {}
        self._deserted = asyncio.Event()
        self._deserted.set()
        self._held = 0
        self._stopping = False
        self._told: set[str] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises ConfigurationError where the address cannot be had."""
        host, port = parse_address(self._settings.listen, "relay.listen")
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: Wire(self._serve, self._settings.timeout), host, port)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise ConfigurationError(f"relay.listen: cannot listen on {self._settings.listen}: {reason}") from None
        self._telemetry.watch(self._figures)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, let hand-overs end for a while, then cut them off: their senders will send again."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions.values()):
            session.stop()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._deserted.wait()
        except TimeoutError:
            for wire in list(self._sessions):
                wire.end()
        await self._next_hop.close()

    async def _serve(self, wire: Wire) -> None:
        if self._stopping or len(self._sessions) >= self._settings.max_connections:
            self._telemetry.count("relay_refused_connections_total")
            wire.write(_BUSY.line())
            wire.close()
            return
        session = self._sessions[wire] = Session(wire, self)
        self._deserted.clear()
        try:
            await session.run()
        except Exception:
            log.exception("relay: a session broke")
        finally:
            del self._sessions[wire]
            if not self._sessions:
                self._deserted.set()

    def _figures(self) -> Iterator[Sample]:
        yield "relay_connections", {}, len(self._sessions)
        yield "relay_held_bytes", {}, self._held

    # --- what a session asks

    def offers(self) -> dict[str, str]:
        """See House."""
        known = self._next_hop.offers or {}
        return {name: known[name] for name in (*EXTENSIONS, "SIZE") if name in known}

    async def reach(self) -> Reply | None:
        """See House."""
        return await self._next_hop.reach()

    def may_send(self, peer: str) -> bool:
        """See House."""
        try:
            address = ip_address(peer.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._clients)

    def needs_tls(self) -> bool:
        """See House."""
        return self._settings.require_tls

    def can_start_tls(self) -> bool:
        """See House."""
        return self._context is not None

    async def start_tls(self, wire: Wire) -> None:
        """See House."""
        assert self._context is not None
        await wire.start_tls(self._context)

    def login(self, password: str) -> str | None:
        """See House."""
        try:
            return self._login(password)
        except AccessError:
            self._telemetry.count("relay_wrong_passwords_total")
            return None

    def hold(self, count: int) -> bool:
        """See House."""
        if count > 0 and self._held + count > self._settings.max_held_bytes:
            return False
        self._held += count
        return True

    def stopping(self) -> bool:
        """See House."""
        return self._stopping

    async def take(self, session: Session, envelope: Envelope, message: bytes) -> Reply:
        """See House."""
        id_ = self._chance(8).hex()
        try:
            reply = await self._relayed(session, envelope, message, id_)
        except AftersendError as error:
            log.error("relay: message %s: %s", id_, error)
            reply = _FAULT
        except Exception:
            log.exception("relay: message %s: a fault of ours", id_)
            reply = _BROKEN
        result = "handed_over" if reply.positive else "deferred" if reply.code < 500 else "refused"
        self._telemetry.count("relay_messages_total", result=result)
        log.info("relay: message %s: %s: %d %s", id_, result, reply.code, reply.text)
        return reply

    async def _relayed(self, session: Session, envelope: Envelope, message: bytes, id_: str) -> Reply:
        passed, own = hops(message, self.hostname)
        if passed >= HOPS_LIMIT or own >= PASSES_LIMIT:
            return _CIRCLES
        way = self._way(session.tenant or self._settings.tenant)
        plan = _plan(plan_of(way, **self._options), envelope, again=own > 0)
        if len(message) > THREAD_PAST:
            done = await asyncio.to_thread(rewrite, message, plan, way.sign)
        else:
            done = rewrite(message, plan, way.sign)
        self._note(done, id_)
        return await self._next_hop.hand_over(envelope, self._trace(session, envelope, id_) + done.message)

    def _way(self, tenant: str) -> Way:
        """The domain of the settings is that of their tenant; a key's tenant has its own."""
        return self._ways(tenant, self._settings.domain if tenant == self._settings.tenant else "")

    def _trace(self, session: Session, envelope: Envelope, id_: str) -> bytes:
        return received(
            helo=session.helo,
            peer=session.peer,
            hostname=self.hostname,
            protocol=protocol_name(
                extended=session.extended,
                encrypted=session.encrypted,
                authenticated=session.tenant is not None,
                utf8=envelope.utf8,
            ),
            id_=id_,
            recipient=envelope.recipient,
            now=self._clock(),
        )

    def _note(self, done: Rewritten, id_: str) -> None:
        """Count what was done; a warning is written once, its repeats are counted only."""
        if done.links:
            self._telemetry.count("relay_links_total", done.links)
        for reason, number in done.skipped.items():
            self._telemetry.count("relay_links_left_total", number, reason=reason)
        for notice in done.warnings:
            self._telemetry.count("relay_notices_total", code=notice.code)
            if notice.code not in self._told:
                self._told.add(notice.code)
                log.warning(
                    "relay: message %s: %s (told once; relay_notices_total counts the others)", id_, notice.text
                )


def _plan(plan: Plan, envelope: Envelope, *, again: bool) -> Plan:
    """The plan of one message: it is for whom it goes to, unless it says otherwise itself.

    A notice about other mail (null sender) is nobody's newsletter; one that was here before has its links already.
    """
    if again or not envelope.sender:
        return structs.replace(plan, level=Level.NONE, unsubscribe=False)
    return structs.replace(plan, recipient=envelope.recipient)


def _networks(texts: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    try:
        return tuple(ip_network(text.strip()) for text in texts)
    except ValueError as error:
        raise ConfigurationError(f"relay.clients: {error}; write a network such as 10.0.0.0/8") from None


def _context(settings: RelaySettings) -> ssl.SSLContext | None:
    """What STARTTLS is done with. Raises ConfigurationError."""
    if not settings.certificate:
        if settings.require_tls:
            raise ConfigurationError("relay.require_tls: needs relay.certificate")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.certificate, settings.certificate_key or None)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"relay.certificate: {settings.certificate}: {reason}") from None
    return context

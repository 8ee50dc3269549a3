"""Who asks: the client's address behind proxies that are trusted, and sources that try tokens out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from aftersend.capture.exchange import Headers, Scope, peer_address
from aftersend.contracts import Clock
from aftersend.core.errors import ConfigurationError
from aftersend.core.timestamps import SECOND

HOPS_LIMIT = 20
"""Addresses of an X-Forwarded-For that are looked at, from the right."""

_FORWARDED_LIMIT = 2_000
_KNOWN_LIMIT = 1_024


class ClientAddresses:
    """Tells clients' addresses; proxies outside the list are clients."""

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        """Networks (CIDR) whose X-Forwarded-For is believed. Raises ConfigurationError."""
        self._networks: list[IPv4Network | IPv6Network] = []
        self._known: dict[str, bool] = {}
        for text in trusted:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                raise ConfigurationError(f"trusted proxies: {text!r} is not a network") from None

    def __call__(self, scope: Scope) -> str:
        """The client of a request; empty where it is not known."""
        return self.of(peer_address(scope), dict(scope["headers"]))

    def of(self, peer: str, headers: Headers) -> str:
        """The first address, from the right, that is not a trusted proxy's; `peer` is who connected."""
        if not self._networks or not self._is_trusted(peer):
            return peer
        forwarded = headers.get(b"x-forwarded-for", b"")[-_FORWARDED_LIMIT:].decode("latin-1")
        client = peer
        for hop in reversed(forwarded.split(",")[-HOPS_LIMIT:]):
            address = _address(hop)
            if address is None:
                break
            client = address
            if not self._is_trusted(address):
                break
        return client

    def _is_trusted(self, address: str) -> bool:
        known = self._known.get(address)
        if known is None:
            parsed = _parsed(address)
            known = parsed is not None and any(parsed in network for network in self._networks)
            if len(self._known) >= _KNOWN_LIMIT:
                self._known.clear()
            self._known[address] = known
        return known


def _address(hop: str) -> str | None:
    """The address of a hop, which some proxies write with a port; None for what is none."""
    text = hop.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    parsed = _parsed(text)
    return None if parsed is None else str(parsed)


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


class Throttle:
    """Slows those who ask for many links that do not exist. A link that does is never slowed, whoever asks."""

    ALLOWED = 20
    """Misses of one source in a minute that are answered at once."""
    DELAY_SECONDS = 2.0
    """How long a miss waits after that."""
    SOURCES = 4_096
    """Sources that are remembered; past it all are forgotten."""
    WAITING = 256
    """Misses that wait at the same time; one more is answered at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._minute = 0
        self._misses: dict[str, int] = {}
        self._waiting = 0

    async def miss(self, client: str) -> bool:
        """Note a miss, waiting where there were many; False: there are so many that this one should not come again."""
        if self._count(client) <= self.ALLOWED:
            return True
        if self._waiting >= self.WAITING:
            return False
        self._waiting += 1
        try:
            await asyncio.sleep(self.DELAY_SECONDS)
        finally:
            self._waiting -= 1
        return True

    def _count(self, client: str) -> int:
        minute = self._clock() // (60 * SECOND)
        if minute != self._minute or len(self._misses) >= self.SOURCES:
            self._minute, self._misses = minute, {}
        source = _source(client)
        misses = self._misses[source] = self._misses.get(source, 0) + 1
        return misses


def _source(client: str) -> str:
    """An IPv6 customer has a /64 of addresses and counts once."""
    if ":" not in client:
        return client
    parsed = _parsed(client)
    return str(ip_network((int(parsed) >> 64 << 64, 64))) if isinstance(parsed, IPv6Address) else client

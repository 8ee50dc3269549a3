"""The one guard for every connection to an address that a user named.

A name is resolved once, every address it has is judged against the table below, and the connection goes to a judged
address, so that a name server that answers differently the second time gains nothing. Python's `ipaddress.is_global`
is no guard: it passes forms that carry 169.254.169.254 inside an IPv6 address, and its answers change with the release.
Not visible from here: a NAT64 prefix that a network chose for itself out of ordinary IPv6 space.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl as tls
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aftersend.core.errors import ConfigurationError, EgressError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""From a host and port to the addresses of the host; raises OSError."""

LOOKUP_LIMIT = 5.0
"""Seconds for a name server to answer."""
CONNECT_LIMIT = 5.0
"""Seconds for one address to take a connection."""
ADDRESS_LIMIT = 64
"""How many addresses a name may have."""
URL_LIMIT = 2_048

SCHEMES = ("https", "http")

PORTS: dict[str, tuple[int, ...]] = {
    "http": (80,),
    "https": (443,),
    "ftp": (21,),
    "ftps": (990, 21),
    "sftp": (22,),
    "smtp": (25, 587, 2525),
    "smtps": (465,),
    "amqp": (5672,),
    "amqps": (5671,),
    "nats": (4222,),
    "kafka": (9092,),
}
"""The ports of a scheme, the default one first."""

# fmt: off
DANGEROUS_PORTS = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110,
    111, 113, 115, 117, 119, 123, 135, 137, 138, 139, 143, 161, 179, 389, 427, 445, 465, 512, 513, 514, 515, 526, 530,
    531, 532, 540, 548, 554, 556, 563, 587, 601, 623, 636, 873, 989, 990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049,
    2181, 2375, 2376, 2379, 2380, 3306, 3389, 3659, 4045, 4190, 4222, 5060, 5061, 5432, 5671, 5672, 5900, 6000, 6379,
    6443, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9042, 9092, 9200, 9300, 10080, 10250, 11211, 27017, 27018,
    27019,
))
"""Where something other than the scheme's own protocol listens and might read a request as commands."""
# fmt: on


class Row(NamedTuple):
    """A network that nobody may name."""

    network: Network
    kind: str
    metadata: bool = False
    """Link-local and metadata services hand out credentials: a wide allow does not open them."""


def _rows(text: str, metadata: bool = False) -> tuple[Row, ...]:
    lines = [line.split(maxsplit=1) for line in text.strip().splitlines()]
    return tuple(Row(ip_network(network), kind, metadata) for network, kind in lines)


METADATA = _rows(
    """
    169.254.0.0/16      link-local, cloud metadata
    100.100.100.200/32  cloud metadata
    168.63.129.16/32    cloud metadata
    192.0.0.192/32      cloud metadata
    fe80::/10           link-local
    fd00:ec2::/32       cloud metadata
    fd20:ce::/32        cloud metadata
    fd00:42::42/128     cloud metadata
    64:ff9b:1::/48      local NAT64, may lead anywhere
    """,
    metadata=True,
)

RESERVED = _rows(
    """
    0.0.0.0/8           this host
    10.0.0.0/8          private
    100.64.0.0/10       shared address space
    127.0.0.0/8         loopback
    172.16.0.0/12       private
    192.0.0.0/24        protocol assignments
    192.0.2.0/24        documentation
    192.88.99.0/24      6to4 relay
    192.168.0.0/16      private
    198.18.0.0/15       benchmarking
    198.51.100.0/24     documentation
    203.0.113.0/24      documentation
    224.0.0.0/4         multicast
    255.255.255.255/32  broadcast
    240.0.0.0/4         reserved
    ::/128              unspecified
    ::1/128             loopback
    ::/96               IPv4-compatible
    ::ffff:0:0:0/96     IPv4-translated
    100::/64            discard
    2001::/32           Teredo
    2001::/23           protocol assignments
    2001:db8::/32       documentation
    2002::/16           6to4
    3fff::/20           documentation
    5f00::/16           segment routing
    fc00::/7            private
    fec0::/10           site-local
    ff00::/8            multicast
    ::/3                not global unicast
    4000::/2            not global unicast
    8000::/1            not global unicast
    """
)

_TABLE = METADATA + RESERVED
_MAPPED = IPv6Network("::ffff:0:0/96")
_NAT64 = IPv6Network("64:ff9b::/96")
_TRANSLATED = IPv6Network("::ffff:0:0:0/96")
_COMPATIBLE = IPv6Network("::/96")
_6TO4 = IPv6Network("2002::/16")
_TEREDO = IPv6Network("2001::/32")
_ISATAP = 0x5EFE
_UNIVERSAL_BIT = 0x0200_0000

_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)")
_UNSEEMLY = re.compile(r"[\x00-\x20\x7f-\xa0\\]")


class Target(NamedTuple):
    """What a URL leads to."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int

    @property
    def authority(self) -> str:
        """HOST:PORT; an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_lookups = ThreadPoolExecutor(16, "egress-lookup")


async def look_up(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver finds, on own threads: a dead name server holds up nobody else's."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_lookups, ask)
    return list(dict.fromkeys(str(info[4][0]) for info in found))


@dataclass(frozen=True, slots=True)
class Egress:
    """Which addresses may be connected to: public ones, and what the operator opened."""

    allowed: tuple[Network, ...] = ()
    """Networks opened besides (`--egress-allow`); link-local and metadata are not opened by these."""
    allowed_metadata: tuple[Network, ...] = ()
    """Networks opened among link-local and metadata ones (`--egress-allow-metadata`)."""
    brokers: frozenset[str] = frozenset()
    """Hosts, or host:port, that queue libraries may be given (`egress_brokers`): these resolve for themselves."""
    lookup: Lookup = field(default=look_up, repr=False, compare=False)

    @classmethod
    def read(cls, allow: Iterable[str] = (), metadata: Iterable[str] = (), brokers: Iterable[str] = ()) -> Egress:
        """The guard as an operator writes it. Raises ConfigurationError."""
        return cls(
            tuple(_network(text, "--egress-allow") for text in allow),
            tuple(_network(text, "--egress-allow-metadata") for text in metadata),
            frozenset(text.strip().lower() for text in brokers),
        )

    def judge(self, address: str | Address) -> None:
        """Raises EgressError, naming the rule, where an address must not be connected to."""
        fault = self._fault(_read(address))
        if fault:
            raise EgressError(f"refused: {address} {fault}")

    def _fault(self, address: Address) -> str:
        inside = _carried(address) if isinstance(address, IPv6Address) else ()
        for inner in inside:
            fault = self._fault(inner)
            if fault:
                return f"carries {inner}, which {fault}"
        if address in _MAPPED or address in _NAT64:
            return ""
        return self._fault_by_table(address)

    def _fault_by_table(self, address: Address) -> str:
        row = next((row for row in _TABLE if address in row.network), None)
        if row is None:
            return ""
        networks = self.allowed_metadata if row.metadata else self.allowed
        if any(address in network for network in networks):
            return ""
        switch = "--egress-allow-metadata" if row.metadata else "--egress-allow"
        return f"is in {row.network} ({row.kind}); allow it with {switch} {address}/{address.max_prefixlen}"

    def check_url(self, url: str, schemes: tuple[str, ...] = SCHEMES) -> Target:
        """The target of a URL; a literal address in it is judged, a name is not yet resolved. Raises EgressError."""
        if len(url) > URL_LIMIT:
            raise EgressError(f"refused: the URL is longer than {URL_LIMIT} characters")
        if _UNSEEMLY.search(url):
            raise EgressError(f"refused: {_shown(url)} has a blank, a backslash or a control character")
        scheme, separator, rest = url.partition("://")
        scheme = scheme.lower()
        if not separator or scheme not in schemes:
            raise EgressError(f"refused: {_shown(url)} must begin with {' or '.join(f'{name}://' for name in schemes)}")
        authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
        if "@" in authority:
            raise EgressError("refused: the URL holds a user name or password; put them into options, such as a header")
        host, port = _split_authority(authority)
        host = self.check_host(host)
        return Target(scheme, host, _port(port, scheme))

    def check_host(self, host: str) -> str:
        """A host in lower case; a literal address is judged. Raises EgressError for a form that readers disagree on."""
        if ":" in host:
            self.judge(host)
            return str(ip_address(host))
        name = host.lower()
        if not name:
            raise EgressError("refused: the host is missing")
        labels = name.split(".")
        if len(name) > 253 or not name.isascii() or not all(_LABEL.fullmatch(label) for label in labels):
            raise EgressError(f"refused: {_shown(host)} is not a host name (letters, digits, - and _; no trailing dot)")
        if _NUMBER.fullmatch(labels[-1]):
            self.judge(name)
        return name

    def check_broker(self, host: str, port: int) -> None:
        """Raises EgressError for a broker that is not listed."""
        name = host.lower()
        if name not in self.brokers and f"{name}:{port}" not in self.brokers:
            raise EgressError(f"refused: {_shown(host)} is not a listed broker; add it to the setting egress_brokers")

    async def resolve(self, host: str, port: int) -> list[Address]:
        """The addresses of a host, all judged. Raises EgressError where any is bad, socket.gaierror for no answer."""
        name = self.check_host(host)
        if ":" in name or _NUMBER.fullmatch(name.rpartition(".")[2]):
            return [ip_address(name)]
        found = [self._judged(name, text) for text in await self._look_up(name, port)]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, f"{name} has no address")
        return found

    def _judged(self, name: str, text: str) -> Address:
        address = _read(text)
        fault = self._fault(address)
        if fault:
            raise EgressError(f"refused: {name} leads to {address}, which {fault}")
        return address

    async def _look_up(self, name: str, port: int) -> list[str]:
        try:
            async with asyncio.timeout(LOOKUP_LIMIT):
                found = await self.lookup(name, port)
        except TimeoutError:
            raise socket.gaierror(
                socket.EAI_AGAIN, f"no name server answered for {name} within {LOOKUP_LIMIT:g} s"
            ) from None
        except UnicodeError:
            raise EgressError(f"refused: {_shown(name)} is not a host name") from None
        if len(found) > ADDRESS_LIMIT:
            raise EgressError(f"refused: {name} has more than {ADDRESS_LIMIT} addresses")
        return found

    async def connect(
        self, host: str, port: int, ssl: tls.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a judged address of a host; the name is kept for TLS. Raises EgressError and OSError."""
        fault: OSError = ConnectionError(f"{host} has no address")
        for address in await self.resolve(host, port):
            try:
                async with asyncio.timeout(CONNECT_LIMIT):
                    return await asyncio.open_connection(
                        str(address), port, ssl=ssl, server_hostname=host if ssl else None
                    )
            except OSError as error:
                fault = error
        raise fault


def _network(text: str, switch: str) -> Network:
    try:
        return ip_network(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"{switch}: {error}; write a network such as 10.0.0.0/8") from None


def _read(address: str | Address) -> Address:
    try:
        read = ip_address(address)
    except ValueError:
        raise EgressError(f"refused: {_shown(str(address))} is not an address in its usual form") from None
    if isinstance(read, IPv6Address) and read.scope_id is not None:
        raise EgressError(f"refused: {_shown(str(address))} names a network interface")
    return read


def _carried(address: IPv6Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an IPv6 address carries, in whichever of the known forms."""
    number = int(address)
    last = IPv4Address(number & 0xFFFF_FFFF)
    if number <= 1:
        return ()
    if any(address in form for form in (_MAPPED, _NAT64, _TRANSLATED, _COMPATIBLE)):
        return (last,)
    if address in _6TO4:
        return (IPv4Address(number >> 80 & 0xFFFF_FFFF),)
    if address in _TEREDO:
        return IPv4Address(number >> 64 & 0xFFFF_FFFF), IPv4Address(~number & 0xFFFF_FFFF)
    if number >> 32 & 0xFFFF_FFFF & ~_UNIVERSAL_BIT == _ISATAP:
        return (last,)
    return ()


def _split_authority(authority: str) -> tuple[str, str]:
    """Host and port as text; an IPv6 address loses its brackets."""
    if authority.startswith("["):
        host, bracket, rest = authority[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise EgressError(f"refused: {_shown(authority)} is not an IPv6 address in brackets")
        return host, rest[1:] if rest else ""
    host, _, port = authority.partition(":")
    if ":" in port:
        raise EgressError(f"refused: {_shown(authority)}: write an IPv6 address in brackets")
    return host, port


def _port(text: str, scheme: str) -> int:
    usual = PORTS.get(scheme, ())
    if not text and usual:
        return usual[0]
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:6]) < 65_536:
        raise EgressError(f"refused: {_shown(text)} is not a port")
    port = int(text)
    if port in DANGEROUS_PORTS and port not in usual:
        raise EgressError(f"refused: port {port} belongs to another protocol than {scheme}")
    return port


def _shown(text: str) -> str:
    """Text of a stranger, for one line."""
    return repr(text[:100])

"""Lists of networks by name, and which of them an address is in: one bisection, however many there are."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from itertools import pairwise
from socket import AF_INET, AF_INET6, inet_pton

import msgspec

from aftersend.core.errors import ConfigurationError

NONE: frozenset[str] = frozenset()

_IPV4 = 0xFFFF << 32
"""Where IPv4 lies in IPv6 (`::ffff:0:0/96`), so that one order holds both."""


def read_lists(data: bytes) -> dict[str, list[str]]:
    """Lists of networks in a TOML file: a name, and CIDRs in brackets. Raises ConfigurationError."""
    try:
        lists = msgspec.toml.decode(data, type=dict[str, list[str]])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"lists of networks: {error}") from None
    Networks(lists)
    return lists


class Networks:
    """Named lists; made once, then only read."""

    def __init__(self, lists: Mapping[str, Iterable[str]]) -> None:
        self._bounds: list[int] = []
        self._names: list[frozenset[str]] = []
        edges = sorted(edge for name, networks in lists.items() for edge in _edges(name, networks))
        self._sweep(edges)

    def _sweep(self, edges: list[tuple[int, bool, str]]) -> None:
        """Cut the whole space where any list begins or ends: in between, an address is always in the same lists."""
        within: set[str] = set()
        for (bound, begins, name), (following, _, _) in pairwise([*edges, (1 << 129, True, "")]):
            (within.add if begins else within.discard)(name)
            if following != bound:
                self._bounds.append(bound)
                self._names.append(frozenset(within))

    def names(self, address: str) -> frozenset[str]:
        """The lists that an address is in; none where it is no address."""
        if not self._bounds:
            return NONE
        try:
            number = _number(address)
        except (OSError, ValueError):
            return NONE
        place = bisect_right(self._bounds, number) - 1
        return self._names[place] if place >= 0 else NONE


def _number(address: str) -> int:
    if ":" in address:
        return int.from_bytes(inet_pton(AF_INET6, address))
    return _IPV4 | int.from_bytes(inet_pton(AF_INET, address))


def _edges(name: str, networks: Iterable[str]) -> Iterator[tuple[int, bool, str]]:
    """Where a list begins and ends; networks that overlap or adjoin are one."""
    parsed = [_parsed(name, text) for text in networks]
    for four in collapse_addresses(network for network in parsed if isinstance(network, IPv4Network)):
        yield _IPV4 | int(four.network_address), True, name
        yield (_IPV4 | int(four.network_address)) + four.num_addresses, False, name
    for six in collapse_addresses(network for network in parsed if isinstance(network, IPv6Network)):
        yield int(six.network_address), True, name
        yield int(six.network_address) + six.num_addresses, False, name


def _parsed(name: str, text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ConfigurationError(f"network list {name!r}: {error}") from None

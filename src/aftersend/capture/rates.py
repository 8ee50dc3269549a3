"""How much may come from one place: buckets that fill steadily, in a table with a bound."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from ipaddress import IPv6Address, ip_address

from aftersend.core.timestamps import SECOND

_NETWORK = 64


class Rates:
    """A bucket a key: so much at once, so much a second after that.

    Keeps the `limit` keys heard of last, some 250 bytes each; one that fell out begins anew with a full bucket.
    """

    __slots__ = ("_buckets", "_burst", "_limit", "_per_second")

    def __init__(self, burst: float, per_second: float, limit: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._limit = limit
        self._buckets: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def take(self, key: Hashable, amount: float, now: int) -> bool:
        """Take from a key's bucket at a time (ns); False, and nothing taken, where there is not so much in it."""
        left, since = self._buckets.pop(key, (self._burst, now))
        left = min(self._burst, left + max(0, now - since) / SECOND * self._per_second)
        enough = amount <= left
        self._buckets[key] = (left - amount if enough else left, max(now, since))
        if len(self._buckets) > self._limit:
            self._buckets.popitem(last=False)
        return enough

    def __len__(self) -> int:
        return len(self._buckets)


def network_of(address: str) -> str:
    """What counts as one place: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or int(parsed) >> _NETWORK)

"""aiohttp's connections under the guard."""

from __future__ import annotations

import socket
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

from aftersend.egress import Egress


class GuardedResolver(AbstractResolver):
    """Asks the guard for addresses, anew for each connection; give a connector `socket` as its factory too."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host, all judged. Raises EgressError and OSError."""
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in await self._egress.resolve(host, port)
        ]

    async def close(self) -> None:
        """Nothing is open."""

    def socket(self, info: tuple[Any, ...]) -> socket.socket:
        """A socket for one connection: literal addresses and redirects are seen by no resolver, so judge here too."""
        family, kind, protocol, _, address = info
        self._egress.judge(address[0])
        return socket.socket(family, kind, protocol)

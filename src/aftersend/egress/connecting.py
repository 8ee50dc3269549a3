"""Connections to addresses that the guard judged: sockets, TLS, goodbyes, and whose fault a failure is."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from functools import cache

from aftersend.core.errors import ConfigurationError
from aftersend.egress import CONNECT_LIMIT, Address

GOODBYE_LIMIT = 1.0
"""Seconds for closing a connection; then it is let go of."""

_OUR_ERRORS = frozenset(
    (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.ENETUNREACH)
)
_UNKNOWN_NAME = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))


def is_ours(error: OSError) -> bool:
    """Whether a failure is our own (name server, handles, network) and says nothing about the other side."""
    if isinstance(error, socket.gaierror):
        return error.errno not in _UNKNOWN_NAME
    return error.errno in _OUR_ERRORS


async def dial(addresses: Iterable[Address], port: int) -> socket.socket:
    """A socket, not blocking, to the first of these judged addresses that takes the connection. Raises OSError."""
    fault: OSError = ConnectionError("there is no address")
    for address in addresses:
        sock = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            async with asyncio.timeout(CONNECT_LIMIT):
                await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
            return sock
        except BaseException as error:
            sock.close()
            if not isinstance(error, OSError):
                raise
            is_late = type(error) is TimeoutError
            fault = ConnectionError(f"no connection within {CONNECT_LIMIT:g} s") if is_late else error
    raise fault


def tls_context(authorities: str = "") -> ssl.SSLContext:
    """A client's context that verifies by these authorities (the option `ca`, PEM), or by the system's.

    Raises ConfigurationError.
    """
    if not authorities:
        return _system_context()
    try:
        return ssl.create_default_context(cadata=authorities)
    except (ssl.SSLError, ValueError):
        raise ConfigurationError("ca: that is not certificates as PEM text") from None


@cache
def _system_context() -> ssl.SSLContext:
    return ssl.create_default_context()


class Goodbyes:
    """Connections that are being closed while nobody waits for it."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def say(self, close: Callable[[], Awaitable[object]]) -> None:
        """Close a connection, in bounded time."""
        task = asyncio.get_running_loop().create_task(_close(close))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def over(self) -> None:
        """Returns when all of them are closed."""
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _close(close: Callable[[], Awaitable[object]]) -> None:
    with suppress(Exception):
        async with asyncio.timeout(GOODBYE_LIMIT):
            await close()

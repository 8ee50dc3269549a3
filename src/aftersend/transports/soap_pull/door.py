"""The addresses of SOAP clients: `GET /{host}/ctrlPaint[Literal].wsdl` and `POST /_bus/request.soap[?use=literal]`."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from aftersend.transports.soap_pull.facade import Facade
from aftersend.transports.soap_pull.wire import (
    FaultError,
    NotBase64Error,
    print_encoded,
    print_fault,
    print_literal,
    read_call,
)
from aftersend.transports.soap_pull.wsdl import ENCODED, LITERAL, SERVICE, describe

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

BODY_LIMIT = 1_000_000
"""Bytes of a call."""
BODY_SECONDS = 30.0
"""How long it may take to arrive."""

_XML = b"text/xml; charset=utf-8"
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](:[0-9]{1,5})?")

log = logging.getLogger("aftersend.soap")


def is_soap(path: str) -> bool:
    """Whether an address is one of these."""
    host, _, name = path[1:].partition("/")
    return path == SERVICE or (name in (ENCODED, LITERAL) and bool(host))


class Door:
    """Serves them. `base` is how others reach this instance; empty: as the request itself says."""

    def __init__(self, facade: Facade, *, base: str = "", address_of: Callable[[Scope], str] | None = None) -> None:
        self._facade = facade
        self._base = base.rstrip("/")
        self._address_of = address_of or _peer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"] == SERVICE:
            await self._serve(scope, receive, send)
        elif scope["method"] in ("GET", "HEAD"):
            await self._describe(scope, send)
        else:
            await _respond(send, 405, b"", (b"allow", b"GET, HEAD"))

    async def _describe(self, scope: Scope, send: Send) -> None:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not self._base and not _HOST.fullmatch(host):
            await _respond(send, 400, b"")
            return
        base = self._base or f"{scope.get('scheme', 'http')}://{host}"
        body = describe(base, literal=scope["path"].endswith(LITERAL))
        await _respond(send, 200, body, head=scope["method"] == "HEAD")

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _respond(send, 405, b"", (b"allow", b"POST"))
            return
        try:
            status, body = await self._answer(scope, await _read(scope, receive))
        except FaultError as fault:
            status, body = 500, print_fault(fault)
        except _TooLargeError:
            status, body = 413, print_fault(FaultError("Client", f"the call is larger than {BODY_LIMIT} bytes"))
        except _BrokenError:
            status, body = 400, b""
        except Exception:
            log.exception("a call failed")
            status, body = 500, print_fault(FaultError("Server", "Internal Server Error"))
        await _respond(send, status, body)

    async def _answer(self, scope: Scope, body: bytes) -> tuple[int, bytes]:
        is_literal = b"literal" in scope.get("query_string", b"") and _use(scope) == "literal"
        try:
            call = read_call(body)
        except NotBase64Error as error:
            fields = {error.key: "this is not base64"}
            result: dict[str, Any] = {"result": "bean_exception_validation", "resultData": fields}
        else:
            is_literal = is_literal or call.literal
            result = await self._facade.answer(call, self._address_of(scope))
        return 200, print_literal(result) if is_literal else print_encoded(result)


def _use(scope: Scope) -> str:
    query: str = scope["query_string"][:1_000].decode("latin-1")
    return dict(parse_qsl(query)).get("use", "").lower()


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


class _TooLargeError(Exception):
    """The body is too large."""


class _BrokenError(Exception):
    """The body ended too early, or came too slowly."""


async def _read(scope: Scope, receive: Receive) -> bytes:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > BODY_LIMIT:
        raise _TooLargeError
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read_parts(receive)
    except TimeoutError:
        raise _BrokenError from None


async def _read_parts(receive: Receive) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise _BrokenError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            raise _TooLargeError
        more = message.get("more_body", False)
    return b"".join(parts)


async def _respond(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes], head: bool = False) -> None:
    fields = [
        (b"content-type", _XML),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if head else body})

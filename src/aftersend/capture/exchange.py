"""Requests and answers of the handlers that hear what clients tell: bodies with a bound, answers that nobody keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from aftersend.core.errors import UsageError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Headers = dict[bytes, bytes]
AddressOf = Callable[[Scope], str]
"""The address that a request came from, behind whatever stands in front; empty where it is not known."""

PIXEL = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
    b"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)
"""One transparent dot, 43 bytes."""

JSON = b"application/json"
BODY_SECONDS = 30.0
"""How long a body may take to arrive."""

_WITHOUT_LENGTH = (204, 304)
_QUERY_LIMIT = 8_192
_QUERY_FIELDS = 32
_encode = msgspec.json.Encoder().encode


class BodyTooLargeError(UsageError):
    """The body is too large."""


class BrokenBodyError(UsageError):
    """The body ended too early, or came too slowly."""


class Answer(Struct, frozen=True):
    """An answer, whole."""

    status: int
    body: bytes = b""
    content_type: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


async def read_body(receive: Receive, headers: Headers, limit: int) -> bytes:
    """The whole body. Raises BodyTooLargeError, without reading on, and BrokenBodyError."""
    length = headers.get(b"content-length", b"0")
    if not length.isdigit() or int(length[:20]) > limit:
        raise BodyTooLargeError
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit)
    except TimeoutError:
        raise BrokenBodyError from None


async def _read(receive: Receive, limit: int) -> bytes:
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BrokenBodyError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise BodyTooLargeError
        more = message.get("more_body", False)
    return b"".join(parts)


async def respond(send: Send, answer: Answer) -> None:
    """Send an answer that nothing on its way keeps, unless it says otherwise itself."""
    headers = list(answer.headers)
    if answer.status not in _WITHOUT_LENGTH:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    if answer.content_type:
        headers += (b"content-type", answer.content_type), (b"x-content-type-options", b"nosniff")
    if all(name != b"cache-control" for name, _ in answer.headers):
        headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def json_answer(status: int, value: Any, *headers: tuple[bytes, bytes]) -> Answer:
    """An answer in JSON."""
    return Answer(status, _encode(value), JSON, headers)


def pixel_answer(*headers: tuple[bytes, bytes]) -> Answer:
    """The dot, which is answered whatever was asked."""
    return Answer(200, PIXEL, b"image/gif", headers)


def query_of(scope: Scope) -> dict[str, str]:
    """The fields of the query, the first of a name; nothing where it is absurdly long."""
    text = scope.get("query_string", b"")
    if len(text) > _QUERY_LIMIT:
        return {}
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=_QUERY_FIELDS)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def text_of(headers: Headers, name: bytes, limit: int = 512) -> str:
    """A header as text, cut at a limit; empty where there is none."""
    return headers.get(name, b"")[:limit].decode("latin-1")


def peer_address(scope: Scope) -> str:
    """The address of the other end of the connection."""
    client = scope.get("client")
    return client[0] if client else ""

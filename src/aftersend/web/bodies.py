"""Request bodies: read with a bound, inflated with a bound."""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import zstandard

from aftersend.core.errors import UsageError

BODY_LIMIT = 20_000_000
"""Bytes of a body, inflated; a larger one is answered 413."""

_GZIP = 16 + zlib.MAX_WBITS

Receive = Callable[[], Awaitable[Any]]
Scope = dict[str, Any]


class BodyTooLargeError(UsageError):
    """The body is larger than 20 MB; send it in parts."""


class UnknownEncodingError(UsageError):
    """The body's Content-Encoding is none of gzip, zstd and identity."""


class BrokenBodyError(UsageError):
    """The body ends too early, or is not what its Content-Encoding says."""


async def read_body(receive: Receive, headers: dict[bytes, bytes], limit: int = BODY_LIMIT) -> bytes:
    """The whole body, inflated.

    Raises BodyTooLargeError, UnknownEncodingError and BrokenBodyError.
    """
    length = headers.get(b"content-length", b"")
    if length and (not length.isdigit() or int(length) > limit):
        raise BodyTooLargeError
    message = await receive()
    if message["type"] != "http.request":
        raise BrokenBodyError
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest(receive, body, limit)
    if len(body) > limit:
        raise BodyTooLargeError
    encoding = headers.get(b"content-encoding")
    return body if encoding is None else inflate(body, encoding, limit)


async def _rest(receive: Receive, first: bytes, limit: int) -> bytes:
    parts, size, more = [first], len(first), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BrokenBodyError
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLargeError
        parts.append(part)
        more = message.get("more_body", False)
    return b"".join(parts)


def inflate(body: bytes, encoding: bytes, limit: int) -> bytes:
    """The body without its Content-Encoding, at most `limit` bytes."""
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name in (b"gzip", b"x-gzip"):
        return _gunzip(body, limit)
    if name == b"zstd":
        return _unzstd(body, limit)
    raise UnknownEncodingError


def _gunzip(body: bytes, limit: int) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    try:
        data = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise BrokenBodyError from None
    if len(data) > limit:
        raise BodyTooLargeError
    if not inflater.eof:
        raise BrokenBodyError
    return data


def _unzstd(body: bytes, limit: int) -> bytes:
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(body)
    try:
        data = reader.read(limit + 1)
    except zstandard.ZstdError:
        raise BrokenBodyError from None
    if len(data) > limit:
        raise BodyTooLargeError
    if body and not data:
        raise BrokenBodyError
    return data

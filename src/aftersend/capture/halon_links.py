"""Halon's tokens: read and written, so that aftersend can stand behind links that Halon made.

`key id (1) | HMAC-SHA-256 of the JSON (32) | the JSON, deflated`. Nothing in it tells an open from an unsubscribe: the
two are the same bytes, so whoever has seen a pixel's address has that of the unsubscribe. Only a POST with the
one-click body may act on one. Source: Halon's documentation of its payload, and its tracking module.
"""

from __future__ import annotations

import hmac
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from aftersend.capture.tokens import INFLATED_LIMIT, LinkError, Purpose, decode, encode
from aftersend.core.errors import ConfigurationError

KEY_BYTES = 16
"""How long a key must be, unless short ones are allowed."""

_MAC_BYTES = 32
_HEAD_BYTES = 1 + _MAC_BYTES
_KEY_IDS = range(1, 255)
_WINDOW_BITS = -15


class HalonLink(Struct, frozen=True):
    """What an address of Halon's means."""

    recipient: str
    message_id: str | None
    """The whole header, angle brackets included."""
    target: str | None = None
    """As it stood in the HTML: entities may still be encoded. Only clicks have one."""
    additional: Mapping[str, Any] = {}


class _Content(Struct, omit_defaults=True):
    r: str
    m: str | None
    u: str | UnsetType = UNSET
    a: dict[str, Any] | list[Any] | UnsetType = UNSET


_read_content = msgspec.json.Decoder(_Content).decode
_write_content = msgspec.json.Encoder().encode


class HalonLinks:
    """Reads and writes Halon's tokens, with the keys of one tracking domain."""

    __slots__ = ("_keys",)

    def __init__(self, keys: Mapping[int, bytes], *, allow_short_keys: bool = False) -> None:
        """`keys` by their id, 1 to 254. Raises ConfigurationError, without showing a key."""
        for id_, key in keys.items():
            if id_ not in _KEY_IDS:
                raise ConfigurationError(f"Halon key {id_}: an id is a number from 1 to 254")
            if len(key) < (1 if allow_short_keys else KEY_BYTES):
                raise ConfigurationError(
                    f"Halon key {id_} is shorter than {KEY_BYTES} bytes; allow short keys to use it"
                )
        self._keys = dict(keys)

    def seal(self, link: HalonLink, key_id: int) -> str:
        """The token of a link. Raises LinkError for a key that is not there."""
        additional = dict(link.additional) or UNSET
        target = UNSET if link.target is None else link.target
        try:
            text = _write_content(_Content(link.recipient, link.message_id, target, additional))
        except (ValueError, TypeError):
            raise LinkError("malformed") from None
        compressor = zlib.compressobj(9, zlib.DEFLATED, _WINDOW_BITS)
        deflated = compressor.compress(text) + compressor.flush()
        return encode(bytes((key_id,)) + self._mac(key_id, text) + deflated)

    def open(self, token: str, purpose: Purpose) -> HalonLink:
        """What a token means; padded ones are read too. Raises LinkError.

        A click needs a target, any other purpose must not have one.
        """
        data = decode(_unpadded(token))
        if len(data) <= _HEAD_BYTES:
            raise LinkError("malformed")
        mac = data[1:_HEAD_BYTES]
        text = _inflated(data[_HEAD_BYTES:])
        if not hmac.compare_digest(mac, self._mac(data[0], text)):
            raise LinkError("forged")
        return _link(text, purpose)

    def _mac(self, key_id: int, text: bytes) -> bytes:
        key = self._keys.get(key_id)
        if key is None:
            raise LinkError("unknown_key")
        return hmac.digest(key, text, "sha256")


def _unpadded(token: str) -> str:
    bare = token.rstrip("=")
    if len(bare) == len(token) or (len(token) % 4 == 0 and len(token) - len(bare) <= 2):
        return bare
    raise LinkError("malformed")


def _inflated(data: bytes) -> bytes:
    """Inflated before it can be checked, so within a limit; nothing may follow that the MAC does not cover."""
    inflater = zlib.decompressobj(_WINDOW_BITS)
    try:
        text = inflater.decompress(data, INFLATED_LIMIT)
    except zlib.error:
        raise LinkError("malformed") from None
    if inflater.unconsumed_tail:
        raise LinkError("too_long")
    if inflater.unused_data or not inflater.eof:
        raise LinkError("malformed")
    return text


def _link(text: bytes, purpose: Purpose) -> HalonLink:
    try:
        content = _read_content(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise LinkError("malformed") from None
    target = None if content.u is UNSET else content.u
    if (purpose is Purpose.CLICK) != (target is not None):
        raise LinkError("forged")
    additional = content.a if isinstance(content.a, dict) else {}
    return HalonLink(content.r, content.m, target, additional)

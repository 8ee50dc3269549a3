"""Links of our own: everything a hit needs to know, sealed in its address.

A sealed token is `00 01 | key id (4) | AES-SIV`. What is sealed: one byte of purpose, level and packing, then the
fields in MessagePack, deflated where that is shorter. Nothing has to be looked up to read it, so a click works while
the store is down and after it was purged. AES-SIV needs no chance: the same link has the same address every time, 16
bytes longer than what it seals. Each purpose has a key of its own, so a token opens on its own path only.

An SMS has no room for that (some 100 characters of 160, or of 70 in Cyrillic). Its short form is a **reference**:
`00 02` and 56 bits of chance, 12 characters, which whoever sends keeps beside the sealed token that it stands for.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from msgspec import Struct

from aftersend.capture.tokens import INFLATED_LIMIT, REFERENCE_MARK, SEALED_MARK, LinkError, Purpose, decode, encode
from aftersend.core.consent import Level
from aftersend.core.errors import AftersendError

ADDRESS_LIMIT = 1_900
"""Characters of a whole address; past 2,000 some mail programs cut it."""
REFERENCE_BYTES = 7

_KEY_ID_BYTES = 4
_HEAD_BYTES = len(SEALED_MARK) + _KEY_ID_BYTES
_DEFLATED = 1
_WINDOW_BITS = -11
_MEMORY_LEVEL = 3
# Part of the format: what links of mail have in common, the most frequent last. Never change it, make a new version.
_DICTIONARY = (
    b"@outlook.com@hotmail.com@yahoo.com@icloud.com@mail.ru@yandex.ru@gmail.com"
    b"unsubscribe/preferences/products/category/catalog/account/article/blog/news/shop/index.html?id=&ref=&lang="
    b"&utm_id=&utm_term=&utm_content=button&utm_source=newsletter&utm_medium=email&utm_campaign="
    b"?utm_source=email&utm_medium=email&utm_campaign=.org/.net/.de/.ru/.com/http://https://https://www."
)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_BYTES = 16
_UUID_CHARACTERS = 36


class Link(Struct, frozen=True, gc=False):
    """What an address means."""

    purpose: Purpose
    level: Level
    tenant: int
    domain: int
    """The tracking domain that it was made for, by number; so is the tenant."""
    recipient: str = ""
    message_id: str = ""
    campaign_id: str = ""
    list_id: str = ""
    place: int = 0
    """Of a click: which link of the message, from 1. Of an open: 1 the pixel at the top, 2 the one at the bottom."""
    target: str = ""
    """Of a click only."""


LinkKey = Callable[[str, str], bytes]
"""The key (32 bytes) of a purpose and a key id, e.g. `Keyring.link_key`; raises an AftersendError for an unknown id."""

_Text = str | bytes
_PURPOSES = tuple(Purpose)
# Part of the format: new purposes come last.
_NUMBERS = {purpose: number for number, purpose in enumerate(_PURPOSES)}
_pack_fields = msgspec.msgpack.Encoder().encode
_unpack_fields = msgspec.msgpack.Decoder(tuple[int, int, int, str, Any, Any, Any, str]).decode
_compressor = zlib.compressobj(6, zlib.DEFLATED, _WINDOW_BITS, _MEMORY_LEVEL, zlib.Z_FIXED, _DICTIONARY)
_decompressor = zlib.decompressobj(_WINDOW_BITS, _DICTIONARY)


class Links:
    """Seals links and opens them, with the keys of one keyring."""

    __slots__ = ("_ciphers", "_link_key")

    def __init__(self, link_key: LinkKey) -> None:
        self._link_key = link_key
        self._ciphers: dict[tuple[str, bytes], AESSIV] = {}

    def seal(self, link: Link, key_id: str) -> str:
        """The token of a link, by a key of the keyring (8 hex digits). Raises LinkError where it would be too long."""
        try:
            head = SEALED_MARK + bytes.fromhex(key_id)
            if len(head) != _HEAD_BYTES:
                raise ValueError(key_id)
            content = _packed(link)
        except (ValueError, OverflowError, TypeError):
            raise LinkError("malformed") from None
        token = encode(head + self._cipher(link.purpose, head).encrypt(content, [head]))
        if len(token) > ADDRESS_LIMIT:
            raise LinkError("too_long")
        return token

    def open(self, token: str, purpose: Purpose) -> Link:
        """What a token means, on the path of its purpose. Raises LinkError for anything that `seal` did not make."""
        if len(token) > ADDRESS_LIMIT:
            raise LinkError("too_long")
        data = decode(token)
        head = data[:_HEAD_BYTES]
        if not data.startswith(SEALED_MARK) or len(data) <= _HEAD_BYTES + _UUID_BYTES:
            raise LinkError("malformed")
        try:
            content = self._cipher(purpose, head).decrypt(data[_HEAD_BYTES:], [head])
        except InvalidTag:
            raise LinkError("forged") from None
        return _unpacked(content, purpose)

    def _cipher(self, purpose: Purpose, head: bytes) -> AESSIV:
        cipher = self._ciphers.get((purpose, head))
        if cipher is None:
            try:
                key = self._link_key(purpose.value, head[len(SEALED_MARK) :].hex())
            except AftersendError:
                raise LinkError("unknown_key") from None
            cipher = self._ciphers[purpose, head] = AESSIV(key)
        return cipher


def make_reference(chance: Callable[[int], bytes]) -> str:
    """A short token that says nothing; keep it beside the sealed token that it stands for."""
    return encode(REFERENCE_MARK + chance(REFERENCE_BYTES))


def read_reference(token: str) -> bytes:
    """The 7 bytes to look up. Raises LinkError."""
    data = decode(token)
    if not data.startswith(REFERENCE_MARK) or len(data) != len(REFERENCE_MARK) + REFERENCE_BYTES:
        raise LinkError("malformed")
    return data[len(REFERENCE_MARK) :]


def _packed(link: Link) -> bytes:
    fields = _pack_fields(
        (
            link.tenant,
            link.domain,
            link.place,
            link.recipient,
            _shortened(link.message_id),
            _shortened(link.campaign_id),
            _shortened(link.list_id),
            link.target,
        )
    )
    compressor = _compressor.copy()
    deflated = compressor.compress(fields) + compressor.flush()
    head = _NUMBERS[link.purpose] << 4 | link.level << 2
    if len(deflated) < len(fields):
        return bytes((head | _DEFLATED,)) + deflated
    return bytes((head,)) + fields


def _unpacked(content: bytes, purpose: Purpose) -> Link:
    head, fields = content[0], content[1:]
    try:
        level = Level(head >> 2 & 3)
        if head & _DEFLATED:
            fields = _decompressor.copy().decompress(fields, INFLATED_LIMIT)
        tenant, domain, place, recipient, message, campaign, list_, target = _unpack_fields(fields)
        ids = _lengthened(message), _lengthened(campaign), _lengthened(list_)
    except (ValueError, zlib.error):
        raise LinkError("malformed") from None
    if head >> 4 != _NUMBERS[purpose]:
        raise LinkError("forged")
    return Link(purpose, level, tenant, domain, recipient, *ids, place, target)


@lru_cache(1_024)
def _shortened(text: str) -> _Text:
    """A UUID as its 16 bytes, a Message-ID `<uuid@host>` as these and the host; anything else as it is."""
    if _UUID.fullmatch(text):
        return UUID(text).bytes
    end = _UUID_CHARACTERS + 1
    if text[:1] == "<" and text[end : end + 1] == "@" and text[-1] == ">" and _UUID.fullmatch(text, 1, end):
        host = text[end + 1 : -1].encode()
        return UUID(text[1:end]).bytes + host if host else text
    return text


def _lengthened(short: Any) -> str:
    if isinstance(short, str):
        return short
    if not isinstance(short, bytes):
        raise ValueError("an id is neither text nor bytes")
    uuid, host = UUID(bytes=short[:_UUID_BYTES]), short[_UUID_BYTES:].decode()
    return f"<{uuid}@{host}>" if host else str(uuid)

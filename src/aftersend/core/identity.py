"""Ids: time-ordered and repeatable, so that a second arrival of a fact is seen to be one."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec

from aftersend.core.event import Receipt
from aftersend.core.timestamps import MILLISECOND

_encode = msgspec.json.Encoder().encode
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_hash = blake2b(digest_size=10)


def event_id(receipt: Receipt, origin: str, word: str, time: int, key: str | Sequence[object]) -> str:
    """The id of a fact: UUID version 8 (RFC 9562) of its time in ms and a digest of its identity.

    `origin` is what the dialect is called where the source has no origin of its own; `key` is the vendor's id or else
    the values of the dialect's identity fields. Bytes and volatile fields (attempt counts) never belong to it.
    """
    identity = _encode((receipt.tenant, receipt.origin or origin, word, time, key))
    return make_id(time, identity)


def make_id(time: int, identity: bytes) -> str:
    """UUID version 8 of a time in ns and the digest of `identity`."""
    hashing = _hash.copy()  # Half the price of a new one.
    hashing.update(identity)
    digest = hashing.hexdigest()
    head = f"{time // MILLISECOND:012x}"
    return f"{head[:8]}-{head[8:]}-8{digest[:3]}-{_VARIANTS[digest[3]]}{digest[4:7]}-{digest[7:19]}"

"""Blocks: events of one tenant as compressed JSON, and back.

JSON because it costs what MessagePack costs, compresses better and holds every number that JSON senders may say
(MessagePack ends at 64 bits).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import msgspec
from zstandard import ZstdCompressor, ZstdDecompressor, ZstdError

from aftersend.core.errors import StoreError
from aftersend.core.event import Event, Recorded

T = TypeVar("T")

BLOCK_EVENTS = 1_000
"""A block is closed when it holds so many events (it never holds twice as many) …"""
BLOCK_BYTES = 1_000_000
"""… or so many bytes before compression."""

_LEVEL = 1
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Event]).decode


class _Named(msgspec.Struct, gc=False):
    """What is read of an event to tell it from others."""

    id: str


_decode_named = msgspec.json.Decoder(list[_Named]).decode


class Piece(NamedTuple):
    """Events of one entry, ready to be written."""

    events: list[Event]
    keys: list[bytes]
    """The events' ids, 16 bytes each."""
    data: bytes
    """A JSON array."""


class Block(NamedTuple):
    """Events on their way into one row."""

    recorded: Recorded
    data: bytes
    """A JSON array."""


def cut(events: Sequence[Event]) -> list[Piece]:
    """An entry's events as pieces of at most `BLOCK_EVENTS`. Raises StoreError for what cannot be kept."""
    return [piece_of(list(events[start : start + BLOCK_EVENTS])) for start in range(0, len(events), BLOCK_EVENTS)]


def piece_of(events: list[Event]) -> Piece:
    """Events ready to be written. Raises StoreError for what cannot be kept."""
    try:
        return Piece(events, keys_of(events), _encode(events))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise StoreError(f"an event cannot be kept: {error}") from None


def keys_of(events: Sequence[Event] | Sequence[_Named]) -> list[bytes]:
    """The events' ids, 16 bytes each. Raises ValueError for an id that is not a UUID."""
    ids = [event.id for event in events]
    raw = bytes.fromhex("".join(ids).replace("-", ""))
    if set(map(len, ids)) != {36} or len(raw) != 16 * len(ids):
        raise ValueError("its id is not a UUID")
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]


def without(piece: Piece, fresh: set[bytes]) -> Piece | None:
    """A piece with only the events whose keys are fresh; each is taken out of `fresh` as it is met."""
    kept = []
    for event, key in zip(piece.events, piece.keys, strict=True):
        if key in fresh:
            fresh.remove(key)
            kept.append(event)
    if len(kept) == len(piece.events):
        return piece
    return piece_of(kept) if kept else None


def build(pieces: Iterable[tuple[str, Piece]], position: int) -> list[Block]:
    """Pieces, each with its tenant, as blocks from a position on; a tenant's keep their order."""
    by_tenant: dict[str, list[Piece]] = {}
    for tenant, piece in pieces:
        by_tenant.setdefault(tenant, []).append(piece)
    blocks = []
    for tenant, owned in by_tenant.items():
        for group in _groups(owned):
            events = group[0].events if len(group) == 1 else [event for piece in group for event in piece.events]
            blocks.append(Block(Recorded(position, tenant, events), _joined(group)))
            position += len(events)
    return blocks


def _groups(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    group: list[Piece] = []
    events = size = 0
    for piece in pieces:
        group.append(piece)
        events += len(piece.events)
        size += len(piece.data)
        if events >= BLOCK_EVENTS or size >= BLOCK_BYTES:
            yield group
            group, events, size = [], 0, 0
    if group:
        yield group


def _joined(group: Sequence[Piece]) -> bytes:
    if len(group) == 1:
        return group[0].data
    return b"[" + b",".join([piece.data[1:-1] for piece in group]) + b"]"


def compressor() -> ZstdCompressor:
    """What packs blocks; for one thread."""
    return ZstdCompressor(level=_LEVEL)


def pack(compress: ZstdCompressor, data: bytes) -> bytes:
    """The row's body."""
    return compress.compress(data)


def unpack(body: bytes) -> list[Event]:
    """The events of a row's body. Raises StoreError where it is damaged."""
    return _unpack(body, _decode)


def unpack_keys(body: bytes) -> list[bytes]:
    """The ids of a row's body, 16 bytes each. Raises StoreError where it is damaged."""
    return keys_of(_unpack(body, _decode_named))


def _unpack(body: bytes, decode: Callable[[bytes], list[T]]) -> list[T]:
    try:
        return decode(ZstdDecompressor().decompress(body))
    except (ZstdError, msgspec.MsgspecError) as error:
        raise StoreError(f"a block of the log is damaged: {error}") from None

"""An event as an SQS message: text that Amazon takes, attributes, and requests that hold as many as they may."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

from msgspec import Struct

from aftersend.core.outcome import Piece

BATCH_COUNT = 10
"""Messages of one request, by Amazon's rule …"""
BATCH_BYTES = 262_144
"""… and bytes of one request and of one message, attributes included."""

_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that Amazon takes in no message: what XML 1.0 cannot say."""
_IN_JSON = {0xFFFE: "\\ufffe", 0xFFFF: "\\uffff"}


class Message(Struct, frozen=True):
    """A piece as it is sent."""

    piece: Piece
    entry: dict[str, Any]
    size: int


def message_of(piece: Piece, *, is_fifo: bool) -> Message:
    """A piece as it is sent; of a FIFO queue with its group and with the id that repeats are known by."""
    text, more = _text_of(piece)
    values = {"aftersend-id": piece.id, "aftersend-type": piece.type, "content-type": piece.content_type} | more
    attributes = {name: {"DataType": "String", "StringValue": value} for name, value in values.items() if value}
    entry: dict[str, Any] = {"MessageBody": text, "MessageAttributes": attributes}
    if is_fifo:
        group = blake2b(piece.key.encode("utf-8", "replace"), digest_size=16).hexdigest()
        entry |= {"MessageGroupId": group, "MessageDeduplicationId": piece.id}
    size = sum(len(name) + len("String") + len(value.encode()) for name, value in values.items())
    return Message(piece, entry, size + len(text.encode()))


def _text_of(piece: Piece) -> tuple[str, dict[str, str]]:
    """The body as text that Amazon takes, and attributes that say how it was made so."""
    try:
        text = piece.body.decode()
    except UnicodeDecodeError:
        return b64encode(piece.body).decode(), {"aftersend-encoding": "base64"}
    if not _REFUSED.search(text):
        return text, {}
    if "json" in piece.content_type:
        # In JSON such a character may be spelt out: the value stays the same.
        text = text.translate(_IN_JSON)
        if not _REFUSED.search(text):
            return text, {}
    return b64encode(piece.body).decode(), {"aftersend-encoding": "base64"}


def requests_of(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Runs that one request can carry."""
    run: list[Message] = []
    size = 0
    for one in messages:
        if len(run) == BATCH_COUNT or size + one.size > BATCH_BYTES:
            yield run
            run, size = [], 0
        run.append(one)
        size += one.size
    if run:
        yield run

"""Bodies of `multipart/form-data` (RFC 7578), read within limits."""

from __future__ import annotations

import re

from aftersend.core.errors import UsageError

PARTS_LIMIT = 64
HEAD_LIMIT = 1_024
"""Bytes of the header of one part."""

_BOUNDARY = re.compile(
    r'multipart/form-data\s*;(?:.*;)?\s*boundary=(?:"([^"\r\n]{1,70})"|([^\s";,]{1,70}))', re.IGNORECASE
)
_NAME = re.compile(rb'content-disposition:\s*form-data\s*;(?:[^\r\n]*;)?\s*name="([^"\r\n]{1,200})"', re.IGNORECASE)


def read_parts(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts by name, the first of each. Raises UsageError for anything that is not well-formed."""
    match = _BOUNDARY.match(content_type.strip())
    if match is None:
        raise UsageError("the body is no multipart/form-data, or its boundary is missing")
    mark = b"\r\n--" + (match[1] or match[2]).encode("latin-1")
    pieces = (b"\r\n" + body).split(mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise UsageError("the last part does not end")
    if len(pieces) > PARTS_LIMIT + 2:
        raise UsageError(f"there are more than {PARTS_LIMIT} parts")
    parts: dict[str, bytes] = {}
    for piece in pieces[1:-1]:
        name, value = _part(piece)
        parts.setdefault(name, value)
    return parts


def _part(piece: bytes) -> tuple[str, bytes]:
    head, found, value = piece.partition(b"\r\n\r\n")
    name = _NAME.search(head) if found and len(head) <= HEAD_LIMIT else None
    if name is None:
        raise UsageError("a part has no name")
    return name[1].decode("utf-8", "replace"), value

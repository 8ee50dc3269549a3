"""Transfer encodings: bodies decoded, changed in places, and written again with everything else as it was.

Of 7bit, 8bit, binary and quoted-printable bodies every raw byte outside the changed places stays (next to one a soft
line break may come or go). Of base64 every decoded byte stays; the lines of that body are wrapped anew.
"""

from __future__ import annotations

import re
from base64 import b64encode
from binascii import Error as Base64Error
from binascii import a2b_base64, a2b_qp
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Protocol

LINE_LIMIT = 990
"""Octets of a 7bit or 8bit line; SMTP allows 998, and programs on the way add some."""
QUOTED_LINE = 76
"""Octets of a quoted-printable line, RFC 2045."""

ENCODINGS = frozenset(("7bit", "8bit", "binary", "quoted-printable", "base64"))

ByteEdit = tuple[int, int, bytes]
"""A place of the content and what stands there afterwards."""

_QUOTED = re.compile(rb"[^!-<>-~ ]")
_LONGEST_ESCAPE = 3


class Body(Protocol):
    """The body of a part."""

    @property
    def content(self) -> bytes:
        """Decoded."""
        ...

    def changed(self, edits: Sequence[ByteEdit]) -> bytes | None:
        """The raw body after edits, in order; None where they cannot be made without changing more."""
        ...


def read_transfer(raw: bytes, encoding: str) -> Body | None:
    """A body in one of ENCODINGS, or None where it is not what its header says."""
    if encoding == "quoted-printable":
        quoted = QuotedBody(raw)
        return quoted if quoted.is_whole() else None
    if encoding == "base64":
        try:
            return Base64Body(raw)
        except Base64Error:
            return None
    return PlainBody(raw)


def spliced(content: bytes, edits: Sequence[ByteEdit]) -> bytes:
    """Content after edits, in order, that do not overlap."""
    pieces: list[bytes] = []
    at = 0
    for start, end, new in edits:
        pieces += (content[at:start], new)
        at = end
    pieces.append(content[at:])
    return b"".join(pieces)


class PlainBody:
    """7bit, 8bit or binary."""

    __slots__ = ("content",)

    def __init__(self, raw: bytes) -> None:
        self.content = raw

    def changed(self, edits: Sequence[ByteEdit]) -> bytes | None:
        """See Body."""
        return spliced(self.content, edits)


class Base64Body:
    """Base64. Raises binascii.Error for what is none."""

    __slots__ = ("_raw", "content")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.content = a2b_base64(raw.translate(None, b" \t\r\n"), strict_mode=True)

    def changed(self, edits: Sequence[ByteEdit]) -> bytes | None:
        """In lines as long as the first one was, between the white space that was around them."""
        raw = self._raw
        newline = b"\r\n" if b"\r\n" in raw else b"\n"
        body = raw.strip()
        width = body.find(newline)
        width = width if 0 < width <= QUOTED_LINE and width % 4 == 0 else QUOTED_LINE
        text = b64encode(spliced(self.content, edits))
        lines = newline.join([text[at : at + width] for at in range(0, len(text), width)])
        start = len(raw) - len(raw.lstrip())
        return raw[:start] + lines + raw[start + len(body) :]


class QuotedBody:
    """Quoted-printable, edited in place: offsets are counted over the escapes, and what is new is folded."""

    __slots__ = ("_joined", "_lines", "_raw", "_soft", "content")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._soft = b"=\r\n" if b"=\r\n" in raw else b"=\n"
        self._lines = raw.split(self._soft)
        self._joined = b"".join(self._lines)
        self.content = a2b_qp(self._joined)

    def is_whole(self) -> bool:
        """Whether every `=` begins an escape, so that offsets can be counted."""
        return len(self.content) == len(self._joined) - 2 * self._joined.count(b"=")

    def changed(self, edits: Sequence[ByteEdit]) -> bytes | None:
        """See Body."""
        raw, soft = self._raw, self._soft
        pieces: list[bytes] = []
        at = column = 0
        for start, end, new in self._raw_edits(edits):
            kept = raw[at:start]
            newline = kept.rfind(b"\n")
            column = len(kept) - newline - 1 if newline >= 0 else column + len(kept)
            folded, column = _folded(_QUOTED.sub(_escape, new), column, soft)
            pieces += (kept, folded)
            if column + _rest_of_line(raw, end) > QUOTED_LINE:
                pieces.append(soft)
                column = 0
            at = end
        pieces.append(raw[at:])
        result = b"".join(pieces)
        return result if a2b_qp(result) == spliced(self.content, edits) else None

    def _raw_edits(self, edits: Sequence[ByteEdit]) -> list[ByteEdit]:
        """The same edits by the offsets of the raw body."""
        breaks = list(accumulate(map(len, self._lines)))
        del breaks[-1]
        width = len(self._soft)
        found: list[ByteEdit] = []
        content_at = joined_at = raw_at = 0
        for start, end, new in edits:
            joined_at = _ahead(self._joined, joined_at, start - content_at)
            raw_start = max(raw_at, joined_at + width * bisect_left(breaks, joined_at))
            joined_at = _ahead(self._joined, joined_at, end - start)
            raw_at = max(raw_start, joined_at + width * bisect_left(breaks, joined_at))
            found.append((raw_start, raw_at, new))
            content_at = end
        return found


class LineRule:
    """Says of one edit after the other, in order, whether the line that it is in stays within the limit."""

    __slots__ = ("_content", "_end", "_length")

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._end = -1
        self._length = 0

    def fits(self, start: int, end: int, length: int) -> bool:
        """Whether `length` octets may stand in this place; they are taken as standing there if so."""
        if start > self._end:
            self._end = self._line_end(end)
            self._length = self._end - self._content.rfind(b"\n", 0, start) - 1
        elif end > self._end:
            before, self._end = self._end, self._line_end(end)
            self._length += self._end - before
        growth = length - (end - start)
        if growth > 0 and self._length + growth > LINE_LIMIT:
            return False
        self._length += growth
        return True

    def _line_end(self, at: int) -> int:
        found = self._content.find(b"\n", at)
        return len(self._content) if found < 0 else found


def _ahead(joined: bytes, at: int, count: int) -> int:
    """Where `count` decoded bytes after an offset end, in quoted-printable without soft breaks.

    Every `=` on the way costs two bytes more, which may hold further ones: counted until none is new.
    """
    end, counted = at + count, at
    while counted < end:
        more = joined.count(b"=", counted, end)
        counted, end = end, end + 2 * more
    return end


def _folded(text: bytes, column: int, soft: bytes) -> tuple[bytes, int]:
    """Text in lines that leave room for a soft break, and the column that it ends in."""
    lines: list[bytes] = []
    while column + len(text) > QUOTED_LINE - 1:
        cut = max(0, QUOTED_LINE - 1 - column)
        escape = text.rfind(b"=", max(0, cut - _LONGEST_ESCAPE + 1), cut)
        cut = escape if escape >= 0 else cut
        lines.append(text[:cut])
        text, column = text[cut:], 0
    return soft.join([*lines, text]), column + len(text)


def _rest_of_line(raw: bytes, at: int) -> int:
    """How many octets follow up to the end of the line; only as many as matter are looked at."""
    end = raw.find(b"\n", at, at + QUOTED_LINE + 2)
    if end < 0:
        return min(len(raw) - at, QUOTED_LINE)
    return end - at - (raw[end - 1 : end] == b"\r")


def _escape(match: re.Match[bytes]) -> bytes:
    return b"=%02X" % match[0][0]

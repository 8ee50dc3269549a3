"""Character sets: which bytes can be scanned as they are, and how the others can.

In most charsets a byte below 0x40 is the ASCII character wherever it stands, so `<`, `>`, `=` and quotes are what they
seem. ISO-2022 shifts: what stands between its shifts is covered before the scan. UTF-16 and UTF-32 are scanned as text
and their offsets counted back into bytes. UTF-7 and HZ are left alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_SHIFTING = re.compile(r"(?:cs)?iso-?2022")
_SHIFTED = re.compile(rb"\x1b\$[^\x1b\n]*+|\x0e[^\x0f\n]*+")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")
# A character that means nothing in HTML wherever it stands; `<?` would begin a comment.
_COVER = "\xa0"
_WIDE = re.compile(r"utf-?(?:16|32)")
_OPAQUE = re.compile(
    r"(?:cs)?(?:utf-?7|unicode|hz|ucs|iso-10646|ebcdic|ibm(?:037|500|1026|1140)|cp(?:037|500|1026|1140))"
)
_ORDERS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_DEFAULT_ORDERS = {"utf-16": "utf-16-be", "utf-32": "utf-32-be"}
_ASCII = frozenset(("", "us-ascii", "ascii", "utf-8", "utf8", "ansi_x3.4-1968"))
# Python knows codecs that are no charsets (punycode, unicode_escape).
_NAMES = re.compile(r"(?:cs)?(?:iso|latin|windows|cp|koi8|gb|big5|shift|sjis|euc|mac|tis|ms|ks)[a-z0-9_:-]*")


class Edit(NamedTuple):
    """A place of what was scanned, and the ASCII text that stands there afterwards."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Reading:
    """A body as it can be scanned."""

    content: bytes
    scanned: bytes
    """One byte for each of the body, or for each character of `text`."""
    codec: str
    text: str | None = None
    skipped: int = 0
    """Bytes of a byte order mark before the text."""

    def value(self, start: int, end: int) -> str | None:
        """The text of a place, or None where it cannot be read."""
        if self.text is not None:
            return self.text[start:end]
        raw = self.content[start:end]
        try:
            return raw.decode("ascii") if raw.isascii() and b"\x1b" not in raw else raw.decode(self.codec)
        except (UnicodeDecodeError, LookupError):
            return None

    def edits(self, edits: Sequence[Edit]) -> list[tuple[int, int, bytes]]:
        """Edits, in order, as edits of the body's bytes."""
        if self.text is None:
            return [(edit.start, edit.end, edit.text.encode("ascii")) for edit in edits]
        return self._edits_of_text(self.text, edits)

    def _edits_of_text(self, text: str, edits: Sequence[Edit]) -> list[tuple[int, int, bytes]]:
        found: list[tuple[int, int, bytes]] = []
        at, offset = 0, self.skipped
        for edit in edits:
            start = offset + len(text[at : edit.start].encode(self.codec))
            end = start + len(text[edit.start : edit.end].encode(self.codec))
            found.append((start, end, edit.text.encode(self.codec)))
            at, offset = edit.end, end
        return found


def read_body(content: bytes, charset: str) -> Reading | None:
    """How a decoded body can be scanned, or None where its charset does not allow it."""
    if _WIDE.match(charset):
        return _wide(content, charset)
    if _OPAQUE.match(charset):
        return None
    if _SHIFTING.match(charset):
        return Reading(content, _SHIFTED.sub(lambda match: _COVER.encode("latin-1") * len(match[0]), content), charset)
    # Mail that says ASCII and is not is UTF-8 more often than anything else.
    codec = "utf-8" if charset in _ASCII or not _NAMES.fullmatch(charset) else charset
    return Reading(content, content, codec)


def _wide(content: bytes, charset: str) -> Reading | None:
    mark = next((mark for mark in _ORDERS if content.startswith(mark)), b"")
    codec = _ORDERS.get(mark, _DEFAULT_ORDERS.get(charset, charset))
    try:
        text = content[len(mark) :].decode(codec)
    except (UnicodeDecodeError, LookupError):
        return None
    return Reading(content, _NOT_ASCII.sub(_COVER, text).encode("latin-1"), codec, text, len(mark))

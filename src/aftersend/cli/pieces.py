"""Cutting long input into pieces that a dialect can read: lines, members of an array, items of a document."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

import msgspec
from msgspec import Struct, structs

from aftersend.cli.files import Readable
from aftersend.contracts import Dialect
from aftersend.core.event import Event, Receipt, Rejected

PIECE_BYTES = 4_000_000
"""About how large a piece is; what cannot be cut may be larger."""
PIECE_EVENTS = 1_000
"""Members of an array, or items of a document, in one piece."""
WHOLE_LIMIT = 512_000_000
"""Bytes of an array or document, which must be read as a whole before it can be cut; more is rejected."""
_LINE_LIMIT = 20_000_000
_HEADER_LINES = 20

_members = msgspec.json.Decoder(list[msgspec.Raw]).decode
_MAILS = re.compile(rb"^From .*\n", re.MULTILINE)


class Piece(Struct, frozen=True):
    """Bytes that can be decoded for themselves."""

    body: bytes
    lines: bool = False
    """Each line is a member of its own."""


class TooLargeError(ValueError):
    """The input cannot be cut, and is too large to be read whole."""


def pieces(file: Readable, dialect: Dialect, form: str) -> Iterator[Piece]:
    """The input in pieces, as they arrive. Raises TooLargeError."""
    first = _first_block(file)
    sign = first.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    if sign == b"{" and _is_object(first.split(b"\n", 1)[0]):
        return _json_lines(file, first)
    if sign == b"[":
        return _array(_whole(file, first))
    if sign == b"<":
        return _document(_whole(file, first))
    if sign == b"{" or first.startswith(b"From ") or form in dialect.singles:
        return iter((Piece(_whole(file, first)),))
    return _text(file, first, dialect, form)


def _first_block(file: Readable) -> bytes:
    """What there is, at least to the end of the first line."""
    block = file.read1(1 << 20)
    while block and b"\n" not in block and len(block) < _LINE_LIMIT:
        more = file.read1(1 << 20)
        if not more:
            break
        block += more
    return block


def _whole(file: Readable, first: bytes) -> bytes:
    body = first + file.read(max(0, WHOLE_LIMIT + 1 - len(first)))
    if len(body) > WHOLE_LIMIT:
        raise TooLargeError(f"it is larger than {WHOLE_LIMIT // 1_000_000} MB and does not hold one event a line")
    return body


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(line), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _json_lines(file: Readable, rest: bytes) -> Iterator[Piece]:
    """Complete lines as they arrive."""
    block = rest
    while block:
        end = rest.rfind(b"\n") + 1
        if end:
            yield Piece(rest[:end], lines=True)
            rest = rest[end:]
        if len(rest) > _LINE_LIMIT:
            raise TooLargeError(f"a line is longer than {_LINE_LIMIT // 1_000_000} MB")
        block = file.read1(PIECE_BYTES)
        rest += block
    if rest.strip():
        yield Piece(rest, lines=True)


def _array(body: bytes) -> Iterator[Piece]:
    if len(body) <= PIECE_BYTES:
        yield Piece(body)
        return
    try:
        members = iter(_members(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        yield Piece(body)
        return
    while chunk := list(islice(members, PIECE_EVENTS)):
        yield Piece(b"[" + b",".join(map(bytes, chunk)) + b"]")


def _document(body: bytes) -> Iterator[Piece]:
    """A long XML document as several of the same root, with some of its items each."""
    if len(body) <= PIECE_BYTES:
        yield Piece(body)
        return
    from lxml import etree

    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(body, parser)
    except (etree.XMLSyntaxError, ValueError):
        yield Piece(body)
        return
    holder = max((root, *root), key=len)
    items = list(holder)
    holder[:] = []
    shell = etree.tostring(holder, with_tail=False)
    opening = shell.removesuffix(b"/>") + b">" if shell.endswith(b"/>") else shell[: shell.rindex(b"</")]
    closing = b"</" + re.split(rb"[\s/>]", opening[1:], maxsplit=1)[0] + b">"
    for start in range(0, len(items), PIECE_EVENTS):
        chunk = items[start : start + PIECE_EVENTS]
        yield Piece(opening + b"".join(etree.tostring(item, with_tail=False) for item in chunk) + closing)


def _text(file: Readable, rest: bytes, dialect: Dialect, form: str) -> Iterator[Piece]:
    """Rows of text, cut where a line and its quotes end; the lines at the top that only name columns stand in each."""
    header: bytes | None = None
    while True:
        rest += file.read(max(0, PIECE_BYTES - len(rest)))
        if len(rest) < PIECE_BYTES:
            break
        end = _row_end(rest)
        yield Piece((header or b"") + rest[:end])
        header = _header(rest, dialect, form) if header is None else header
        rest = rest[end:]
    if rest or header is None:
        yield Piece((header or b"") + rest)


def _row_end(text: bytes) -> int:
    """Where the last complete row ends; at the last line where the quotes do not tell."""
    end = last = text.rfind(b"\n") + 1
    for _ in range(100):
        if end <= 0:
            break
        if text.count(b'"', 0, end) % 2 == 0:
            return end
        end = text.rfind(b"\n", 0, end - 1) + 1
    return last or len(text)


def _header(text: bytes, dialect: Dialect, form: str) -> bytes:
    lines = text[:65_536].split(b"\n")[:_HEADER_LINES]
    count = 0
    while count < len(lines) and not dialect.decode(Receipt(lines[count], 0, form=form)):
        count += 1
    return b"".join(line + b"\n" for line in lines[:count])


def decode(piece: Piece, dialect: Dialect, receipt: Receipt) -> list[Event | Rejected]:
    """What a piece says; several bodies of a one-event form, a line or a mail each, are read one by one."""
    found = dialect.decode(receipt)
    if len(found) != 1:
        return found
    unreadable = isinstance(found[0], Rejected) and found[0].index is None
    if piece.lines and unreadable:
        return _one_by_one(_lines(piece.body), dialect, receipt)
    return _singles(piece, dialect, receipt) or found


def bodies(piece: Piece, dialect: Dialect, receipt: Receipt) -> list[bytes]:
    """A piece as the bodies that its vendor would send: itself, or each of the bodies of a one-event form."""
    if dialect.singles and len(dialect.decode(receipt)) == 1 and _singles(piece, dialect, receipt):
        return _parts(piece.body)
    return [piece.body]


def _singles(piece: Piece, dialect: Dialect, receipt: Receipt) -> list[Event | Rejected]:
    """The events of several bodies of a one-event form; nothing where it is one body that only looks like them."""
    parts = _parts(piece.body) if dialect.singles else []
    found = _one_by_one(parts, dialect, receipt) if len(parts) > 1 else []
    return found if all(isinstance(item, Event) for item in found) else []


def _lines(body: bytes) -> list[bytes]:
    return [line for line in body.split(b"\n") if line.strip()]


def _parts(body: bytes) -> list[bytes]:
    if body.startswith(b"From "):
        return [part for part in _MAILS.split(body) if part.strip()]
    return _lines(body)


def _one_by_one(parts: Sequence[bytes], dialect: Dialect, receipt: Receipt) -> list[Event | Rejected]:
    found: list[Event | Rejected] = []
    for body in parts:
        for item in dialect.decode(structs.replace(receipt, body=body)):
            found.append(structs.replace(item, index=len(found)) if isinstance(item, Rejected) else item)
    return found

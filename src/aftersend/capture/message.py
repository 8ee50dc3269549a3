"""Messages as bytes: where their header fields stand, and the bodies of the parts that a person reads.

Nothing is parsed into objects and written back: every offset is one of the message as it came. What cannot be read
without doubt is left out, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from aftersend.capture.transfer import ENCODINGS

DEPTH_LIMIT = 20
PART_LIMIT = 1_000

HTML, AMP, TEXT = "text/html", "text/x-amp-html", "text/plain"

_FIELDS = re.compile(rb"(?:[!-9;-~]++[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+)*+")
_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:([^\n]*+\n(?:[ \t][^\n]*+\n)*+)")
_FOLD = re.compile(rb"\r?\n")
_TYPE = re.compile(rb"\s*+([!-.0-:<-~]++)/([!-:<-~]++)")
_PARAMETER = re.compile(rb""";\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))""", re.DOTALL)
_DELIMITER_END = re.compile(rb"(--)?[ \t]*+(?:\r?\n|\Z)")
_BOUNDARY_LIMIT = 200
_VALUE_LIMIT = 2_000
_SEALED = frozenset(("multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"))
_CONTENT = (b"content-type", b"content-transfer-encoding", b"content-disposition")


class Field(NamedTuple):
    """A header field; `start` to `end` holds its line break too."""

    name: bytes
    """In lower case."""
    start: int
    end: int
    value: str
    """Unfolded."""


class Part(NamedTuple):
    """The body of a part that a person reads."""

    type: str
    """HTML, AMP or TEXT."""
    encoding: str
    """7bit, 8bit, binary, quoted-printable or base64."""
    charset: str
    start: int
    end: int


@dataclass(slots=True)
class Message:
    """A message, as offsets."""

    newline: bytes
    fields: list[Field]
    head_end: int
    """Where a header field can be added, or -1 where the header cannot be read: then nothing may be changed."""
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was left out: `malformed_mime`, `signed_part`, `unknown_encoding`, `too_many_parts`."""


class _Entity(NamedTuple):
    type: str
    parameters: dict[str, bytes]
    encoding: str
    disposition: str
    start: int
    end: int


def read_message(data: bytes) -> Message:
    """Fields and parts of a message. Never raises; what is malformed is noted, and has no parts."""
    fields = _FIELDS.match(data)
    head_end = fields.end() if fields else 0
    first = data.find(b"\n")
    message = Message(b"\r\n" if data[first - 1 : first] == b"\r" else b"\n", [], head_end)
    message.fields = [
        Field(found[1].lower(), *found.span(), _unfolded(found[2])) for found in _FIELD.finditer(data, 0, head_end)
    ]
    _walk(data, message)
    return message


def _walk(data: bytes, message: Message) -> None:
    """Find the parts in their order, without recursion."""
    if _entity(data, 0, len(data), TEXT) is None:
        message.head_end = -1
    waiting = [(0, len(data), TEXT, 0)]
    count = 0
    while waiting:
        start, end, default, depth = waiting.pop()
        count += 1
        if count > PART_LIMIT or depth > DEPTH_LIMIT:
            message.notes.append("too_many_parts")
            return
        entity = _entity(data, start, end, default)
        if entity is None:
            message.notes.append("malformed_mime")
        elif entity.type in _SEALED:
            message.notes.append("signed_part")
        elif entity.type.startswith("multipart/"):
            inner = _inner(data, entity, message)
            child = "message/rfc822" if entity.type == "multipart/digest" else TEXT
            waiting += [(*span, child, depth + 1) for span in reversed(inner)]
        elif entity.type in (HTML, AMP, TEXT) and entity.disposition in ("", "inline"):
            _note_part(data, entity, message)


def _note_part(data: bytes, entity: _Entity, message: Message) -> None:
    if entity.encoding not in ENCODINGS:
        message.notes.append("unknown_encoding")
    elif entity.type == TEXT and data.find(b"-----BEGIN PGP ", entity.start, entity.end) >= 0:
        message.notes.append("signed_part")
    else:
        charset = entity.parameters.get("charset", b"").decode("ascii", "replace").lower()
        message.parts.append(Part(entity.type, entity.encoding, charset, entity.start, entity.end))


def _entity(data: bytes, start: int, end: int, default: str) -> _Entity | None:
    """What the header of a part says, or None where it cannot be read without doubt."""
    fields = _FIELDS.match(data, start, end)
    at = fields.end() if fields else start
    blank = 2 if data.startswith(b"\r\n", at, end) else 1 if data.startswith(b"\n", at, end) else 0
    if not blank and at != end:
        return None
    found = [(name, field[2]) for field in _FIELD.finditer(data, start, at) if (name := field[1].lower()) in _CONTENT]
    values = dict(found)
    if len(values) != len(found) or any(len(value) > _VALUE_LIMIT for value in values.values()):
        return None
    type_, parameters = default, dict[str, bytes]()
    if b"content-type" in values:
        match = _TYPE.match(values[b"content-type"])
        if match is None:
            return None
        type_ = match[0].strip().decode("ascii").lower()
        parameters = _parameters(values[b"content-type"])
    encoding = _unfolded(values.get(b"content-transfer-encoding", b"7bit")).lower()
    disposition = _unfolded(values.get(b"content-disposition", b"")).partition(";")[0].strip().lower()
    return _Entity(type_, parameters, encoding, disposition, at + blank, end)


def _inner(data: bytes, entity: _Entity, message: Message) -> list[tuple[int, int]]:
    """Where the parts of a multipart stand; none, with a note, where it is not whole."""
    boundary = entity.parameters.get("boundary", b"").rstrip()
    if not 0 < len(boundary) <= _BOUNDARY_LIMIT or entity.encoding not in ("7bit", "8bit", "binary"):
        message.notes.append("malformed_mime")
        return []
    spans: list[tuple[int, int]] = []
    opened = -1
    for start, end, closing in _delimiters(data, b"--" + boundary, entity.start, entity.end):
        if opened >= 0:
            spans.append((opened, max(opened, start)))
        opened = end
        if closing and spans:
            return spans
    message.notes.append("malformed_mime")
    return []


def _delimiters(data: bytes, line: bytes, start: int, end: int) -> Iterator[tuple[int, int, bool]]:
    """Each delimiter line with the line break before it: from, to, and whether it is the last one."""
    at = data.find(line, start, end)
    while at >= 0:
        rest = _DELIMITER_END.match(data, at + len(line), end)
        after = at + len(line)
        if rest and (at == start or data[at - 1] == 0x0A):
            before = at - (0 if at == start else 2 if data[at - 2 : at] == b"\r\n" else 1)
            yield before, rest.end(), rest[1] is not None
            after = rest.end()
        at = data.find(line, after, end)


def _parameters(value: bytes) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for match in _PARAMETER.finditer(value):
        name = match[1].decode("ascii", "replace").lower()
        found.setdefault(name, re.sub(rb"\\(.)", rb"\1", match[2]) if match[2] is not None else match[3])
    return found


def _unfolded(value: bytes) -> str:
    text = _FOLD.sub(b"", value).strip()
    try:
        return text.decode()
    except UnicodeDecodeError:
        return text.decode("latin-1")

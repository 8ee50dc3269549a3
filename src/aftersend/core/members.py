"""Splitting JSON bodies into members: an array, one object or one object a line."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from aftersend.core.event import Rejected

DEPTH_LIMIT = 64
"""How deep a JSON member may nest."""

MEMBER_LIMIT = 100_000
"""How many members one body may have."""

_decode = msgspec.json.Decoder().decode
_decode_raw = msgspec.json.Decoder(list[msgspec.Raw]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)


def split_json(body: bytes) -> list[dict[str, Any] | Rejected]:
    """The objects of a JSON array, of a single object or of NDJSON, in order; a bad member is Rejected in its place.

    A body that cannot be split at all gives one Rejected without an index.
    """
    try:
        value = _decode(body)
    except _UNREADABLE as error:
        return _split_lines(body, error)
    members = value if isinstance(value, list) else [value]
    if not members:
        return []
    if len(members) > MEMBER_LIMIT:
        return [_too_many(len(members), body)]
    texts = 0
    for index, member in enumerate(members):
        if not isinstance(member, dict):
            members[index] = Rejected("not_an_object", f"event {index} is not a JSON object", index, _encode(member))
            continue
        inside = len(member) + _texts_among(member.values(), 1)
        if inside < 0:
            members[index] = Rejected("too_deep", f"event {index} nests deeper than {DEPTH_LIMIT} levels", index)
            continue
        texts += inside
    if _quotation_marks(body) != 2 * texts:
        _reject_repeated_keys(body, members, isinstance(value, list))
    return members


def _encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def _texts_among(values: Iterable[Any], depth: int) -> int:
    """How many texts there are among values and within them, keys too; below 0 where one nests too deeply."""
    if depth > DEPTH_LIMIT:
        return -1_000_000_000
    texts = 0
    for item in values:
        kind = type(item)
        if kind is str:
            texts += 1
        elif kind is dict:
            texts += len(item) + _texts_among(item.values(), depth + 1)
        elif kind is list:
            texts += _texts_among(item, depth + 1)
    return texts


def _quotation_marks(body: bytes) -> int:
    """How many quotation marks begin or end a text: two for each, also for those that a repeated key hides."""
    if b"\\" not in body:
        return body.count(b'"')
    body = body.replace(b"\\\\", b"")
    return body.count(b'"') - body.count(b'\\"')


class _RepeatedKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    seen = dict(pairs)
    if len(seen) != len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return seen


def _reject_repeated_keys(body: bytes, members: list[Any], is_list: bool) -> None:
    """Where a key stands twice a value would be lost without a word, so the member is rejected."""
    raws = [bytes(raw) for raw in _decode_raw(body)] if is_list else [body]
    for index, raw in enumerate(raws):
        if isinstance(members[index], Rejected):
            continue
        try:
            json.loads(raw, object_pairs_hook=_unique)
        except _RepeatedKeyError as error:
            members[index] = Rejected("duplicate_key", f"event {index} has the key {error.args[0]!r} twice", index, raw)
        except (ValueError, RecursionError):
            continue


def _split_lines(body: bytes, error: Exception) -> list[dict[str, Any] | Rejected]:
    lines = [line for line in body.split(b"\n") if line.strip()]
    if len(lines) > MEMBER_LIMIT:
        return [_too_many(len(lines), body)]
    if len(lines) < 2 or not body.lstrip().startswith(b"{"):
        return [_unreadable(body, error)]
    members: list[dict[str, Any] | Rejected] = []
    readable = 0
    for index, line in enumerate(lines):
        member = _split_line(line, index)
        readable += not isinstance(member, Rejected)
        members.append(member)
    return members if readable else [_unreadable(body, error)]


def _split_line(line: bytes, index: int) -> dict[str, Any] | Rejected:
    try:
        value = _decode(line)
    except _UNREADABLE as error:
        fault = _unreadable(line, error)
    else:
        fault = Rejected("not_an_object", "not a JSON object")
        if isinstance(value, dict):
            (member,) = split_json(line)
            if not isinstance(member, Rejected):
                return member
            fault = member
    return Rejected(fault.reason, f"line {index + 1}: {fault.detail}", index, line)


def _too_many(count: int, body: bytes) -> Rejected:
    detail = f"{count} events in one body; send at most {MEMBER_LIMIT}"
    return Rejected("too_many", detail, None, body)


def _unreadable(body: bytes, error: Exception) -> Rejected:
    if not body.strip():
        return Rejected("empty_body", "the body is empty")
    if isinstance(error, RecursionError):
        return Rejected("too_deep", "the JSON nests too deeply", None, body)
    try:
        body.decode()
    except UnicodeDecodeError as fault:
        return Rejected("invalid_utf8", f"byte {fault.start} is not UTF-8", None, body)
    return Rejected("invalid_json", str(error).replace("\n", " ")[:200], None, body)

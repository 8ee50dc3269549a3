"""Bytes in, events kept: decode a receipt, append what could be read, keep the rest aside, say what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import sha256

import msgspec
from msgspec import structs

from aftersend.contracts import Dialect, Entry, Log, Quarantined, Request, Requests, Taken
from aftersend.core.event import Event, Receipt, Rejected

THREAD_ABOVE = 256_000
"""Bytes above which a body is decoded in a thread, so that others are answered meanwhile."""

_REQUEST_KEY_LIMIT = 512
_REMEMBERED_FAULTS = 1_000
_QUARANTINE_BYTES = 1_000_000
"""Bytes of one unreadable body that are kept."""


class Intake:
    """The way of every receipt into the log."""

    def __init__(self, log: Log, requests: Requests) -> None:
        self._log = log
        self._requests = requests
        self._threads = asyncio.Semaphore(2)

    async def take(self, dialect: Dialect, receipt: Receipt, request: str = "", *, keep_unreadable: bool) -> Taken:
        """Keep what a receipt says; see `contracts.Intake`."""
        key = self._key(receipt, request)
        first = await self._requests.find_request(key) if key else None
        body_digest = sha256(receipt.body).digest() if key else b""
        if first is not None:
            if first.answer[:32] == body_digest:
                return _again(first, receipt)
            receipt = structs.replace(receipt, received_at=first.received_at)
        events, rejected = await self._decode(dialect, receipt)
        unreadable = rejected[0] if rejected and rejected[0].index is None else None
        kept = [_quarantined(dialect, receipt, item) for item in rejected if keep_unreadable or item.index is not None]
        if not events and not kept:
            return Taken(0, 0, rejected, unreadable)
        answer = body_digest + _write_rejected(rejected)
        named = Request(key, receipt.received_at, answer) if key and first is None else None
        appended = await self._log.append(Entry(receipt.tenant, events, kept, named))
        return Taken(appended.accepted, appended.duplicates, rejected, unreadable)

    async def _decode(self, dialect: Dialect, receipt: Receipt) -> tuple[list[Event], list[Rejected]]:
        if len(receipt.body) > THREAD_ABOVE:
            async with self._threads:
                found = await asyncio.to_thread(dialect.decode, receipt)
        else:
            found = dialect.decode(receipt)
        rejected = [item for item in found if type(item) is Rejected]
        if not rejected:
            return found, []  # type: ignore[return-value]
        return [item for item in found if type(item) is Event], rejected

    def _key(self, receipt: Receipt, request: str) -> str:
        if not request:
            return ""
        name = request if len(request) <= _REQUEST_KEY_LIMIT // 2 else sha256(request.encode()).hexdigest()
        prefix = "file:" if receipt.file_name else ""
        return f"{prefix}{receipt.tenant}/{receipt.source}/{name}"


def _again(first: Request, receipt: Receipt) -> Taken:
    """The first answer; for a file, whose sender did hear it and asks anew, what has come of it by now."""
    rejected = _read_rejected(first.answer[32:])
    if receipt.file_name:
        return Taken(0, first.accepted + first.duplicates, rejected)
    return Taken(first.accepted, first.duplicates, rejected)


def _write_rejected(rejected: Sequence[Rejected]) -> bytes:
    return msgspec.msgpack.encode([(item.reason, item.detail, item.index) for item in rejected[:_REMEMBERED_FAULTS]])


def _read_rejected(data: bytes) -> list[Rejected]:
    return [Rejected(*item) for item in msgspec.msgpack.decode(data)]


def _quarantined(dialect: Dialect, receipt: Receipt, fault: Rejected) -> Quarantined:
    body = fault.raw if fault.index is not None and fault.raw else receipt.body
    return Quarantined(
        receipt.tenant,
        receipt.source or dialect.name,
        dialect.name,
        fault.reason,
        fault.detail[:500],
        receipt.received_at,
        body[:_QUARANTINE_BYTES],
        receipt.content_type,
        receipt.form,
    )

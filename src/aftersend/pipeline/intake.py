"""Bytes in, events kept: decode a receipt, append what could be read, keep the rest aside, say what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from hashlib import sha256
from weakref import WeakValueDictionary

import msgspec
from msgspec import structs

from aftersend.contracts import Appended, Dialect, Entry, Log, Quarantined, Request, Requests, Taken
from aftersend.core.event import Event, Receipt, Rejected

THREAD_ABOVE = 256_000
"""Bytes above which a body is decoded in a thread, so that others are answered meanwhile."""

_REQUEST_KEY_LIMIT = 512
_DIGEST_BYTES = 32
_REMEMBERED_FAULTS = 1_000
_QUARANTINE_BYTES = 1_000_000
"""Bytes of one unreadable body that are kept."""
_QUARANTINED_OF_ONE = 10_000
"""Most members of one receipt that are kept; of more, the last, as in the quarantine itself."""

Derive = Callable[[list[Event]], list[Event]]
"""What is done to events between decoding and keeping them."""


class Intake:
    """The way of every receipt into the log."""

    def __init__(self, log: Log, requests: Requests, derive: Derive = list) -> None:
        self._log = log
        self._derive = derive
        self._requests = requests
        self._threads = asyncio.Semaphore(2)
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def take(self, dialect: Dialect, receipt: Receipt, request: str = "", *, keep_unreadable: bool) -> Taken:
        """Keep what a receipt says; see `contracts.Intake`."""
        key = _key(receipt, request)
        if not key:
            return await self._take(dialect, receipt, keep_unreadable, None)
        # A sender that did not wait for the answer repeats itself while the first arrival is still being written.
        turn = self._turns.setdefault(key, asyncio.Lock())
        async with turn:
            return await self._take_named(dialect, receipt, keep_unreadable, key)

    async def _take_named(self, dialect: Dialect, receipt: Receipt, keep_unreadable: bool, key: str) -> Taken:
        digest = _digest(dialect, receipt)
        first = await self._requests.find_request(key)
        if first is None:
            return await self._take(dialect, receipt, keep_unreadable, Request(key, receipt.received_at, digest))
        if first.answer[:_DIGEST_BYTES] == digest:
            return _taken(_heard_again(first, receipt), _read_rejected(first.answer[_DIGEST_BYTES:]))
        receipt = structs.replace(receipt, received_at=first.received_at)
        return await self._take(dialect, receipt, keep_unreadable, None)

    async def _take(self, dialect: Dialect, receipt: Receipt, keep_unreadable: bool, request: Request | None) -> Taken:
        events, rejected = await self._decode(dialect, receipt)
        events = self._derive(events)
        unreadable = _is_unreadable(events, rejected)
        kept = [] if unreadable and not keep_unreadable else _quarantined(dialect, receipt, rejected)
        if not events and not kept:
            return _taken(Appended(0, 0), rejected)
        if request is not None:
            request = structs.replace(request, answer=request.answer + _write_rejected(rejected))
        appended = await self._log.append(Entry(receipt.tenant, events, kept, request, receipt.quarantine_limit))
        return _taken(appended, rejected)

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


def _key(receipt: Receipt, request: str) -> str:
    if not request:
        return ""
    name = request if len(request) <= _REQUEST_KEY_LIMIT // 2 else sha256(request.encode()).hexdigest()
    prefix = "file:" if receipt.file_name else ""
    return f"{prefix}{receipt.tenant}/{receipt.source}/{name}"


def _digest(dialect: Dialect, receipt: Receipt) -> bytes:
    """What was asked: the bytes, and how they were to be read."""
    digest = sha256(f"{dialect.name}/{receipt.form}\n".encode())
    digest.update(receipt.body)
    return digest.digest()


def _heard_again(first: Request, receipt: Receipt) -> Request:
    """A retry hears the first answer; who takes a file in anew has heard it, and asks what is new."""
    if not receipt.file_name:
        return first
    return structs.replace(first, accepted=0, duplicates=first.accepted + first.duplicates)


def _is_unreadable(events: Sequence[Event], rejected: Sequence[Rejected]) -> bool:
    """Whether nothing could be told apart; a part of an archive that is damaged has no index, but others were read."""
    return not events and bool(rejected) and all(item.index is None for item in rejected)


def _taken(appended: Appended | Request, rejected: Sequence[Rejected]) -> Taken:
    kept_any = appended.accepted or appended.duplicates
    unreadable = rejected[0] if not kept_any and _is_unreadable((), rejected) else None
    return Taken(appended.accepted, appended.duplicates, rejected, unreadable)


def _write_rejected(rejected: Sequence[Rejected]) -> bytes:
    return msgspec.msgpack.encode([(item.reason, item.detail, item.index) for item in rejected[:_REMEMBERED_FAULTS]])


def _read_rejected(data: bytes) -> list[Rejected]:
    return [Rejected(*item) for item in msgspec.msgpack.decode(data)]


def _quarantined(dialect: Dialect, receipt: Receipt, rejected: Sequence[Rejected]) -> list[Quarantined]:
    """What could not be read, member by member; the whole body once where it is one fault or a member has no bytes."""
    if len(rejected) == 1 and rejected[0].index is None:
        return [_body_of(dialect, receipt, rejected[0], receipt.body)]
    kept = [_body_of(dialect, receipt, item, item.raw) for item in rejected[-_QUARANTINED_OF_ONE:] if item.raw]
    bare = next((item for item in rejected if not item.raw), None)
    return kept if bare is None else [*kept, _body_of(dialect, receipt, bare, receipt.body)]


def _body_of(dialect: Dialect, receipt: Receipt, fault: Rejected, body: bytes) -> Quarantined:
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

"""The contracts between the rooms: start reading here.

Six frozen nouns travel, always left to right:

    Receipt -> Event | Rejected -> Recorded -> Parcel -> Outcome

A room is written against the protocols below and never imports another room; `wiring.py` puts them together, and a
shared suite in `aftersend.testing` states each contract as tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from msgspec import Struct

from aftersend.core.event import Body, Event, Receipt, Recorded, Rejected
from aftersend.core.outcome import Acknowledgement, Answer, Outcome, Parcel
from aftersend.core.registry import Registered

R = TypeVar("R", bound=Registered)


class Dialect(Protocol):
    """One vendor's way to tell events: bytes to events and back. Pure: no input, no output, no clock, no chance."""

    name: ClassVar[str]
    """The file's name; what people type."""
    forms: ClassVar[tuple[str, ...]]
    """The vendor's forms (`http`, `csv`); the first is the one spoken when none is named. Empty: there is only one."""
    columns: ClassVar[Mapping[str, str]]
    """The vendor's words, each with its canonical type; the first word of a type is the one spoken."""
    identity_fields: ClassVar[str]
    """One sentence for the taxonomy page: which fields make two events one fact."""
    native_firsts: ClassVar[bool]
    """Whether the vendor tells first opens and first clicks itself."""
    answer: ClassVar[Answer]
    """What the vendor's sender wants to hear for bytes that are kept."""
    acknowledgement: ClassVar[Acknowledgement]
    """What the vendor wants to hear from a receiver."""

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """The events of a receipt, in order, a bad member as Rejected in its place. Never raises.

        A body that cannot be split at all is one Rejected without an index; an empty batch is an empty list.
        """
        ...

    def word(self, event: Event) -> str | None:
        """The word that this dialect has for an event, or None: then it is not told."""
        ...

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """Events, each with a `word`, as bodies that tell consecutive runs of them. Deterministic.

        One body for all where the dialect has batches; several where it has not, or where a body has a limit.
        """
        ...

    def schemas(self) -> dict[str, dict[str, Any]]:
        """JSON Schemas of what this dialect tells, by the vendor's name for each."""
        ...


class Quarantined(Struct, frozen=True):
    """Bytes that could not be read, kept with the reason."""

    tenant: str
    source: str
    dialect: str
    reason: str
    detail: str
    received_at: int
    body: bytes
    content_type: str = ""
    form: str = ""


class Request(Struct, frozen=True):
    """A request that names itself, so that its repeat is answered as it was."""

    key: str
    """Tenant, source and the name it gave itself, in one text; at most 512 characters."""
    received_at: int
    answer: bytes = b""


class Entry(Struct, frozen=True):
    """What one intake asks the log to keep, all or nothing."""

    tenant: str
    events: Sequence[Event]
    quarantined: Sequence[Quarantined] = ()
    request: Request | None = None


class Appended(Struct, frozen=True):
    """What became of an entry: how many events were new, and how many were in the log already."""

    accepted: int
    duplicates: int


class Log(Protocol):
    """The one durable, append-only order of events."""

    async def append(self, entry: Entry) -> Appended:
        """Keep an entry; returns when it is on disk, synced. Raises StoreBusyError, StoreFullError, StoreError."""
        ...

    async def read(self, position: int, limit: int) -> list[Recorded]:
        """About `limit` events from a position on (at most one block more), in order; empty at the head."""
        ...

    async def wait(self, position: int) -> int:
        """Returns the head as soon as the log reaches past a position."""
        ...

    def head(self) -> int:
        """The position that the next event will get."""
        ...

    def tail(self) -> int:
        """The lowest position that is still kept (the head where nothing is)."""
        ...


class Cursor(Struct, frozen=True):
    """How far a subscription has come; the three move together."""

    position: int = 0
    epoch: int = 1
    """Rises when the filter or the dialect changes: the count below starts anew."""
    sequence: int = 0
    """How many events of this epoch have been told."""


class SetAside(Struct, frozen=True):
    """An event that its receiver refused singly, kept whole beside the line."""

    subscription: str
    position: int
    event: Event
    attempts: int
    next_at: int
    """ns since 1970, UTC; 0: it is not tried any more."""
    detail: str
    state: str = "late"
    """late (will be tried again) or failed."""


class Cursors(Protocol):
    """Where each subscription stands. A cursor and the effect of its move are one transaction."""

    async def get(self, subscription: str) -> Cursor | None:
        """The cursor, or None before the first move."""
        ...

    async def move(self, moves: Mapping[str, Cursor], set_aside: Sequence[SetAside] = ()) -> None:
        """Move cursors and keep the events set aside, in one durable transaction."""
        ...

    async def due(self, subscription: str, now: int, limit: int) -> list[SetAside]:
        """Events set aside whose time has come, the oldest first."""
        ...

    async def settle(self, subscription: str, positions: Sequence[int], again: Sequence[SetAside] = ()) -> None:
        """Forget events that were taken after all, and write down the ones to try again or given up."""
        ...

    async def list_set_aside(self, subscription: str, limit: int) -> list[SetAside]:
        """Events beside the line, the oldest first."""
        ...


class Registry(Protocol):
    """What an operator registered; every change is durable when the call returns."""

    async def put(self, record: Registered) -> None:
        """Write a record; one of the same kind, tenant and name (subscriptions and keys: id) is replaced."""
        ...

    async def list(self, kind: type[R], tenant: str | None = None) -> list[R]:
        """The records of a kind, by name; of one tenant, or of all."""
        ...

    async def remove(self, record: Registered) -> bool:
        """Forget a record; False where there was none."""
        ...


class Quarantine(Protocol):
    """Bytes that could not be read, kept for a replay after a fix."""

    async def list_quarantined(self, tenant: str | None, limit: int, after: int = 0) -> list[tuple[int, Quarantined]]:
        """Numbered entries with a number above `after`, the oldest first."""
        ...

    async def discard(self, numbers: Sequence[int]) -> None:
        """Forget entries (replayed, or not wanted)."""
        ...


class Requests(Protocol):
    """Requests that named themselves, so that a retry is seen to be one."""

    async def find_request(self, key: str) -> Request | None:
        """The first arrival of a request, for 7 days (files: as long as the log)."""
        ...


class Transport(Protocol):
    """A way for parcels to leave the house."""

    name: ClassVar[str]

    async def send(self, parcel: Parcel) -> Outcome:
        """Hand a parcel over and say what became of it. Never raises for what the other side or the network does."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Clock(Protocol):
    """Time, given rather than taken."""

    def __call__(self) -> int:
        """Now, in ns since 1970, UTC."""
        ...

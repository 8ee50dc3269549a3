"""The contracts between the rooms: start reading here.

Six frozen nouns travel, always left to right:

    Receipt -> Event | Rejected -> Recorded -> Parcel -> Outcome

A room is written against the protocols below and never imports another room; `wiring.py` puts them together, and a
shared suite in `aftersend.testing` states each contract as tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, TypeVar

from msgspec import Struct

from aftersend.core.consent import Level
from aftersend.core.event import Actor, Body, Event, Receipt, Recorded, Rejected
from aftersend.core.outcome import Acknowledgement, Answer, Outcome, Parcel, Volume
from aftersend.core.registry import Registered, Subscription

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
    singles: ClassVar[frozenset[str]]
    """The forms that tell one event a body."""
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
    """What the intake wants to remember of its answer."""
    accepted: int = 0
    duplicates: int = 0
    """Both are filled in by the log as it commits the entry."""


class Entry(Struct, frozen=True):
    """What one intake asks the log to keep, all or nothing."""

    tenant: str
    events: Sequence[Event]
    quarantined: Sequence[Quarantined] = ()
    request: Request | None = None
    quarantine_limit: int = 10_000
    """How many bodies are kept of each source that is quarantined here (`SourceRecord.quarantine_limit`)."""


class Appended(Struct, frozen=True):
    """What became of an entry: how many events were new, and how many were in the log already."""

    accepted: int
    duplicates: int


class Gap(Struct, frozen=True):
    """Events that retention took away before a subscription had read them."""

    subscription: str
    since: int
    """The first position that is lost to it."""
    until: int
    """The position that it can go on from."""
    count: int


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

    async def position_at(self, received_at: int) -> int:
        """The lowest position of a block received at or after a time (ns, UTC); the head where there is none."""
        ...

    def head(self) -> int:
        """The position that the next event will get."""
        ...

    def tail(self) -> int:
        """The lowest position that is still kept (the head where nothing is)."""
        ...


class Taken(Struct, frozen=True):
    """What became of a receipt; true on disk when it is returned."""

    accepted: int
    duplicates: int
    rejected: Sequence[Rejected] = ()
    """Members that could not be read; they are in quarantine."""
    unreadable: Rejected | None = None
    """The body could not be split into events at all."""


class Intake(Protocol):
    """The way of every receipt into the log."""

    async def take(self, dialect: Dialect, receipt: Receipt, request: str = "", *, keep_unreadable: bool) -> Taken:
        """Keep what a receipt says, as events or in quarantine.

        `request` is the name that the request gave itself: its repeat is decoded with the first arrival's time, so that
        events without a time are the same events again, and is answered as the first was. A body that cannot be split
        is kept with `keep_unreadable` (its sender is proven and must hear a success), else it is not.
        Raises StoreBusyError, StoreFullError and other StoreErrors; then nothing was kept.
        """
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
    epoch: int = 1
    sequence: int = 0
    """Its number in the line it left."""


class Manifest(Struct, frozen=True):
    """What a subscription was told on one day (UTC) of one epoch: a receiver's proof that it has everything."""

    subscription: str
    day: str
    """YYYY-MM-DD."""
    epoch: int
    first_sequence: int
    last_sequence: int
    types: dict[str, int]
    ids_sum: str
    """Sum of the ids as 128-bit numbers, modulo 2**128, in hex."""


class Cursors(Protocol):
    """Where each subscription stands. A cursor and the effect of its move are one transaction."""

    async def get(self, subscription: str) -> Cursor | None:
        """The cursor, or None before the first move."""
        ...

    async def move(
        self, moves: Mapping[str, Cursor], set_aside: Sequence[SetAside] = (), manifests: Sequence[Manifest] = ()
    ) -> None:
        """Move cursors, keep the events set aside and write the manifests anew, in one durable transaction."""
        ...

    async def manifests(self, subscription: str, day: str = "") -> list[Manifest]:
        """The manifests of a subscription, the newest day first; of one day where it is named."""
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


class Firsts(Protocol):
    """What the follower of firsts has seen, and how far it has read: both move in one transaction."""

    async def bookmark(self) -> int:
        """The position to read from."""
        ...

    async def known(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of these keys that were seen before."""
        ...

    async def remember(self, keys: Mapping[bytes, int], bookmark: int) -> None:
        """Keep keys, each with the time of its hit (ns, UTC), and move the bookmark, durably."""
        ...

    async def forget(self, before: int) -> None:
        """Drop keys whose hit is older than a time (ns, UTC)."""
        ...


class Hits(Protocol):
    """The way of what aftersend sees itself (clicks, opens, page views) into the log."""

    async def record(self, event: Event, level: Level = Level.FULL) -> bool:
        """Keep an event as far as `level` and the level of its person allow; the lower of the two holds.

        True: it is durable in the log or the spool, or none of it may be kept. False: it is lost, and counted.
        Returns within 160 ms, whatever the disks do; never raises.
        """
        ...


class People(Protocol):
    """How much each person lets us keep of what they do."""

    def level(self, tenant: str, person_key: bytes) -> Level:
        """The level of a person (`core.consent.person_key`); FULL where nothing was said.

        Asked at every hit: from memory, at once. Raises StoreError where it cannot be told.
        """
        ...

    def is_any_lowered(self) -> bool:
        """Whether anybody at all asked for less than FULL; raises StoreError where it cannot be told."""
        ...

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        """Write a person's level down, durably; `method` says how they said it. Raises StoreError."""
        ...


class Reference(Struct, frozen=True):
    """A short link, and the sealed token that it stands for."""

    id: bytes
    token: str
    channel: str = "email"
    """Of the message that it stands in: a click is then `sms.clicked`, for one."""


class References(Protocol):
    """What short links stand for."""

    async def keep(self, references: Sequence[Reference]) -> None:
        """Write them down, all or none, durably. Raises StoreError."""
        ...

    async def find(self, id_: bytes) -> Reference | None:
        """What a reference stands for. Raises StoreError."""
        ...

    async def forget(self, before: int) -> None:
        """Drop references made before a time (ns, UTC)."""
        ...


class Verdict(Struct, frozen=True):
    """What was last thought of a hit, after the verdict that it was kept with."""

    event: str
    """The id of the hit."""
    id: str
    """The id of the event that tells the verdict."""
    actor: Actor


class Verdicts(Protocol):
    """Later verdicts as the log tells them, and how far the hits are settled: both move in one transaction.

    What is kept here follows from the log and can be built anew from it.
    """

    async def bookmark(self) -> int:
        """Everything before this position is settled."""
        ...

    async def latest(self, events: Sequence[str]) -> dict[str, Verdict]:
        """The verdicts on those of these hits (ids) that have one."""
        ...

    async def remember(self, verdicts: Sequence[Verdict], now: int, bookmark: int | None = None) -> None:
        """Keep verdicts, the later of two on one hit, and move the bookmark where one is given, durably."""
        ...

    async def forget(self, before: int) -> None:
        """Drop verdicts that were kept before a time (ns, UTC)."""
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


class Replay(Struct, kw_only=True):
    """Telling a subscription again what it was told."""

    id: str = ""
    subscription: str = ""
    since: str
    """RFC 3339: events received from here on …"""
    until: str = ""
    """… and before here; empty: up to now."""
    types: tuple[str, ...] = ("*",)
    rate: float = 0.0
    """Events a second at most; 0: as fast as they are taken."""
    dry_run: bool = False
    """Only count."""
    state: str = "running"
    """running, done, failed or cancelled."""
    total: int = 0
    done: int = 0
    detail: str = ""


class Deliveries(Protocol):
    """The running deliveries, as the API and the command line see them."""

    async def apply(self, subscription: Subscription) -> Subscription:
        """Start, change or stop a subscription's delivery as its record now says; returns the record as kept."""
        ...

    async def drop(self, subscription: Subscription) -> None:
        """End a subscription for good."""
        ...

    def standing(self, subscription: Subscription) -> dict[str, Any]:
        """How a subscription does: cursor, waiting, failures, breaker, next try."""
        ...

    def retry_now(self, subscription: Subscription) -> None:
        """Do not wait for the next try."""
        ...

    async def replay(self, subscription: Subscription, order: Replay) -> Replay:
        """Begin to tell events again, or count them."""
        ...

    def replays(self, subscription: Subscription) -> list[Replay]:
        """Replays of this subscription since the process began."""
        ...


class Lease(Struct, frozen=True):
    """Events that a puller has in hand, or has had."""

    id: str
    line: str
    """Whose cursor they are before: a subscription's id, or `id/WORD` where each word has a cursor of its own."""
    consumer: str
    """Who asked for them, as it names itself."""
    positions: tuple[tuple[int, int], ...]
    """Ranges of positions, first and last, rising."""
    until: int
    """ns since 1970, UTC: when it ends by itself."""
    state: Literal["leased", "acknowledged", "kept"] = "leased"
    """leased; acknowledged out of order, above the cursor; or kept to be told again on request."""


class Leases(Protocol):
    """What pullers have in hand. A lease, a cursor that moves with it and what is set aside are one transaction."""

    async def list_leases(self, subscription: str) -> list[Lease]:
        """The leases on a subscription's lines, by id."""
        ...

    async def settle_leases(
        self,
        put: Sequence[Lease] = (),
        drop: Sequence[Lease] = (),
        moves: Mapping[str, Cursor] | None = None,
        set_aside: Sequence[SetAside] = (),
        manifests: Sequence[Manifest] = (),
    ) -> None:
        """Write and forget leases, move cursors, keep events set aside and write manifests anew, durably."""
        ...


class Transport(Protocol):
    """A way for parcels to leave the house. Its options are the fields with a help text (`core.options`)."""

    name: ClassVar[str]
    """The file's name; what people type."""
    schemes: ClassVar[tuple[str, ...]]
    """What its URLs begin with."""
    brokered: ClassVar[bool]
    """Whether a library connects for itself: only an instance's admin may use it, to hosts in `egress_brokers`."""

    @property
    def carries(self) -> Literal["parcels", "pieces", "volumes", "nothing"]:
        """What it is given: bodies of batches, events one by one in batches, files (`Depot`); nothing: it is pulled."""
        ...

    async def probe(self) -> Outcome:
        """Connect, log in, look whether events could be handed over; tell none. Never raises, as `send`."""
        ...

    async def send(self, parcel: Parcel) -> Outcome:
        """Hand a parcel over and say what became of it. Never raises for what the other side or the network does."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Depot(Protocol):
    """What a transport that carries volumes has besides."""

    async def put(self, volume: Volume) -> Outcome:
        """Hand a file over, whole or not at all; a second time it replaces itself. Never raises, as `send`."""
        ...


class Clock(Protocol):
    """Time, given rather than taken."""

    def __call__(self) -> int:
        """Now, in ns since 1970, UTC."""
        ...

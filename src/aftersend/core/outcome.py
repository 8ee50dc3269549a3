"""The nouns of delivery: a Parcel goes out, an Outcome comes back."""

from __future__ import annotations

from enum import Enum
from hashlib import blake2b

from msgspec import Struct


class Acknowledgement(Struct, frozen=True):
    """What a receiver must answer for a parcel to count as taken."""

    statuses: str = "2xx"
    """`2xx`, or one status such as `200`."""
    body: str | None = None
    """A regular expression that the answer's body must match, besides the status."""
    tries: int | None = None
    """How often an event whose parcel was answered without it is sent in all; None: as the retry list says."""


class Answer(Struct, frozen=True):
    """What a vendor's sender wants to hear for bytes that are kept."""

    status: int = 200
    content_type: str = ""
    body: bytes = b""


class Piece(Struct, frozen=True):
    """One event in bytes of its own, on its way with others."""

    id: str
    """The event's id: the same event has the same id however often it is sent."""
    key: str
    """What order is kept for: the recipient, else profile or device, else the event itself."""
    type: str
    """The event's canonical type."""
    body: bytes
    content_type: str


class Parcel(Struct, frozen=True):
    """Bytes on their way to one receiver."""

    id: str
    """Stable over retries: the same id is the same bytes."""
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    pieces: tuple[Piece, ...] = ()
    """For transports that carry pieces: the events one by one, in order; then `body` is empty."""


class Tally(Struct):
    """What a run of events says when it is counted."""

    count: int = 0
    types: dict[str, int] = {}
    ids_sum: int = 0
    """Sum of the ids as 128-bit numbers."""
    hours: dict[str, dict[str, int]] = {}
    """By hour of the events' time (`2026-08-01T14`, UTC), then by type; at most `HOURS_LIMIT` hours."""
    failures: dict[str, int] = {}
    """By what the other mail servers said, shortened; at most `FAILURES_LIMIT` texts."""


HOURS_LIMIT = 24 * 32
FAILURES_LIMIT = 1_000


class Volume(Struct, frozen=True, kw_only=True):
    """A file of events, whole and synced on our disk, on its way to one receiver."""

    id: str
    """Stable over retries: the same id is the same name and the same bytes."""
    name: str
    """What the receiver shall see it as: letters, digits, `.`, `_` and `-`."""
    path: str
    """Where its bytes are; they do not change while it is on its way."""
    size: int
    """Bytes."""
    content_type: str
    epoch: int
    first_sequence: int
    last_sequence: int
    since: int
    """When the first of its events was received (ns since 1970, UTC) …"""
    until: int
    """… and the last."""
    tally: Tally

    @property
    def hidden_name(self) -> str:
        """Its name at the receiver until it is whole: no `*` and no `*.json` takes it, and each id has its own."""
        return f".aftersend-{blake2b(self.id.encode(), digest_size=12).hexdigest()}.part"


class Verdict(Enum):
    """What an answer means for the parcel and its receiver."""

    TAKEN = "taken"
    PARTLY = "partly"
    """Taken but for the events named in `Outcome.failed`."""
    REFUSED = "refused"
    """The receiver will not have these bytes (400, 422)."""
    TOO_LARGE = "too_large"
    """The receiver wants smaller parcels (413)."""
    GONE = "gone"
    """The receiver wants nothing any more (410)."""
    FAILED = "failed"
    """The receiver is at fault, or out of reach: the cursor stands."""


class Outcome(Struct, frozen=True):
    """What became of a parcel."""

    verdict: Verdict
    detail: str = ""
    """One line for a person: which step failed and what the other side said."""
    status: int | None = None
    retry_after: float | None = None
    """Seconds that the receiver asked for."""
    failed: tuple[str, ...] = ()
    """Ids of the events that were not taken (`PARTLY`)."""
    ours: bool = False
    """The failure is our own (guard, name server, file handles) and says nothing about the receiver."""

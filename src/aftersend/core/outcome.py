"""The nouns of delivery: a Parcel goes out, an Outcome comes back."""

from __future__ import annotations

from enum import Enum

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


class Parcel(Struct, frozen=True):
    """Bytes on their way to one receiver."""

    id: str
    """Stable over retries: the same id is the same bytes."""
    body: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


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

"""The nouns of pulling: an Ask comes in, a Handout goes out, and what became of its events is told later."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from aftersend.core.event import Event
from aftersend.core.ranges import ranges

MOST_EVENTS = 10_000
"""Most events of one batch."""

LEASE_SECONDS = 60.0
"""How long a lease lasts where nobody says."""

LEASE_LEAST, LEASE_MOST = 1, 43_200
"""A lease lasts a second at least and twelve hours at most; it can be extended any number of times."""


class Ask(Struct, frozen=True):
    """What a consumer wants of a subscription."""

    most: int
    """Events at most, 1 to 10,000."""
    seconds: float
    """How long it wants to have them in hand, 1 to 43,200."""
    consumer: str
    """How it names itself, for people."""
    fit: Callable[[Sequence[Event]], int]
    """How many of these events, from the first on, are told in one answer; at least one. Raises UsageError."""
    late: bool = True
    """Whether events set aside may be among them."""


class Handout(Struct, frozen=True):
    """Events that a consumer has in hand, in order."""

    lease: str
    epoch: int
    sequences: Sequence[int]
    """The number of each event in its epoch, rising."""
    events: Sequence[Event]
    until: int
    """ns since 1970, UTC: when the lease ends by itself, and the events are offered again."""
    late: bool = False
    """They left the line before: they were refused once."""

    @property
    def numbers(self) -> str:
        """Their numbers as ranges: `1-3,7-7`."""
        return ranges(self.sequences)


class Told(Struct, frozen=True):
    """What an answer to a lease came to."""

    lease: str
    events: int
    """How many it was about."""
    left: int
    """How many are still in hand."""
    until: str | None = None
    """RFC 3339: when those are offered again."""

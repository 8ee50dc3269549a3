"""A run of the line, the bytes that tell it, and the parcel they travel in."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from msgspec import Struct

from aftersend.core.event import Body, Event
from aftersend.core.outcome import Parcel

Run = list[tuple[int, Event]]
"""Events with their positions, in order."""


class Shipment(Struct, frozen=True):
    """A run of the line and the bytes that tell it."""

    line: Run
    body: Body
    sequence: int
    """Number of the first event of the run in its epoch."""
    detail: str = ""
    """What the receiver said of it, where it refused it."""


class Standing(Struct):
    """How a subscription does, for people and `/metrics`."""

    delivered: int = 0
    requests: int = 0
    failures: int = 0
    """Failures in a row."""
    failing_since: int = 0
    """ns since 1970, UTC; 0: it is not failing."""
    next_try_at: int = 0
    late: int = 0
    detail: str = ""

    @property
    def breaker(self) -> str:
        """closed, or open: the receiver has failed several times in a row."""
        return "open" if self.failures >= BREAKER_OPENS_AT else "closed"

    def recovered(self) -> None:
        """The receiver took something."""
        self.failures = self.failing_since = self.next_try_at = 0


BREAKER_OPENS_AT = 5
"""Failures in a row after which nothing is held in memory for the receiver but the batch being tried."""


class DisabledError(Exception):
    """The line ends until an operator enables the subscription."""


def parcel_of(
    subscription: str, epoch: int, sequence: str, body: Body, *headers: tuple[str, str], id_suffix: str = ""
) -> Parcel:
    """The parcel of a body: the same events of the same epoch make the same id."""
    digest = blake2b(f"{subscription}\n{epoch}\n{sequence}{id_suffix}".encode(), digest_size=15).hexdigest()
    own = (("aftersend-epoch", str(epoch)), ("aftersend-sequence", sequence))
    return Parcel("msg_" + digest, body.data, body.content_type, (*own, *headers), body.pieces)


def refused_of(shipment: Shipment, failed: Sequence[str], detail: str = "") -> list[Shipment]:
    """The events of a shipment that the receiver named as not taken, by our id or the vendor's."""
    if not failed:
        return []
    names = set(failed)
    return [
        Shipment([item], shipment.body, sequence, detail)
        for sequence, item in enumerate(shipment.line, shipment.sequence)
        if item[1].id in names or item[1].source.id in names
    ]

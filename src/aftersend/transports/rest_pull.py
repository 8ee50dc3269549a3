"""Nothing is sent: the receiver fetches with `GET /v1/subscriptions/{id}/batch` and acknowledges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.options import option
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.pulling import LEASE_LEAST, LEASE_MOST, LEASE_SECONDS

_PULLED = Outcome(Verdict.FAILED, "nothing is sent by rest_pull: the receiver pulls its events", ours=True)


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """A consumer that pulls over HTTP, when it wants to."""

    name: ClassVar[str] = "rest_pull"
    schemes: ClassVar[tuple[str, ...]] = ()
    brokered: ClassVar[bool] = False

    lease: int = option(
        int(LEASE_SECONDS),
        help="Seconds that a batch is its consumer's alone before it is offered again, where it asks for no others.",
    )

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a lease that is too short or too long."""
        if not LEASE_LEAST <= self.lease <= LEASE_MOST:
            raise ConfigurationError(f"lease is {LEASE_LEAST} to {LEASE_MOST} seconds, not {self.lease}")

    @property
    def carries(self) -> Literal["nothing"]:
        """It is pulled."""
        return "nothing"

    async def probe(self) -> Outcome:
        """There is nobody to look for."""
        return Outcome(Verdict.TAKEN, "nobody has to be reached: its consumer comes for the events")

    async def send(self, parcel: Parcel) -> Outcome:
        """It is pulled."""
        return _PULLED

    async def close(self) -> None:
        """There is nothing to let go of."""


_proof: type[Contract] = Transport

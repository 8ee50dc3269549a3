"""Pull over SOAP, for clients of Pure360's event notifications: nothing is sent, they come and ask.

`door` is what they call, `wire` and `wsdl` its envelopes, `session` their logins, `facade` what they may do, `beans`
what they are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.options import option
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.secret import Secret
from aftersend.core.timestamps import SECOND

NAME_LIMIT = 128
LEASE_LIMIT = 86_400.0
RECALL_LIMIT = 168.0


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """The login of a Pure360 client that pulls over SOAP."""

    name: ClassVar[str] = "soap_pull"
    schemes: ClassVar[tuple[str, ...]] = ()
    brokered: ClassVar[bool] = False

    user: str = option(help="User name that the client logs in with; no other subscription may have it.")
    password: Secret = option(help="Password that the client logs in with.", secret=True)
    order: Literal["newest", "oldest"] = option(
        "newest", help="Order of the rows in a batch: the newest event first, as Pure360 does, or the oldest."
    )
    lease_seconds: float = option(600.0, help="Seconds that a batch taken with markAsProcessingInd=Y stays reserved.")
    recall_hours: float = option(24.0, help="Hours in which a batch that was read can be had again.")

    def __post_init__(self) -> None:
        """Raises ConfigurationError."""
        if not self.user.strip() or self.user != self.user.strip() or len(self.user) > NAME_LIMIT:
            raise ConfigurationError(f"user: 1 to {NAME_LIMIT} characters, no blank before or after them")
        if not self.password.reveal():
            raise ConfigurationError("password: it is empty")
        if not 1 <= self.lease_seconds <= LEASE_LIMIT:
            raise ConfigurationError(f"lease_seconds: 1 to {LEASE_LIMIT:g}")
        if not 0 <= self.recall_hours <= RECALL_LIMIT:
            raise ConfigurationError(f"recall_hours: 0 to {RECALL_LIMIT:g}")

    @property
    def carries(self) -> Literal["nothing"]:
        """It is pulled."""
        return "nothing"

    @property
    def lease(self) -> int:
        """How long a batch stays reserved (ns)."""
        return int(self.lease_seconds * SECOND)

    @property
    def recall(self) -> int:
        """How long a batch that was read can be had again (ns)."""
        return int(self.recall_hours * 3_600 * SECOND)

    async def probe(self) -> Outcome:
        """There is nobody to connect to."""
        return Outcome(Verdict.TAKEN, "nobody has to be reached: its client comes for the events")

    async def send(self, parcel: Parcel) -> Outcome:
        """Nothing is sent."""
        return Outcome(Verdict.FAILED, "is pulled: the client comes and asks, nothing is sent", ours=True)

    async def close(self) -> None:
        """Nothing is open."""


_proof: type[Contract] = Transport

"""MessageGears' REST: `POST /3.1/WebService`, where clients of the vendor fetch daily files, counts and the schema.

A subscription with this transport is an account: it says whose events are told and which; nothing is sent by it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Literal

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.options import option
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.secret import Secret

KEY_LENGTH = 16
"""Characters that an API key has at the least: with so many, guessing leads nowhere."""

_ACCOUNT = re.compile(r"[A-Za-z0-9._-]{1,64}")
_PULLED = Outcome(Verdict.FAILED, "nothing is sent to this receiver: it fetches what it wants", ours=True)


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """The account of a client that fetches over MessageGears' web service."""

    name: ClassVar[str] = "messagegears_rest"
    schemes: ClassVar[tuple[str, ...]] = ()
    brokered: ClassVar[bool] = False

    account_id: str = option(help="The AccountId that the client sends: letters, digits, `.`, `_` and `-`.")
    api_key: Secret = option(help="The ApiKey that it sends: at least 16 characters.", secret=True)

    def __post_init__(self) -> None:
        """Raises ConfigurationError for an account or key that cannot be used."""
        if not _ACCOUNT.fullmatch(self.account_id):
            raise ConfigurationError("account_id: 1 to 64 letters, digits, `.`, `_` and `-`")
        if not KEY_LENGTH <= len(self.api_key.reveal()) <= 256:
            raise ConfigurationError(f"api_key: {KEY_LENGTH} to 256 characters")

    @property
    def carries(self) -> Literal["nothing"]:
        """Nothing: it is asked."""
        return "nothing"

    async def probe(self) -> Outcome:
        """There is nobody to ask whether it works."""
        return Outcome(Verdict.TAKEN, "nobody has to be reached: its client comes for the events")

    async def send(self, parcel: Parcel) -> Outcome:
        """Refuse: there is nowhere to send to."""
        return _PULLED

    async def close(self) -> None:
        """Nothing is open."""


_proof: type[Contract] = Transport

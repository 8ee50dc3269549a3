"""The demonstration's receivers: each checks what reaches it, and has a trouble of its own."""

from __future__ import annotations

import asyncio
import time

import msgspec

from aftersend.core.errors import AccessError
from aftersend.core.signing import Verifier
from aftersend.simulation.receiver import Delivery

_decode = msgspec.json.Decoder(list[msgspec.Raw]).decode


class Receiver:
    """Takes signed batches in order; slow, or failing for a while."""

    def __init__(self, name: str, dialect: str, trouble: str, *, pause: float = 0.0) -> None:
        self.name = name
        self.dialect = dialect
        self.trouble = trouble
        self.events = 0
        """Events taken, repeats left out."""
        self.sequence = 0
        """The number of the last event of the unbroken line."""
        self.requests = self.refused = self.repeated = 0
        self.unsigned = self.gaps = 0
        self._pause = pause
        self._verifier: Verifier | None = None
        self._failing_until = 0.0

    def trust(self, secret: str) -> None:
        """What its sender signs with."""
        self._verifier = Verifier([secret])

    def fail_for(self, seconds: float) -> None:
        """Answer 503 from now on, for that long."""
        self._failing_until = time.monotonic() + seconds

    @property
    def failing(self) -> bool:
        """Whether it answers 503 now."""
        return time.monotonic() < self._failing_until

    @property
    def sound(self) -> bool:
        """Whether everything so far was signed, in order and without a gap."""
        return not (self.unsigned or self.gaps) and self.events == self.sequence

    async def take(self, delivery: Delivery) -> int:
        """Check a delivery and answer it."""
        self.requests += 1
        if self.failing:
            self.refused += 1
            return 503
        if self._pause:
            await asyncio.sleep(self._pause)
        if not self._is_signed(delivery):
            self.unsigned += 1
            return 401
        self._note(delivery)
        return 200

    def _is_signed(self, delivery: Delivery) -> bool:
        if self._verifier is None:
            return False
        try:
            self._verifier.verify(delivery.headers, delivery.body, int(time.time()))
        except AccessError:
            return False
        return True

    def _note(self, delivery: Delivery) -> None:
        first, _, last = delivery.headers["aftersend-sequence"].partition("-")
        if int(last) <= self.sequence:
            self.repeated += 1
            return
        self.gaps += int(first) != self.sequence + 1
        self.events += len(_decode(delivery.body))
        self.sequence = int(last)


def pair(seconds: float) -> list[Receiver]:
    """The two of the demonstration, in words for people."""
    slow = Receiver("warehouse", "canonical", "slow: 0.15 s a batch", pause=0.15)
    failing = Receiver("crm", "altcraft", f"answers 503 for {seconds:.1f} s")
    return [slow, failing]

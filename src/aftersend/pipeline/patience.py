"""What a failure costs: a wait before the next try, and after days of nothing else the end of the line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aftersend.contracts import Clock
from aftersend.core.outcome import Outcome
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.backoff import wait_before_try
from aftersend.pipeline.shipment import BREAKER_OPENS_AT, DisabledError, Standing


class Patience:
    """Counts the failures of one receiver and waits for its next try."""

    def __init__(
        self, subscription: Subscription, standing: Standing, clock: Clock, chance: Callable[[], float]
    ) -> None:
        self._subscription = subscription
        self._standing = standing
        self._clock = clock
        self._chance = chance
        self._nudged = asyncio.Event()

    def failed(self, outcome: Outcome) -> float:
        """Count a failure; seconds until the next try. Raises DisabledError where there is to be none."""
        standing, now, limit = self._standing, self._clock(), self._subscription.disable_after
        standing.failures += 1
        standing.detail = outcome.detail
        standing.failing_since = standing.failing_since or now
        if not outcome.ours and now - standing.failing_since > limit * SECOND:
            raise DisabledError(f"nothing but failure for {limit:g} s: {outcome.detail}")
        wait = wait_before_try(standing.failures, self._subscription.retry, outcome.retry_after, self._chance)
        standing.next_try_at = now + int(wait * SECOND)
        return wait

    def breaks(self) -> bool:
        """Whether this was the failure that opens the breaker."""
        return self._standing.failures == BREAKER_OPENS_AT

    async def wait(self, seconds: float) -> None:
        """Until then, or until an operator does not want to wait."""
        self._nudged.clear()
        try:
            # Not wait_for: Python 3.11's loses a cancellation that comes together with what it waits for.
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            pass

    def nudge(self) -> None:
        """Try at once what waits for its next try."""
        self._nudged.set()

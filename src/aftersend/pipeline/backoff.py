"""When to try again: a list of waits, spread a little, never shorter than the receiver asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence

JITTER = 0.2
"""How far a wait may be off its place in the list, either way."""


def wait_before_try(
    failures: int, waits: Sequence[float], retry_after: float | None, chance: Callable[[], float]
) -> float:
    """Seconds to wait after the n-th failure in a row (from 1); the last wait of the list repeats.

    `chance` gives a number from 0 to 1. `Retry-After` lengthens the wait and never shortens it.
    """
    wait = waits[min(failures, len(waits)) - 1] if waits else 1.0
    spread = wait * (1 - JITTER + 2 * JITTER * chance())
    return max(spread, retry_after or 0.0)

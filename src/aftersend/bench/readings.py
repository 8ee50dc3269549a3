"""What a measurement hands over: readings of rows, and how much work it is asked to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from msgspec import Struct


class Row(Struct, frozen=True):
    """One line of the table."""

    name: str
    unit: str
    floor: float
    """What it must reach, or stay below …"""
    reach: float
    """… and what it should."""
    rising: bool = True
    """Whether more is better."""

    def verdict(self, value: float) -> str:
        """Whether a value is good, enough or missed."""
        sign = 1 if self.rising else -1
        if sign * value >= sign * self.reach:
            return "good"
        return "enough" if sign * value >= sign * self.floor else "missed"


class Reading(Struct, frozen=True):
    """What one run says of a row."""

    row: Row
    value: float
    count: int
    """How many events it was measured with."""
    reference: float = 0.0
    """Events a CPU-second of the bare loop at that time; 0: the value is no rate."""


class Scale(Struct, frozen=True):
    """How much work a run does."""

    share: float = 1.0
    """Of the usual number of events."""
    full: bool = False
    """Measure what needs 20 million events with as many."""

    def of(self, count: int, least: int = 1) -> int:
        """The share of a number, at least `least`."""
        return max(least, int(count * self.share))


Report = Callable[[str], None]
"""Told in a line what is being done."""

Measure = Callable[[Scale, Report], Iterator[Reading]]


class Stopwatch:
    """CPU-seconds of this process, all its threads together."""

    seconds = 0.0

    def rate(self, count: int) -> float:
        """Events a CPU-second."""
        return count / max(self.seconds, 1e-6)


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """Measures what is done within."""
    watch = Stopwatch()
    before = time.process_time()
    try:
        yield watch
    finally:
        watch.seconds = time.process_time() - before

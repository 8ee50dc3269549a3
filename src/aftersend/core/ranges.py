"""Numbers that rise, told as ranges."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def ranges(numbers: Sequence[int]) -> str:
    """Rising numbers as ranges: `1-3,7-7`."""
    breaks = [(left, right) for left, right in pairwise(numbers) if right != left + 1]
    starts = [numbers[0], *[right for _, right in breaks]]
    ends = [*[left for left, _ in breaks], numbers[-1]]
    return ",".join(f"{start}-{end}" for start, end in zip(starts, ends, strict=True))

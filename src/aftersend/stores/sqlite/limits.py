"""How much a store holds at once."""

from __future__ import annotations

from dataclasses import dataclass

MAX_FILE_BYTES = 1 << 30
"""A file of the log that is larger is followed by a new one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of what the log holds at once; events unless another unit is named."""

    queued_events: int = 100_000
    queued_bytes: int = 64_000_000
    """Past these, StoreBusyError; a single larger entry is taken when nothing else waits."""
    recent_events: int = 20_000
    recent_bytes: int = 32_000_000
    """Events near the head that are kept decoded, and their bytes as JSON."""
    open_files: int = 32
    """Connections that stay open for reading."""
    reading_threads: int = 4


DEFAULT_LIMITS = Limits()

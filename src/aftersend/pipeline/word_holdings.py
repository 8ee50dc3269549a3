"""Batches that were handed over: in somebody's hand, or read and kept for a while to be had again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

from msgspec import structs

from aftersend.contracts import Clock, Lease
from aftersend.core.errors import StoreBusyError
from aftersend.pipeline.word_lines import Ranges, WordLine

HELD_LIMIT = 64
"""Batches in hand at a time."""
KEPT_LIMIT = 100
"""Batches that can be had again; past it the oldest is forgotten."""

Taken = tuple[str, Ranges, int]
"""What a batch takes of a line: its word, the ranges, and how many events that are."""


class Holdings:
    """The batches of one subscription, each with a lease for every line that it takes of."""

    def __init__(self, lines: Mapping[str, WordLine], clock: Clock, chance: Callable[[int], bytes]) -> None:
        self._lines = lines
        self._clock = clock
        self._chance = chance
        self._counts: dict[str, int] = {}
        self.held: dict[str, list[Lease]] = {}
        self.kept: dict[str, list[Lease]] = {}
        self.dropped: list[Lease] = []
        """What has to be forgotten in the store."""

    def take_in(self, leases: Iterable[Lease]) -> None:
        """Put leases where they belong."""
        for lease in leases:
            if lease.state == "leased":
                self._hold(lease)
            else:
                self.kept.setdefault(_batch_of(lease), []).append(lease)

    def _hold(self, lease: Lease) -> None:
        self._lines[word_of(lease)].held[lease.id] = lease
        self.held.setdefault(_batch_of(lease), []).append(lease)

    def expire(self) -> None:
        """Let go of what has come to its end."""
        now = self._clock()
        for batches in (self.held, self.kept):
            for id_ in [id_ for id_, leases in batches.items() if leases[0].until <= now]:
                self._let_go(batches, id_)

    def _let_go(self, batches: dict[str, list[Lease]], id_: str) -> None:
        for lease in batches.pop(id_):
            self._lines[word_of(lease)].held.pop(lease.id, None)
            self._counts.pop(lease.id, None)
            self.dropped.append(lease)

    def reserve(self, taken: Sequence[Taken], consumer: str, span: int) -> list[Lease]:
        """A batch goes into a consumer's hand. Raises StoreBusyError where too many are."""
        if len(self.held) >= HELD_LIMIT:
            raise StoreBusyError(f"{HELD_LIMIT} batches are being processed; read some of them first")
        leases = self._leases(taken, consumer, span, "leased")
        for lease, (_, _, count) in zip(leases, taken, strict=True):
            self._hold(lease)
            self._counts[lease.id] = count
        return leases

    def keep(self, taken: Sequence[Taken], span: int) -> list[Lease]:
        """A batch is read, and kept for a while."""
        return self._keep(self._leases(taken, "", span, "kept")) if span else []

    def _leases(
        self, taken: Sequence[Taken], consumer: str, span: int, state: Literal["leased", "kept"]
    ) -> list[Lease]:
        """The leases of one batch; their ids begin with its own, which rises even where the clock does not."""
        now = self._clock()
        newest = max((int(id_[:16], 16) for id_ in (*self.held, *self.kept)), default=0)
        batch = f"{max(now, newest + 1):016x}{self._chance(4).hex()}"
        return [
            Lease(f"{batch}/{word}", self._lines[word].name, consumer, ranges, now + span, state)
            for word, ranges, _ in taken
        ]

    def _keep(self, leases: list[Lease]) -> list[Lease]:
        for lease in leases:
            self.kept.setdefault(_batch_of(lease), []).append(lease)
        for id_ in sorted(self.kept)[:-KEPT_LIMIT]:
            self._let_go(self.kept, id_)
        return leases

    def release(self, consumer: str, span: int) -> tuple[list[Taken], list[Lease]]:
        """What a consumer has in hand is read: what that is, and the leases that keep it for a while."""
        leases = self._of(consumer)
        taken = [(word_of(lease), lease.positions, self._counts.get(lease.id, 0)) for lease in leases]
        for id_ in {_batch_of(lease) for lease in leases}:
            self._let_go(self.held, id_)
        until = self._clock() + span
        kept = [structs.replace(lease, consumer="", until=until, state="kept") for lease in leases] if span else []
        return taken, self._keep(kept)

    def _of(self, consumer: str) -> list[Lease]:
        return [lease for leases in self.held.values() for lease in leases if lease.consumer == consumer]

    def last(self, number: int) -> list[Lease]:
        """The leases of the last batch (2: of the one before it); empty where there is none."""
        ids = sorted([*self.held, *self.kept], reverse=True)
        if number > len(ids):
            return []
        return self.held.get(ids[number - 1]) or self.kept[ids[number - 1]]

    def pass_on(self, leases: Sequence[Lease], consumer: str, span: int, words: Sequence[str | None]) -> list[Lease]:
        """A batch in hand goes into this consumer's; `words` are those of its events, which a restart had forgotten."""
        until = self._clock() + span
        self.held.pop(_batch_of(leases[0]))
        passed = [structs.replace(lease, consumer=consumer, until=until) for lease in leases]
        for lease in passed:
            self._hold(lease)
            self._counts[lease.id] = words.count(word_of(lease))
        return passed

    def first_kept(self) -> int | None:
        """The lowest position of what can be had again."""
        return min((lease.positions[0][0] for leases in self.kept.values() for lease in leases), default=None)


def word_of(lease: Lease) -> str:
    """The word on whose line a lease is."""
    return lease.line.partition("/")[2]


def _batch_of(lease: Lease) -> str:
    return lease.id.partition("/")[0]

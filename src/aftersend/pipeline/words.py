"""Pulling with a cursor for each word: batches of the oldest unread events, read, reserved or left as they are.

A line is `subscription-id/WORD`; words that the dialect does not know share the line `*`. Everything that must outlive
a crash is rows: cursors, batches in hand (`leased`), batches that were read and can be had again (`kept`), and what was
read above a cursor because somebody has older events in hand (`acknowledged`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec import Struct, structs

from aftersend.contracts import Clock, Cursor, Cursors, Dialect, Lease, Leases, Log
from aftersend.core.errors import StoreBusyError
from aftersend.core.event import Event
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND, format_time, parse_time
from aftersend.pipeline.word_holdings import Holdings, Taken, word_of
from aftersend.pipeline.word_lines import WordLine
from aftersend.pipeline.word_search import OTHERS, Found, Search

WRITE_INTERVAL = 5 * SECOND
"""How often a cursor is written that only passed unwanted events."""
WAITING_LIMIT = 16
"""Requests of one subscription at a time; one more is told to come again."""


class Batch(Struct, frozen=True):
    """Events to hand over, the oldest first."""

    positions: list[int]
    events: list[Event]
    words: tuple[str, ...]

    def first(self, count: int) -> Batch:
        """The oldest of them."""
        return Batch(self.positions[:count], self.events[:count], self.words)


class WordPuller:
    """One subscription's lines. Whoever uses it holds `Words.taking`."""

    def __init__(
        self,
        subscription: Subscription,
        search: Search,
        *,
        cursors: Cursors,
        leases: Leases,
        clock: Clock,
        chance: Callable[[int], bytes],
    ) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self._cursors = cursors
        self._leases = leases
        self._clock = clock
        self._chance = chance
        self._lines: dict[str, WordLine] = {}
        self._holdings = Holdings({}, clock, chance)
        self._written: dict[str, Cursor] = {}
        self._rows: dict[str, Lease] = {}
        self._written_at = 0
        self._pulled_at = 0
        self.become(subscription, search)

    # --- state

    def become(self, subscription: Subscription, search: Search) -> None:
        """Go on as the subscription's record now is."""
        self.subscription = subscription
        self._search = search
        self._is_loaded = False

    @property
    def words(self) -> tuple[str, ...]:
        """All words that can be asked for."""
        return self._search.words

    async def load(self) -> None:
        """Read where the lines stand, if that is not known."""
        if self._is_loaded:
            return
        names = [self._name(word) for word in self.words]
        cursors = dict(zip(names, await asyncio.gather(*map(self._cursors.get, names)), strict=True))
        self._written = {name: cursor for name, cursor in cursors.items() if cursor is not None}
        others = cursors[self._name(OTHERS)]
        start = others.position if others is not None else await self._start()
        self._lines = {
            word: WordLine(name, self._cursor(name, start)) for word, name in zip(self.words, names, strict=True)
        }
        await self._take_in(await self._leases.list_leases(self.subscription.id))

    def _name(self, word: str) -> str:
        return f"{self.subscription.id}/{word}"

    def _cursor(self, name: str, start: int) -> Cursor:
        """Where a line stands; a new epoch begins there anew."""
        epoch = self.subscription.epoch
        cursor = self._written.get(name)
        return cursor if cursor and cursor.epoch == epoch else Cursor(cursor.position if cursor else start, epoch)

    async def _start(self) -> int:
        """Where a new subscription begins to read."""
        log, start = self._search.log, self.subscription.start
        cursor = await self._cursors.get(self.subscription.id)
        if cursor is not None:
            return cursor.position
        if start in ("now", "beginning"):
            return log.head() if start == "now" else log.tail()
        return await log.position_at(parse_time(start))

    async def _take_in(self, leases: Sequence[Lease]) -> None:
        """Go on with leases; those of another epoch, or of a word that is gone, mean nothing any more."""
        mine = [lease for lease in leases if lease.id.endswith(f"/{word_of(lease)}")]
        current = [lease for lease in mine if self._is_current(lease)]
        self._rows = {lease.line: lease for lease in current if lease.state == "acknowledged"}
        for row in self._rows.values():
            self._lines[word_of(row)].read = row.positions
        self._holdings = Holdings(self._lines, self._clock, self._chance)
        self._holdings.take_in(lease for lease in current if lease.state != "acknowledged")
        self._holdings.dropped += [lease for lease in mine if lease not in current]
        await self._write()

    def _is_current(self, lease: Lease) -> bool:
        line = self._lines.get(word_of(lease))
        return line is not None and self._written.get(line.name) == line.cursor

    async def _write(self, put: Sequence[Lease] = ()) -> None:
        """Write down what changed, in one transaction. Where that fails, all is read anew at the next request."""
        self._is_loaded = False
        lines = self._lines.values()
        moves = {line.name: line.cursor for line in lines if self._written.get(line.name) != line.cursor}
        rows = {
            line.name: Lease(f"read/{word}", line.name, "", line.read, 0, "acknowledged")
            for word, line in self._lines.items()
            if line.read
        }
        again = {lease.id for lease in put}
        drop = [lease for lease in self._holdings.dropped if lease.id not in again]
        drop += [row for name, row in self._rows.items() if name not in rows]
        put = [*put, *(row for name, row in rows.items() if self._rows.get(name) != row)]
        if put or drop or moves:
            await self._leases.settle_leases(put, drop, moves)
        self._holdings.dropped, self._rows, self._written_at = [], rows, self._clock()
        self._written |= moves
        self._is_loaded = True

    # --- what callers do

    async def gather(self, words: Sequence[str], limit: int) -> Batch:
        """The oldest events of these words that nobody has read or has in hand, at most so many."""
        self._holdings.expire()
        self._pulled_at = self._clock()
        lines = {word: self._lines[word] for word in words}
        for line in lines.values():
            line.skip(self._search.log.tail())
        known: Found = {}
        before = await self._search.look(lines, limit, known)
        positions = sorted([at for line in lines.values() for at in line.first(before, limit)])[:limit]
        missing = [at for at in positions if at not in known]
        await self._search.fetch(missing, known)
        gone = {at for at in missing if at not in known}
        for line in lines.values():
            line.forget(gone)
        had = [at for at in positions if at in known]
        return Batch(had, [known[at] for at in had], tuple(words))

    def _taken(self, batch: Batch) -> list[Taken]:
        """What a batch takes of each line: it has the oldest events of all of them."""
        if not batch.positions:
            return []
        before = batch.positions[-1] + 1
        lines = [(word, self._lines[word]) for word in batch.words]
        return [(word, line.runs(before), count) for word, line in lines if (count := line.ready(before))]

    async def read(self, batch: Batch, keep: int) -> None:
        """The batch is read; for `keep` ns it can be had again."""
        taken = self._taken(batch)
        await self._acknowledge(taken, self._holdings.keep(taken, keep))

    async def _acknowledge(self, taken: Sequence[Taken], kept: Sequence[Lease]) -> None:
        for word, ranges, count in taken:
            self._lines[word].acknowledge(ranges, count)
        await self._write(kept)

    async def reserve(self, batch: Batch, consumer: str, span: int) -> None:
        """The batch is in a consumer's hand for `span` ns. Raises StoreBusyError where too many are."""
        await self._write(self._holdings.reserve(self._taken(batch), consumer, span))

    async def acknowledge(self, consumer: str, keep: int) -> int:
        """What a consumer has in hand is read; returns how many events that are."""
        self._holdings.expire()
        taken, kept = self._holdings.release(consumer, keep)
        if taken:
            await self._acknowledge(taken, kept)
        return sum(count for _, _, count in taken)

    async def recall(self, number: int, consumer: str, span: int) -> Batch | None:
        """The last batch that was taken (2: the one before it) once more, or None where there is none.

        One that is not read yet is then in this consumer's hand, for `span` ns from now.
        """
        self._holdings.expire()
        leases = self._holdings.last(number)
        if not leases:
            return None
        found = await self._search.within({word_of(lease): lease.positions for lease in leases})
        if leases[0].state == "leased":
            words = [self._search.word(event) for event in found.values()]
            await self._write(self._holdings.pass_on(leases, consumer, span, words))
        return Batch(list(found), list(found.values()), tuple(map(word_of, leases)))

    async def rest(self) -> None:
        """Nothing was taken: write down now and then how far there was nothing to take."""
        if self._holdings.dropped or self._clock() - self._written_at >= WRITE_INTERVAL:
            await self._write()

    async def flush(self) -> None:
        """Write down how far everything is looked through."""
        if self._is_loaded:
            await self._write()

    # --- for others

    def holding(self) -> dict[str, int]:
        """The positions that retention must not pass: of what is unread, and of what can be had again."""
        id_, places = self.subscription.id, {}
        if self._written:
            places[id_] = min(cursor.position for cursor in self._written.values())
        kept = self._holdings.first_kept()
        return places if kept is None else {**places, f"{id_}/recall": kept}

    def standing(self) -> dict[str, Any]:
        """How the lines stand, for people; first all together, as of a subscription with one cursor."""
        head, cursors = self._search.log.head(), {word: line.cursor for word, line in self._lines.items()}
        position = min((cursor.position for cursor in cursors.values()), default=0)
        return {
            "position": position,
            "sequence": sum(cursor.sequence for cursor in cursors.values()),
            "behind": max(0, head - position),
            "words": {word: structs.asdict(cursor) for word, cursor in cursors.items()},
            "in_hand": len(self._holdings.held),
            "kept": len(self._holdings.kept),
            "pulled_at": format_time(self._pulled_at) if self._pulled_at else None,
        }


class Words:
    """The pullers of all subscriptions that are pulled by words."""

    def __init__(
        self,
        *,
        log_of: Callable[[Subscription], Log],
        cursors: Cursors,
        leases: Leases,
        find_dialect: Callable[[Subscription], tuple[Dialect, str]],
        clock: Clock,
        chance: Callable[[int], bytes],
    ) -> None:
        self._log_of = log_of
        self._cursors = cursors
        self._leases = leases
        self._find_dialect = find_dialect
        self._clock = clock
        self._chance = chance
        self._pullers: dict[str, WordPuller] = {}

    async def open(self, subscription: Subscription) -> None:
        """Begin with a subscription, or go on with it as its record now is."""
        puller = self._pullers.get(subscription.id)
        if puller is None:
            puller = self._pullers[subscription.id] = self._puller(subscription)
        async with puller.lock:
            if puller.subscription != subscription:
                await puller.flush()
                puller.become(subscription, self._search(subscription))
            await puller.load()

    def _puller(self, subscription: Subscription) -> WordPuller:
        return WordPuller(
            subscription,
            self._search(subscription),
            cursors=self._cursors,
            leases=self._leases,
            clock=self._clock,
            chance=self._chance,
        )

    def _search(self, subscription: Subscription) -> Search:
        dialect, _ = self._find_dialect(subscription)
        return Search(subscription, dialect, self._log_of(subscription), self._clock)

    def close(self, subscription: str) -> None:
        """A subscription (id) is gone."""
        self._pullers.pop(subscription, None)

    @asynccontextmanager
    async def taking(self, subscription: Subscription) -> AsyncIterator[WordPuller]:
        """A subscription's lines, for one request at a time. Raises StoreBusyError where too many wait."""
        if subscription.id not in self._pullers:
            await self.open(subscription)
        puller = self._pullers[subscription.id]
        if puller.waiting >= WAITING_LIMIT:
            raise StoreBusyError("too many requests of this login wait; come again in a moment")
        puller.waiting += 1
        try:
            async with puller.lock:
                await puller.load()
                yield puller
        finally:
            puller.waiting -= 1

    async def flush(self) -> None:
        """Write down how far everything is looked through."""
        for puller in list(self._pullers.values()):
            async with puller.lock:
                await puller.flush()

    def holding(self) -> dict[str, int]:
        """The positions that retention must not pass, by subscription and `subscription/recall`."""
        return {name: place for puller in self._pullers.values() for name, place in puller.holding().items()}

    def standing(self, subscription: Subscription) -> dict[str, Any]:
        """How a subscription does."""
        puller = self._pullers.get(subscription.id)
        return puller.standing() if puller else {}

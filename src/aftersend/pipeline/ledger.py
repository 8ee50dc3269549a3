"""Where every subscription stands, written down many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from msgspec import structs

from aftersend.contracts import Cursor, Cursors, Lease, Leases, Manifest, SetAside
from aftersend.core.event import Event
from aftersend.core.outcome import Tally
from aftersend.core.tallying import count_ids
from aftersend.core.timestamps import format_time

COMMIT_INTERVAL = 0.02
"""Seconds between two writes; a crash repeats at most what was delivered in between."""

IDLE_INTERVAL = 5.0
"""Seconds after which a cursor that only passed unwanted events is written down."""

_MODULUS = 1 << 128


class Ledger:
    """The cursors of all subscriptions in memory, and the task that keeps the disk up with them."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors
        self._current: dict[str, Cursor] = {}
        self._changed: set[str] = set()
        self._passed: set[str] = set()
        self._manifests: dict[tuple[str, int, str], Manifest] = {}
        self._days: dict[str, tuple[str, int, str]] = {}
        self._written = asyncio.Event()

    async def open(self, subscription: str, start: Cursor) -> Cursor:
        """The cursor of a subscription; `start` where it has none yet, which is then written down."""
        cursor = self._current.get(subscription) or await self._cursors.get(subscription)
        if cursor is None:
            cursor = start
            await self._cursors.move({subscription: cursor})
        self._current[subscription] = cursor
        return cursor

    def cursor(self, subscription: str) -> Cursor:
        """Where a subscription stands now."""
        return self._current[subscription]

    def cursors(self) -> dict[str, Cursor]:
        """Where all of them stand now."""
        return dict(self._current)

    def close(self, subscription: str) -> None:
        """Stop keeping a subscription in memory."""
        self._current.pop(subscription, None)
        self._changed.discard(subscription)
        self._passed.discard(subscription)

    def passed(self, subscription: str, position: int) -> None:
        """Nothing up to a position was wanted: written down when there is something to write, or in a while."""
        cursor = self._current[subscription]
        if position > cursor.position:
            self._current[subscription] = structs.replace(cursor, position=position)
            self._passed.add(subscription)

    async def told(self, subscription: str, position: int, events: Sequence[Event], now: int) -> None:
        """A run of events was taken; the cursor goes to `position`, written down within the commit interval."""
        tally = Tally()
        count_ids(tally, events)
        await self._count(subscription, tally, now)
        cursor = self._current[subscription]
        self._current[subscription] = Cursor(position, cursor.epoch, cursor.sequence + len(events))
        self._changed.add(subscription)
        self._written.set()

    async def settle(
        self, subscription: str, position: int, tally: Tally, now: int, aside: Sequence[SetAside] = ()
    ) -> None:
        """A counted run was taken but for some that leave the line: on disk, in one transaction, when it returns.

        On a failure the cursor stands where it stood.
        """
        before = self._current[subscription]
        counted = self._manifests.get(self._key(subscription, now))
        await self._count(subscription, tally, now)
        cursor = Cursor(position, before.epoch, before.sequence + tally.count + len(aside))
        self._changed.discard(subscription)
        self._passed.discard(subscription)
        try:
            await self._cursors.move({subscription: cursor}, aside, self._manifest_of(subscription))
        except BaseException:
            # What was counted is taken back: it will be told, and counted, again.
            self._changed.add(subscription)
            self._restore(self._key(subscription, now), counted)
            raise
        self._current[subscription] = cursor

    async def set_aside(self, subscription: str, position: int, aside: Sequence[SetAside]) -> None:
        """Events left the line: the cursor passes them in the same transaction; returns when that is on disk."""
        cursor = self._current[subscription]
        cursor = Cursor(position, cursor.epoch, cursor.sequence + len(aside))
        self._changed.discard(subscription)
        self._passed.discard(subscription)
        try:
            await self._cursors.move({subscription: cursor}, aside, self._manifest_of(subscription))
        except BaseException:
            # The cursor stands before these events, else the next flush would lose them.
            self._changed.add(subscription)
            raise
        self._current[subscription] = cursor

    async def settle_leases(
        self,
        subscription: str,
        cursor: Cursor,
        tally: Tally,
        *,
        leases: Leases,
        put: Sequence[Lease],
        drop: Sequence[Lease],
        aside: Sequence[SetAside] = (),
        now: int,
    ) -> None:
        """Leases begin and end, and the cursor passes what is settled: on disk, in one transaction, when it returns.

        On a failure all stands where it stood. Called off in the middle, memory and disk may disagree: await its end.
        """
        before, key = self._current[subscription], self._key(subscription, now)
        counted = self._manifests.get(key)
        if tally.count:
            await self._count(subscription, tally, now, cursor.sequence)
        was_changed, was_passed = subscription in self._changed, subscription in self._passed
        self._changed.discard(subscription)
        self._passed.discard(subscription)
        moves = {subscription: cursor} if cursor != before else {}
        try:
            await leases.settle_leases(put, drop, moves, aside, self._manifest_of(subscription) if tally.count else ())
        except BaseException:
            self._changed.add(subscription)
            self._restore(key, counted)
            raise
        self._current[subscription] = cursor
        if was_changed and not tally.count:
            # Its manifest is still to be written.
            self._changed.add(subscription)
        elif was_passed and not moves:
            self._passed.add(subscription)

    async def restart(self, subscription: str, epoch: int, position: int) -> None:
        """A new epoch begins at a position: the filter or the dialect changed."""
        cursor = Cursor(position, epoch, 0)
        self._current[subscription] = cursor
        self._changed.discard(subscription)
        await self._cursors.move({subscription: cursor}, (), self._manifest_of(subscription))

    async def run(self) -> None:
        """Write down what moved, until cancelled."""
        while True:
            try:
                # Not wait_for: Python 3.11's loses a cancellation that comes together with what it waits for.
                async with asyncio.timeout(IDLE_INTERVAL):
                    await self._written.wait()
                await asyncio.sleep(COMMIT_INTERVAL)
            except TimeoutError:
                pass
            self._written.clear()
            await self.flush()

    async def flush(self) -> None:
        """Write down everything that moved; on a failure it stays to be written."""
        names = self._changed | self._passed
        if not names:
            return
        changed, passed = self._changed, self._passed
        self._changed, self._passed = set(), set()
        moves = {name: self._current[name] for name in names if name in self._current}
        manifests = [manifest for name in changed for manifest in self._manifest_of(name)]
        try:
            await self._cursors.move(moves, (), manifests)
        except BaseException:
            self._changed |= changed & self._current.keys()
            self._passed |= passed & self._current.keys()
            raise

    def _manifest_of(self, subscription: str) -> list[Manifest]:
        key = self._days.get(subscription)
        return [self._manifests[key]] if key in self._manifests and key is not None else []

    def _key(self, subscription: str, now: int) -> tuple[str, int, str]:
        return (subscription, self._current[subscription].epoch, format_time(now)[:10])

    def _restore(self, key: tuple[str, int, str], manifest: Manifest | None) -> None:
        if manifest is not None:
            self._manifests[key] = manifest
        else:
            self._manifests.pop(key, None)

    async def _count(self, subscription: str, tally: Tally, now: int, last_sequence: int = 0) -> None:
        """Add a run to the day's manifest; `last_sequence`: where it ends, if some of it left the line."""
        cursor, key = self._current[subscription], self._key(subscription, now)
        manifest = self._manifests.get(key) or await self._open_manifest(key)
        types = dict(manifest.types)
        for type_, count in tally.types.items():
            types[type_] = types.get(type_, 0) + count
        self._manifests[key] = structs.replace(
            manifest,
            first_sequence=manifest.first_sequence or cursor.sequence + 1,
            last_sequence=last_sequence or cursor.sequence + tally.count,
            types=types,
            ids_sum=f"{(int(manifest.ids_sum, 16) + tally.ids_sum) % _MODULUS:032x}",
        )

    async def _open_manifest(self, key: tuple[str, int, str]) -> Manifest:
        subscription, epoch, day = key
        before = self._days.get(subscription)
        if before is not None and before != key:
            await self.flush()
            self._manifests.pop(before, None)
        kept = [item for item in await self._cursors.manifests(subscription, day) if item.epoch == epoch]
        self._days[subscription] = key
        return kept[0] if kept else Manifest(subscription, day, epoch, 0, 0, {}, f"{0:032x}")

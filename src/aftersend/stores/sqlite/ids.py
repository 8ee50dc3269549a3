"""The ids in the head file: those of the last blocks in memory, all others in a table.

Ids are in the order of their events' times, and what arrives together did not happen together: written with its block
nearly each id touched a page of its own. Sorted by the ten thousand they share pages, which halves the CPU of a
commit; they go a few with each commit, so that none waits long. Nothing can be lost: an id that is not in the table
stands in its block, and is read from there at the start.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import apsw

from aftersend.core.errors import StoreError
from aftersend.stores.sqlite import blocks
from aftersend.stores.sqlite.connections import transaction
from aftersend.stores.sqlite.statements import LOG

GATHERED_AT_ONCE = 20_000
"""Ids in memory from which on they are put into the table; 100 bytes each."""

GATHERED_A_COMMIT = 2_000
"""How many of them each commit takes along: of old events, all at once would hold up those who wait for 0.2 s."""

_STORED_BYTES = 24
"""What an id takes in the table, about."""


class Ids:
    """Which ids the head has. Belongs to one connection that writes."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._highest: bytes = connection.execute(LOG["highest_id"]).get or b""
        self._fresh = {key for (body,) in connection.execute(LOG["ungathered"]) for key in _keys_in(body)}
        self._going: set[bytes] = set()
        """On their way into the table …"""
        self._queue: list[bytes] = []
        """… and which of them are not in it yet, sorted."""
        self._until = 0
        """The end of the blocks that they are of."""

    @property
    def size(self) -> int:
        """Bytes by which the file will grow for what is in memory."""
        return (len(self._fresh) + len(self._queue)) * _STORED_BYTES

    def known(self, ordered: Sequence[bytes]) -> set[bytes]:
        """Those of the sorted ids that the file has."""
        found = self._fresh.intersection(ordered) | self._going.intersection(ordered)
        asked = ordered[: bisect_right(ordered, self._highest)]
        if asked:
            found.update([key for (key,) in self._connection.execute(LOG["known_ids"], (array(asked),))])
        return found

    def add(self, ids: Sequence[bytes]) -> None:
        """These are in blocks now."""
        self._fresh.update(ids)

    def begin_if_many(self, position: int) -> None:
        """Take up what is in memory once that is worth it; `position` is the end of the file."""
        if not self._queue and len(self._fresh) >= GATHERED_AT_ONCE:
            self._begin(position)

    def gather(self, position: int) -> None:
        """Put all that is in memory into the table; from then on the blocks before `position` may change."""
        self._gather_queue()
        self._begin(position)
        self._gather_queue()

    def _gather_queue(self) -> None:
        if not self._queue:
            return
        with transaction(self._connection):
            ids = self.put(len(self._queue))
        self.gathered(ids)

    def _begin(self, position: int) -> None:
        self._going, self._fresh = self._fresh, set()
        self._queue = sorted(self._going)
        self._until = position

    def put(self, count: int = GATHERED_A_COMMIT) -> list[bytes]:
        """Write the next ids, in the transaction of whoever asks; after its commit they are `gathered`.

        With the last of them it is written that all blocks up to a position have theirs in the table.
        """
        ids = self._queue[:count]
        if ids:
            self._connection.execute(LOG["add_ids"], (array(ids),))
        if ids and len(ids) == len(self._queue):
            self._connection.execute(LOG["move_gathered"], (self._until,))
        return ids

    def gathered(self, ids: Sequence[bytes]) -> None:
        """These, the first in the queue, are in the table for good."""
        if not ids:
            return
        del self._queue[: len(ids)]
        self._highest = max(self._highest, ids[-1])
        if not self._queue:
            self._going = set()


def _keys_in(body: bytes) -> list[bytes]:
    try:
        return blocks.unpack_keys(body)
    except StoreError:
        # Readers are told of the damage. Whoever sends these events again may: nobody has them any more.
        return []


def array(keys: Sequence[bytes]) -> apsw.CArrayBinding:
    """Keys as a table of a statement."""
    return apsw.carray(tuple(keys), flags=apsw.SQLITE_CARRAY_BLOB)

"""One data folder as a store: the log and control.db behind one door."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from aftersend.contracts import (
    Appended,
    Clock,
    Cursor,
    Cursors,
    Entry,
    Gap,
    Lease,
    Leases,
    Log,
    Manifest,
    Quarantine,
    Quarantined,
    Registry,
    Request,
    Requests,
    SetAside,
)
from aftersend.core.event import Event, Recorded
from aftersend.core.registry import Registered
from aftersend.keyring import Keyring
from aftersend.stores.sqlite.control import Control
from aftersend.stores.sqlite.folder import Folder
from aftersend.stores.sqlite.limits import DEFAULT_LIMITS, MAX_FILE_BYTES, Limits
from aftersend.stores.sqlite.log import EventLog

R = TypeVar("R", bound=Registered)


class SqliteStore:
    """The log, cursors, leases, registry, quarantine and requests of one folder; for the event loop that opened it."""

    def __init__(self, lock: int | None, control: Control, log: EventLog) -> None:
        self._lock = lock
        self._control = control
        self._log = log

    @classmethod
    async def open(
        cls,
        folder: Path,
        *,
        clock: Clock,
        keyring: Keyring,
        create: bool = False,
        read_only: bool = False,
        without_old_keys: bool = False,
        max_file_bytes: int = MAX_FILE_BYTES,
        limits: Limits = DEFAULT_LIMITS,
    ) -> SqliteStore:
        """Take a folder; with `create` it is made where it is missing.

        A file of the log that is larger than `max_file_bytes` is followed by a new one. A keyring that lacks a key
        which the store was used with is refused, unless `without_old_keys`: then what it sealed is lost.
        `read_only` takes no lock: it looks at what another process may be writing, and its head stands still.
        Raises StoreLockedError, StoreVersionError and other StoreErrors, each one line.
        """
        place = Folder(folder)
        with ExitStack() as undo:
            lock = None
            if read_only:
                place.require()
            else:
                place.prepare(create=create)
                lock = place.take_lock()
                undo.callback(os.close, lock)
            control = Control(place.control, keyring, read_only=read_only, without_old_keys=without_old_keys)
            undo.callback(control.release)
            log = EventLog(place, clock, limits, max_file_bytes, read_only=read_only)
            undo.pop_all()
        return cls(lock, control, log)

    async def close(self) -> None:
        """Finish what is queued, close the files and let go of the folder."""
        await self._log.close()
        await self._control.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Log.

    async def append(self, entry: Entry) -> Appended:
        """Keep an entry; returns when it is on disk, synced. Raises StoreBusyError, StoreFullError, StoreError."""
        return await self._log.append(entry)

    async def read(self, position: int, limit: int) -> list[Recorded]:
        """About `limit` events from a position on (from the tail where that is higher), in order."""
        return await self._log.read(position, limit)

    async def wait(self, position: int) -> int:
        """Returns the head as soon as the log reaches past a position."""
        return await self._log.wait(position)

    async def position_at(self, received_at: int) -> int:
        """The lowest position of a block received at or after a time (ns, UTC); the head where there is none."""
        return await self._log.position_at(received_at)

    def head(self) -> int:
        """The position that the next event will get."""
        return self._log.head()

    def tail(self) -> int:
        """The lowest position that is still kept (the head where nothing is)."""
        return self._log.tail()

    async def retain(self, before: int, max_log_bytes: int | None, cursors: Mapping[str, int]) -> list[Gap]:
        """Drop the oldest files, never the head, and say whom that overtook.

        A file goes when everything in it arrived before a time (ns, UTC) and every cursor has passed it; while the
        log takes more than `max_log_bytes`, the oldest goes anyway.
        """
        return await self._log.retain(before, max_log_bytes, cursors)

    async def rewrite(self, position: int, events: Sequence[Event]) -> None:
        """Put other events in the place of a whole block's, one for one; nothing of the old ones stays on disk."""
        await self._log.rewrite(position, events)

    def fault(self) -> str:
        """Why entries cannot be kept now, in one line; empty: they can. A fault that is over is found out by itself."""
        return self._log.fault()

    # Quarantine and Requests.

    async def list_quarantined(self, tenant: str | None, limit: int, after: int = 0) -> list[tuple[int, Quarantined]]:
        """Numbered entries with a number above `after`, the oldest first."""
        return await self._log.list_quarantined(tenant, limit, after)

    async def discard(self, numbers: Sequence[int]) -> None:
        """Forget entries (replayed, or not wanted)."""
        await self._log.discard(numbers)

    async def find_request(self, key: str) -> Request | None:
        """The first arrival of a request, for 7 days (files: as long as the log)."""
        return await self._log.find_request(key)

    # Cursors.

    async def get(self, subscription: str) -> Cursor | None:
        """The cursor, or None before the first move."""
        return await self._control.get(subscription)

    async def move(
        self, moves: Mapping[str, Cursor], set_aside: Sequence[SetAside] = (), manifests: Sequence[Manifest] = ()
    ) -> None:
        """Move cursors, keep the events set aside and write the manifests anew, in one durable transaction."""
        await self._control.move(moves, set_aside, manifests)

    async def manifests(self, subscription: str, day: str = "") -> list[Manifest]:
        """The manifests of a subscription, the newest day first; of one day where it is named."""
        return await self._control.manifests(subscription, day)

    async def due(self, subscription: str, now: int, limit: int) -> list[SetAside]:
        """Events set aside whose time has come, the oldest first."""
        return await self._control.due(subscription, now, limit)

    async def settle(self, subscription: str, positions: Sequence[int], again: Sequence[SetAside] = ()) -> None:
        """Forget events that were taken after all, and write down the ones to try again or given up."""
        await self._control.settle(subscription, positions, again)

    async def list_set_aside(self, subscription: str, limit: int) -> list[SetAside]:
        """Events beside the line, the oldest first."""
        return await self._control.list_set_aside(subscription, limit)

    # Leases.

    async def list_leases(self, subscription: str) -> list[Lease]:
        """The leases on a subscription's lines, by id."""
        return await self._control.list_leases(subscription)

    async def settle_leases(
        self,
        put: Sequence[Lease] = (),
        drop: Sequence[Lease] = (),
        moves: Mapping[str, Cursor] | None = None,
        set_aside: Sequence[SetAside] = (),
        manifests: Sequence[Manifest] = (),
    ) -> None:
        """Write and forget leases, move cursors, keep events set aside and write manifests anew, durably."""
        await self._control.settle_leases(put, drop, moves, set_aside, manifests)

    async def reseal(self) -> int:
        """Seal every secret anew with the keyring's active key, after a rotation; returns how many records changed."""
        return await self._control.reseal()

    # Registry. `list` stands last: it hides the built-in for what follows.

    async def put(self, record: Registered) -> None:
        """Write a record; one of the same kind, tenant and name (subscriptions and keys: id) is replaced."""
        await self._control.put(record)

    async def remove(self, record: Registered) -> bool:
        """Forget a record; a subscription's cursors, leases, manifests and events set aside go with it."""
        return await self._control.remove(record)

    async def list(self, kind: type[R], tenant: str | None = None) -> list[R]:
        """The records of a kind, by name; of one tenant, or of all."""
        return await self._control.list(kind, tenant)


_log: type[Log] = SqliteStore
_cursors: type[Cursors] = SqliteStore
_leases: type[Leases] = SqliteStore
_registry: type[Registry] = SqliteStore
_quarantine: type[Quarantine] = SqliteStore
_requests: type[Requests] = SqliteStore

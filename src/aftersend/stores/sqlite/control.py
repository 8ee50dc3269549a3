"""control.db: what is registered, how far each subscription has come, what was set aside and what pullers hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from secrets import token_urlsafe
from typing import TypeVar

import apsw
import msgspec

from aftersend.contracts import Cursor, Lease, Manifest, SetAside
from aftersend.core.errors import AftersendError, StoreBusyError, StoreError, StoreFullError
from aftersend.core.registry import Registered, Subscription
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import records
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, rows, store_error, transaction, version_of
from aftersend.stores.sqlite.folder import make_file
from aftersend.stores.sqlite.records import Seal
from aftersend.stores.sqlite.statements import CONTROL, CONTROL_VERSIONS
from aftersend.stores.sqlite.writer import Job, Writer

R = TypeVar("R", bound=Registered)
T = TypeVar("T")
Work = Callable[[apsw.Connection], T]

_encode = msgspec.json.Encoder().encode
_decode_set_aside = msgspec.json.Decoder(SetAside).decode
_decode_manifest = msgspec.json.Decoder(Manifest).decode
_decode_lease = msgspec.json.Decoder(Lease).decode


class _Call(Job):
    """Something to do with control.db."""

    __slots__ = ("work",)

    def __init__(self, work: Work[object]) -> None:
        super().__init__()
        self.work = work


class Control:
    """One thread with one connection; whatever was asked for meanwhile shares a transaction and its sync."""

    def __init__(self, path: Path, keyring: Keyring, *, read_only: bool, without_old_keys: bool) -> None:
        self._path = path
        self._keyring = keyring
        self._read_only = read_only
        self._is_doubtful = False
        self._unseal: Seal = self._unseal_or_lose if without_old_keys else keyring.unseal
        with faults_of(path):
            if not read_only:
                make_file(path)
            self._connection = self._open()
            try:
                self._check_keys(without_old_keys=without_old_keys)
            except BaseException:
                self._connection.close()
                raise
        self._writer: Writer[_Call, None] = Writer("aftersend-control", self._work, lambda jobs, outcome: None)

    def _open(self) -> apsw.Connection:
        connection = connect(self._path, writing=not self._read_only)
        if self._read_only:
            version_of(connection, len(CONTROL_VERSIONS), self._path)
        else:
            migrate(connection, CONTROL_VERSIONS, self._path)
        return connection

    def _check_keys(self, *, without_old_keys: bool) -> None:
        """Refuse a keyring that lacks a key this store was used with; write down the ones that are new."""
        fingerprints = self._keyring.fingerprints()
        known: dict[str, str] = dict(rows(self._connection, CONTROL["keys"]))
        wanted = sorted(id_ for id_, fingerprint in known.items() if fingerprints.get(id_) != fingerprint)
        if wanted and not without_old_keys:
            raise StoreError(
                f"the keyring lacks key {', '.join(wanted)}, which {self._path.parent} was used with; "
                "put it back from the backup, or start with --without-old-keys"
            )
        if not self._read_only and not fingerprints.keys() <= known.keys():
            with transaction(self._connection):
                self._write_keys(self._connection)

    def _write_keys(self, connection: apsw.Connection) -> None:
        connection.executemany(CONTROL["put_key"], self._keyring.fingerprints().items())

    def _unseal_or_lose(self, sealed: str, context: str) -> str:
        """Where the key is lost, a secret that nobody knows: nothing is signed with it, and nothing proves itself."""
        try:
            return self._keyring.unseal(sealed, context)
        except StoreError:
            return token_urlsafe(32)

    # Cursors.

    async def get(self, subscription: str) -> Cursor | None:
        """The cursor, or None before the first move."""
        row = await self._do(lambda connection: connection.execute(CONTROL["get_cursor"], (subscription,)).get)
        return None if row is None else Cursor(*row)

    async def move(
        self, moves: Mapping[str, Cursor], set_aside: Sequence[SetAside] = (), manifests: Sequence[Manifest] = ()
    ) -> None:
        """Move cursors, keep the events set aside and write the manifests anew, in one durable transaction."""
        await self.settle_leases((), (), moves, set_aside, manifests)

    async def manifests(self, subscription: str, day: str = "") -> list[Manifest]:
        """The manifests of a subscription, the newest day first; of one day where it is named."""
        asked = {"subscription": subscription, "day": day}
        return [_decode_manifest(body) for body in await self._bodies("list_manifests", asked)]

    async def due(self, subscription: str, now: int, limit: int) -> list[SetAside]:
        """Events set aside whose time has come, the oldest first."""
        return [_decode_set_aside(body) for body in await self._bodies("due", (subscription, now, limit))]

    async def settle(self, subscription: str, positions: Sequence[int], again: Sequence[SetAside] = ()) -> None:
        """Forget events that were taken after all, and write down the ones to try again or given up."""
        taken = [(subscription, position) for position in positions]
        late = [_set_aside_row(item) for item in again]

        def work(connection: apsw.Connection) -> None:
            connection.executemany(CONTROL["forget_set_aside"], taken)
            connection.executemany(CONTROL["put_set_aside"], late)

        await self._do(work)

    async def list_set_aside(self, subscription: str, limit: int) -> list[SetAside]:
        """Events beside the line, the oldest first."""
        return [_decode_set_aside(body) for body in await self._bodies("list_set_aside", (subscription, limit))]

    async def _bodies(self, statement: str, asked: apsw.Bindings) -> list[bytes]:
        found = await self._do(lambda connection: rows(connection, CONTROL[statement], asked))
        return [body for (body,) in found]

    # Leases.

    async def list_leases(self, subscription: str) -> list[Lease]:
        """The leases on a subscription's lines, by id."""
        return [_decode_lease(body) for body in await self._bodies("list_leases", (subscription,))]

    async def settle_leases(
        self,
        put: Sequence[Lease] = (),
        drop: Sequence[Lease] = (),
        moves: Mapping[str, Cursor] | None = None,
        set_aside: Sequence[SetAside] = (),
        manifests: Sequence[Manifest] = (),
    ) -> None:
        """Write and forget leases, move cursors, keep events set aside and write manifests anew, durably."""
        kept = [(*_lease_key(lease), _encode(lease)) for lease in put]
        dropped = [_lease_key(lease) for lease in drop]
        cursors = [(line, cursor.position, cursor.epoch, cursor.sequence) for line, cursor in (moves or {}).items()]
        aside = [_set_aside_row(item) for item in set_aside]
        days = [(item.subscription, item.day, item.epoch, _encode(item)) for item in manifests]

        def work(connection: apsw.Connection) -> None:
            connection.executemany(CONTROL["forget_lease"], dropped)
            connection.executemany(CONTROL["put_lease"], kept)
            connection.executemany(CONTROL["put_cursor"], cursors)
            connection.executemany(CONTROL["put_set_aside"], aside)
            connection.executemany(CONTROL["put_manifest"], days)

        await self._do(work)

    # Registry.

    async def put(self, record: Registered) -> None:
        """Write a record; one of the same kind, tenant and name (subscriptions and keys: id) is replaced."""
        row = (*records.identity_of(record), records.encode(record, self._keyring.seal))
        await self._do(lambda connection: rows(connection, CONTROL["put_record"], row))

    async def remove(self, record: Registered) -> bool:
        """Forget a record; a subscription's cursors, leases, manifests and events set aside go with it."""
        identity = records.identity_of(record)

        def work(connection: apsw.Connection) -> bool:
            if isinstance(record, Subscription):
                for statement in ("forget_cursors", "forget_all_set_aside", "forget_manifests", "forget_leases"):
                    connection.execute(CONTROL[statement], {"id": record.id})
            return connection.execute(CONTROL["remove_record"], identity).get is not None

        return await self._do(work)

    async def reseal(self) -> int:
        """Seal every secret anew with the keyring's active key; returns how many records changed."""

        def work(connection: apsw.Connection) -> int:
            self._write_keys(connection)
            changed = 0
            for kind, tenant, name, body in rows(connection, CONTROL["all_records"]):
                fresh = records.reseal(kind, tenant, name, body, self._keyring.seal, self._unseal)
                if fresh is not None:
                    changed += 1
                    connection.execute(CONTROL["put_record"], (kind, tenant, name, fresh))
            return changed

        return await self._do(work)

    async def _do(self, work: Work[T]) -> T:
        result: T = await self._writer.do(_Call(work))
        return result

    async def close(self) -> None:
        """Finish what is asked for, then let go of the file."""
        await self._writer.close()
        self.release()

    def release(self) -> None:
        """Let go of the file; enough where nothing was asked for yet."""
        self._connection.close()

    # In the thread.

    def _work(self, calls: Sequence[_Call]) -> None:
        try:
            if self._is_doubtful:
                self._connection.close()
                self._connection = self._open()
                self._is_doubtful = False
            with transaction(self._connection, writing=not self._read_only):
                for call in calls:
                    self._one(call)
        except Exception as error:
            fault = self._told(error)
            for call in calls:
                call.error = fault
            self._is_doubtful = self._is_doubtful or not isinstance(fault, StoreFullError | StoreBusyError)

    def _one(self, call: _Call) -> None:
        """One call's faults do not undo the others'."""
        connection = self._connection
        connection.execute("SAVEPOINT one")
        try:
            call.result = call.work(connection)
        except Exception as error:
            if not connection.in_transaction:
                raise
            connection.execute("ROLLBACK TO one")
            call.error = self._told(error)
        connection.execute("RELEASE one")

    def _told(self, error: Exception) -> AftersendError:
        if isinstance(error, apsw.Error | OSError):
            return store_error(error, self._path)
        return error if isinstance(error, AftersendError) else StoreError(f"the store failed: {error!r}")

    # `list` stands last: it hides the built-in for what follows.

    async def list(self, kind: type[R], tenant: str | None = None) -> list[R]:
        """The records of a kind, by name; of one tenant, or of all."""
        asked = {"kind": kind.__name__, "tenant": tenant}
        listed = await self._do(lambda connection: rows(connection, CONTROL["list_records"], asked))
        found = [records.decode(kind, owner, name, body, self._unseal) for owner, name, body in listed]
        return sorted(found, key=lambda record: (record.name, *records.identity_of(record)))


def _set_aside_row(item: SetAside) -> tuple[str, int, str, int, bytes]:
    return item.subscription, item.position, item.state, item.next_at, _encode(item)


def _lease_key(lease: Lease) -> tuple[str, str]:
    return lease.line.partition("/")[0], lease.id

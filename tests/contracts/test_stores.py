"""The store in a folder of SQLite files holds every contract of a store."""

from pathlib import Path

from aftersend.contracts import Clock
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import CursorsSuite, LeasesSuite, LogSuite, QuarantineSuite, RegistrySuite, RequestsSuite


class Sqlite:
    """Opens the store with files so small that the tests see several of them."""

    async def open(self, folder: Path, clock: Clock) -> SqliteStore:
        """The store, with a keyring beside it."""
        keyring = Keyring.open(folder / "keyring.json", create=True)
        return await SqliteStore.open(folder, clock=clock, keyring=keyring, create=True, max_file_bytes=100_000)


class TestLog(Sqlite, LogSuite):
    """The log."""


class TestQuarantine(Sqlite, QuarantineSuite):
    """Quarantined bodies."""


class TestRequests(Sqlite, RequestsSuite):
    """Named requests."""


class TestCursors(Sqlite, CursorsSuite):
    """Cursors and events set aside."""


class TestLeases(Sqlite, LeasesSuite):
    """Leases."""


class TestRegistry(Sqlite, RegistrySuite):
    """Registered records."""

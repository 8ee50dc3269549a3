"""A store, a filer and a folder, for tests of files."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path

from aftersend.contracts import Cursor, Entry, SetAside
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.outcome import Outcome, Parcel, Verdict, Volume
from aftersend.core.registry import Subscription
from aftersend.core.rotation import Rotation
from aftersend.core.timestamps import SECOND, parse_time
from aftersend.keyring import Keyring
from aftersend.pipeline.feed import Feed
from aftersend.pipeline.filing import Filer
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.voice import Voice
from aftersend.stores.sqlite import SqliteStore

NOW = parse_time("2026-08-01T14:20:00Z")
TAKEN = Outcome(Verdict.TAKEN)
FAILED = Outcome(Verdict.FAILED, "550 not now")


def event(number: int, at: int = NOW, type_: str = "email.opened", **fields: object) -> Event:
    recipient = f"r{number}@example.org"
    id_ = make_id(NOW + number, recipient.encode())
    source = Source("s", "canonical", type_)
    return Event(id_, type_, NOW + number, source, received_at=at, recipient=recipient, **fields)  # type: ignore[arg-type]


def events(start: int, end: int, at: int = NOW) -> list[Event]:
    return [event(number, at) for number in range(start, end)]


class Shelf:
    """A depot in memory that answers as its rule says, and keeps what it took."""

    name = "shelf"
    schemes = ("shelf",)
    brokered = False
    carries = "volumes"

    def __init__(self, rule: Callable[[Volume], Outcome] = lambda volume: TAKEN) -> None:
        self.rule = rule
        self.put_: list[Volume] = []
        self.files: dict[str, bytes] = {}
        self.history: list[tuple[str, bytes]] = []

    async def probe(self) -> Outcome:
        return TAKEN

    async def send(self, parcel: Parcel) -> Outcome:
        raise AssertionError("files are put, not sent")

    async def put(self, volume: Volume) -> Outcome:
        self.put_.append(volume)
        data = Path(volume.path).read_bytes()
        assert len(data) == volume.size
        outcome = self.rule(volume)
        if outcome.verdict is Verdict.TAKEN:
            self.files[volume.name] = data
            self.history.append((volume.name, data))
        return outcome

    async def close(self) -> None:
        pass

    async def until(self, count: int) -> list[str]:
        """The names of the files once there are so many."""
        async with asyncio.timeout(30):
            while len(self.files) < count:
                await asyncio.sleep(0.005)
        return list(self.files)


class House:
    """A store and what is told of it in files."""

    def __init__(self, data: Path, store: SqliteStore) -> None:
        self.data = data
        self.store = store
        self.feed = Feed(store)
        self.ledger = Ledger(store)
        self.now = NOW
        self.disabled: list[str] = []

    async def keep(self, *told: Event) -> None:
        await self.store.append(Entry("default", told))

    def clock(self) -> int:
        return self.now

    async def cursor(self) -> Cursor | None:
        return await self.store.get("sub_x")

    async def set_aside(self) -> list[SetAside]:
        return await self.store.list_set_aside("sub_x", 100)

    async def filer(self, shelf: object, dialect: str = "canonical", **fields: object) -> Filer:
        """A filer for the subscription `x`; `file` is its rotation."""
        rotation = fields.pop("file", Rotation())
        name, _, form = dialect.partition("/")
        given = {"start": "beginning", "retry": (0.01,)} | fields
        subscription = Subscription(id="sub_x", name="x", dialect=dialect, **given)  # type: ignore[arg-type]
        spoken = import_module(f"aftersend.dialects.{name}").Dialect()
        await self.ledger.open("sub_x", Cursor())
        return Filer(
            subscription,
            Voice(spoken, form),
            shelf,  # type: ignore[arg-type]
            rotation=rotation,  # type: ignore[arg-type]
            data=self.data,
            feed=self.feed,
            ledger=self.ledger,
            cursors=self.store,
            clock=self.clock,
            chance=lambda: 0.5,
            disable=self._disable,
        )

    async def _disable(self, subscription: Subscription, reason: str) -> None:
        self.disabled.append(reason)

    @asynccontextmanager
    async def filing(self, shelf: object, dialect: str = "canonical", **fields: object) -> AsyncIterator[Filer]:
        """A filer that runs."""
        filer = await self.filer(shelf, dialect, **fields)
        task = asyncio.create_task(filer.run())
        try:
            yield filer
            if task.done():
                task.result()
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await filer.close()

    def outbox(self) -> list[str]:
        """The names of the files that lie on our side."""
        folder = self.data / "outbox" / "sub_x"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@asynccontextmanager
async def house(data: Path) -> AsyncIterator[House]:
    """A store in a folder, whose feed is read."""
    data.mkdir(exist_ok=True)
    keyring = Keyring.open(data.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(data, clock=time.time_ns, keyring=keyring, create=True)
    built = House(data, store)
    tasks = [asyncio.create_task(work()) for work in (built.ledger.run, built.feed.run)]
    try:
        yield built
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()


async def eventually(check: Callable[[], bool], seconds: float = 20.0) -> None:
    """Returns when it is so."""
    async with asyncio.timeout(seconds):
        while not check():
            await asyncio.sleep(0.005)


def recipients(files: Sequence[bytes]) -> list[str]:
    """Whom the events of canonical files are about, in order."""
    canonical = import_module("aftersend.dialects.canonical").Dialect()
    receipt = import_module("aftersend.core.event").Receipt
    return [found.recipient for data in files for found in canonical.decode(receipt(data, NOW + 100 * SECOND))]

"""A store, its words and the door of SOAP clients, served for real on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

from tests.integration.capturing import serving

from aftersend.contracts import Entry
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.registry import Subscription
from aftersend.core.secret import Secret
from aftersend.core.timestamps import SECOND
from aftersend.dialects import pure360
from aftersend.keyring import Keyring
from aftersend.pipeline.words import Words
from aftersend.stores.sqlite import SqliteStore
from aftersend.telemetry import Telemetry
from aftersend.transports.soap_pull import Transport
from aftersend.transports.soap_pull.door import Door
from aftersend.transports.soap_pull.facade import Facade, Rows
from aftersend.transports.soap_pull.session import Guard, Logins

START = 1_770_000_000
DIALECT = pure360.Dialect()
ROWS = Rows(DIALECT.word, pure360.told_meta, pure360.csv_lines)


def event(number: int, type_: str = "email.opened", tenant: str = "default", **fields: object) -> Event:
    """A canonical event, a second after the one before it."""
    time = (START + number) * SECOND
    recipient = f"r{number}@example.org"
    return Event(
        make_id(time, f"{number} {type_}".encode()),
        type_,
        time,
        Source("s", "canonical", type_),
        tenant=tenant,
        recipient=recipient,
        **fields,  # type: ignore[arg-type]
    )


class PullHouse:
    """What a client's calls meet; `restart` is a new process on the same store."""

    def __init__(self, store: SqliteStore, transport: Transport) -> None:
        self.store = store
        self.transport = transport
        self.now = (START + 1_000_000) * SECOND
        self.chance = Random(1).randbytes
        self.subscription = Subscription(
            id="sub_pull", name="pull", transport="soap_pull", dialect="pure360/csv", start="beginning"
        )
        self.restart()

    def clock(self) -> int:
        return self.now

    def restart(self) -> None:
        """Forget everything that is not in the store."""
        self.telemetry = Telemetry()
        self.words = Words(
            log_of=lambda subscription: self.store,
            cursors=self.store,
            leases=self.store,
            find_dialect=lambda subscription: (DIALECT, "csv"),
            clock=self.clock,
            chance=self.chance,
        )
        self.logins = Logins()
        self.logins.put(self.subscription, self.transport)
        self.facade = Facade(
            logins=self.logins,
            words=self.words,
            rows=ROWS,
            clock=self.clock,
            chance=self.chance,
            telemetry=self.telemetry,
            guard=Guard(self.clock, delay=0.05),
        )
        self.door = Door(self.facade)

    async def keep(self, *events: Event) -> None:
        """Put events into the log, those of one tenant."""
        await self.store.append(Entry(events[0].tenant, events))


@asynccontextmanager
async def pulled(folder: Path, *, max_file_bytes: int = 1 << 30, **options: object) -> AsyncIterator[PullHouse]:
    """A house without a server."""
    keyring = Keyring.open(folder / "keys", create=True)
    house: PullHouse | None = None
    store = await SqliteStore.open(
        folder / "data",
        clock=lambda: house.now if house else START * SECOND,
        keyring=keyring,
        create=True,
        max_file_bytes=max_file_bytes,
    )
    options = {"user": "acme.sys", "password": Secret("s3cret")} | options
    try:
        house = PullHouse(store, Transport(**options))  # type: ignore[arg-type]
        yield house
    finally:
        await store.close()


@asynccontextmanager
async def pulled_over_http(folder: Path, **options: object) -> AsyncIterator[tuple[PullHouse, str]]:
    """A house and its address."""
    async with pulled(folder, **options) as house:

        async def app(scope: object, receive: object, send: object) -> None:
            await house.door(scope, receive, send)  # type: ignore[arg-type]

        async with serving(app) as port:  # type: ignore[arg-type]
            yield house, f"http://127.0.0.1:{port}"

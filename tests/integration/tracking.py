"""The tracking addresses on a real server in this process, with a real store behind them."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import uvicorn

from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Tracking, endpoints
from aftersend.capture.halon_links import HalonLinks
from aftersend.capture.links import Level, Link, Links
from aftersend.capture.recorder import Recorder
from aftersend.capture.spool import Spool
from aftersend.capture.tokens import Purpose, address
from aftersend.capture.visits import Addresses, Choices, TrackingDomain, Witness
from aftersend.contracts import Log
from aftersend.core.event import Event
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore
from aftersend.stores.sqlite.people import SqlitePeople
from aftersend.stores.sqlite.references import SqliteReferences
from aftersend.telemetry import Telemetry

CHOICES = Choices({"offers": "Special <offers>", "news": "News"}, ("email", "sms"))
HALON_KEY = b"sixteen bytes ok"
TARGET = "https://www.example.com/spring?id=7&lang=de"


class Reply(NamedTuple):
    """An answer, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Tracker:
    """A server, its store, and a client that follows nothing."""

    def __init__(
        self, folder: Path, log_of: Callable[[SqliteStore], Log], spool_bytes: int, spool: Path | None
    ) -> None:
        self.folder = folder
        self.log_of = log_of
        self.spool_bytes = spool_bytes
        self.spool_path = spool or folder / "spool"
        self.stops: set[tuple[str, str, str]] = set()
        self.tenants = {1: "acme"}
        self.url = ""

    async def open(self) -> None:
        self.keyring = Keyring.open(self.folder / "keyring.json", create=True)
        self.store = await SqliteStore.open(self.folder / "data", clock=time.time_ns, keyring=self.keyring, create=True)
        self.people = SqlitePeople.open(self.folder / "data", time.time_ns)
        await self.people.load()
        self.references = SqliteReferences.open(self.folder / "data", time.time_ns)
        self.telemetry = Telemetry()
        self.spool = Spool(self.spool_path, self.spool_bytes)
        self.recorder = Recorder(
            log=self.log_of(self.store),
            spool=self.spool,
            people=self.people,
            consent_key=lambda: self.keyring.derive("consent", self.keyring.active_id),
            telemetry=self.telemetry,
        )
        self.links = Links(self.keyring.link_key)
        halon = HalonLinks({1: HALON_KEY})
        self.domains = {"track.example.com": TrackingDomain("track.example.com", "acme", halon, CHOICES)}
        self.tracking = Tracking(
            addresses=Addresses(self.links, self.tenants, self.domains),
            hits=self.recorder,
            people=self.people,
            clients=ClientAddresses(["127.0.0.0/8"]),
            throttle=Throttle(time.time_ns),
            witness=Witness(time.time_ns, os.urandom),
            telemetry=self.telemetry,
            stops=self.stops,
            references=self.references,
        )

    async def close(self) -> None:
        await self.recorder.close()
        await self.spool.close()
        await self.people.close()
        await self.references.close()
        await self.store.close()

    def link(self, purpose: Purpose = Purpose.CLICK, **fields: Any) -> str:
        """The path of a link."""
        whole: dict[str, Any] = {
            "level": Level.FULL,
            "tenant": 1,
            "domain": 7,
            "recipient": "alice@example.org",
            "message_id": "<m1@mail.example.com>",
            "campaign_id": "spring",
            "list_id": "news",
            "target": TARGET if purpose is Purpose.CLICK else "",
        }
        link = Link(purpose=purpose, **(whole | fields))
        return address("", purpose, self.links.seal(link, self.keyring.active_id))

    async def events(self) -> list[Event]:
        """Everything in the log, in order."""
        found: list[Event] = []
        position = 0
        while chunks := await self.store.read(position, 10_000):
            found += [event for chunk in chunks for event in chunk.events]
            position = chunks[-1].next_position
        return found

    async def request(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """One request; its body is read."""
        sent = {"Host": "track.example.com"} | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.request(
            method, self.url + path, data=body, headers=sent, allow_redirects=False
        ) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **headers: str) -> Reply:
        return await self.request("GET", path, **headers)

    async def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        return await self.request("POST", path, body, **headers)


class _Server(uvicorn.Server):
    def capture_signals(self) -> AbstractContextManager[None]:
        """Leave the signals to pytest."""
        return nullcontext()


@asynccontextmanager
async def tracker(
    folder: Path,
    log_of: Callable[[SqliteStore], Log] = lambda store: store,
    spool_bytes: int = 1_000_000,
    spool: Path | None = None,
) -> AsyncIterator[Tracker]:
    """The tracking addresses, served."""
    made = Tracker(folder, log_of, spool_bytes, spool)
    await made.open()
    apps = endpoints(made.tracking)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await apps[scope["path"].lstrip("/")[:1]](scope, receive, send)

    config = uvicorn.Config(
        app,
        port=0,
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        ws="none",
        date_header=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    draining = asyncio.create_task(made.recorder.run())
    try:
        async with aiohttp.ClientSession() as made.session:
            yield made
    finally:
        draining.cancel()
        server.should_exit = True
        await serving
        await made.close()

"""What pages, messages and apps tell, down to a real store: once in the log, and no more than a person allows."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.capturing import exchange, raw, serving

from aftersend.capture import reading
from aftersend.capture.altcraft_api import AltcraftApi
from aftersend.capture.altcraft_callers import Callers
from aftersend.capture.beacon import Beacon
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Tracking
from aftersend.capture.links import Link, Links
from aftersend.capture.reading import ReadingTime
from aftersend.capture.recorder import Recorder
from aftersend.capture.spool import Spool
from aftersend.capture.tokens import Purpose
from aftersend.capture.visits import Addresses, Witness
from aftersend.core.consent import HOUR, Level
from aftersend.core.event import Event
from aftersend.core.registry import Site
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore
from aftersend.stores.sqlite.people import SqlitePeople
from aftersend.telemetry import Telemetry

SAMPLES = Path(__file__).parents[1] / "fixtures" / "foreign" / "altcraft"
PAGE = {"Origin": "https://shop.example"}


@dataclass
class House:
    """A store with what records into it, and the port that the handlers are served at."""

    store: SqliteStore
    people: SqlitePeople
    links: Links
    key_id: str
    port: int = 0

    async def events(self, count: int) -> list[Event]:
        """What is in the log, as soon as it is so much."""
        async with asyncio.timeout(10):
            while self.store.head() < count:
                await asyncio.sleep(0.01)
        return [event for recorded in await self.store.read(0, 1_000) for event in recorded.events]

    def token(self, recipient: str) -> str:
        return self.links.seal(Link(Purpose.READ, reading.Level.FULL, 1, 1, recipient, "m1", "spring"), self.key_id)

    async def look(self, recipient: str) -> None:
        """Open a message for a moment."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            f"GET /r/{self.token(recipient)} HTTP/1.1\r\nHost: t\r\nUser-Agent: Thunderbird/128\r\n\r\n".encode()
        )
        await reader.readuntil(b"\r\n\r\n")
        writer.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    store = await SqliteStore.open(tmp_path / "data", clock=time.time_ns, keyring=keyring, create=True)
    people = SqlitePeople.open(tmp_path / "data", time.time_ns)
    await people.load()
    telemetry = Telemetry()
    spool = Spool(tmp_path / "spool", 1 << 20)
    recorder = Recorder(log=store, spool=spool, people=people, consent_key=lambda: b"k" * 32, telemetry=telemetry)
    made = House(store, people, Links(keyring.link_key), keyring.active_id)
    reading_time = ReadingTime(
        Tracking(
            addresses=Addresses(made.links, {1: "default"}, {}),
            hits=recorder,
            people=people,
            clients=ClientAddresses(),
            throttle=Throttle(time.time_ns),
            witness=Witness(time.time_ns, os.urandom),
            telemetry=telemetry,
        ),
        enabled=True,
    )
    sites = {"k1": Site(name="shop", key="k1", origins=("https://shop.example",))}
    beacon = Beacon(sites=sites, hits=recorder, clock=time.time_ns, chance=os.urandom, telemetry=telemetry)
    callers = Callers(lambda token, scope: "default", time.time_ns)
    altcraft = AltcraftApi(callers=callers, hits=recorder, clock=time.time_ns, telemetry=telemetry)
    handlers: dict[str, Any] = {"r": reading_time, "beacon": beacon, "event": altcraft}

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await handlers[scope["path"].split("/")[1]](scope, receive, send)

    async with serving(app) as made.port:
        yield made
    await recorder.close()
    await spool.close()
    await people.close()
    await store.close()


async def tell(house: House, *events: dict[str, Any]) -> None:
    head, _ = await exchange(house.port, "POST", "/beacon?k=k1", json.dumps(events).encode(), PAGE)
    assert head.status == 200


async def test_a_retry_of_an_app_is_once_in_the_log(house: House) -> None:
    names = sorted(path.name for path in SAMPLES.glob("sdk_*.http") if "jwt" not in path.name)
    for name in names:
        for _ in range(2):
            assert (await raw(house.port, (SAMPLES / name).read_bytes())).startswith(b"HTTP/1.1 200 ")
    assert len(await house.events(4)) == 4


async def test_a_batch_of_a_page_is_in_the_log_in_its_order_before_it_is_answered(house: House) -> None:
    words = ["page_view", "popup_open", "popup_click", "popup_click", "popup_close"]
    await tell(house, *[{"type": word} for word in words])
    assert [event.source.word for event in await house.events(0)] == words


async def test_a_person_who_allows_nothing_leaves_nothing(house: House) -> None:
    await house.people.set_level("default", "p1", Level.NONE)
    await house.people.set_level("default", "alice@example.org", Level.NONE)
    await tell(house, {"type": "popup_open", "profile_id": "p1"}, {"type": "popup_open", "profile_id": "p2"})
    await house.look("alice@example.org")
    await house.look("bob@example.org")
    people = {event.profile_id or event.recipient for event in await house.events(2)}
    assert people == {"p2", "bob@example.org"}


async def test_of_a_person_who_stays_anonymous_the_hour_is_left(house: House) -> None:
    await house.people.set_level("default", "p1", Level.ANONYMOUS)
    await tell(house, {"type": "popup_open", "profile_id": "p1", "campaign_id": "c1", "data": {"a": 1}})
    (event,) = await house.events(1)
    assert (event.type, event.campaign_id, event.profile_id, event.ip, event.extra) == (
        "popup.opened",
        "c1",
        None,
        None,
        {},
    )
    assert event.time % HOUR == 0

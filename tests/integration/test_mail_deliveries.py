"""Events from the log to mailboxes: one mail each, in order; what is refused steps aside, what is cut is repeated."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import structs
from tests.integration.mailing import Actor, acting, mailer, opened

from aftersend.contracts import Entry
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.registry import Batch, Subscription
from aftersend.dialects.pure360 import Dialect
from aftersend.keyring import Keyring
from aftersend.pipeline.deliveries import Deliveries
from aftersend.stores.sqlite import SqliteStore


def event(number: int) -> Event:
    now = time.time_ns()
    recipient = f"r{number}@customer.example"
    return Event(
        make_id(now + number, recipient.encode()),
        "email.hard_bounced",
        now + number,
        Source("s", "canonical", "x"),
        received_at=now,
        recipient=recipient,
        campaign_id="spring",
    )


class House:
    """A store and its deliveries by mail."""

    def __init__(self, store: SqliteStore, actor: Actor) -> None:
        self.store = store
        self.deliveries = Deliveries(
            log=store,
            registry=store,
            cursors=store,
            leases=store,
            find_dialect=lambda subscription: (Dialect(), "email"),
            open_transport=lambda subscription: mailer(actor.port, recipients=("ops@shop.example",)),
            clock=time.time_ns,
            chance=lambda: 0.5,
        )

    async def subscribe(self, count: int) -> Subscription:
        """So many events, and a subscription to them."""
        await self.store.append(Entry("default", [event(number) for number in range(count)]))
        batch = Batch(max_wait=0)
        subscription = Subscription(id="sub_mail", name="mail", transport="smtp", dialect="pure360/email", batch=batch)
        return await self.deliveries.apply(structs.replace(subscription, start="beginning", retry=(0.02,)))


@asynccontextmanager
async def delivering(folder: Path, actor: Actor) -> AsyncIterator[House]:
    """A house that delivers."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    store = await SqliteStore.open(folder / "data", clock=time.time_ns, keyring=keyring, create=True)
    house = House(store, actor)
    await house.deliveries.start()
    tasks = [asyncio.create_task(work()) for work in (house.deliveries.ledger.run, house.deliveries.feed.run)]
    try:
        yield house
    finally:
        await house.deliveries.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await store.close()


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(15):
        while not done():
            await asyncio.sleep(0.01)


def told(message: bytes) -> str:
    """Whom a mail is about."""
    lines = opened(message).get_content().splitlines()
    return next(line.partition(": ")[2] for line in lines if line.startswith("email: "))


async def test_every_event_is_a_mail_of_its_own_in_order(tmp_path: Path) -> None:
    async with acting() as actor, delivering(tmp_path, actor) as house:
        subscription = await house.subscribe(25)
        await until(lambda: len(actor.messages) == 25)
        assert [told(message) for message in actor.messages] == [f"r{n}@customer.example" for n in range(25)]
        assert {opened(message)["Subject"] for message in actor.messages} == {"BOUNCE"}
        await until(lambda: house.deliveries.standing(subscription)["sequence"] == 25)
    assert actor.connections == 1


async def test_connections_cut_again_and_again_lose_nothing_and_repeat_the_same_ids(tmp_path: Path) -> None:
    class Cutting(Actor):
        """Takes a mail and hangs up before it says so, every third time."""

        async def _say(self, writer: asyncio.StreamWriter, key: str, usual: str) -> str:
            self.seen = getattr(self, "seen", 0) + (key == "END")
            if key == "END" and self.seen % 3 == 0:
                self.lost = [*getattr(self, "lost", []), self.seen]
                writer.close()
                raise ConnectionError
            return await super()._say(writer, key, usual)

    async with Cutting() as actor, delivering(tmp_path, actor) as house:
        await house.subscribe(12)
        await until(lambda: len(actor.messages) >= 12)
    assert [told(message) for message in actor.messages] == [f"r{n}@customer.example" for n in range(12)]
    assert len({opened(message)["Message-ID"] for message in actor.messages}) == 12


async def test_an_event_whose_mail_is_refused_steps_aside(tmp_path: Path) -> None:
    class Picky(Actor):
        """Refuses mails about one customer."""

        async def _answer(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if line != "DATA":
                await super()._answer(line, reader, writer)
                return
            writer.write(b"354 go on\r\n")
            message = await reader.readuntil(b"\r\n.\r\n")
            is_refused = b"r3@" in message
            writer.write(b"554 5.7.1 No\r\n" if is_refused else b"250 OK\r\n")
            if not is_refused:
                self.messages.append(message[:-3])

    async with Picky() as actor, delivering(tmp_path, actor) as house:
        await house.subscribe(8)
        await until(lambda: len(actor.messages) == 7)
        aside: list[Any] = []
        async with asyncio.timeout(10):
            while not aside:
                aside = await house.store.list_set_aside("sub_mail", 10)
                await asyncio.sleep(0.01)
    assert [told(message) for message in actor.messages] == [f"r{n}@customer.example" for n in (0, 1, 2, 4, 5, 6, 7)]
    assert aside[0].event.recipient == "r3@customer.example"


async def test_no_mail_is_written_about_our_own_mail(tmp_path: Path) -> None:
    async with acting() as actor, delivering(tmp_path, actor) as house:
        subscription = await house.subscribe(1)
        await until(lambda: len(actor.messages) == 1)
        bounce = structs.replace(event(2), message_id=str(opened(actor.messages[0])["Message-ID"]))
        await house.store.append(Entry("default", [bounce, event(3)]))
        await until(lambda: len(actor.messages) == 2)
        assert told(actor.messages[1]) == "r3@customer.example"
        assert house.deliveries.standing(subscription)["untold"] == 1

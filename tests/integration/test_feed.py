"""What a subscription is offered of the log, once each and in order, also where retention was there before it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aftersend.contracts import Entry
from aftersend.core.event import Recorded
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import DAY
from aftersend.keyring import Keyring
from aftersend.pipeline.feed import Feed, Inbox
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import NOW, SetClock, event, events


@asynccontextmanager
async def opened(folder: Path, clock: SetClock) -> AsyncIterator[SqliteStore]:
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=clock, keyring=keyring, create=True)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def running(feed: Feed) -> AsyncIterator[None]:
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def keep_three_days(folder: Path) -> None:
    """Three events at positions 0 to 2, each in a file of its own, the first of which retention takes."""
    clock = SetClock()
    async with opened(folder, clock) as store:
        for day in range(3):
            clock.now = NOW + day * DAY
            await store.append(Entry("default", [event(day)]))
        await store.retain(NOW + DAY, None, {})


def inbox_of(feed: Feed, position: int = 0, limit: int = 100) -> Inbox:
    return Inbox(feed, Subscription(name="s"), lambda event: event.type, position, limit)


def positions(inbox: Inbox) -> list[int]:
    return [position for position, _ in inbox.waiting]


async def test_an_inbox_that_retention_overtook_goes_on_at_the_tail(tmp_path: Path) -> None:
    await keep_three_days(tmp_path / "d")
    async with opened(tmp_path / "d", SetClock(NOW + 2 * DAY)) as store:
        assert (store.tail(), store.head()) == (1, 3)
        feed = Feed(store)
        inbox = inbox_of(feed)
        await asyncio.wait_for(inbox.fill(), 5)
        assert (positions(inbox), inbox.position, inbox.following) == ([1, 2], 3, True)


async def test_a_feed_that_retention_overtook_goes_on_at_the_tail(tmp_path: Path) -> None:
    await keep_three_days(tmp_path / "d")
    async with opened(tmp_path / "d", SetClock(NOW + 2 * DAY)) as store:
        feed = Feed(store)
        feed.position = 0
        inbox = inbox_of(feed)
        async with running(feed):
            await asyncio.wait_for(inbox.fill(), 5)
            async with asyncio.timeout(5):
                while feed.position < 3:
                    await asyncio.sleep(0.002)
                await inbox.fill()
        assert (positions(inbox), inbox.position) == ([1, 2], 3)


class Hollow:
    """A log of which nothing below the head is left."""

    def __init__(self) -> None:
        self.reads = 0

    def head(self) -> int:
        return 7

    tail = head

    async def wait(self, position: int) -> int:
        return 7 if position < 7 else await asyncio.Event().wait()  # type: ignore[return-value]

    async def read(self, position: int, limit: int) -> list[Recorded]:
        await asyncio.sleep(0)
        self.reads += 1
        return []


async def test_a_feed_does_not_ask_again_and_again_for_what_is_gone() -> None:
    log = Hollow()
    feed = Feed(log)  # type: ignore[arg-type]
    feed.position = 2
    async with running(feed):
        await asyncio.sleep(0.1)
    assert (feed.position, log.reads) == (7, 1)


async def test_an_inbox_ahead_of_the_feed_is_offered_nothing_twice(tmp_path: Path) -> None:
    async with opened(tmp_path / "d", SetClock()) as store:
        feed = Feed(store)
        for start in range(0, 60, 20):
            await store.append(Entry("default", events(start, start + 20)))
        inbox = inbox_of(feed)
        await inbox.fill()
        async with running(feed):
            await store.append(Entry("default", events(60, 80)))
            async with asyncio.timeout(5):
                while inbox.position < 80:
                    await asyncio.sleep(0.002)
                    await inbox.fill()
        assert positions(inbox) == list(range(80))


async def test_an_inbox_that_is_full_goes_on_where_it_stopped(tmp_path: Path) -> None:
    async with opened(tmp_path / "d", SetClock()) as store:
        feed = Feed(store)
        inbox = inbox_of(feed, limit=15)
        taken: list[int] = []
        async with running(feed), asyncio.timeout(5):
            for start in range(0, 200, 20):
                await store.append(Entry("default", events(start, start + 20)))
            while len(taken) < 200:
                await inbox.fill()
                assert len(inbox.waiting) <= 15
                taken += positions(inbox)
                inbox.waiting.clear()
                await asyncio.sleep(0)
        assert taken == list(range(200))

"""Deliveries on a real store: what reaches a receiver, in which order, and what becomes of what it refuses."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from aftersend.contracts import Entry
from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Batch, Subscription
from aftersend.core.timestamps import SECOND
from aftersend.dialects import altcraft, canonical, halon, pure360
from aftersend.keyring import Keyring
from aftersend.pipeline.deliveries import Deliveries
from aftersend.pipeline.feed import Feed, Inbox
from aftersend.stores.sqlite import SqliteStore

DIALECTS = {module.Dialect.name: module.Dialect() for module in (altcraft, canonical, halon, pure360)}
NOW = 1_770_000_000 * SECOND

TAKEN = Outcome(Verdict.TAKEN)
REFUSED = Outcome(Verdict.REFUSED, "it answered 400")
FAILED = Outcome(Verdict.FAILED, "it answered 500")


class Receiver:
    """A receiver that answers as its rule says and keeps what it took."""

    name = "receiver"
    carries = "parcels"

    def __init__(self, rule: Callable[[Parcel], Outcome] = lambda parcel: TAKEN) -> None:
        self.rule = rule
        self.sent: list[Parcel] = []
        self.taken: list[Parcel] = []

    async def send(self, parcel: Parcel) -> Outcome:
        await asyncio.sleep(0)
        self.sent.append(parcel)
        outcome = self.rule(parcel)
        if outcome.verdict in (Verdict.TAKEN, Verdict.PARTLY):
            self.taken.append(parcel)
        return outcome

    async def close(self) -> None:
        pass

    def recipients(self) -> list[str]:
        return [recipient for parcel in self.taken for recipient in told(parcel)]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.recipients()) < count:
                await asyncio.sleep(0.005)


def told(parcel: Parcel) -> list[str]:
    if parcel.pieces:
        return [msgspec.json.decode(piece.body)["recipient"] for piece in parcel.pieces]
    return [event["recipient"] for event in msgspec.json.decode(parcel.body)]


def header(parcel: Parcel, name: str) -> str | None:
    return dict(parcel.headers).get(name)


def refusing(*poison: str) -> Callable[[Parcel], Outcome]:
    return lambda parcel: REFUSED if set(poison) & set(told(parcel)) else TAKEN


def event(number: int, type_: str = "email.opened", **fields: object) -> Event:
    recipient = f"r{number}@example.org"
    id_ = make_id(NOW + number, recipient.encode())
    return Event(id_, type_, NOW + number, Source("s", "canonical", type_), recipient=recipient, **fields)  # type: ignore[arg-type]


class House:
    """A store and its deliveries."""

    def __init__(self, store: SqliteStore, receivers: dict[str, Receiver]) -> None:
        self.store = store
        self.now = time.time_ns
        self.deliveries = Deliveries(
            log=store,
            registry=store,
            cursors=store,
            leases=store,
            find_dialect=self._dialect,
            open_transport=lambda subscription: receivers[subscription.name],
            clock=lambda: self.now(),
            chance=lambda: 0.5,
        )

    @staticmethod
    def _dialect(subscription: Subscription) -> tuple[object, str]:
        name, _, form = subscription.dialect.partition("/")
        return DIALECTS[name], form

    async def keep(self, *events: Event, tenant: str = "default") -> None:
        await self.store.append(Entry(tenant, events))

    async def subscribe(self, name: str = "receiver", **fields: object) -> Subscription:
        fields = {"batch": Batch(max_wait=0.0), "retry": (0.01,), "start": "beginning"} | fields
        return await self.deliveries.apply(Subscription(id=f"sub_{name}", name=name, **fields))  # type: ignore[arg-type]


@asynccontextmanager
async def house(folder: Path, **receivers: Receiver) -> AsyncIterator[House]:
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=time.time_ns, keyring=keyring, create=True)
    built = House(store, receivers)
    await built.deliveries.start()
    tasks = [asyncio.create_task(work()) for work in (built.deliveries.ledger.run, built.deliveries.feed.run)]
    try:
        yield built
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await built.deliveries.stop()
        await store.close()


async def test_events_reach_the_receiver_in_log_order_and_are_numbered(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe(batch=Batch(max_events=7, max_wait=0.0))
        for start in range(0, 100, 20):
            await home.keep(*[event(number) for number in range(start, start + 20)])
        await receiver.until(100)
    assert receiver.recipients() == [f"r{number}@example.org" for number in range(100)]
    ends = [tuple(map(int, (header(parcel, "aftersend-sequence") or "").split("-"))) for parcel in receiver.taken]
    assert [number for first, last in ends for number in range(first, last + 1)] == list(range(1, 101))
    assert [int(header(parcel, "aftersend-previous") or "") for parcel in receiver.taken] == [
        first - 1 for first, _ in ends
    ]


async def test_a_filter_lets_through_what_it_names_and_nothing_of_another_tenant(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe(types=("email.*bounced",), campaigns=("spring",))
        await home.keep(
            event(1, "email.hard_bounced", campaign_id="spring"), event(2, "email.opened", campaign_id="spring")
        )
        await home.keep(event(3, "email.hard_bounced", campaign_id="spring", tenant="other"), tenant="other")
        await home.keep(event(4, "email.soft_bounced", campaign_id="autumn"), event(5, "sms.hard_bounced"))
        await home.keep(event(6, "email.bounced", campaign_id="spring"))
        await receiver.until(2)
    assert receiver.recipients() == ["r1@example.org", "r6@example.org"]


async def test_one_poison_event_is_found_and_leaves_the_line(tmp_path: Path) -> None:
    receiver = Receiver(refusing("r137@example.org"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(retry=(30,))
        await home.keep(*[event(number) for number in range(300)])
        await receiver.until(299)
        (aside,) = await home.store.list_set_aside(subscription.id, 10)
        assert (aside.event.recipient, aside.state, aside.sequence) == ("r137@example.org", "late", 138)
    assert receiver.recipients() == [f"r{number}@example.org" for number in range(300) if number != 137]
    assert len(receiver.sent) <= 32


async def test_a_late_event_goes_out_marked_when_its_time_has_come(tmp_path: Path) -> None:
    receiver = Receiver(refusing("r1@example.org"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(retry=(0.05,))
        await home.keep(*[event(number) for number in range(3)])
        await receiver.until(2)
        receiver.rule = lambda parcel: TAKEN
        await home.keep(event(4))
        await receiver.until(4)
        async with asyncio.timeout(60):
            while await home.store.list_set_aside(subscription.id, 10):
                await asyncio.sleep(0.01)
    late = [parcel for parcel in receiver.taken if header(parcel, "aftersend-late")]
    assert [(told(parcel), header(parcel, "aftersend-sequence")) for parcel in late] == [(["r1@example.org"], "2-2")]


async def test_a_late_event_that_is_refused_too_often_has_failed_but_is_kept(tmp_path: Path) -> None:
    receiver = Receiver(refusing("r1@example.org"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(retry=(0.01, 0.01))
        await home.keep(*[event(number) for number in range(3)])
        async with asyncio.timeout(60):
            while True:
                aside = await home.store.list_set_aside(subscription.id, 10)
                if aside and aside[0].state == "failed":
                    break
                await home.keep(event(100 + time.time_ns() % 1_000_000))
                await asyncio.sleep(0.05)
        assert (aside[0].event.recipient, aside[0].attempts, aside[0].next_at) == ("r1@example.org", 3, 0)


@pytest.mark.parametrize("answer", [REFUSED, FAILED])
async def test_a_receiver_at_fault_loses_nothing_and_nothing_is_set_aside(tmp_path: Path, answer: Outcome) -> None:
    receiver = Receiver(lambda parcel: answer)
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe()
        await home.keep(*[event(number) for number in range(50)])
        async with asyncio.timeout(60):
            while len(receiver.sent) < 70:
                await asyncio.sleep(0.01)
        assert await home.store.list_set_aside(subscription.id, 10) == []
        assert home.deliveries.ledger.cursor(subscription.id).sequence == 0
        receiver.rule = lambda parcel: TAKEN
        home.deliveries.retry_now(subscription)
        await receiver.until(50)
        async with asyncio.timeout(60):
            # Where it recovered amid the search for a poison event, what it had refused singly comes late.
            while await home.store.list_set_aside(subscription.id, 10):
                await asyncio.sleep(0.01)
    assert sorted(receiver.recipients()) == sorted(f"r{number}@example.org" for number in range(50))


async def test_a_repeated_parcel_has_the_same_id_and_the_same_bytes(tmp_path: Path) -> None:
    tries = iter([FAILED, FAILED, TAKEN])
    receiver = Receiver(lambda parcel: next(tries))
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe()
        await home.keep(*[event(number) for number in range(5)])
        await receiver.until(5)
    assert len({(parcel.id, parcel.body) for parcel in receiver.sent}) == 1
    assert len(receiver.sent) == 3


async def test_events_named_as_failed_leave_the_line_alone(tmp_path: Path) -> None:
    bad = event(2)
    receiver = Receiver(lambda parcel: Outcome(Verdict.PARTLY, failed=(bad.id,)))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(retry=(30,))
        await home.keep(event(1), bad, event(3))
        await receiver.until(3)
        async with asyncio.timeout(60):
            while not await home.store.list_set_aside(subscription.id, 10):
                await asyncio.sleep(0.01)
        assert [item.event for item in await home.store.list_set_aside(subscription.id, 10)] == [bad]
        assert home.deliveries.ledger.cursor(subscription.id).sequence == 3


async def test_a_receiver_that_finds_it_too_large_gets_smaller_parcels(tmp_path: Path) -> None:
    receiver = Receiver(lambda parcel: TAKEN if len(told(parcel)) <= 10 else Outcome(Verdict.TOO_LARGE))
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe()
        await home.keep(*[event(number) for number in range(100)])
        await receiver.until(100)
        before = len(receiver.sent)
        await home.keep(*[event(number) for number in range(100, 150)])
        await receiver.until(150)
        assert len(receiver.sent) - before <= 10, "it was not asked again whether large parcels are welcome"
    assert receiver.recipients() == [f"r{number}@example.org" for number in range(150)]


async def test_parcels_keep_to_the_batchs_bytes(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe(batch=Batch(max_wait=0.0, max_bytes=2_000))
        await home.keep(*[event(number) for number in range(100)])
        await receiver.until(100)
    assert max(len(parcel.body) for parcel in receiver.taken) <= 2_000


async def test_a_batch_of_one_is_one_event_a_parcel(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe(batch=Batch(max_events=1, max_wait=0.0))
        await home.keep(*[event(number) for number in range(200)])
        await receiver.until(200)
    assert [len(told(parcel)) for parcel in receiver.taken] == [1] * 200


async def test_gone_disables_and_enabling_resumes_where_it_stood(tmp_path: Path) -> None:
    receiver = Receiver(lambda parcel: Outcome(Verdict.GONE, "it answered 410"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe()
        await home.keep(event(1), event(2))
        async with asyncio.timeout(60):
            while (await home.store.list(Subscription))[0].state != "disabled":
                await asyncio.sleep(0.01)
        (kept,) = await home.store.list(Subscription)
        assert "410" in kept.reason
        receiver.rule = lambda parcel: TAKEN
        await home.deliveries.apply(subscription)
        await receiver.until(2)
    assert receiver.recipients() == ["r1@example.org", "r2@example.org"]


async def test_nothing_but_failure_for_long_enough_disables(tmp_path: Path) -> None:
    receiver = Receiver(lambda parcel: FAILED)
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe(disable_after=0.05)
        await home.keep(event(1))
        async with asyncio.timeout(60):
            while (await home.store.list(Subscription))[0].state != "disabled":
                await asyncio.sleep(0.01)


async def test_strict_order_stops_at_what_is_refused(tmp_path: Path) -> None:
    receiver = Receiver(refusing("r2@example.org"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(ordering="strict")
        await home.keep(*[event(number) for number in range(5)])
        await receiver.until(2)
        await asyncio.sleep(0.1)
        assert receiver.recipients() == ["r0@example.org", "r1@example.org"]
        assert await home.store.list_set_aside(subscription.id, 10) == []
        receiver.rule = lambda parcel: TAKEN
        await receiver.until(5)
    assert receiver.recipients() == [f"r{number}@example.org" for number in range(5)]


async def test_without_order_lanes_keep_each_recipients_events_in_order(tmp_path: Path) -> None:
    receiver = Receiver(refusing("r5@example.org"))
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(ordering="none", concurrency=4, retry=(30,))
        rows = [event(number % 10, campaign_id=str(number)) for number in range(100)]
        rows = [msgspec.structs.replace(row, id=make_id(NOW, str(n).encode())) for n, row in enumerate(rows)]
        await home.keep(*rows)
        await receiver.until(90)
        async with asyncio.timeout(60):
            while len(await home.store.list_set_aside(subscription.id, 20)) < 10:
                await asyncio.sleep(0.01)
        assert home.deliveries.ledger.cursor(subscription.id).sequence == 100
    campaigns: dict[str, list[int]] = {}
    for parcel in receiver.taken:
        for row in msgspec.json.decode(parcel.body):
            campaigns.setdefault(row["recipient"], []).append(int(row["campaign_id"]))
    assert all(numbers == sorted(numbers) for numbers in campaigns.values())


async def test_words_that_the_dialect_lacks_take_no_number(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(dialect="halon")
        await home.keep(event(1), event(2, "segment.entered"), event(3))
        await receiver.until(2)
        assert home.deliveries.standing(subscription)["untold"] == 1
        assert home.deliveries.ledger.cursor(subscription.id).sequence == 2


async def test_single_bodies_set_aside_a_poison_event_once_another_is_taken(tmp_path: Path) -> None:
    receiver = Receiver()
    receiver.rule = lambda parcel: REFUSED if b"r1%40" in parcel.body else TAKEN
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(dialect="pure360/http", retry=(30,))
        await home.keep(event(1))
        await asyncio.sleep(0.05)
        assert await home.store.list_set_aside(subscription.id, 10) == [], "alone it proves nothing"
        await home.keep(event(2))
        async with asyncio.timeout(60):
            while not await home.store.list_set_aside(subscription.id, 10):
                await asyncio.sleep(0.01)
        assert [b"r2%40" in parcel.body for parcel in receiver.taken] == [True]


async def test_a_dead_receiver_holds_little_in_memory_and_catches_up(tmp_path: Path) -> None:
    receiver = Receiver(lambda parcel: FAILED)
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(batch=Batch(max_events=50, max_wait=0.0))
        for start in range(0, 3_000, 100):
            await home.keep(*[event(number) for number in range(start, start + 100)])
        dispatcher = home.deliveries._dispatchers[subscription.id]
        assert dispatcher.inbox is not None
        assert len(dispatcher.inbox.waiting) <= 100
        receiver.rule = lambda parcel: TAKEN
        home.deliveries.retry_now(subscription)
        await receiver.until(3_000)
    assert receiver.recipients() == [f"r{number}@example.org" for number in range(3_000)]


async def test_an_inbox_that_read_ahead_of_the_feed_is_not_offered_the_same_again(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(*[event(number) for number in range(5)])
        feed = Feed(home.store)
        await home.keep(*[event(number) for number in range(5, 10)])
        inbox = Inbox(feed, Subscription(name="x"), DIALECTS["canonical"].word, 0, 100)
        await inbox.fill()
        running = asyncio.create_task(feed.run())
        await inbox.arrived.wait()
        running.cancel()
    assert [position for position, _ in inbox.waiting] == list(range(10))


async def test_a_subscription_that_begins_amid_a_stream_gets_every_event_once(tmp_path: Path) -> None:
    names = [f"receiver_{number}" for number in range(5)]
    receivers = {name: Receiver() for name in names}
    async with house(tmp_path / "d", **receivers) as home:

        async def stream() -> None:
            for start in range(0, 2_000, 10):
                await home.keep(*[event(number) for number in range(start, start + 10)])

        streaming = asyncio.create_task(stream())
        for name in names:
            await home.subscribe(name, batch=Batch(max_events=20, max_wait=0.0))
            await asyncio.sleep(0.02)
        await streaming
        for receiver in receivers.values():
            await receiver.until(2_000)
    for receiver in receivers.values():
        assert receiver.recipients() == [f"r{number}@example.org" for number in range(2_000)]


async def test_a_new_start_goes_on_at_the_cursor(tmp_path: Path) -> None:
    first, second = Receiver(), Receiver()
    async with house(tmp_path / "d", receiver=first) as home:
        await home.subscribe()
        await home.keep(*[event(number) for number in range(10)])
        await first.until(10)
    async with house(tmp_path / "d", receiver=second) as home:
        await home.keep(*[event(number) for number in range(10, 20)])
        await second.until(10)
    assert second.recipients() == [f"r{number}@example.org" for number in range(10, 20)]
    assert header(second.taken[0], "aftersend-previous") == "10"


async def test_a_change_of_filter_begins_a_new_epoch(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(types=("email.opened",))
        await home.keep(event(1))
        await receiver.until(1)
        await home.deliveries.apply(msgspec.structs.replace(subscription, types=("*",)))
        await home.keep(event(2, "email.clicked"))
        await receiver.until(2)
    assert [header(parcel, "aftersend-epoch") for parcel in receiver.taken] == ["1", "2"]
    assert header(receiver.taken[1], "aftersend-sequence") == "1-1"


async def test_the_manifest_of_a_day_counts_what_was_told(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe()
        rows = [event(1), event(2), event(3, "email.clicked")]
        await home.keep(*rows)
        await receiver.until(3)
        await asyncio.sleep(0.05)
        await home.deliveries.ledger.flush()
        (manifest,) = await home.store.manifests(subscription.id)
    assert manifest.types == {"email.opened": 2, "email.clicked": 1}
    assert (manifest.first_sequence, manifest.last_sequence) == (1, 3)
    total = sum(int(row.id.replace("-", ""), 16) for row in rows) % (1 << 128)
    assert int(manifest.ids_sum, 16) == total


async def test_a_paused_subscription_keeps_its_place(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        subscription = await home.subscribe(state="paused")
        await home.keep(event(1), event(2))
        await asyncio.sleep(0.05)
        assert receiver.sent == []
        await home.deliveries.apply(msgspec.structs.replace(subscription, state="active"))
        await receiver.until(2)


# Receivers of pieces


class Queue(Receiver):
    """A receiver that gets events one by one, many at once."""

    carries = "pieces"


async def test_a_receiver_of_pieces_gets_each_event_in_bytes_of_its_own(tmp_path: Path) -> None:
    queue = Queue()
    async with house(tmp_path, receiver=queue) as home:
        await home.keep(*[event(number) for number in range(5)])
        await home.subscribe()
        await queue.until(5)
    (parcel,) = queue.sent
    assert parcel.body == b""
    assert [piece.id for piece in parcel.pieces] == [event(number).id for number in range(5)]
    assert [piece.key for piece in parcel.pieces] == queue.recipients()
    assert {piece.type for piece in parcel.pieces} == {"email.opened"}
    assert header(parcel, "aftersend-sequence") == "1-5"


async def test_pieces_that_are_named_as_refused_are_set_aside_and_tried_again_as_pieces(tmp_path: Path) -> None:
    poison = event(2)

    def rule(parcel: Parcel) -> Outcome:
        named = tuple(piece.id for piece in parcel.pieces if piece.id == poison.id)
        if header(parcel, "aftersend-late"):
            return TAKEN
        return Outcome(Verdict.PARTLY, "1 too large", failed=named) if named else TAKEN

    queue = Queue(rule)
    async with house(tmp_path, receiver=queue) as home:
        await home.keep(*[event(number) for number in range(5)])
        await home.subscribe()
        await queue.until(6)
    late = queue.sent[-1]
    assert header(late, "aftersend-late") == "true"
    assert [piece.id for piece in late.pieces] == [poison.id]


async def test_a_parcel_of_pieces_holds_no_more_bytes_than_the_batch_allows(tmp_path: Path) -> None:
    queue = Queue()
    async with house(tmp_path, receiver=queue) as home:
        await home.keep(*[event(number, user_agent="x" * 400) for number in range(40)])
        await home.subscribe(batch=Batch(max_wait=0.0, max_bytes=4_000))
        await queue.until(40)
    assert len(queue.sent) > 4
    assert max(sum(len(piece.body) for piece in parcel.pieces) for parcel in queue.sent) <= 4_000


async def test_a_dialect_with_bodies_of_one_event_is_told_so_in_pieces_unless_a_form_is_named(tmp_path: Path) -> None:
    single, named = Queue(), Queue()
    async with house(tmp_path, single=single, named=named) as home:
        await home.keep(event(1))
        await home.subscribe("single")
        await single.until(1)
        await home.subscribe("named", dialect="canonical/array")
        async with asyncio.timeout(60):
            while not named.sent:
                await asyncio.sleep(0.005)
    (piece,) = single.sent[0].pieces
    assert msgspec.json.decode(piece.body)["id"] == event(1).id
    (piece,) = named.sent[0].pieces
    assert [one["id"] for one in msgspec.json.decode(piece.body)] == [event(1).id]

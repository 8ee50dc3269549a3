"""Telling events again: what is counted and told, how fast, under which mark, and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from aftersend.contracts import Dialect, Entry, Replay
from aftersend.core.errors import EncodeError, StoreError, UsageError
from aftersend.core.event import Body, Event, Source
from aftersend.core.identity import make_id
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Batch, Subscription
from aftersend.core.timestamps import DAY, SECOND, format_time
from aftersend.dialects import canonical, halon
from aftersend.keyring import Keyring
from aftersend.pipeline.replay import RUNNING, TRIES, Replayer
from aftersend.pipeline.voice import Voice
from aftersend.stores.sqlite import SqliteStore
from aftersend.testing.stores import NOW, SetClock

TAKEN = Outcome(Verdict.TAKEN)
REFUSED = Outcome(Verdict.REFUSED, "it answered 400")
FAILED = Outcome(Verdict.FAILED, "it answered 500")
ALL = format_time(NOW)


class Receiver:
    """Answers as its rule says and keeps what it took."""

    name = "receiver"
    carries = "parcels"

    def __init__(self, rule: Callable[[Parcel], Outcome] = lambda parcel: TAKEN) -> None:
        self.rule = rule
        self.sent: list[Parcel] = []
        self.taken: list[Parcel] = []
        self.closed = 0

    async def send(self, parcel: Parcel) -> Outcome:
        await asyncio.sleep(0)
        self.sent.append(parcel)
        outcome = self.rule(parcel)
        if outcome.verdict in (Verdict.TAKEN, Verdict.PARTLY):
            self.taken.append(parcel)
        return outcome

    async def close(self) -> None:
        self.closed += 1

    def numbers(self) -> list[int]:
        return [number for parcel in self.taken for number in told(parcel)]


def told(parcel: Parcel) -> list[int]:
    return [int(event["message_id"]) for event in msgspec.json.decode(parcel.body)]


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():
            await asyncio.sleep(0.001)


def refusing(*poison: int) -> Callable[[Parcel], Outcome]:
    return lambda parcel: REFUSED if set(poison) & set(told(parcel)) else TAKEN


def event(number: int, type_: str = "email.opened", **fields: object) -> Event:
    received = NOW + number * SECOND
    fields = {"message_id": str(number), "received_at": received} | fields
    return Event(make_id(received, b"%d" % number), type_, received, Source("s", "x", "w"), **fields)  # type: ignore[arg-type]


class House:
    """A store and its replays."""

    def __init__(self, store: SqliteStore, clock: SetClock) -> None:
        self.store = store
        self.clock = clock
        self.replayer = Replayer(store, clock)
        self.receiver = Receiver()
        self.dialect: Dialect = canonical.Dialect()
        self.subscription = Subscription(id="sub_1", name="crm", retry=(0.0,))

    async def keep(self, *events: Event) -> None:
        """Keep events, committed a little after the last of them was received."""
        self.clock.now = events[-1].received_at + SECOND // 10
        await self.store.append(Entry(events[0].tenant, events))

    async def begin(self, since: str = ALL, until: str = "", **fields: object) -> Replay:
        order = Replay(since=since, until=until, **fields)  # type: ignore[arg-type]
        self.clock.now += DAY
        return await self.replayer.begin(self.subscription, order, Voice(self.dialect, ""), self.receiver)

    async def replay(self, *args: str, **fields: object) -> Replay:
        """Begin a replay and wait for its end."""
        replay = await self.begin(*args, **fields)
        await until(lambda: replay.state != "running")
        return replay

    def change(self, **fields: object) -> None:
        self.subscription = msgspec.structs.replace(self.subscription, **fields)


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    clock = SetClock()
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=clock, keyring=keyring, create=True)
    home = House(store, clock)
    try:
        yield home
    finally:
        home.replayer.stop()
        await asyncio.sleep(0)
        await store.close()


async def test_a_dry_run_counts_and_tells_nothing(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(*[event(number) for number in range(30)])
        replay = await home.begin(dry_run=True)
        assert (replay.total, replay.done, replay.state) == (30, 0, "done")
        assert home.replayer.of("sub_1") == []
    assert (home.receiver.sent, home.receiver.closed) == ([], 1)


async def test_everything_is_told_in_order_marked_as_a_replay_and_counted(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.change(batch=Batch(max_events=7))
        await home.keep(*[event(number) for number in range(30)])
        replay = await home.replay()
        assert (replay.state, replay.total, replay.done, replay.detail) == ("done", 30, 30, "")
        assert home.replayer.of("sub_1") == [replay]
        assert home.replayer.of("sub_2") == []
    assert home.receiver.numbers() == list(range(30))
    assert {parcel.headers for parcel in home.receiver.sent} == {(("aftersend-replay", replay.id),)}
    assert len({parcel.id for parcel in home.receiver.sent}) == 5
    assert home.receiver.closed == 1


async def test_adjoining_times_leave_nothing_out_between_them(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for number in range(6):
            await home.keep(event(number))
        middle = format_time(NOW + 3 * SECOND + SECOND // 20)
        counts = [(await home.replay(*times)).done for times in ((ALL, middle), (middle, ""))]
        assert counts == [3, 3]
    assert home.receiver.numbers() == list(range(6))


async def test_only_what_the_subscription_and_the_order_want_is_told(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.change(types=("email.*",), campaigns=("spring",))
        spring = {"campaign_id": "spring"}
        await home.keep(
            event(1, **spring), event(2, "email.clicked", **spring), event(3, "sms.clicked", **spring), event(4)
        )
        await home.keep(event(5, tenant="acme", **spring))
        assert (await home.replay()).done == 2
        assert (await home.replay(types=("*.clicked",))).done == 1
    assert home.receiver.numbers() == [1, 2, 2]


async def test_what_the_dialect_has_no_word_for_is_neither_counted_nor_told(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.dialect = halon.Dialect()
        await home.keep(event(1), event(2, "segment.entered"))
        replay = await home.replay()
        assert (replay.total, replay.done) == (1, 1)


@pytest.mark.parametrize("times", [("yesterday", ""), (ALL, "later"), ("", ""), (ALL, "2026-13-01")])
async def test_wrong_times_are_told_in_one_line_and_nothing_is_left_open(
    tmp_path: Path, times: tuple[str, str]
) -> None:
    async with house(tmp_path / "d") as home:
        with pytest.raises(UsageError, match=r"^since and until are RFC 3339 times, .*$") as told:
            await home.begin(*times)
        assert "\n" not in str(told.value)
        assert home.receiver.closed == 1


async def test_the_rate_is_kept_and_bounds_what_goes_out_at_once(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(*[event(number) for number in range(30)])
        began = time.monotonic()
        assert (await home.replay(rate=100.0)).done == 30
        assert time.monotonic() - began > 0.29
        slow = await home.begin(rate=10.0)
        await until(lambda: slow.done > 0)
        assert (slow.state, slow.done, len(home.receiver.sent)) == ("running", 10, 2)


async def test_a_stopped_replay_says_that_it_was_cancelled(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(*[event(number) for number in range(30)])
        replay = await home.begin(rate=1.0)
        await until(lambda: replay.done > 0)
        home.replayer.stop()
        await until(lambda: replay.state != "running")
        assert (replay.state, replay.done) == ("cancelled", 1)
    assert home.receiver.closed == 1


async def test_a_parcel_that_fails_is_sent_again_the_same(tmp_path: Path) -> None:
    answers = iter([FAILED, FAILED, TAKEN])
    async with house(tmp_path / "d") as home:
        home.receiver.rule = lambda parcel: next(answers)
        await home.keep(event(1), event(2))
        assert (await home.replay()).done == 2
    assert len(home.receiver.sent) == 3
    assert len(set(home.receiver.sent)) == 1


@pytest.mark.parametrize(("verdict", "tries"), [(Verdict.FAILED, TRIES), (Verdict.GONE, 1)])
async def test_a_receiver_out_of_reach_ends_it_as_failed(tmp_path: Path, verdict: Verdict, tries: int) -> None:
    async with house(tmp_path / "d") as home:
        home.receiver.rule = lambda parcel: Outcome(verdict, "it is out of reach")
        await home.keep(event(1))
        replay = await home.replay()
        assert (replay.state, replay.detail, replay.done) == ("failed", "it is out of reach", 0)
    assert (len(home.receiver.sent), home.receiver.closed) == (tries, 1)


async def test_a_poison_event_does_not_keep_the_others_from_being_told(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.receiver.rule = refusing(13)
        await home.keep(*[event(number) for number in range(40)])
        replay = await home.replay()
        assert (replay.state, replay.done, replay.detail) == ("done", 39, "events that the receiver refused: 1")
    assert home.receiver.numbers() == [number for number in range(40) if number != 13]
    bodies: dict[str, bytes] = {}
    assert all(bodies.setdefault(parcel.id, parcel.body) == parcel.body for parcel in home.receiver.sent)


async def test_a_receiver_that_refuses_everything_is_at_fault_and_soon_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.receiver.rule = lambda parcel: REFUSED
        await home.keep(*[event(number) for number in range(500)])
        replay = await home.replay()
        assert (replay.state, replay.done) == ("failed", 0)
    assert len(home.receiver.sent) < 100


async def test_events_named_as_not_taken_are_counted_as_refused(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.receiver.rule = lambda parcel: Outcome(Verdict.PARTLY, failed=(event(1).id,))
        await home.keep(event(1), event(2))
        replay = await home.replay()
        assert (replay.done, replay.detail) == (1, "events that the receiver refused: 1")


async def test_parcels_keep_to_the_batchs_bytes_and_to_what_the_receiver_can_take(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        home.change(batch=Batch(max_bytes=2_000))
        home.receiver.rule = lambda parcel: TAKEN if len(told(parcel)) <= 3 else Outcome(Verdict.TOO_LARGE)
        await home.keep(*[event(number) for number in range(50)])
        assert (await home.replay()).done == 50
    assert home.receiver.numbers() == list(range(50))
    assert max(len(parcel.body) for parcel in home.receiver.sent) <= 2_000


async def test_a_replay_after_a_restart_has_parcels_of_other_names(tmp_path: Path) -> None:
    names = []
    for _ in range(2):
        async with house(tmp_path / "d") as home:
            await home.keep(event(1))
            home.clock.now += len(names) * SECOND
            await home.replay()
            names += [parcel.id for parcel in home.receiver.sent]
    assert len(set(names)) == len(names) == 2


async def test_small_blocks_of_the_log_go_out_in_full_batches(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for number in range(20):
            await home.keep(event(number))
        await home.replay()
    assert [len(told(parcel)) for parcel in home.receiver.taken] == [20]


class Speechless(canonical.Dialect):
    """Cannot tell what it has a word for."""

    fault: Exception = EncodeError("this event cannot be told")

    def encode(self, events: object, form: str = "") -> list[Body]:
        raise self.fault


class Broken(Speechless):
    """Breaks."""

    fault = ZeroDivisionError()


async def test_a_fault_while_telling_ends_it_as_failed_and_not_as_running_for_ever(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(event(1))
        for dialect, detail in ((Speechless(), "this event cannot be told"), (Broken(), "a fault of ours")):
            home.dialect = dialect
            replay = await home.replay()
            assert replay.state == "failed"
            assert replay.detail.startswith(detail)
    assert [record.name for record in caplog.records] == ["aftersend.replay"]


async def test_a_log_that_cannot_be_read_is_told_and_nothing_is_left_open(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(event(1))
        await home.store.close()
        with pytest.raises(StoreError):
            await home.begin()
        assert home.receiver.closed == 1


async def test_only_so_many_run_at_once(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(event(1), event(2))
        for _ in range(RUNNING):
            await home.begin(rate=1.0)
        with pytest.raises(UsageError, match="are running"):
            await home.begin()
        assert (await home.begin(dry_run=True)).total == 2

"""Later verdicts: found once whatever happens to the process, told to those who asked, and shown before applied."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from aftersend.contracts import Entry
from aftersend.core.errors import StoreBusyError, StoreError
from aftersend.core.event import Actor, Event, Source
from aftersend.core.hits import Signals, noted
from aftersend.core.identity import make_id
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.registry import Batch, Subscription
from aftersend.core.timestamps import DAY, SECOND
from aftersend.dialects import canonical
from aftersend.keyring import Keyring
from aftersend.pipeline import settling
from aftersend.pipeline.deliveries import Deliveries
from aftersend.pipeline.firsts import FirstsFollower
from aftersend.pipeline.reclassification import Change, Difference, reclassify
from aftersend.pipeline.settling import SettledLog, Settling
from aftersend.pipeline.verdict import Rules, read_rules
from aftersend.stores.sqlite import SqliteStore
from aftersend.stores.sqlite.followers import SqliteFirsts, SqliteVerdicts
from aftersend.testing.stores import NOW, SetClock

RULES = read_rules()
LENIENT = read_rules(b'settle_seconds = 900\n[[at_once]]\nname = "all"\ncase = "Who knows."\nkind = "human"')
HUMAN = Actor("human", ["browser"], RULES.ruleset)
BURST = Actor("machine", ["burst"], RULES.ruleset)
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/143.0.0.0 Safari/537.36"
WINDOW = 900 * SECOND

pytestmark = pytest.mark.usefixtures("quick_ticks")


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at what has settled more often than in life."""
    monkeypatch.setattr(settling, "TICK", 0.005)


def click(at: float, link: int = 1, person: int = 1, type_: str = "email.clicked", **fields: object) -> Event:
    """A click so many seconds after the start, judged at once to be a human's."""
    time = NOW + int(at * SECOND)
    fields = {
        "message_id": f"m{person}",
        "received_at": time,
        "actor": HUMAN,
        "ip": f"10.0.0.{person}",
        "user_agent": CHROME,
    } | fields
    return Event(
        make_id(time, f"{at} {link} {person} {type_}".encode()),
        type_,
        time,
        Source("tracking", "aftersend", "click"),
        recipient=f"p{person}@mail.example",
        url=f"https://x.example/{link}",
        **fields,  # type: ignore[arg-type]
    )


def burst(at: float, person: int = 1) -> list[Event]:
    return [click(at + 0.1 * link, link, person) for link in range(3)]


class Receiver:
    """A receiver that takes everything."""

    name = "receiver"
    carries = "parcels"

    def __init__(self) -> None:
        self.parcels: list[Parcel] = []

    async def send(self, parcel: Parcel) -> Outcome:
        await asyncio.sleep(0)
        self.parcels.append(parcel)
        return Outcome(Verdict.TAKEN)

    async def close(self) -> None:
        pass

    def told(self) -> list[tuple[str, str]]:
        """Type and kind of actor of all that was told."""
        events = [event for parcel in self.parcels for event in msgspec.json.decode(parcel.body)]
        return [(event["type"], event["actor"]["kind"]) for event in events]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.told()) < count:
                await asyncio.sleep(0.005)


class House:
    """A store with the follower and its deliveries."""

    def __init__(
        self, store: SqliteStore, verdicts: SqliteVerdicts, follower: Settling, receivers: dict[str, Receiver]
    ) -> None:
        self.store = store
        self.verdicts = verdicts
        self.follower = follower
        self.clock: SetClock = follower._clock  # type: ignore[assignment]
        self.log = SettledLog(store, follower, verdicts)
        self.deliveries = Deliveries(
            log=store,
            settled=self.log,
            registry=store,
            cursors=store,
            leases=store,
            find_dialect=lambda subscription: (canonical.Dialect(), ""),
            open_transport=lambda subscription: receivers[subscription.name],
            clock=self.clock,
            chance=lambda: 0.5,
        )

    async def keep(self, *events: Event, tenant: str = "default") -> None:
        """Keep events at the moment at which the last of them arrives."""
        self.clock.now = max(self.clock.now, *(event.received_at for event in events))
        await self.store.append(Entry(tenant, events))

    async def caught_up(self) -> None:
        async with asyncio.timeout(10):
            while self.follower.position < self.store.head():
                await asyncio.sleep(0.002)

    async def all(self) -> list[Event]:
        return [event for recorded in await self.store.read(0, 1_000_000) for event in recorded.events]

    async def made(self) -> list[Event]:
        return [event for event in await self.all() if event.type == "event.reclassified"]

    async def pass_time(self, seconds: float = 902) -> None:
        await self.caught_up()
        self.clock.now += int(seconds * SECOND)

    async def subscribe(self, name: str = "receiver", **fields: object) -> None:
        fields = {"batch": Batch(max_wait=0.0), "start": "beginning"} | fields
        await self.deliveries.apply(Subscription(id=f"sub_{name}", name=name, **fields))  # type: ignore[arg-type]

    async def reclassify(self, rules: Rules, *, since: int = 0, **fields: object) -> Difference:
        return await reclassify(self.store, self.verdicts, rules, self.clock, since=since, **fields)  # type: ignore[arg-type]


@asynccontextmanager
async def house(
    folder: Path, clock: SetClock | None = None, *, following: bool = True, rules: Rules = RULES, **receivers: Receiver
) -> AsyncIterator[House]:
    clock = clock or SetClock()
    keyring = Keyring.open(folder.with_suffix(".keys"), create=True)
    store = await SqliteStore.open(folder, clock=clock, keyring=keyring, create=True)
    verdicts = SqliteVerdicts.open(folder)
    built = House(store, verdicts, await Settling.open(store, verdicts, rules, clock), receivers)
    await built.deliveries.start()
    works: list[Callable[[], object]] = [
        built.deliveries.ledger.run,
        built.deliveries.feed.run,
        built.deliveries.settled_feed.run,
    ]
    tasks = [asyncio.create_task(work()) for work in works + [built.follower.run] * following]  # type: ignore[arg-type]
    try:
        yield built
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await built.deliveries.stop()
        await verdicts.close()
        await store.close()


# --- the follower


async def test_a_burst_gets_verdicts_that_name_its_hits_and_the_hits_stay_as_they_were(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        hits = burst(40)
        for hit in hits:
            await home.keep(hit)
        await home.caught_up()
        assert (await home.all())[:3] == hits
        made = await home.made()
    assert [(one.extra["event"], one.actor) for one in made] == [(hit.id, BURST) for hit in hits]
    first = made[0]
    assert first.extra == {"event": hits[0].id, "type": "email.clicked", "was": "human"}
    assert (first.time, first.recipient, first.message_id) == (hits[0].time, "p1@mail.example", "m1")
    assert first.source == Source("tracking", "aftersend", "reclassified", hits[0].id)
    assert (first.ip, first.user_agent, first.url) == (None, None, None)
    assert first.id[:13] == hits[0].id[:13]


async def test_trust_is_taken_away_once_and_never_given_back(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        machine = Actor("machine", ["program"], RULES.ruleset)
        await home.keep(*[msgspec.structs.replace(hit, actor=machine) for hit in burst(40)], click(60, person=2))
        await home.keep(*burst(80, person=3))
        await home.keep(click(80.3, 3, person=3))
        await home.caught_up()
        assert [one.recipient for one in await home.made()] == ["p3@mail.example"] * 4


async def test_hits_of_vendors_who_say_nothing_of_the_actor_are_looked_at_too(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        told = [
            msgspec.structs.replace(hit, actor=None, source=Source("v", "halon", "click"), ip=None, user_agent=None)
            for hit in burst(40)
        ]
        await home.keep(*told)
        await home.caught_up()
        assert [(one.extra["was"], one.source.name) for one in await home.made()] == [("unknown", "v")] * 3


async def test_the_first_click_that_was_made_of_a_hit_is_corrected_with_it(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        firsts = SqliteFirsts.open(tmp_path / "d")
        making = asyncio.create_task(FirstsFollower(home.store, firsts, frozenset()).run())
        await home.keep(*burst(40))
        async with asyncio.timeout(10):
            while len(await home.made()) < 4:
                await asyncio.sleep(0.005)
        making.cancel()
        await asyncio.wait([making])
        await firsts.close()
        assert sorted(one.extra["type"] for one in await home.made()) == ["email.clicked"] * 3 + ["email.first_clicked"]


async def test_a_burst_over_a_restart_is_seen_and_told_once(tmp_path: Path) -> None:
    clock = SetClock()
    for hit in burst(40):
        async with house(tmp_path / "d", clock) as home:
            await home.keep(hit)
            await home.caught_up()
    async with house(tmp_path / "d", clock) as home:
        await home.caught_up()
        assert [one.extra["event"] for one in await home.made()] == [hit.id for hit in burst(40)]


async def test_verdicts_that_were_lost_are_built_anew_from_the_log(tmp_path: Path) -> None:
    hits = burst(40)
    async with house(tmp_path / "d") as home:
        await home.keep(*hits)
        await home.caught_up()
        before = await home.made()
    for file in (tmp_path / "d" / "followers").iterdir():
        file.unlink()
    async with house(tmp_path / "d", SetClock(NOW + DAY)) as home:
        await home.caught_up()
        assert await home.made() == before
        assert [one.id for one in (await home.verdicts.latest([hit.id for hit in hits])).values()] == [
            one.id for one in before
        ]


class BusyOnce:
    """A log that is busy when it is first written to."""

    def __init__(self, store: SqliteStore) -> None:
        self.read, self.wait, self.tail, self.head = store.read, store.wait, store.tail, store.head
        self._append = store.append
        self._is_busy = True

    async def append(self, entry: Entry) -> object:
        if self._is_busy:
            self._is_busy = False
            raise StoreBusyError
        return await self._append(entry)


async def test_a_busy_log_settles_nothing_and_the_next_run_finds_the_same(tmp_path: Path) -> None:
    async with house(tmp_path / "d", following=False) as home:
        await home.keep(*burst(40))
        home.clock.now += 2 * WINDOW
        follower = Settling(BusyOnce(home.store), home.verdicts, RULES, home.clock, 0)  # type: ignore[arg-type]
        with pytest.raises(StoreBusyError):
            await follower.run()
        assert follower.settled == await home.verdicts.bookmark() == 0
        running = asyncio.create_task(follower.run())
        async with asyncio.timeout(10):
            while follower.position < home.store.head() or not await home.made():
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert len(await home.made()) == 3


async def test_a_damaged_file_of_verdicts_is_told_in_one_line(tmp_path: Path) -> None:
    async with house(tmp_path / "d"):
        pass
    (tmp_path / "d" / "followers" / "verdicts.db").write_bytes(b"no database at all" * 300)
    with pytest.raises(StoreError) as told:
        SqliteVerdicts.open(tmp_path / "d")
    assert "verdicts.db" in str(told.value)


async def test_verdicts_are_forgotten_when_they_are_old(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        hits = burst(40)
        await home.keep(*hits)
        await home.caught_up()
        await home.verdicts.forget(home.clock.now)
        assert len(await home.verdicts.latest([hit.id for hit in hits])) == 3
        await home.verdicts.forget(home.clock.now + 1)
        assert await home.verdicts.latest([hit.id for hit in hits]) == {}


# --- the settled log


async def test_the_settled_log_shows_each_hit_with_its_latest_verdict_when_its_window_is_over(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        hits, other = burst(40), click(41, person=2)
        await home.keep(*hits, other)
        await home.caught_up()
        assert home.log.head() == 0
        assert await home.log.read(0, 100) == []
        await home.pass_time()
        async with asyncio.timeout(10):
            assert await home.log.wait(6) == home.store.head()
        (recorded, _) = await home.log.read(0, 100)
        assert recorded.events == [*[msgspec.structs.replace(hit, actor=BURST) for hit in hits], other]


async def test_what_arrives_later_does_not_settle_with_what_came_before(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(click(0))
        await home.caught_up()
        await home.keep(click(600, person=2))
        await home.pass_time(310)
        async with asyncio.timeout(10):
            assert await home.log.wait(0) == 1
        await asyncio.sleep(0.05)
        assert home.log.head() == 1


async def test_what_was_drained_late_waits_from_its_arrival_on(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(click(5_000))
        await home.pass_time()
        async with asyncio.timeout(10):
            await home.log.wait(0)
        await home.keep(click(10, person=2))
        await home.pass_time(600)
        await asyncio.sleep(0.05)
        assert home.log.head() == 1
        await home.pass_time(302)
        async with asyncio.timeout(10):
            assert await home.log.wait(1) == 2


async def test_after_a_new_start_what_arrived_before_the_window_settles_at_once(tmp_path: Path) -> None:
    clock = SetClock()
    async with house(tmp_path / "d", clock) as home:
        await home.keep(click(0), click(1, person=2))
    clock.now += 2 * WINDOW
    async with house(tmp_path / "d", clock) as home:
        async with asyncio.timeout(10):
            assert await home.log.wait(1) == 2


async def test_a_backlog_settles_by_the_time_of_its_events_and_not_before_what_came_beside_them(tmp_path: Path) -> None:
    async with house(tmp_path / "d", following=False) as home:
        for number in range(20):
            await home.keep(*[click(number * 600 + place, 1, place) for place in range(400)])
        hits = burst(12_100, person=77)
        await home.keep(hits[0])
        await home.keep(*hits[1:])
        home.clock.now += DAY
        running = asyncio.create_task(home.follower.run())
        async with asyncio.timeout(20):
            await home.log.wait(8_002)
        running.cancel()
        await asyncio.wait([running])
        shown = [event for chunk in await home.log.read(8_000, 10) for event in chunk.events]
        assert [event.actor for event in shown if event.id in {hit.id for hit in hits}] == [BURST] * 3


# --- subscriptions


async def test_a_settled_subscription_waits_and_is_told_what_is_thought_then(tmp_path: Path) -> None:
    at_once, waiting = Receiver(), Receiver()
    async with house(tmp_path / "d", at_once=at_once, waiting=waiting) as home:
        await home.subscribe("at_once", types=("email.*",))
        await home.subscribe("waiting", types=("email.*",), verdict="settled")
        await home.keep(*burst(40), click(50, person=2))
        await at_once.until(4)
        await home.caught_up()
        await asyncio.sleep(0.05)
        assert waiting.parcels == []
        await home.pass_time()
        await waiting.until(4)
    assert at_once.told() == [("email.clicked", "human")] * 4
    assert waiting.told() == [("email.clicked", "machine")] * 3 + [("email.clicked", "human")]


async def test_a_settled_filter_for_people_looks_at_the_settled_verdict(tmp_path: Path) -> None:
    people, machines = Receiver(), Receiver()
    async with house(tmp_path / "d", people=people, machines=machines) as home:
        await home.subscribe("people", actors=("human",), verdict="settled")
        await home.subscribe("machines", actors=("machine",), verdict="settled")
        await home.keep(*burst(40), click(50, person=2))
        await home.pass_time()
        await people.until(1)
        await machines.until(3)
    assert people.told() == [("email.clicked", "human")]
    assert machines.told() == [("email.clicked", "machine")] * 3


async def test_corrections_go_to_those_who_want_them_and_the_hits(tmp_path: Path) -> None:
    names = ("plain", "all", "clicks", "people", "opens", "proxies")
    receivers = {name: Receiver() for name in names}
    async with house(tmp_path / "d", **receivers) as home:
        await home.subscribe("plain")
        await home.subscribe("all", corrections=True)
        await home.subscribe("clicks", types=("email.clicked",), corrections=True)
        await home.subscribe("people", actors=("human",), corrections=True)
        await home.subscribe("opens", types=("email.opened",), corrections=True)
        await home.subscribe("proxies", actors=("proxy",), corrections=True)
        await home.keep(*burst(40), click(50, type_="email.opened"))
        for name, count in (("plain", 4), ("all", 7), ("clicks", 6), ("people", 7), ("opens", 1)):
            await receivers[name].until(count)
        await home.keep(*[click(60 + 0.1 * link, link, 2, "email.first_clicked") for link in range(3)])
        await receivers["all"].until(13)
        await asyncio.sleep(0.05)
    hits, correction = [("email.clicked", "human")] * 3, ("event.reclassified", "machine")
    opened, firsts = ("email.opened", "human"), [("email.first_clicked", "human")] * 3
    assert receivers["plain"].told() == [*hits, opened, *firsts]
    corrected = [*hits, opened, *[correction] * 3, *firsts, *[correction] * 3]
    assert receivers["all"].told() == receivers["people"].told() == corrected
    assert receivers["clicks"].told() == [*hits, *[correction] * 3]
    assert receivers["opens"].told() == [opened]
    assert receivers["proxies"].told() == []


async def test_a_settled_subscription_goes_on_at_its_cursor_after_a_new_start(tmp_path: Path) -> None:
    clock, first, second = SetClock(), Receiver(), Receiver()
    async with house(tmp_path / "d", clock, receiver=first) as home:
        await home.subscribe(verdict="settled")
        await home.keep(click(0), click(1, person=2))
        await home.pass_time()
        await first.until(2)
    async with house(tmp_path / "d", clock, receiver=second) as home:
        await home.keep(click(1_000, person=3))
        await home.pass_time()
        await second.until(1)
        await asyncio.sleep(0.05)
    assert (len(first.told()), len(second.told())) == (2, 1)


async def test_a_subscription_that_changes_to_settled_is_told_nothing_twice(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.subscribe()
        await home.keep(click(0), click(1, person=2))
        await receiver.until(2)
        await home.subscribe(verdict="settled")
        await home.keep(click(2, person=3))
        await home.pass_time()
        await receiver.until(3)
        await asyncio.sleep(0.05)
    assert len(receiver.told()) == 3


async def test_a_settled_subscription_that_begins_now_is_told_what_comes_from_now_on(tmp_path: Path) -> None:
    receiver = Receiver()
    async with house(tmp_path / "d", receiver=receiver) as home:
        await home.keep(click(0))
        await home.subscribe(start="now", verdict="settled")
        await home.keep(click(1, person=2, type_="email.opened"))
        await home.pass_time()
        await receiver.until(1)
        await asyncio.sleep(0.05)
    assert receiver.told() == [("email.opened", "human")]


# --- reclassifying


def seen_by(rules: Rules, signals: Signals, at: float, person: int) -> Event:
    """A click as it was kept when these rules held."""
    return click(at, 1, person, actor=rules.judge(signals), user_agent=signals.agent, extra=noted(signals))


async def test_the_difference_is_shown_before_it_is_applied(tmp_path: Path) -> None:
    async with house(tmp_path / "d", rules=LENIENT) as home:
        await home.keep(
            seen_by(LENIENT, Signals("clicked", CHROME, method="HEAD"), 0, 1),
            seen_by(LENIENT, Signals("clicked", CHROME), 1, 2),
            seen_by(LENIENT, Signals("clicked", "curl/8"), 2, 3),
            seen_by(LENIENT, Signals("opened", "x (via ggpht.com GoogleImageProxy)"), 3, 4),
            *[msgspec.structs.replace(hit, actor=LENIENT.judge(Signals("clicked"))) for hit in burst(40, person=5)],
            click(60, person=6, type_="email.delivered"),
        )
        shown = await home.reclassify(RULES)
        assert shown == Difference(
            0, 8, 7, [Change("human", "machine", 5), Change("human", "proxy", 1)], RULES.ruleset, False
        )
        assert await home.made() == []
        applied = await home.reclassify(RULES, until=shown.until, apply=True)
        assert (applied.changes, applied.applied) == (shown.changes, True)
        assert [one.actor.reasons for one in await home.made() if one.actor] == [
            ["head_request"], ["program"], ["image_proxy"], ["burst"], ["burst"], ["burst"],
        ]  # fmt: skip
        assert (await home.reclassify(RULES, until=shown.until)).changes == []


async def test_an_operator_may_give_trust_back_and_take_it_again(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        await home.keep(*burst(40))
        await home.caught_up()
        for rules, was, becomes in (
            (LENIENT, "machine", "human"),
            (RULES, "human", "machine"),
            (LENIENT, "machine", "human"),
        ):
            applied = await home.reclassify(rules, until=3, apply=True)
            assert applied.changes == [Change(was, becomes, 3)]
        made = await home.made()
        assert len({one.id for one in made}) == len(made) == 12
        await home.caught_up()
        latest = await home.verdicts.latest([hit.id for hit in burst(40)])
        assert {one.actor.kind for one in latest.values()} == {"human"}


async def test_what_came_just_before_is_seen_beside_the_hits_that_were_asked_for(tmp_path: Path) -> None:
    async with house(tmp_path / "d") as home:
        for hit in burst(40):
            await home.keep(hit)
        await home.caught_up()
        assert (await home.reclassify(RULES, since=2, until=3)).hits == 1
        assert (await home.reclassify(RULES, since=2, until=3)).changes == []


async def test_what_a_vendor_says_of_the_actor_stands_and_other_tenants_are_left_alone(tmp_path: Path) -> None:
    async with house(tmp_path / "d", following=False) as home:
        theirs = Actor("human", ["their own"])
        await home.keep(click(0, actor=theirs, user_agent="curl/8"))
        others = click(1, 1, 2, user_agent="curl/8", tenant="acme")
        await home.keep(others, tenant="acme")
        assert (await home.reclassify(RULES, tenant="default")).changes == []
        assert (await home.reclassify(RULES)).changes == [Change("human", "machine", 1)]


async def test_a_long_log_is_judged_in_pieces(tmp_path: Path) -> None:
    async with house(tmp_path / "d", following=False) as home:
        hits = [click(number, 1, number, user_agent="curl/8") for number in range(10_000)]
        # A burst that no piece holds whole, with another hit after what the first piece has of it.
        sweep = burst(4_000, person=77_777)
        hits[3_998], hits[4_000:4_002] = sweep[0], sweep[1:]
        hits[3_999] = click(4_000.05, 1, 3_999, user_agent="curl/8")
        for start in range(0, 10_000, 1_000):
            await home.keep(*hits[start : start + 1_000])
        applied = await home.reclassify(RULES, apply=True)
        assert applied.changes == [Change("human", "machine", 10_000)]
        assert len(await home.made()) == 10_000
        assert (await home.reclassify(RULES, until=applied.until)).changes == []

"""What every store must hold: the contracts of the log, cursors, leases, registry, quarantine and requests, as tests.

Bind them by subclasses that open the store:

    class TestLog(LogSuite):
        async def open(self, folder, clock):
            return await SqliteStore.open(folder, clock=clock, keyring=…, create=True)
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftersend.contracts import Appended, Clock, Cursor, Entry, Lease, Manifest, Quarantined, Request, SetAside
from aftersend.core.errors import StoreError
from aftersend.core.event import Event, Failure, Geo, Recorded, Source
from aftersend.core.identity import make_id
from aftersend.core.registry import Domain, Key, SourceRecord, Subscription, Tenant
from aftersend.core.secret import Secret
from aftersend.core.timestamps import DAY, SECOND, parse_time

NOW = parse_time("2026-02-01T12:00:00Z")
"""When the tests begin."""


class SetClock:
    """A clock that stands still until it is set."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def event(number: int, time: int = NOW, tenant: str = "default") -> Event:
    """One of as many different events as there are numbers and times."""
    return Event(
        id=make_id(time, f"{tenant}/{number}".encode()),
        type="email.clicked",
        time=time,
        source=Source("shop", "halon", "click", str(number)),
        tenant=tenant,
        received_at=time + SECOND,
        recipient=f"person{number}@mail.example",
        url=f"https://shop.example/{number}",
    )


def events(start: int, end: int, time: int = NOW, tenant: str = "default") -> list[Event]:
    """The events of a run of numbers."""
    return [event(number, time, tenant) for number in range(start, end)]


def entry(*told: Event) -> Entry:
    """What an intake asks to keep, of the events' tenant."""
    return Entry(told[0].tenant, told)


def flat(recorded: Sequence[Recorded]) -> list[tuple[int, Event]]:
    """Each event with its position."""
    return [(block.position + index, event) for block in recorded for index, event in enumerate(block.events)]


async def read_all(store: Any, position: int = 0, limit: int = 100) -> list[tuple[int, Event]]:
    """Everything from a position up to the head, read as a subscriber reads."""
    found: list[tuple[int, Event]] = []
    while recorded := await store.read(position, limit):
        found += flat(recorded)
        position = recorded[-1].next_position
    return found


class Suite:
    """A store on a fresh folder for each test."""

    async def open(self, folder: Path, clock: Clock) -> Any:
        """The store in a folder, made where it is missing."""
        raise NotImplementedError

    @asynccontextmanager
    async def opened(self, folder: Path, clock: Clock | None = None) -> AsyncIterator[Any]:
        """The store, closed in the end."""
        store = await self.open(folder, clock or SetClock())
        try:
            yield store
        finally:
            await store.close()


class LogSuite(Suite):
    """The one durable, append-only order of events."""

    async def test_events_come_out_as_they_went_in(self, tmp_path: Path) -> None:
        full = Event(
            id=make_id(NOW, b"full"),
            type="email.hard_bounced",
            time=NOW + 1,
            source=Source("shop", "halon", "bounce"),
            geo=Geo(country="NL", latitude=52.37),
            failure=Failure(class_="hard", status="5.1.1", final=True),
            suspect=["time"],
            extra={"nested": {"list": [1, 2.5, None, True, "ж"]}, "huge": 2**80, "text": "a\u0000b"},
        )
        async with self.opened(tmp_path) as store:
            await store.append(entry(full, *events(0, 5)))
        async with self.opened(tmp_path) as store:
            assert [event for _, event in await read_all(store)] == [full, *events(0, 5)]

    async def test_an_empty_log_begins_and_ends_at_the_same_position(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert (store.tail(), store.head()) == (0, 0)
            assert await store.read(0, 10) == []

    async def test_an_empty_entry_is_kept_at_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.append(Entry("default", ())) == Appended(0, 0)

    async def test_positions_are_consecutive_and_go_on_after_a_restart(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.append(entry(*events(0, 3)))
            await store.append(entry(*events(3, 5)))
            assert store.head() == 5
        async with self.opened(tmp_path) as store:
            assert store.head() == 5
            await store.append(entry(*events(5, 7)))
            assert await read_all(store) == list(enumerate(events(0, 7)))

    async def test_an_event_that_comes_twice_is_kept_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.append(entry(event(1), event(2), event(1))) == Appended(2, 1)
            assert await store.append(entry(event(2), event(3))) == Appended(1, 1)
            assert await store.append(entry(event(1))) == Appended(0, 1)
        async with self.opened(tmp_path) as store:
            assert await store.append(entry(*events(1, 4))) == Appended(0, 3)
            assert [event for _, event in await read_all(store)] == events(1, 4)

    async def test_of_two_entries_at_once_one_has_what_both_say(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            results = await asyncio.gather(*[store.append(entry(*events(0, 50))) for _ in range(4)])
            assert sorted(result.accepted for result in results) == [0, 0, 0, 50]
            assert [result.accepted + result.duplicates for result in results] == [50] * 4

    def test_any_entries_in_any_order_keep_every_event_once(self) -> None:
        numbers = st.lists(st.lists(st.integers(0, 40), max_size=30), max_size=6)

        @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
        @given(numbers, st.booleans())
        def check(batches: list[list[int]], at_once: bool) -> None:
            asyncio.run(self._keep(batches, at_once))

        check()

    async def _keep(self, batches: list[list[int]], at_once: bool) -> None:
        told = [Entry("default", [event(number, NOW + number * DAY // 8) for number in batch]) for batch in batches]
        with tempfile.TemporaryDirectory() as folder:
            async with self.opened(Path(folder)) as store:
                if at_once:
                    results = await asyncio.gather(*[store.append(item) for item in told])
                else:
                    results = [await store.append(item) for item in told]
                kept = [str(event.source.id) for _, event in await read_all(store, limit=7)]
                assert store.head() == len(kept)
        assert sorted(kept) == sorted({str(number) for batch in batches for number in batch})
        assert sum(result.accepted for result in results) == len(kept)
        assert [result.accepted + result.duplicates for result in results] == [len(batch) for batch in batches]

    async def test_tenants_share_an_order_but_no_block(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await asyncio.gather(
                *[store.append(entry(*events(start, start + 10, tenant=f"tenant{start % 3}"))) for start in range(9)]
            )
            found = await store.read(0, 1_000)
            assert all(event.tenant == block.tenant for block in found for event in block.events)
            assert [position for position, _ in flat(found)] == list(range(store.head()))

    async def test_reading_begins_at_any_position(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.append(entry(*events(0, 40)))
            await store.append(entry(*events(40, 55)))
        async with self.opened(tmp_path) as store:
            for position in (0, 1, 39, 40, 41, 54):
                assert (await read_all(store, position))[0] == (position, event(position))
            assert await store.read(55, 10) == []
            await store.append(entry(*events(55, 60)))
            assert await read_all(store, 57) == [(57, event(57)), (58, event(58)), (59, event(59))]

    async def test_reading_gives_about_as_many_events_as_asked_for(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for start in range(0, 100, 10):
                await store.append(entry(*events(start, start + 10)))
            assert len(flat(await store.read(5, 20))) in range(20, 30)
        async with self.opened(tmp_path) as store:
            assert len(flat(await store.read(5, 20))) in range(20, 30)

    async def test_a_large_entry_keeps_its_order(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.append(entry(*events(0, 3_500)))
            blocks = await store.read(0, 10_000)
            assert max(len(block.events) for block in blocks) < 2_000
            assert flat(blocks) == list(enumerate(events(0, 3_500)))

    async def test_waiting_ends_with_the_next_event(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            waiting = [asyncio.create_task(store.wait(position)) for position in (0, 0, 3)]
            await asyncio.sleep(0.01)
            assert not any(task.done() for task in waiting)
            await store.append(entry(*events(0, 2)))
            assert await asyncio.wait_for(asyncio.gather(*waiting[:2]), 1) == [2, 2]
            assert not waiting[2].done()
            await store.append(entry(*events(2, 5)))
            assert await asyncio.wait_for(waiting[2], 1) == 5
            assert await store.wait(4) == 5

    async def test_one_who_waits_may_give_up(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.wait(0), 0.01)
            await store.append(entry(event(1)))

    async def test_what_cannot_be_kept_takes_nothing_else_down(self, tmp_path: Path) -> None:
        bad = Event("no id", "email.sent", NOW, Source("shop", "halon", "sent"))
        worse = Event(make_id(NOW, b""), "email.sent", NOW, Source("shop", "halon", "sent"), extra={"x": "\ud800"})
        async with self.opened(tmp_path) as store:
            results = await asyncio.gather(
                *[store.append(entry(*told)) for told in ([event(1)], [event(2), bad], [worse], [event(3)])],
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [Appended, StoreError, StoreError, Appended]
            assert [event for _, event in await read_all(store)] == [event(1), event(3)]

    async def test_a_time_leads_to_the_first_block_received_since(self, tmp_path: Path) -> None:
        clock = SetClock()
        async with self.opened(tmp_path, clock) as store:
            assert await store.position_at(NOW) == 0
            for day in range(3):
                clock.now = NOW + day * DAY
                await store.append(entry(*events(day * 10, day * 10 + 10)))
            times = (0, NOW, NOW + 1, NOW + DAY, NOW + 2 * DAY, NOW + 2 * DAY + 1)
            assert [await store.position_at(time) for time in times] == [0, 0, 10, 10, 20, 30]

    async def test_a_closed_store_takes_nothing(self, tmp_path: Path) -> None:
        store = await self.open(tmp_path, SetClock())
        await store.close()
        with pytest.raises(StoreError, match="closed"):
            await store.append(entry(event(1)))


def quarantined(number: int, source: str = "shop", tenant: str = "default") -> Quarantined:
    """Bytes that could not be read."""
    return Quarantined(tenant, source, "halon", "invalid_json", "odd", NOW, b"\x00body %d" % number, "text/plain", "x")


class QuarantineSuite(Suite):
    """Bytes that could not be read, kept for a replay after a fix."""

    async def keep(self, store: Any, *items: Quarantined, limit: int = 10_000) -> None:
        """Quarantine some bytes, without any event."""
        await store.append(Entry(items[0].tenant, (), items, quarantine_limit=limit))

    async def test_bytes_are_kept_with_all_that_is_known_of_them(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.keep(store, quarantined(1), quarantined(2))
        async with self.opened(tmp_path) as store:
            found = await store.list_quarantined(None, 10)
            assert [item for _, item in found] == [quarantined(1), quarantined(2)]

    async def test_they_are_listed_by_tenant_and_in_pages(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for number in range(6):
                await self.keep(store, quarantined(number, tenant=("a", "b")[number % 2]))
            first = await store.list_quarantined("b", 2)
            rest = await store.list_quarantined("b", 2, first[-1][0])
            assert [item for _, item in first + rest] == [quarantined(number, tenant="b") for number in (1, 3, 5)]
            assert await store.list_quarantined("c", 2) == []

    async def test_a_discarded_one_is_gone_and_its_number_is_not_given_again(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.keep(store, *[quarantined(number) for number in range(3)])
            numbers = [number for number, _ in await store.list_quarantined(None, 10)]
            await store.discard(numbers[1:])
        async with self.opened(tmp_path) as store:
            await self.keep(store, quarantined(3))
            found = await store.list_quarantined(None, 10)
            assert [item for _, item in found] == [quarantined(0), quarantined(3)]
            assert found[1][0] > numbers[-1]

    async def test_past_a_sources_limit_its_oldest_goes(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await self.keep(store, quarantined(99, "other"))
            for number in range(5):
                await self.keep(store, quarantined(number), limit=3)
            await self.keep(store, *[quarantined(number) for number in range(5, 7)], limit=3)
            kept = [item for _, item in await store.list_quarantined(None, 10)]
            assert kept == [quarantined(99, "other"), quarantined(4), quarantined(5), quarantined(6)]


class RequestsSuite(Suite):
    """Requests that named themselves, so that a retry is seen to be one."""

    async def test_a_request_is_remembered_with_its_answer_and_what_became_of_it(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.find_request("default/shop/1") is None
            await store.append(entry(event(1)))
            request = Request("default/shop/1", NOW, b"answer")
            await store.append(Entry("default", events(0, 3), request=request))
        async with self.opened(tmp_path) as store:
            assert await store.find_request("default/shop/1") == Request("default/shop/1", NOW, b"answer", 2, 1)

    async def test_the_first_of_two_arrivals_is_remembered(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for number in range(2):
                request = Request("key", NOW + number)
                await store.append(Entry("default", [event(number)], request=request))
            assert (await store.find_request("key")).received_at == NOW

    async def test_after_7_days_it_is_forgotten_but_a_file_is_not(self, tmp_path: Path) -> None:
        clock = SetClock()
        async with self.opened(tmp_path, clock) as store:
            for number, key in enumerate(("key", "file:key")):
                await store.append(Entry("default", [event(number)], request=Request(key, NOW)))
            for day in range(1, 10):
                clock.now = NOW + day * DAY
                await store.append(entry(event(day + 10)))
                assert (await store.find_request("key") is not None) == (day <= 7)
                assert await store.find_request("file:key") is not None


def set_aside(position: int, next_at: int, state: str = "late", subscription: str = "s") -> SetAside:
    """An event beside the line."""
    return SetAside(subscription, position, event(position), 1, next_at, "400: no", state, 2, position)


class CursorsSuite(Suite):
    """Where each subscription stands."""

    async def test_a_cursor_is_where_it_was_moved(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            assert await store.get("a") is None
            await store.move({"a": Cursor(5, 1, 4), "b": Cursor(1 << 40)})
            await store.move({"a": Cursor(9, 2, 0)})
        async with self.opened(tmp_path) as store:
            assert await store.get("a") == Cursor(9, 2, 0)
            assert await store.get("b") == Cursor(1 << 40, 1, 0)

    async def test_many_cursors_move_at_once(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await asyncio.gather(*[store.move({f"s{n}": Cursor(n)}) for n in range(300)])
            assert [(await store.get(f"s{n}")).position for n in (0, 150, 299)] == [0, 150, 299]

    async def test_what_is_set_aside_moves_with_the_cursor(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.move({"s": Cursor(8)}, [set_aside(7, NOW), set_aside(5, NOW)])
        async with self.opened(tmp_path) as store:
            assert await store.get("s") == Cursor(8)
            assert await store.list_set_aside("s", 10) == [set_aside(5, NOW), set_aside(7, NOW)]
            assert await store.list_set_aside("other", 10) == []

    async def test_only_what_is_due_is_tried_again(self, tmp_path: Path) -> None:
        late = [set_aside(1, NOW), set_aside(2, NOW + 1), set_aside(3, NOW - 1)]
        never = [set_aside(4, 0), set_aside(5, NOW, "failed"), set_aside(6, NOW, subscription="t")]
        async with self.opened(tmp_path) as store:
            await store.move({}, late + never)
            assert await store.due("s", NOW, 10) == [late[0], late[2]]
            assert await store.due("s", NOW, 1) == [late[0]]

    async def test_what_was_taken_after_all_is_forgotten(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.move({}, [set_aside(1, NOW), set_aside(2, NOW), set_aside(1, NOW, subscription="t")])
            await store.settle("s", [1], [set_aside(2, 0, "failed")])
            assert await store.list_set_aside("s", 10) == [set_aside(2, 0, "failed")]
            assert await store.list_set_aside("t", 10) == [set_aside(1, NOW, subscription="t")]

    async def test_manifests_are_written_anew_and_listed_the_newest_first(self, tmp_path: Path) -> None:
        def manifest(day: str, last: int, epoch: int = 1) -> Manifest:
            return Manifest("s", day, epoch, 1, last, {"email.sent": last}, "ff")

        async with self.opened(tmp_path) as store:
            await store.move({"s": Cursor(1)}, (), [manifest("2026-02-01", 1), manifest("2026-02-01", 7, 2)])
            await store.move({"s": Cursor(2)}, (), [manifest("2026-02-01", 2), manifest("2026-02-02", 3)])
            assert [(item.day, item.epoch, item.last_sequence) for item in await store.manifests("s")] == [
                ("2026-02-02", 1, 3),
                ("2026-02-01", 2, 7),
                ("2026-02-01", 1, 2),
            ]
            assert await store.manifests("s", "2026-02-02") == [manifest("2026-02-02", 3)]
            assert await store.manifests("t") == []


def lease(id_: str, *positions: tuple[int, int], line: str = "s", until: int = NOW) -> Lease:
    """Events that somebody has in hand."""
    return Lease(id_, line, "worker", positions, until)


class LeasesSuite(Suite):
    """What pullers have in hand."""

    async def test_a_lease_is_as_it_was_written_last(self, tmp_path: Path) -> None:
        kept = Lease("b", "s/OPEN", "it's me \u0436", ((1, 1), (5, 1 << 40)), NOW, "kept")
        async with self.opened(tmp_path) as store:
            assert await store.list_leases("s") == []
            await store.settle_leases([lease("b", (0, 9)), lease("a", (3, 3))])
            await store.settle_leases([kept])
        async with self.opened(tmp_path) as store:
            assert await store.list_leases("s") == [lease("a", (3, 3)), kept]

    async def test_leases_are_listed_by_subscription_with_all_its_lines(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            lines = {"a": "s", "b": "s/OPEN", "c": "s/CLICK", "d": "ss", "e": "t/OPEN"}
            await store.settle_leases([lease(id_, (1, 2), line=line) for id_, line in lines.items()])
            assert [item.id for item in await store.list_leases("s")] == ["a", "b", "c"]
            assert [item.id for item in await store.list_leases("t")] == ["e"]
            assert await store.list_leases("s/OPEN") == []

    async def test_a_dropped_lease_is_gone_and_dropping_it_again_is_nothing(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.settle_leases([lease("a", (1, 2)), lease("b", (3, 4)), lease("a", (1, 2), line="t")])
            for _ in range(2):
                await store.settle_leases((), [lease("a", (1, 2))])
            assert await store.list_leases("s") == [lease("b", (3, 4))]
            assert await store.list_leases("t") == [lease("a", (1, 2), line="t")]

    async def test_what_is_dropped_and_written_in_one_call_is_there(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.settle_leases([lease("a", (1, 9))])
            await store.settle_leases([lease("a", (5, 9))], [lease("a", (1, 9))])
            assert await store.list_leases("s") == [lease("a", (5, 9))]

    async def test_a_lease_moves_together_with_all_else(self, tmp_path: Path) -> None:
        manifest = Manifest("s", "2026-02-01", 1, 1, 5, {"email.clicked": 5}, "ff")
        async with self.opened(tmp_path) as store:
            await store.settle_leases([lease("a", (0, 9))])
            moves = {"s": Cursor(5, 1, 5), "s/OPEN": Cursor(7)}
            put, drop = [lease("b", (5, 9))], [lease("a", (0, 9))]
            await store.settle_leases(put, drop, moves, [set_aside(4, NOW)], [manifest])
        async with self.opened(tmp_path) as store:
            assert await store.list_leases("s") == put
            assert [await store.get("s"), await store.get("s/OPEN")] == list(moves.values())
            assert await store.list_set_aside("s", 10) == [set_aside(4, NOW)]
            assert await store.manifests("s") == [manifest]

    async def test_of_a_call_that_fails_nothing_is_kept(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.settle_leases([lease("a", (0, 9))], (), {"s": Cursor(1)})
            put, drop, moves = [lease("b", (5, 9))], [lease("a", (0, 9))], {"s": Cursor(2), "s/OPEN": Cursor(1 << 70)}
            results = await asyncio.gather(
                store.settle_leases(put, drop, moves, [set_aside(4, NOW)]),
                store.move({"t": Cursor(3)}),
                return_exceptions=True,
            )
            assert [type(result) for result in results] == [StoreError, type(None)]
            assert await store.list_leases("s") == drop
            assert [await store.get(line) for line in ("s", "s/OPEN", "t")] == [Cursor(1), None, Cursor(3)]
            assert await store.list_set_aside("s", 10) == []


class RegistrySuite(Suite):
    """What an operator registered."""

    subscription = Subscription(
        id="sub_1",
        name="crm",
        url="https://crm.example/hook",
        types=("email.*", "sms.*"),
        headers={"authorization": Secret("Bearer abc")},
        signing_secrets=(Secret("whsec_1"), Secret("whsec_2")),
        options={"inner": [{"password": Secret("p")}, 7]},
    )

    async def test_every_kind_of_record_comes_back_as_it_was(self, tmp_path: Path) -> None:
        records = [
            Tenant(name="acme", created_at=NOW),
            Key(id="k1", tenant="acme", scopes=("read", "admin"), digest="ab"),
            SourceRecord(name="shop", dialect="halon", signing_secret=Secret("whsec_x")),
            Domain(name="click.shop.example", tenant="acme"),
            self.subscription,
        ]
        async with self.opened(tmp_path) as store:
            for record in records:
                await store.put(record)
        async with self.opened(tmp_path) as store:
            assert [item for record in records for item in await store.list(type(record))] == records

    async def test_records_are_listed_by_name_of_one_tenant_or_of_all(self, tmp_path: Path) -> None:
        names = [("b", "x"), ("a", "y"), ("a", "x"), ("c", "x")]
        async with self.opened(tmp_path) as store:
            for name, tenant in names:
                await store.put(SourceRecord(name=name, tenant=tenant, dialect="halon"))
            assert [(item.name, item.tenant) for item in await store.list(SourceRecord)] == sorted(names)
            assert [item.name for item in await store.list(SourceRecord, "x")] == ["a", "b", "c"]
            assert await store.list(Tenant) == []

    async def test_a_record_of_the_same_name_is_replaced(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            for dialect in ("halon", "pure360"):
                await store.put(SourceRecord(name="shop", dialect=dialect))
            assert [item.dialect for item in await store.list(SourceRecord)] == ["pure360"]

    async def test_a_removed_record_is_gone(self, tmp_path: Path) -> None:
        async with self.opened(tmp_path) as store:
            await store.put(self.subscription)
            assert await store.remove(self.subscription)
            assert not await store.remove(self.subscription)
            assert await store.list(Subscription) == []

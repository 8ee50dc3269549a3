"""Ids wait in memory for their table, and an event is kept once wherever its id is by then."""

import random
from pathlib import Path

import pytest

from aftersend.contracts import Appended
from aftersend.core.event import Event
from aftersend.core.timestamps import MILLISECOND, SECOND
from aftersend.keyring import Keyring
from aftersend.stores.sqlite import SqliteStore, ids
from aftersend.testing.stores import NOW, SetClock, entry, event, events, flat


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """So few that the table gets some while others wait."""
    monkeypatch.setattr(ids, "GATHERED_AT_ONCE", 100)


async def open_store(folder: Path) -> SqliteStore:
    """The store of a test."""
    keyring = Keyring.open(folder / "keyring.json", create=True)
    return await SqliteStore.open(folder, clock=SetClock(), keyring=keyring, create=True)


def gathered(store: SqliteStore) -> int:
    """How many ids the head's table has."""
    return int(store._log._end.connection.execute("SELECT count(*) FROM ids").get)


def told_out_of_order(count: int) -> list[Event]:
    """Events of one minute, by chance."""
    told = [event(number, NOW + number * 60 * SECOND // count // MILLISECOND * MILLISECOND) for number in range(count)]
    random.Random(5).shuffle(told)
    return told


async def test_events_out_of_order_are_kept_once_while_their_ids_are_gathered(tmp_path: Path) -> None:
    store, told = await open_store(tmp_path), told_out_of_order(700)
    for start in range(0, 700, 35):
        assert await store.append(entry(*told[start : start + 35])) == Appended(35, 0)
        again = told[: start + 35]
        assert await store.append(entry(*again)) == Appended(0, len(again))
    assert 600 <= gathered(store) < 700
    await store.close()


async def test_ids_that_waited_when_the_store_was_closed_are_known_again(tmp_path: Path) -> None:
    store, told = await open_store(tmp_path), told_out_of_order(230)
    for start in range(0, 230, 60):
        await store.append(entry(*told[start : start + 60]))
    assert 0 < gathered(store) < 230
    await store.close()
    store = await open_store(tmp_path)
    assert await store.append(entry(*told, event(1_000))) == Appended(1, 230)
    await store.close()


async def test_what_is_rewritten_before_its_ids_were_gathered_is_still_a_repeat(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    await store.rewrite(0, events(500, 510))
    await store.close()
    store = await open_store(tmp_path)
    assert await store.append(entry(*events(0, 10))) == Appended(0, 10)
    await store.close()


async def test_what_cannot_be_read_any_more_keeps_nobody_from_starting_and_may_come_again(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    await store.append(entry(*events(0, 10)))
    await store.append(entry(*events(10, 20)))
    store._log._end.connection.execute("UPDATE blocks SET body = x'00' WHERE position = 10")
    await store.close()
    store = await open_store(tmp_path)
    assert await store.append(entry(*events(0, 20))) == Appended(10, 10)
    assert flat(await store.read(20, 10)) == list(enumerate(events(10, 20), 20))
    await store.close()

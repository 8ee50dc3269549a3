"""Short links: what they stand for is on disk before they are told, and they lead nowhere else."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3
from collections.abc import AsyncIterator, Sequence
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec import structs
from tests.integration.tracking import Tracker, tracker

from aftersend.capture import endpoints
from aftersend.capture.rewriting import Way, signer
from aftersend.capture.shortening import LINKS_LIMIT, make_links
from aftersend.capture.visits import TrackingDomain
from aftersend.contracts import Reference
from aftersend.core.consent import Level, person_key
from aftersend.core.errors import StoreError, StoreFullError, UsageError
from aftersend.stores.sqlite import references as references_module
from aftersend.stores.sqlite.references import FILE_NAME, SqliteReferences

HOST = "track.example.com"
SMS = {"target": "https://shop.example/p", "recipient": "+4915112345678", "short": True, "channel": "sms"}
FORM = {"Content_Type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def tracked(tmp_path: Path) -> AsyncIterator[Tracker]:
    async with tracker(tmp_path) as made:
        made.tenants[2] = "other"
        made.domains["links.other.example"] = TrackingDomain("links.other.example", "other")
        yield made


class Written:
    """What would be kept."""

    def __init__(self) -> None:
        self.references: list[Reference] = []

    async def keep(self, references: Sequence[Reference]) -> None:
        self.references += references

    async def find(self, id_: bytes) -> Reference | None:
        return next((one for one in self.references if one.id == id_), None)

    async def forget(self, before: int) -> None:
        self.references.clear()


def way_of(tracked: Tracker, tenant: int = 1) -> Way:
    def level_of(person: str) -> Level:
        return tracked.people.level(tracked.tenants[tenant], person_key(tracked.tenants[tenant], person))

    return Way(
        tenant, 7, frozenset({HOST}), signer(tracked.links, tracked.keyring.active_id, f"https://{HOST}"), level_of
    )


async def make(tracked: Tracker, *asked: dict[str, Any], tenant: int = 1) -> list[str]:
    """Paths of the links that are asked for."""
    way = way_of(tracked, tenant)
    made = await make_links(list(asked), lambda domain: way, tracked.references, os.urandom)
    return [url.removeprefix(f"https://{HOST}") for url in made]


async def test_a_short_link_leads_where_its_long_one_would(tracked: Tracker) -> None:
    click, stop = await make(tracked, SMS, {**SMS, "target": "", "purpose": "unsubscribe"})
    answer = await tracked.get(click)
    assert (answer.status, answer.headers["location"]) == (302, "https://shop.example/p")
    assert (await tracked.get(stop)).status == 200
    assert (await tracked.post(stop, "List-Unsubscribe=One-Click", **FORM)).status == 200
    clicked, ended = await tracked.events()
    assert (clicked.type, clicked.tenant, clicked.recipient) == ("sms.clicked", "acme", SMS["recipient"])
    assert ended.type == "sms.unsubscribed"


@pytest.mark.parametrize("short", [True, False], ids=["short", "sealed"])
async def test_a_tenants_link_leads_nowhere_on_the_domain_of_another(tracked: Tracker, short: bool) -> None:
    asked = [{"target": SMS["target"], "short": short}, {"purpose": "preferences", "recipient": "a", "short": short}]
    asked += [{"purpose": purpose, "recipient": "a", "short": short} for purpose in ("unsubscribe", "confirm")]
    for path in await make(tracked, *asked):
        for method, body in (("GET", None), ("POST", "List-Unsubscribe=One-Click&preferences=save&level=none")):
            answer = await tracked.request(method, path, body, Host="links.other.example", **FORM)
            assert answer.status in (404, 405), path
            assert "location" not in answer.headers
        assert (await tracked.get(path)).status in (200, 302), "on its own"
        assert (await tracked.get(path, Host="nobodys.example")).status in (200, 302), "where it was moved"
    assert {event.tenant for event in await tracked.events()} == {"acme"}


async def test_a_link_allows_no_more_than_its_person(tracked: Tracker) -> None:
    await tracked.people.set_level("acme", str(SMS["recipient"]), Level.ANONYMOUS)
    (path,) = await make(tracked, SMS)
    await tracked.people.set_level("acme", str(SMS["recipient"]), Level.FULL)
    assert (await tracked.get(path)).status == 302
    assert [event.recipient for event in await tracked.events()] == [None], "as it was when the link was made"


async def test_all_links_are_made_or_none_and_the_wrong_one_is_named(tracked: Tracker) -> None:
    written, way = Written(), way_of(tracked)
    for wrong, told in (
        ({"target": "javascript:x"}, r"links\[1\]: target"),
        ({"target": ""}, r"links\[1\]: target"),
        ({"target": "https://shop.example/" + "x" * 1_900}, r"\[1\].target"),
        ({"target": "https://shop.example/" + Random(1).randbytes(900).hex()}, r"links\[1\]: .*too long"),
        ({"short": False}, r"links\[1\]: channel"),
        ({"channel": "SMS!"}, r"\[1\].channel"),
        ({"recipient": "x" * 513}, r"\[1\].recipient"),
        ({"recipient": 5}, r"\[1\].recipient"),
    ):
        with pytest.raises(UsageError, match=told):
            await make_links([SMS, {**SMS, **wrong}], lambda domain: way, written, os.urandom)
    for body in ([], [SMS] * (LINKS_LIMIT + 1), {}, None, "x", [None]):
        with pytest.raises(UsageError):
            await make_links(body, lambda domain: way, written, os.urandom)
    assert written.references == []
    assert len(await make_links([SMS] * LINKS_LIMIT, lambda domain: way, written, os.urandom)) == LINKS_LIMIT
    assert len({one.id for one in written.references}) == LINKS_LIMIT


async def test_a_store_that_hangs_or_fails_asks_the_visitor_to_come_again(
    tracked: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(Written):
        hangs = True

        async def find(self, id_: bytes) -> Reference | None:
            if self.hangs:
                await asyncio.sleep(60)
            raise StoreError("references.db: disk I/O error")

    monkeypatch.setattr(endpoints, "LOOK_UP_SECONDS", 0.05)
    click, stop = await make(tracked, SMS, {**SMS, "target": "", "purpose": "unsubscribe"})
    faulty = Faulty()
    apps = endpoints.endpoints(dataclasses.replace(tracked.tracking, references=faulty))
    for faulty.hangs in (True, False):
        for path, method in ((click, "GET"), (stop, "GET"), (stop, "POST")):
            status, headers = await asked(apps[path[1]], method, path)
            assert status == 503, path
            assert headers[b"retry-after"] == b"30"
    assert await tracked.events() == []


async def asked(app: Any, method: str, path: str) -> tuple[int, dict[bytes, bytes]]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"List-Unsubscribe=One-Click"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(
        {"type": "http", "method": method, "path": path, "headers": [], "client": ("127.0.0.1", 1)}, receive, send
    )
    return sent[0]["status"], dict(sent[0]["headers"])


# --- the file


def reference(number: int, token: str = "AAE") -> Reference:
    return Reference(number.to_bytes(7, "big"), token, "sms")


async def test_references_outlive_the_process_until_they_are_forgotten(tmp_path: Path) -> None:
    clock = cycle([1_000, 2_000])
    references = SqliteReferences.open(tmp_path, lambda: next(clock))
    await references.keep([reference(1)])
    await references.keep([reference(2)])
    await references.close()
    references = SqliteReferences.open(tmp_path, lambda: 3_000)
    assert await references.find(reference(1).id) == reference(1)
    assert await references.find(reference(3).id) is None
    await references.forget(2_000)
    assert await references.find(reference(1).id) is None
    assert await references.find(reference(2).id) == reference(2)
    await references.close()
    assert (tmp_path / FILE_NAME).stat().st_mode & 0o077 == 0


async def test_what_is_told_is_on_disk_already(tmp_path: Path) -> None:
    """Another connection, which knows nothing of this one's memory."""
    references = SqliteReferences.open(tmp_path, lambda: 1_000)
    await references.keep([reference(1)])
    (found,) = sqlite3.connect(tmp_path / FILE_NAME).execute('SELECT token, channel FROM "references"').fetchall()
    assert found == ("AAE", "sms")
    await references.close()


async def test_an_id_that_is_taken_keeps_all_of_its_batch_out(tmp_path: Path) -> None:
    references = SqliteReferences.open(tmp_path, lambda: 1_000)
    await references.keep([reference(1, "first")])
    with pytest.raises(StoreError):
        await references.keep([reference(2), reference(1, "second")])
    assert await references.find(reference(2).id) is None
    assert await references.find(reference(1).id) == reference(1, "first"), "nobody's link leads elsewhere of a sudden"
    await references.close()


async def test_a_full_disk_is_told_and_outlived(tmp_path: Path) -> None:
    references = SqliteReferences.open(tmp_path, lambda: 1_000)
    await references.keep([reference(1)])
    pages = references._connection.execute("PRAGMA page_count").get
    references._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [structs.replace(reference(number), token="x" * 1_000) for number in range(2, 50)]
    with pytest.raises(StoreFullError):
        await references.keep(many)
    assert await references.find(many[0].id) is None
    assert await references.find(reference(1).id) == reference(1)
    references._connection.execute("PRAGMA max_page_count = 100000")
    await references.keep(many)
    assert await references.find(many[-1].id) == many[-1]
    await references.close()


async def test_only_so_many_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references_module, "REMEMBERED", 3)
    references = SqliteReferences.open(tmp_path, lambda: 1_000)
    await references.keep([reference(number) for number in range(5)])
    for number in (0, 1, 2, 0, 3, 4):
        assert await references.find(reference(number).id) == reference(number)
    assert list(references._known) == [reference(number).id for number in (0, 3, 4)]
    await references.close()

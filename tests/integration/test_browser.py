"""A real browser: pages under a strict policy tell what happens on them, and a message tells how long it was open."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.capturing import Kept, serving
from tests.integration.chromium import FLAGS

from aftersend.capture import reading
from aftersend.capture.beacon import Beacon
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Tracking
from aftersend.capture.exchange import Answer, respond
from aftersend.capture.links import Link, Links
from aftersend.capture.reading import ReadingTime
from aftersend.capture.tokens import Purpose
from aftersend.capture.visits import Addresses, Witness
from aftersend.core.consent import Level
from aftersend.core.event import Event
from aftersend.core.registry import Site
from aftersend.telemetry import Telemetry

pytestmark = [pytest.mark.server("chromium"), pytest.mark.slow]

KEY = "k1"
STEPS = """
aftersend.set({profile_id: "p1", campaign_id: "c1"});
aftersend.popup("open", "spring", {step: 1});
aftersend.popup("post", "spring", {coupon: "X1"});
"""
LEAVE = 'aftersend.popup("close", "spring"); location.href = "/next";'


class Pages:
    """A web site: its pages by path, each under a policy that allows the tracking host and one inline script."""

    def __init__(self) -> None:
        self.tracking = ""
        self.content: dict[str, str] = {"/next": "<p>next</p>"}
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        self.violations: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/violation":
            self.violations.append((await receive())["body"])
            await respond(send, Answer(204))
            return
        body = self.content.get(scope["path"])
        html = f'<!doctype html><html lang="en"><title>A page</title><body>{body}</body></html>'
        policy = (
            f"default-src 'none'; script-src {self.tracking} 'nonce-n1'; connect-src {self.tracking}; "
            f"img-src {self.tracking}; report-uri /violation"
        )
        answer = Answer(
            404 if body is None else 200,
            html.encode(),
            b"text/html; charset=utf-8",
            ((b"content-security-policy", policy.encode()), *self.headers),
        )
        await respond(send, answer)

    def put(self, path: str, script: str, before: str = "", attributes: str = "") -> None:
        """A page with the snippet, and a script of its own before and after it."""
        self.content[path] = (
            f'<script nonce="n1">{before}</script>'
            f'<script src="{self.tracking}/aftersend.js" data-site="{KEY}" {attributes}></script>'
            f'<script nonce="n1">{script}</script>'
        )


class Stand:
    """A site, a tracking host on another origin, and a browser."""

    def __init__(self, pages: Pages, site_url: str, kept: Kept, sites: dict[str, Site], telemetry: Telemetry) -> None:
        self.pages, self.site_url, self.kept, self.sites, self.telemetry = pages, site_url, kept, sites, telemetry

    async def until(self, count: int) -> list[Event]:
        """The events, as soon as there are so many."""
        async with asyncio.timeout(30):
            while len(self.kept.events) < count:
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.7)
        assert not self.pages.violations, "the page's policy forbids something that the snippet does"
        return self.kept.events


@pytest.fixture
async def browse(programs: dict[str, str], tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
    """Opens an address in a new browser; each ends with the test."""
    opened: list[asyncio.subprocess.Process] = []

    async def browse_to(url: str) -> None:
        folder = tmp_path / f"browser{len(opened)}"
        command = (programs["chromium"], *FLAGS, f"--user-data-dir={folder}", url)
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"HOME": str(tmp_path)},
            start_new_session=True,
        )
        opened.append(process)

    yield browse_to
    for process in opened:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        await process.wait()


@asynccontextmanager
async def standing(handlers: dict[str, Any] | None = None) -> AsyncIterator[Stand]:
    kept, pages, telemetry = Kept(), Pages(), Telemetry()
    sites: dict[str, Site] = {}
    beacon = Beacon(sites=sites, hits=kept, clock=kept.clock, chance=kept.chance, telemetry=telemetry)

    async def tracking(scope: dict[str, Any], receive: Any, send: Any) -> None:
        first = scope["path"].split("/")[1]
        await (handlers or {}).get(first, beacon)(scope, receive, send)

    async with serving(tracking) as tracking_port, serving(pages) as page_port:
        pages.tracking = f"http://127.0.0.1:{tracking_port}"
        site_url = f"http://localhost:{page_port}"
        sites[KEY] = Site(name="shop", tenant="acme", key=KEY, origins=(site_url,))
        yield Stand(pages, site_url, kept, sites, telemetry)


def told(events: list[Event]) -> list[tuple[str, str | None]]:
    return [(event.source.word, event.url_name) for event in events]


EVERYTHING = [("page_view", "A page"), ("popup_open", "spring"), ("popup_post", "spring"), ("popup_close", "spring")]


@pytest.mark.parametrize(
    "before",
    [
        "",
        "navigator.sendBeacon = () => false;",
        "delete Navigator.prototype.sendBeacon;",
        "delete Navigator.prototype.sendBeacon; delete window.fetch;",
    ],
    ids=["beacon", "beacon full", "fetch", "images"],
)
async def test_views_and_popups_arrive_even_as_the_page_is_left(browse: Any, before: str) -> None:
    async with standing() as stand:
        stand.pages.put("/", STEPS + LEAVE, before)
        await browse(stand.site_url + "/")
        events = await stand.until(4)
    assert sorted(told(events)) == sorted(EVERYTHING)
    view, opened = (
        next(event for event in events if event.source.word == word) for word in ("page_view", "popup_open")
    )
    assert view.url == opened.url == stand.site_url + "/"
    assert (view.tenant, view.profile_id, opened.profile_id, opened.campaign_id) == ("acme", None, "p1", "c1")
    assert opened.extra["data"] == {"step": 1}
    assert opened.user_agent is not None
    assert "Chrome" in opened.user_agent


async def test_events_arrive_while_the_page_stays_open(browse: Any) -> None:
    async with standing() as stand:
        stand.pages.put("/", STEPS, attributes='data-profile="p0" data-campaign="c0"')
        await browse(stand.site_url + "/")
        events = await stand.until(3)
    assert told(events) == EVERYTHING[:3], "in one batch, in order"
    assert (events[0].profile_id, events[0].campaign_id) == ("p0", "c0")


async def test_a_page_may_tell_its_views_itself_and_no_mistake_breaks_it(browse: Any) -> None:
    script = 'aftersend.popup("explode"); aftersend.popup("error", "", {cause: {deep: 1}}); aftersend.view("Cart");'
    async with standing() as stand:
        stand.pages.put("/", script, attributes='data-views="off"')
        await browse(stand.site_url + "/")
        events = await stand.until(2)
    assert told(events) == [("popup_error", None), ("page_view", "Cart")]
    assert events[0].extra["data"] == {"cause": "[object Object]"}


async def test_a_pages_own_request_passes_the_browsers_preflight_and_its_answer_can_be_read(browse: Any) -> None:
    script = """
    fetch("%s/beacon?k=%s", {
      method: "POST", credentials: "include", headers: {"content-type": "application/json"},
      body: JSON.stringify([{type: "popup_open", name: "own"}, {type: "nonsense"}]),
    }).then((answer) => answer.json()).then((said) => aftersend.view(JSON.stringify(said.rejected[0].reason)));
    """
    async with standing() as stand:
        stand.pages.put("/", script % (stand.pages.tracking, KEY), attributes='data-views="off"')
        await browse(stand.site_url + "/")
        assert told(await stand.until(2)) == [("popup_open", "own"), ("page_view", '"unknown_type"')]


async def test_a_page_without_script_is_seen_by_its_pixel(browse: Any) -> None:
    async with standing() as stand:
        stand.pages.content["/"] = f'<img src="{stand.pages.tracking}/pixel.gif?k={KEY}&n=Plain" alt="">'
        await browse(stand.site_url + "/")
        (event,) = await stand.until(1)
    assert (event.source.word, event.url_name) == ("page_view", "Plain")
    assert event.url == stand.site_url + "/", "browsers tell another origin no more than this"


async def test_a_page_of_another_origin_is_not_heard(browse: Any) -> None:
    async with standing() as stand:
        stand.sites[KEY] = Site(name="shop", key=KEY, origins=("https://shop.example",))
        stand.pages.put("/", STEPS)
        await browse(stand.site_url + "/")
        async with asyncio.timeout(30):
            while 'beacons_refused_total{reason="origin_not_listed"}' not in stand.telemetry.text():
                await asyncio.sleep(0.05)
    assert not stand.kept.events


async def test_a_page_that_tells_no_referrer_is_heard_all_the_same(browse: Any) -> None:
    async with standing() as stand:
        stand.pages.headers = ((b"referrer-policy", b"no-referrer"),)
        stand.pages.put("/", STEPS)
        await browse(stand.site_url + "/")
        assert told(await stand.until(3)) == EVERYTHING[:3]


async def test_a_message_in_a_browser_tells_how_long_it_was_open(browse: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ_MS", 5_000)
    monkeypatch.setattr(reading, "SKIMMED_MS", 1_000)
    links = Links(lambda purpose, key_id: (purpose.encode() * 32)[:32])
    token = links.seal(Link(Purpose.READ, reading.Level.FULL, 1, 1, "alice@example.org", "m1"), "0a1b2c3d")
    kept = Kept()
    tracking = Tracking(
        addresses=Addresses(links, {1: "acme"}, {}),
        hits=kept,
        people=Nobody(),
        clients=ClientAddresses(),
        throttle=Throttle(kept.clock),
        witness=Witness(kept.clock, kept.chance),
        telemetry=Telemetry(),
    )
    async with standing({"r": ReadingTime(tracking, enabled=True)}) as stand:
        leave = 'setTimeout(() => { location.href = "/next"; }, 2000);'
        picture = f'<img src="{stand.pages.tracking}/r/{token}" width="1" height="1" alt="">'
        stand.pages.content["/"] = f'<p>A message</p>{picture}<script nonce="n1">{leave}</script>'
        await browse(stand.site_url + "/")
        async with asyncio.timeout(30):
            while not kept.events:
                await asyncio.sleep(0.05)
    (event,) = kept.events
    assert (event.type, event.recipient, event.extra["supported"]) == ("email.skimmed", "alice@example.org", True)
    assert 1_000 < event.extra["duration_ms"] < 4_000


class Nobody:
    """No person has said how much of what they do may be kept."""

    def level(self, tenant: str, person_key: bytes) -> Level:
        return Level.FULL

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        raise AssertionError

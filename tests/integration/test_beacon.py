"""The beacon over real sockets: who is heard, what a browser is allowed, and what is kept."""

from __future__ import annotations

import gzip
import json
from urllib.parse import quote

import pytest
from tests.integration.capturing import NOW, Head, Kept, exchange, serving

from aftersend.capture import beacon
from aftersend.capture.beacon import Beacon
from aftersend.capture.exchange import PIXEL
from aftersend.core.registry import Site
from aftersend.core.timestamps import SECOND
from aftersend.telemetry import Telemetry

PAGE = "https://shop.example"
SITES = {
    "k1": Site(name="shop", tenant="acme", key="k1", origins=(PAGE, "https://*.wide.example")),
    "k2": Site(name="closed", key="k2", origins=(PAGE,), enabled=False),
    "k3": Site(name="hidden", key="k3", origins=("null",)),
}
FROM_PAGE = {"Origin": PAGE, "Content-Type": "text/plain;charset=UTF-8"}
OPEN = {"type": "popup_open", "name": "spring", "url": PAGE + "/"}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def handler(kept: Kept, telemetry: Telemetry) -> Beacon:
    return Beacon(sites=SITES, hits=kept, clock=kept.clock, chance=kept.chance, telemetry=telemetry)


async def post(
    handler: Beacon, value: object, headers: dict[str, str] | None = None, key: str = "k1"
) -> tuple[Head, dict[str, object]]:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    async with serving(handler) as port:
        head, answer = await exchange(port, "POST", f"/beacon?k={key}", body, FROM_PAGE if headers is None else headers)
    return head, json.loads(answer)


@pytest.mark.parametrize("content_type", ["text/plain;charset=UTF-8", "application/json"])
async def test_a_batch_as_a_browser_sends_it_is_kept(handler: Beacon, kept: Kept, content_type: str) -> None:
    head, said = await post(
        handler, [OPEN, {"type": "page_view"}], {"Origin": PAGE, "Content-Type": content_type, "User-Agent": "Firefox"}
    )
    assert (head.status, said) == (200, {"accepted": 2, "rejected": []})
    assert [(event.type, event.source.name, event.tenant) for event in kept.events] == [
        ("popup.opened", "shop", "acme"),
        ("web.pixel_opened", "shop", "acme"),
    ]
    assert {(event.ip, event.user_agent, event.time) for event in kept.events} == {("127.0.0.1", "Firefox", NOW)}
    assert "set-cookie" not in head.headers


async def test_the_page_may_read_the_answer_and_no_other(handler: Beacon) -> None:
    head, _ = await post(handler, OPEN)
    assert head.headers["access-control-allow-origin"] == PAGE
    assert head.headers["access-control-allow-credentials"] == "true"
    assert head.headers["vary"] == "origin"


@pytest.mark.parametrize("origin", [PAGE, "https://a.wide.example", "https://a.b.wide.example"])
async def test_listed_origins_are_heard(handler: Beacon, kept: Kept, origin: str) -> None:
    head, _ = await post(handler, OPEN, {"Origin": origin})
    assert (head.status, len(kept.events)) == (200, 1)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "http://shop.example"},
        {"Origin": "https://shop.example.evil.example"},
        {"Origin": "null"},
        {"Origin": "https://evil.example", "Referer": PAGE + "/"},
        {"Referer": "https://evil.example/https://shop.example/"},
        {},
    ],
)
async def test_pages_that_are_not_listed_are_not_heard(handler: Beacon, kept: Kept, headers: dict[str, str]) -> None:
    head, said = await post(handler, OPEN, headers)
    assert (head.status, said["error"], kept.events) == (403, "origin_not_listed", [])
    assert "access-control-allow-origin" not in head.headers


async def test_an_old_browser_says_where_it_is_in_the_referer(handler: Beacon, kept: Kept) -> None:
    head, _ = await post(handler, OPEN, {"Referer": PAGE + "/cart?x=1"})
    assert (head.status, len(kept.events)) == (200, 1)


async def test_pages_that_hide_where_they_are_can_be_listed_as_null(handler: Beacon, kept: Kept) -> None:
    assert (await post(handler, OPEN, {"Origin": "null"}, key="k3"))[0].status == 200
    assert len(kept.events) == 1


@pytest.mark.parametrize("key", ["k2", "unknown", ""])
async def test_a_site_that_is_unknown_or_closed_is_not_heard(handler: Beacon, kept: Kept, key: str) -> None:
    head, said = await post(handler, OPEN, key=key)
    assert (head.status, said["error"], kept.events) == (404, "unknown_site", [])


async def test_a_preflight_is_answered_for_listed_origins_alone(handler: Beacon) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with serving(handler) as port:
        good, _ = await exchange(port, "OPTIONS", "/beacon?k=k1", headers={"Origin": PAGE, **asked})
        evil, _ = await exchange(port, "OPTIONS", "/beacon?k=k1", headers={"Origin": "https://evil.example", **asked})
        other, _ = await exchange(port, "OPTIONS", "/beacon?k=nobody", headers={"Origin": PAGE, **asked})
    assert good.status == 204
    assert good.headers["access-control-allow-origin"] == PAGE
    assert good.headers["access-control-allow-methods"] == "POST"
    assert good.headers["access-control-allow-headers"] == "content-type"
    assert [(head.status, "access-control-allow-origin" in head.headers) for head in (evil, other)] == [
        (403, False)
    ] * 2


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        (b"", 400, "empty_body"),
        (b"{", 400, "invalid_json"),
        (b"\xff", 400, "invalid_utf8"),
        (json.dumps([OPEN] * 101).encode(), 400, "too_many"),
        (b"[" + b" " * 65_536 + b"]", 413, "too_large"),
    ],
)
async def test_a_body_that_is_no_batch_is_refused_and_the_page_can_read_why(
    handler: Beacon, kept: Kept, body: bytes, status: int, reason: str
) -> None:
    head, said = await post(handler, body)
    assert (head.status, said["error"], kept.events) == (status, reason, [])
    assert head.headers["access-control-allow-origin"] == PAGE


async def test_a_bad_event_loses_itself_alone(handler: Beacon, kept: Kept) -> None:
    _, said = await post(handler, [OPEN, {"type": "popup_explode"}, OPEN])
    assert said["accepted"] == len(kept.events) == 2
    assert [item["index"] for item in said["rejected"]] == [1]  # type: ignore[attr-defined]


async def test_what_is_not_kept_is_not_confirmed(handler: Beacon, kept: Kept) -> None:
    kept.takes = False
    head, said = await post(handler, OPEN)
    assert (head.status, said["error"]) == (503, "not_kept")


async def test_an_address_that_tells_too_much_is_told_to_wait(
    handler: Beacon, kept: Kept, telemetry: Telemetry
) -> None:
    batch = [OPEN] * 60
    async with serving(handler) as port:
        for status in (200, 200, 429):
            head, _ = await exchange(port, "POST", "/beacon?k=k1", json.dumps(batch).encode(), FROM_PAGE)
            assert head.status == status
        assert head.headers["retry-after"] == "10"
        kept.now += 30 * SECOND
        head, _ = await exchange(port, "POST", "/beacon?k=k1", json.dumps(batch).encode(), FROM_PAGE)
        assert head.status == 200
    assert len(kept.events) == 180
    assert 'page_events_limited_total{site="shop"} 60' in telemetry.text()


async def test_addresses_have_rates_of_their_own_and_share_the_sites(
    kept: Kept, telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beacon, "SITE_BURST", 3.0)
    address = {"now": "192.0.2.1"}
    handler = Beacon(
        sites=SITES,
        hits=kept,
        clock=kept.clock,
        chance=kept.chance,
        telemetry=telemetry,
        address_of=lambda scope: address["now"],
    )
    found = []
    for number in range(5):
        address["now"] = f"192.0.2.{number}"
        found.append((await post(handler, OPEN))[0].status)
    assert found == [200, 200, 200, 429, 429]
    assert [event.ip for event in kept.events] == ["192.0.2.0", "192.0.2.1", "192.0.2.2"]


# GET /pixel.gif


async def pixel(handler: Beacon, query: str, headers: dict[str, str]) -> None:
    async with serving(handler) as port:
        head, body = await exchange(port, "GET", f"/pixel.gif?{query}", headers=headers)
    assert (head.status, head.headers["content-type"], body) == (200, "image/gif", PIXEL)
    assert head.headers["cache-control"] == "no-store"
    assert head.headers["cross-origin-resource-policy"] == "cross-origin"


async def test_a_page_without_script_is_viewed_by_its_pixel(handler: Beacon, kept: Kept) -> None:
    await pixel(handler, "k=k1&n=Start", {"Referer": PAGE + "/start"})
    (event,) = kept.events
    assert (event.type, event.url, event.url_name) == ("web.pixel_opened", PAGE + "/start", "Start")


async def test_an_old_browser_tells_its_events_by_the_pixel(handler: Beacon, kept: Kept) -> None:
    await pixel(handler, "k=k1&b=" + quote(json.dumps(OPEN)), {"Referer": PAGE + "/"})
    assert [(event.type, event.url_name) for event in kept.events] == [("popup.opened", "spring")]


@pytest.mark.parametrize(
    ("query", "referer"),
    [
        ("k=unknown", PAGE),
        ("k=k2", PAGE),
        ("", PAGE),
        ("k=k1", "https://evil.example/"),
        ("k=k1", ""),
        ("k=k1&b=" + quote("{"), PAGE),
        ("k=k1&b=" + quote('{"type":"popup_explode"}'), PAGE),
        ("k=k1&b=" + "x" * 10_000, PAGE),
    ],
)
async def test_the_dot_comes_whatever_is_wrong_and_nothing_is_kept(
    handler: Beacon, kept: Kept, query: str, referer: str
) -> None:
    await pixel(handler, query, {"Referer": referer} if referer else {})
    assert not kept.events


# GET /aftersend.js


async def test_the_script_is_small_and_kept_by_browsers_for_a_while(handler: Beacon) -> None:
    async with serving(handler) as port:
        plain, source = await exchange(port, "GET", "/aftersend.js")
        packed, data = await exchange(port, "GET", "/aftersend.js", headers={"Accept-Encoding": "gzip, br"})
        again, nothing = await exchange(port, "GET", "/aftersend.js", headers={"If-None-Match": plain.headers["etag"]})
        head, no_body = await exchange(port, "HEAD", "/aftersend.js")
    assert gzip.decompress(data) == source
    assert len(data) < 3_000
    assert (again.status, nothing, head.status, no_body) == (304, b"", 200, b"")
    for answer in (plain, packed):
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.headers["cache-control"] == "public, max-age=3600"
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
        assert answer.headers["vary"] == "accept-encoding"


async def test_the_script_does_nothing_that_a_strict_policy_forbids(handler: Beacon) -> None:
    async with serving(handler) as port:
        _, source = await exchange(port, "GET", "/aftersend.js")
    for word in (b"eval(", b"new Function", b"innerHTML", b".style", b"document.write", b"Storage", b".cookie"):
        assert word not in source


async def test_other_methods_and_paths_are_refused(handler: Beacon) -> None:
    async with serving(handler) as port:
        for method, path, status in (
            ("GET", "/beacon?k=k1", 405),
            ("POST", "/pixel.gif?k=k1", 405),
            ("POST", "/aftersend.js", 405),
            ("GET", "/beacon/x", 404),
        ):
            head, _ = await exchange(port, method, path, headers={"Origin": PAGE})
            assert head.status == status, path

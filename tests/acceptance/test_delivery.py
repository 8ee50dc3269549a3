"""Subscriptions over HTTP: dialects out, signatures, receivers that fail, and several at once."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import parse_qs

import msgspec
import pytest
from standardwebhooks import Webhook
from tests.acceptance.conftest import Inlet, Server

from aftersend.core.signing import Verifier, format_private_key, format_secret, public_key

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"
Inlets = Callable[[], Awaitable[Inlet]]
QUICK = {"batch": {"max_events": 100, "max_wait": 0.01}, "retry": [0.05], "start": "beginning"}


def rows(start: int, end: int) -> bytes:
    return msgspec.json.encode(
        [
            {
                "id": str(number),
                "type": "email.delivered",
                "time": "2026-01-15T08:00:00Z",
                "recipient": f"r{number}@example.org",
            }
            for number in range(start, end)
        ]
    )


async def subscribe(server: Server, name: str, inlet: Inlet, **fields: object) -> dict[str, object]:
    made = await server.json("POST", "/v1/subscriptions", {"name": name, "url": inlet.url, **QUICK, **fields}, 201)
    assert isinstance(made, dict)
    return made


async def standing(server: Server, name: str) -> dict[str, object]:
    shown = await server.json("GET", f"/v1/subscriptions/{name}")
    assert isinstance(shown, dict)
    found = shown["standing"]
    assert isinstance(found, dict)
    return found


async def test_events_of_every_vendor_go_out_in_every_dialect(server: Server, inlets: Inlets) -> None:
    dialects = (
        "canonical",
        "cloudevents/batched",
        "cloudevents/structured",
        "pure360/http",
        "pure360/csv",
        "pure360/ftp",
        "activatepro/api",
        "activatepro/feed",
        "altcraft",
        "halon",
        "messagegears",
    )
    taken: dict[str, Inlet] = {}
    for dialect in dialects:
        inlet = taken[dialect] = await inlets()
        if dialect.startswith("pure360"):
            inlet.answer = answer_ok
        await subscribe(server, dialect.replace("/", "-"), inlet, dialect=dialect)
    for dialect, file in (
        ("pure360", "pure360/http/OPEN.normalised.form"),
        ("activatepro", "activatepro/api/Message_Clicked.json"),
        ("altcraft", "altcraft/hook_click_new_envelope.json"),
        ("halon", "halon/batch_mixed.json"),
        ("messagegears", "messagegears/canonical_v31/_mixed_batch.xml"),
    ):
        await server.request("POST", f"/v1/events/{dialect}", (FIXTURES / file).read_bytes())
    for dialect, inlet in taken.items():
        await inlet.until(lambda inlet=inlet: bool(inlet.requests))  # type: ignore[misc]
        assert inlet.requests[0][1], dialect
    clicks = [event for event in taken["canonical"].events() if event["type"] == "email.clicked"]
    await taken["halon"].until(
        lambda: len([event for event in taken["halon"].events() if event["type"] == "click"]) >= len(clicks)
    )
    forms = [parse_qs(body.decode()) for _, body in taken["pure360/http"].requests]
    assert {"OPEN", "CLICK"} <= {form["type"][0] for form in forms}
    assert b"<ActivityItems xmlns=" in taken["messagegears"].requests[0][1]


async def answer_ok(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    return 200, b"OK"


async def test_the_reference_library_verifies_our_signatures_also_while_keys_change(
    server: Server, inlets: Inlets
) -> None:
    inlet = await inlets()
    old, new = format_secret(bytes(32)), format_secret(bytes(range(32)))
    private = format_private_key(bytes(range(1, 33)))
    await subscribe(server, "signed", inlet, signing_secrets=[new, private, old])
    await server.request("POST", "/v1/events", rows(0, 3))
    await inlet.until(lambda: len(inlet.events()) == 3)
    for headers, body in inlet.requests:
        for secret in (old, new):
            assert Webhook(secret).verify(body, headers)
        now = int(headers["webhook-timestamp"])
        Verifier([public_key(private)]).verify(headers, body, now)


async def test_a_made_secret_is_shown_once_and_masked_ever_after(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()
    made = await subscribe(server, "once", inlet, headers={"Authorization": "Bearer deep-secret"})
    (secret,) = made["signing_secrets"]  # type: ignore[misc]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{44}", secret)
    for path in ("/v1/subscriptions", "/v1/subscriptions/once"):
        _, body, _ = await server.request("GET", path)
        assert secret.encode() not in body
        assert b"deep-secret" not in body
    files = b"".join(path.read_bytes() for path in server.data.rglob("*.db*"))
    assert secret.encode() not in files
    assert b"deep-secret" not in files
    await server.request("POST", "/v1/events", rows(0, 1))
    await inlet.until(lambda: bool(inlet.requests))
    assert inlet.requests[0][0]["authorization"] == "Bearer deep-secret"
    assert Webhook(secret).verify(inlet.requests[0][1], inlet.requests[0][0])


@pytest.mark.parametrize("status", [400, 401, 404, 500, 301])
async def test_a_receiver_that_recovers_has_lost_nothing_and_nothing_was_set_aside(
    server: Server, inlets: Inlets, status: int
) -> None:
    inlet = await inlets()

    async def refuse(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return status, b"not today"

    inlet.answer = refuse
    await subscribe(server, "wobbly", inlet)
    await server.request("POST", "/v1/events", rows(0, 250))
    async with asyncio.timeout(60):
        while int((await standing(server, "wobbly"))["failures"]) < 3:  # type: ignore[call-overload]
            await asyncio.sleep(0.02)
    assert await server.json("GET", "/v1/subscriptions/wobbly/aside") == []
    shown = await standing(server, "wobbly")
    assert shown["sequence"] == 0
    assert "\n" not in str(shown["detail"])
    inlet.answer = inlet.take
    await inlet.until(lambda: len(inlet.events()) >= 250)
    assert [event["recipient"] for event in inlet.events()] == [f"r{number}@example.org" for number in range(250)]
    assert await server.json("GET", "/v1/subscriptions/wobbly/aside") == []


async def test_healthy_receivers_get_everything_beside_a_dead_and_a_dripping_one(
    server: Server, inlets: Inlets
) -> None:
    healthy = [await inlets() for _ in range(5)]
    dripping = await inlets()

    async def drip(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        await asyncio.sleep(60)
        return 200, b""

    dripping.answer = drip
    for number, inlet in enumerate(healthy):
        await subscribe(server, f"healthy-{number}", inlet)
    await subscribe(server, "dripping", dripping, timeout=1)
    dead = Inlet()
    dead.url = "http://127.0.0.1:1025/"
    await subscribe(server, "dead", dead)
    for start in range(0, 1_000, 100):
        await server.request("POST", "/v1/events", rows(start, start + 100))
    for inlet in healthy:
        await inlet.until(lambda inlet=inlet: len(inlet.events()) >= 1_000)  # type: ignore[misc]
        assert [event["recipient"] for event in inlet.events()] == [f"r{number}@example.org" for number in range(1_000)]
    assert (await standing(server, "dead"))["sequence"] == 0


async def test_one_poison_event_blocks_nobody_and_can_be_tried_again(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()

    async def choosy(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return (422, b"r7 is odd") if b'"r7@' in body else (200, b"")

    inlet.answer = choosy
    await subscribe(server, "choosy", inlet, retry=[30])
    await server.request("POST", "/v1/events", rows(0, 50))
    await inlet.until(lambda: len(inlet.events()) == 49)
    async with asyncio.timeout(60):
        while not (aside := await server.json("GET", "/v1/subscriptions/choosy/aside")):
            await asyncio.sleep(0.02)
    assert [item["event"]["recipient"] for item in aside] == ["r7@example.org"]  # type: ignore[attr-defined]
    inlet.answer = inlet.take
    assert await server.json("POST", "/v1/subscriptions/choosy/aside/retry") == {"again": 1}
    await inlet.until(lambda: len(inlet.events()) == 50)
    headers, _ = inlet.requests[-1]
    assert headers["aftersend-late"] == "true"
    assert headers["aftersend-sequence"] == "8-8"


async def test_the_receiver_names_what_it_did_not_take(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()

    async def partly(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        bad = [event["id"] for event in json.loads(body) if event["recipient"] == "r3@example.org"]
        return 207, json.dumps({"failed": bad}).encode()

    inlet.answer = partly
    await subscribe(server, "partly", inlet, retry=[30])
    await server.request("POST", "/v1/events", rows(0, 10))
    async with asyncio.timeout(60):
        while not (aside := await server.json("GET", "/v1/subscriptions/partly/aside")):
            await asyncio.sleep(0.02)
    assert [item["event"]["recipient"] for item in aside] == ["r3@example.org"]  # type: ignore[attr-defined]
    assert (await standing(server, "partly"))["sequence"] == 10


async def test_pausing_changing_and_ending_a_subscription(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()
    await subscribe(server, "mine", inlet, types=["email.opened"])
    await server.json("PATCH", "/v1/subscriptions/mine", {"state": "paused"})
    await server.json("PATCH", "/v1/subscriptions/mine", {"types": ["email.delivered"]})
    await server.request("POST", "/v1/events", rows(0, 5))
    await asyncio.sleep(0.2)
    assert inlet.requests == []
    await server.json("PATCH", "/v1/subscriptions/mine", {"state": "active"})
    await inlet.until(lambda: len(inlet.events()) == 5)
    assert inlet.requests[0][0]["aftersend-epoch"] == "2"
    for wrong in (
        {"id": "x"},
        {"nonsense": 1},
        {"state": "sleepy"},
        {"batch": {"max_events": 0}},
        {"dialect": "klingon"},
    ):
        status, body, _ = await server.request("PATCH", "/v1/subscriptions/mine", msgspec.json.encode(wrong))
        assert status == 400, (wrong, body)
    assert (await server.request("DELETE", "/v1/subscriptions/mine"))[0] == 204
    assert (await server.request("GET", "/v1/subscriptions/mine"))[0] == 404


async def test_addresses_inside_are_refused_when_a_subscription_is_made(server: Server) -> None:
    for url in (
        "http://10.0.0.1/",
        "http://169.254.169.254/latest",
        "http://[::ffff:10.0.0.1]/",
        "ftp://example.org/",
        "nonsense",
    ):
        status, body, _ = await server.request(
            "POST", "/v1/subscriptions", msgspec.json.encode({"name": "inside", "url": url})
        )
        assert status == 400, (url, body)


async def test_a_replay_counts_first_and_tells_again_marked(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()
    await subscribe(server, "again", inlet)
    await server.request("POST", "/v1/events", rows(0, 20))
    await inlet.until(lambda: len(inlet.events()) == 20)
    order = {"since": "2026-01-01T00:00:00Z", "dry_run": True}
    counted = await server.json("POST", "/v1/subscriptions/again/replay", order)
    assert (counted["total"], counted["state"]) == (20, "done")  # type: ignore[index]
    assert len(inlet.events()) == 20
    await server.json("POST", "/v1/subscriptions/again/replay", order | {"dry_run": False}, 202)
    await inlet.until(lambda: len(inlet.events()) == 40)
    marked = [headers for headers, _ in inlet.requests if "aftersend-replay" in headers]
    assert marked
    status, body, _ = await server.request("POST", "/v1/subscriptions/again/replay", b'{"since": "soon"}')
    assert status == 400
    assert b"RFC 3339" in body


async def test_a_restart_goes_on_where_it_stood(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()
    await subscribe(server, "steady", inlet)
    await server.request("POST", "/v1/events", rows(0, 10))
    await inlet.until(lambda: len(inlet.events()) == 10)
    assert await server.stop() == 0
    await server.start()
    await server.request("POST", "/v1/events", rows(10, 20))
    await inlet.until(lambda: len(inlet.events()) >= 20)
    assert [event["recipient"] for event in inlet.events()] == [f"r{number}@example.org" for number in range(20)]


async def test_later_verdicts_are_made_from_the_first_subscription_on_that_asks_for_them(
    server: Server, inlets: Inlets
) -> None:
    plain, corrected = await inlets(), await inlets()
    await subscribe(server, "plain", plain, types=["email.clicked"])
    await server.request("POST", "/v1/events", burst("before"))
    await subscribe(server, "corrected", corrected, types=["email.clicked"], corrections=True)
    await server.request("POST", "/v1/events", burst("after"))
    await corrected.until(lambda: len(reclassified(corrected)) == 6)
    assert {event["actor"]["kind"] for event in reclassified(corrected)} == {"machine"}  # type: ignore[index]
    assert reclassified(plain) == []


def burst(message: str) -> bytes:
    """Three links of a message, all within a second: hardly a person's clicks."""
    clicks = [
        {
            "type": "email.clicked",
            "time": f"2026-01-15T08:00:00.{number}Z",
            "recipient": "alice@example.org",
            "message_id": message,
            "url": f"https://shop.example/{number}",
            "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        }
        for number in range(3)
    ]
    return msgspec.json.encode(clicks)


def reclassified(inlet: Inlet) -> list[dict[str, object]]:
    return [event for event in inlet.events() if event["type"] == "event.reclassified"]

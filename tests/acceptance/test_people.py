"""People, stops, links and apps: what an operator types, and what comes of it on a real server."""

import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.acceptance.conftest import Server, run

HOST = "links.shop.example"
OTHER = "links.other.example"
SECRET = "a secret that is long enough, 32 b"


@pytest.fixture
async def shop(server: Server) -> Server:
    await server.json("POST", "/v1/domains", {"name": HOST}, 201)
    return server


async def follow(server: Server, url: str, host: str = HOST) -> tuple[int, str | None]:
    """Status and target of a link."""
    path = url.removeprefix(f"https://{HOST}").strip()
    async with aiohttp.request("GET", server.url + path, headers={"Host": host}, allow_redirects=False) as answer:
        return answer.status, answer.headers.get("location")


async def typed(server: Server, *arguments: str, status: int = 0) -> str:
    return (await run(*arguments, "--data", str(server.data), status=status)).decode()


async def test_a_persons_level_is_shown_and_set(shop: Server) -> None:
    assert "everything is kept" in await typed(shop, "people", "show", "alice@example.org")
    assert "nothing is kept" in await typed(shop, "people", "set", "alice@example.org", "none")
    told = json.loads(await typed(shop, "people", "show", "Alice@Example.org", "--json"))
    assert told == {"person": "Alice@Example.org", "level": "none"}
    (event,) = await shop.events()
    assert (event["source"]["word"], event["recipient"]) == ("consent", "alice@example.org")  # type: ignore[index]
    for wrong in (("set", "alice@example.org", "some"), ("set", " ", "none"), ("set", "x" * 513, "none"), ("show", "")):
        await typed(shop, "people", *wrong, status=2)
    assert len(await shop.events()) == 1


async def test_stops_are_added_listed_and_removed(shop: Server) -> None:
    assert "Nothing is stopped" in await typed(shop, "stops", "list")
    link = await typed(shop, "links", "https://Old.example/p", "--message-id", "<1/2@shop.example>")
    for typed_name, name in (("message/<1/2@shop.example>",) * 2, ("domain/OLD.example.", "domain/old.example")):
        assert (await follow(shop, link))[0] == 302
        await typed(shop, "stops", "add", typed_name)
        assert (await follow(shop, link))[0] == 410
        (stop,) = json.loads(await typed(shop, "stops", "list", "--json"))
        assert stop["name"] == name
        await typed(shop, "stops", "remove", typed_name)
    assert (await follow(shop, link))[0] == 302
    for wrong in ("planet/mars", "campaign/", "domain/https://old.example/", "domain/старый.example"):
        await typed(shop, "stops", "add", wrong, status=2)
    await typed(shop, "stops", "remove", "campaign/spring", status=1)


async def test_a_short_link_that_was_told_outlives_kill_9(shop: Server) -> None:
    asked = ("--short", "--channel", "sms", "--recipient", "+491511234567")
    link = await typed(shop, "links", "https://shop.example/p", *asked)
    assert len(link.strip()) == len(f"https://{HOST}/c/") + 12
    links = [{"target": f"https://shop.example/{number}", "short": True} for number in range(1_000)]
    made = await shop.json("POST", "/v1/links", links, 201)
    await shop.kill()
    await shop.start()
    assert await follow(shop, link) == (302, "https://shop.example/p")
    for number in (0, 500, 999):
        assert await follow(shop, made[number]["url"]) == (302, links[number]["target"])  # type: ignore[index]


async def test_no_tenants_link_is_answered_on_the_domain_of_another(shop: Server) -> None:
    await shop.json("POST", "/v1/tenants", {"name": "other"}, 201)
    await shop.json("POST", "/v1/domains?tenant=other", {"name": OTHER, "tenant": "other"}, 201)
    for short in ((), ("--short",)):
        link = await typed(shop, "links", "https://shop.example/p", *short)
        assert await follow(shop, link) == (302, "https://shop.example/p")
        assert (await follow(shop, link, OTHER)) == (404, None)
    await typed(shop, "links", "https://shop.example/p", "--domain", OTHER, status=2)
    await typed(shop, "links", "javascript:x", status=2)
    assert {event["tenant"] for event in await shop.events()} == {"default"}


async def test_a_message_to_a_person_who_allows_nothing_is_sent_as_it_is(shop: Server) -> None:
    message = b'To: alice@example.org\r\nContent-Type: text/html\r\n\r\n<a href="https://shop.example/">Look</a>\r\n'
    await typed(shop, "people", "set", "alice@example.org", "none")
    _, body, headers = await shop.request("POST", "/v1/rewrite?unsubscribe=false", message)
    assert body == message
    assert msgspec.json.decode(headers["aftersend-report"])["links"] == 0
    await typed(shop, "people", "set", "alice@example.org", "full")
    _, body, _ = await shop.request("POST", "/v1/rewrite", message)
    assert b"/c/" in body


async def push(server: Server, token: str, host: str = HOST) -> int:
    headers = {"Host": host, "Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = msgspec.json.encode({"time": 1_760_000_000, "smid": token[-20:]})
    async with aiohttp.request("POST", server.url + "/event/push/open", data=body, headers=headers) as answer:
        return answer.status


def signed(**claims: object) -> str:
    pieces = [urlsafe_b64encode(msgspec.json.encode(part)).decode().rstrip("=") for part in ({"alg": "HS256"}, claims)]
    digest = hmac.digest(SECRET.encode(), ".".join(pieces).encode(), "sha256")
    return ".".join([*pieces, urlsafe_b64encode(digest).decode().rstrip("=")])


async def test_an_app_needs_no_key_that_could_hand_events_in(shop: Server, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET)
    token = signed(matching={"email": "john@example.com"})
    assert await push(shop, token) == 401
    await typed(shop, "sources", "add", "weak", "--dialect", "altcraft", "--app-key", "short", status=2)
    shown = await typed(shop, "sources", "add", "shop-app", "--dialect", "altcraft", "--app-key", f"@{file}")
    assert SECRET not in shown + await typed(shop, "sources", "show", "shop-app", "--json")
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in shop.data.glob("*.db*"))
    await shop.stop()
    await shop.start()
    assert await push(shop, token) == 200
    assert await push(shop, token, "127.0.0.1") == 401
    made = json.loads(await typed(shop, "keys", "add", "--scope", "app", "--name", "phones", "--json"))
    assert await push(shop, "rtoken@" + made["key"]) == 200
    for path in ("/v1/events", "/v1/links", "/v1/rewrite", "/events"):
        status, _, _ = await shop.request("POST", path, b"[]", key=made["key"], X_XNG_AuthToken=made["key"])
        assert status in (401, 403), path
    assert (await shop.request("GET", "/v1/events", key=made["key"]))[0] == 403
    first, second = [event for event in await shop.events() if event["type"] == "push.opened"]
    assert (first["recipient"], first["source"]["name"]) == ("john@example.com", "shop-app")  # type: ignore[index]
    assert second["source"]["name"] == "altcraft"  # type: ignore[index]
    await typed(shop, "sources", "remove", "shop-app")
    assert await push(shop, token) == 401


async def test_a_tenant_has_few_keys_of_apps(shop: Server) -> None:
    for number in range(9):
        fields = {"name": f"app{number}", "dialect": "altcraft", "app_key": SECRET}
        await shop.json("POST", "/v1/sources", fields, 201 if number < 8 else 409)

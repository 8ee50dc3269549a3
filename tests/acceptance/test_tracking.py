"""Links of a rewritten message, on a real server: where they lead, and what is kept of who follows them."""

import asyncio
import re
from collections.abc import AsyncIterator
from email import message_from_bytes

import aiohttp
import msgspec
import pytest
from tests.acceptance.conftest import COMMAND, Server, run

HOST = "links.shop.example"
MESSAGE = b"""From: shop@shop.example\r
To: Alice <alice@example.org>\r
Message-ID: <1@shop.example>\r
X-Aftersend-Campaign: spring\r
Subject: Spring\r
Content-Type: text/html; charset=utf-8\r
\r
<html><body><a href="https://shop.example/p?a=1&amp;b=2">Look</a>\r
<a href="mailto:us@shop.example">Write</a></body></html>\r
"""


class Visitor:
    """Whoever opens the message."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def go(
        self, method: str, address: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        path = address.removeprefix(f"https://{HOST}")
        agent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
        sent = {"Host": HOST, **agent, **{name.replace("_", "-"): text for name, text in headers.items()}}
        async with aiohttp.request(
            method, self.server.url + path, data=body, headers=sent, allow_redirects=False
        ) as answer:
            return answer.status, await answer.read(), {name.lower(): text for name, text in answer.headers.items()}


class Mail:
    """A message as its recipient gets it."""

    def __init__(self, data: bytes) -> None:
        text = data.decode()
        self.data = data
        (self.click,) = re.findall(rf'href="(https://{HOST}/c/[^"]+)"', text)
        (self.pixel,) = re.findall(rf'src="(https://{HOST}/o/[^"]+)"', text)
        self.unsubscribe = message_from_bytes(data)["List-Unsubscribe"].strip("<>")


@pytest.fixture
async def visitor(server: Server) -> AsyncIterator[Visitor]:
    await server.json("POST", "/v1/domains", {"name": HOST}, 201)
    yield Visitor(server)


async def rewritten(server: Server, query: str = "") -> Mail:
    status, data, _ = await server.request("POST", f"/v1/rewrite{query}", MESSAGE, Content_Type="message/rfc822")
    assert status == 200, data
    return Mail(data)


async def hits(server: Server) -> list[dict[str, object]]:
    return [event for event in await server.events() if event["source"]["dialect"] == "aftersend"]  # type: ignore[index]


async def test_a_click_an_open_and_an_unsubscription_are_kept_with_who_did_it(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    assert b"mailto:us@shop.example" in mail.data
    status, _, headers = await visitor.go("GET", mail.click)
    assert (status, headers["location"]) == (302, "https://shop.example/p?a=1&b=2")
    assert headers["cache-control"].startswith("no-store")
    status, picture, headers = await visitor.go("GET", mail.pixel)
    assert (status, len(picture), headers["content-type"]) == (200, 43, "image/gif")
    status, page, _ = await visitor.go("GET", mail.unsubscribe)
    assert status == 200
    assert b"<form" in page
    kinds = [event["type"] for event in await hits(server)]
    assert "email.unsubscribed" not in kinds, "looking is not asking"
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await visitor.go("POST", mail.unsubscribe, b"List-Unsubscribe=One-Click", **form))[0] == 200
    found = {str(event["type"]): event for event in await hits(server)}
    assert {"email.clicked", "email.opened", "email.unsubscribed"} <= found.keys()
    click = found["email.clicked"]
    assert (click["recipient"], click["message_id"], click["campaign_id"]) == (
        "alice@example.org",
        "<1@shop.example>",
        "spring",
    )
    assert click["url"] == "https://shop.example/p?a=1&b=2"
    assert click["actor"]["kind"] in ("human", "unknown")  # type: ignore[index]


async def test_links_that_nobody_here_made_lead_nowhere(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    for address in (mail.click[:-1], mail.click + "A", mail.click.replace("/c/", "/u/"), f"https://{HOST}/c/AAAA"):
        assert (await visitor.go("GET", address))[0] == 404, address
    assert (await visitor.go("GET", f"https://{HOST}/o/AAAA"))[0] == 200
    assert await hits(server) == []


async def test_a_tracking_host_answers_nothing_but_links(server: Server, visitor: Visitor) -> None:
    for method, path in (("GET", "/healthz"), ("GET", "/v1/events"), ("POST", "/v1/events"), ("GET", "/")):
        status, _, _ = await visitor.go(method, path, b"{}" if method == "POST" else None)
        assert status == 404, path


async def test_a_person_decides_how_much_is_kept_also_of_mail_already_sent(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    await server.json("PUT", "/v1/people", {"person": "Alice@example.org", "level": "none"})
    assert (await visitor.go("GET", mail.click))[0] == 302
    assert [event["type"] for event in await hits(server)] == ["other"], "the change itself is an event"
    await server.json("PUT", "/v1/people", {"person": "alice@example.org", "level": "anonymous"})
    assert (await visitor.go("GET", mail.click))[0] == 302
    (kept,) = [event for event in await hits(server) if event["type"] == "email.clicked"]
    assert not {"recipient", "message_id", "ip", "user_agent", "extra"} & kept.keys()
    assert await server.json("GET", "/v1/people?person=alice@example.org") == {
        "person": "alice@example.org",
        "level": "anonymous",
    }
    for wrong in ({"person": "a", "level": "some"}, {"level": "none"}, {}):
        assert (await server.request("PUT", "/v1/people", msgspec.json.encode(wrong)))[0] == 400


async def test_providers_events_keep_to_the_persons_level_too(server: Server) -> None:
    await server.json("PUT", "/v1/people", {"person": "alice@example.org", "level": "none"})
    rows = [
        {"type": type_, "time": "2026-01-15T08:00:00Z", "recipient": "alice@example.org"}
        for type_ in ("email.opened", "email.delivered", "email.complained")
    ]
    await server.request("POST", "/v1/events", msgspec.json.encode(rows))
    types = [event["type"] for event in await server.events() if event["type"] != "other"]
    assert types == ["email.delivered", "email.complained"]


async def test_a_stopped_campaign_leads_nowhere_until_it_is_let_go(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    await server.json("POST", "/v1/stops", {"name": "campaign/spring"}, 201)
    assert (await visitor.go("GET", mail.click))[0] == 410
    assert (await server.request("DELETE", "/v1/stops/campaign/spring"))[0] == 204
    assert (await visitor.go("GET", mail.click))[0] == 302
    assert (await server.request("POST", "/v1/stops", b'{"name": "planet/mars"}'))[0] == 400


async def test_links_outlive_a_restart_and_numbers_are_never_given_twice(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    assert (await server.request("DELETE", f"/v1/domains/{HOST}"))[0] == 204
    again = await server.json("POST", "/v1/domains", {"name": HOST}, 201)
    assert again["number"] == 2  # type: ignore[index]
    await server.stop()
    await server.start()
    assert (await visitor.go("GET", mail.click))[0] == 302


async def test_halons_links_are_read_where_the_domain_has_halons_keys(server: Server) -> None:
    token = (
        "AUl0XH7_nyy1nYAy03xywr44C_SxKFZFBwNjQRwT16iyNYzLCoMwEAD_Zc9N86hZoxTxV9bNtgoGg6QgiP_eXLwNAzMn7NADrQvLKAelvMpz27_wgFT9-4XS"
        "IotTkydU1gqrKcSojDHsOhdD8M3IHgN3ZNE3n6GWv1rOpeRe63vJW7pZZyozXH8"
    )
    wrong = {"name": "h.shop.example", "halon_keys": {"1": "badsecret"}}
    assert (await server.request("POST", "/v1/domains", msgspec.json.encode(wrong)))[0] == 400
    made = await server.json("POST", "/v1/domains", wrong | {"halon_short_keys": True}, 201)
    assert "badsecret" not in str(made)
    async with aiohttp.request(
        "GET", f"{server.url}/c/{token}", headers={"Host": "h.shop.example"}, allow_redirects=False
    ) as answer:
        assert (answer.status, answer.headers["location"]) == (302, "http://example.com/example/path")


async def set_files(server: Server, **texts: str) -> None:
    """The server again, with these files in its settings."""
    await server.stop()
    lines = []
    for setting, text in texts.items():
        file = server.data / f"{setting}.toml"
        file.write_text(text)
        lines.append(f'{setting} = "{file}"\n')
    settings = server.data / "aftersend.toml"
    settings.write_text("".join(lines) + settings.read_text())
    await server.start()


async def test_hits_in_the_operators_directory_are_kept_as_far_as_it_says(server: Server, visitor: Visitor) -> None:
    mail = await rewritten(server)
    entries = {"UptimeMonitor": "ignore", "Scraper": "block", "Shy": "without_agent"}
    text = "".join(f'[[entries]]\nagent = "{agent}"\ndo = "{do}"\n' for agent, do in entries.items())
    text += '[[entries]]\nnetwork = "127.0.0.0/8"\ndo = "without_address"\n'
    await set_files(server, bots_file=text)
    answers = {}
    for agent in (*entries, "Firefox"):
        status, _, headers = await visitor.go("GET", mail.click, User_Agent=f"{agent}/1.0")
        answers[agent] = status, "location" in headers
    assert answers == {
        "UptimeMonitor": (302, True),
        "Scraper": (403, False),
        "Shy": (302, True),
        "Firefox": (302, True),
    }
    assert (await visitor.go("GET", mail.pixel, User_Agent="Scraper/1.0"))[0] == 403
    kept = [event for event in await hits(server) if event["type"] == "email.clicked"]
    assert [event.get("user_agent") for event in kept] == [None, "Firefox/1.0"]
    assert all("ip" not in event for event in kept)


async def test_hits_are_judged_anew_when_the_networks_change_and_the_difference_is_shown_first(
    server: Server, visitor: Visitor
) -> None:
    mail = await rewritten(server)
    await visitor.go("GET", mail.click)
    await set_files(server, networks_file='mail_gateways = ["127.0.0.0/8"]\n')
    asked = ("reclassify", "--since", "2020-01-01T00:00:00Z", "--data", str(server.data))
    shown = msgspec.json.decode(await run(*asked, "--json"))
    assert shown["hits"] == 2, "the click, and the first one"
    assert [change["becomes"] for change in shown["changes"]] == ["machine"]
    assert not shown["applied"]
    assert [event["type"] for event in await hits(server)] == ["email.clicked", "email.first_clicked"]
    await run(*asked, "--until", str(shown["until"]), "--apply")
    told = [event for event in await hits(server) if event["type"] == "event.reclassified"]
    assert {event["actor"]["kind"] for event in told} == {"machine"}  # type: ignore[index]
    again = msgspec.json.decode(await run(*asked, "--json"))
    assert again["changes"] == []


async def test_a_preference_page_offers_the_lists_and_channels_of_its_host(server: Server) -> None:
    await run(
        *("domains", "add", HOST, "--list", "n=Spring news", "--channel", "email", "sms", "--data", str(server.data))
    )
    page = b'<a href="aftersend:preferences">Preferences</a></body>'
    status, data, _ = await server.request("POST", "/v1/rewrite", MESSAGE.replace(b"</body>", page))
    assert status == 200
    found = re.search(rf"https://{HOST}/p/[^\"<>\s]+", data.decode())
    assert found is not None
    visitor = Visitor(server)
    _, page, _ = await visitor.go("GET", found[0])
    assert b"Spring news" in page
    assert b'value="sms"' in page
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await visitor.go("POST", found[0], b"preferences=save&list=n&channel=sms", **form))[0] == 200
    ended = [(event["type"], event.get("list_id")) for event in await hits(server)]
    assert ended == [("email.unsubscribed", "n"), ("sms.unsubscribed", None)]


async def test_a_file_of_settings_that_cannot_be_read_stops_the_start_in_one_line(server: Server) -> None:
    await server.stop()
    bad = server.data / "bots.toml"
    bad.write_text('[[entries]]\ndo = "dance"\n')
    for setting, path, told in (("--bots-file", bad, b"bots_file: "), ("--networks-file", "/nowhere", b"no such file")):
        process = await asyncio.create_subprocess_exec(
            *(*COMMAND, "serve", "--data", str(server.data), "--listen", "127.0.0.1:0", setting, str(path)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        assert process.returncode == 1
        assert told in err
        assert err.count(b"\n") == 1


async def test_a_text_message_gets_short_links_that_know_their_channel(server: Server, visitor: Visitor) -> None:
    asked = {"target": "https://shop.example/p", "recipient": "+4915112345678", "campaign_id": "spring"}
    links = [{**asked, "short": True, "channel": "sms"}, {**asked, "target": "", "purpose": "unsubscribe"}]
    links[1] |= {"short": True, "channel": "sms"}
    made = await server.json("POST", "/v1/links", links, 201)
    click, unsubscribe = (item["url"] for item in made)  # type: ignore[union-attr]
    assert click.startswith(f"https://{HOST}/c/")
    assert len(click) == len(f"https://{HOST}/c/") + 12
    await server.stop()
    await server.start()
    status, _, headers = await visitor.go("GET", click)
    assert (status, headers["location"]) == (302, "https://shop.example/p")
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert (await visitor.go("POST", unsubscribe, b"List-Unsubscribe=One-Click", **form))[0] == 200
    found = {str(event["type"]): event for event in await hits(server)}
    assert {"sms.clicked", "sms.unsubscribed"} <= found.keys()
    assert found["sms.clicked"]["recipient"] == "+4915112345678"
    assert found["sms.clicked"]["channel"] == "sms"
    for address in (click[:-1] + ("A" if click[-1] != "A" else "Q"), click.replace("/c/", "/u/")):
        assert (await visitor.go("GET", address))[0] == 404, address


async def test_links_for_other_messages_are_sealed_and_targets_are_judged_before(
    server: Server, visitor: Visitor
) -> None:
    made = await server.json("POST", "/v1/links", {"target": "https://shop.example/"}, 201)
    assert isinstance(made, dict)
    assert (await visitor.go("GET", made["url"]))[0] == 302
    wrong = [
        {"target": "javascript:alert(1)"},
        {"target": "https://u:p@shop.example/"},
        {},
        {"purpose": "confirm", "target": "https://shop.example/"},
        {"target": "https://shop.example/", "channel": "sms"},
        {"target": "https://shop.example/", "hop": 1},
        [],
    ]
    for body in wrong:
        status, answer, _ = await server.request("POST", "/v1/links", msgspec.json.encode(body))
        assert status == 400, (body, answer)

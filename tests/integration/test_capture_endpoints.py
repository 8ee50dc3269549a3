"""Clicks, opens, unsubscribing, confirming and preferences over real sockets, into a real store."""

import asyncio
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from tests.integration.tracking import HALON_KEY, TARGET, Tracker, tracker

from aftersend.capture.halon_links import HalonLink, HalonLinks
from aftersend.capture.tokens import Purpose
from aftersend.capture.visits import TrackingDomain
from aftersend.capture.wording import WORDING
from aftersend.core.consent import HOUR, Level, person_key

ONE_CLICK = "List-Unsubscribe=One-Click"
URLENCODED = "application/x-www-form-urlencoded"
SAMPLES = Path(__file__).parents[1] / "fixtures" / "foreign" / "unsubscribe"


@pytest.fixture
async def tracked(tmp_path: Path) -> AsyncIterator[Tracker]:
    async with tracker(tmp_path) as made:
        yield made


def halon_path(letter: str, slashes: str = "/", **fields: object) -> str:
    link = HalonLink("bob@example.org", "<m2@mail.example.com>", **fields)  # type: ignore[arg-type]
    return f"{slashes}{letter}/{HalonLinks({1: HALON_KEY}).seal(link, 1)}"


# --- clicks


async def test_a_click_is_in_the_log_when_the_redirect_goes_out(tracked: Tracker) -> None:
    answer = await tracked.get(tracked.link(place=3), User_Agent="Mozilla/5.0")
    assert (answer.status, answer.headers["location"]) == (302, TARGET)
    (event,) = await tracked.events()
    assert (event.type, event.channel, event.url, event.tenant) == ("email.clicked", "email", TARGET, "acme")
    assert (event.recipient, event.message_id) == ("alice@example.org", "<m1@mail.example.com>")
    assert (event.campaign_id, event.list_id, event.extra) == ("spring", "news", {"place": 3})
    assert (event.ip, event.user_agent) == ("127.0.0.1", "Mozilla/5.0")
    assert (event.source.name, event.source.dialect, event.source.word) == ("tracking", "aftersend", "click")
    assert event.source.id is not None
    assert len(event.source.id) == 16


async def test_answers_are_kept_by_nobody_and_set_no_cookie(tracked: Tracker) -> None:
    paths = [tracked.link(purpose) for purpose in (Purpose.CLICK, Purpose.OPEN, Purpose.UNSUBSCRIBE)]
    for path in [*paths, tracked.link(Purpose.CONFIRM), tracked.link(Purpose.PREFERENCES), "/c/AAEAAAAA"]:
        answer = await tracked.get(path)
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    "target",
    [
        "javascript:alert(1)",
        "//evil.example",
        "/path",
        "https://user@example.com/",
        "https:\\\\example.com",
        "ftp://x/",
    ],
)
async def test_nobody_is_sent_anywhere_but_to_absolute_http_addresses(tracked: Tracker, target: str) -> None:
    for path in (tracked.link(target=target), halon_path("c", target=target)):
        answer = await tracked.get(path)
        assert answer.status == 404
        assert "location" not in answer.headers
    assert await tracked.events() == []


async def test_two_clicks_are_two_events(tracked: Tracker) -> None:
    path = tracked.link()
    await tracked.get(path)
    await tracked.get(path)
    first, second = await tracked.events()
    assert first.id != second.id


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("campaign", "spring"),
        ("message", "<m1@mail.example.com>"),
        ("domain", "www.example.com"),
        ("domain", "example.com"),
        ("domain", "track.example.com"),
    ],
)
async def test_a_stopped_link_leads_to_a_page(tracked: Tracker, kind: str, name: str) -> None:
    tracked.stops.add(("other", kind, name))
    assert (await tracked.get(tracked.link())).status == 302
    tracked.stops.add(("acme", kind, name))
    answer = await tracked.get(tracked.link())
    assert answer.status == 410
    assert "switched off" in answer.text
    assert (await tracked.events())[1].extra["stopped"] == kind


async def test_a_method_that_only_looks_is_told_with_the_hit(tracked: Tracker) -> None:
    assert (await tracked.request("HEAD", tracked.link())).status == 302
    await tracked.get(tracked.link(), Sec_Purpose="prefetch")
    looked, ahead = await tracked.events()
    assert looked.extra["signals"] == {"method": "HEAD"}
    assert ahead.extra["signals"] == {"headers": {"sec-purpose": "prefetch"}}
    assert (await tracked.post(tracked.link())).status == 405


async def test_the_address_of_the_client_is_the_last_one_that_no_proxy_of_ours_has(tracked: Tracker) -> None:
    await tracked.get(tracked.link(), X_Forwarded_For="6.6.6.6, 198.51.100.7, 127.0.0.9")
    assert (await tracked.events())[0].ip == "198.51.100.7"


# --- tokens that are not good


@pytest.mark.parametrize("purpose", [Purpose.CLICK, Purpose.UNSUBSCRIBE, Purpose.CONFIRM, Purpose.PREFERENCES])
async def test_a_token_that_was_changed_or_made_for_another_purpose_does_nothing(
    tracked: Tracker, purpose: Purpose
) -> None:
    good = tracked.link(purpose)
    flipped = good[:-1] + ("A" if good[-1] != "A" else "E")
    others = [good[:3] + tracked.link(other)[3:] for other in Purpose if other is not purpose]
    for path in [flipped, good[:-4], good + "AAAA", good[:3] + "A" * 20_000, good[:3] + "%00", *others]:
        for method in ("GET", "POST"):
            answer = await tracked.request(method, path, ONE_CLICK if method == "POST" else None)
            assert answer.status in (404, 405), path
            assert "location" not in answer.headers
    assert await tracked.events() == []


async def test_a_pixel_is_a_pixel_whatever_its_token(tracked: Tracker) -> None:
    for path in (tracked.link(Purpose.OPEN), "/o/AAEAAAAA", "/o/x", tracked.link(Purpose.CLICK).replace("/c/", "/o/")):
        answer = await tracked.get(path)
        assert (answer.status, answer.headers["content-type"], len(answer.body)) == (200, "image/gif", 43)
    assert [event.type for event in await tracked.events()] == ["email.opened"]


async def test_the_two_pixels_of_a_message_are_told_apart(tracked: Tracker) -> None:
    await tracked.get(tracked.link(Purpose.OPEN, place=1))
    await tracked.get(tracked.link(Purpose.OPEN, place=2))
    assert [event.extra for event in await tracked.events()] == [{"place": "top"}, {"place": "bottom"}]


async def test_a_lost_key_shows_a_page_of_its_own(tracked: Tracker) -> None:
    old = tracked.link()
    tracked.keyring._keys.clear()
    tracked.links._ciphers.clear()
    tracked.keyring.derive.cache_clear()  # type: ignore[attr-defined]
    tracked.keyring.rotate()
    answer = await tracked.get(old)
    assert answer.status == 404
    assert "can no longer be opened" in answer.text
    assert (await tracked.get(tracked.link())).status == 302


async def test_who_tries_many_tokens_is_slowed_and_others_are_not(
    tracked: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle = tracked.tracking.throttle
    monkeypatch.setattr(type(throttle), "DELAY_SECONDS", 0.6)
    for _ in range(throttle.ALLOWED):
        await tracked.get("/c/AAEAAAAA", X_Forwarded_For="203.0.113.9")
    with pytest.raises(TimeoutError):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.3)) as session:
            await session.get(tracked.url + "/c/AAEAAAAA", headers={"X-Forwarded-For": "203.0.113.9"})
    assert (await tracked.get("/c/AAEAAAAA", X_Forwarded_For="203.0.113.10")).status == 404
    assert (await tracked.get(tracked.link(), X_Forwarded_For="203.0.113.9")).status == 302


# --- Halon's


async def test_a_link_that_halon_made_is_followed_as_browsers_read_it(tracked: Tracker) -> None:
    path = halon_path("c", "//", target="https://example.com/?a=1&amp;b=2", additional={"job": 5})
    answer = await tracked.get(path)
    assert (answer.status, answer.headers["location"]) == (302, "https://example.com/?a=1&b=2")
    (event,) = await tracked.events()
    assert (event.recipient, event.message_id) == ("bob@example.org", "<m2@mail.example.com>")
    assert event.extra == {"additional": {"job": 5}}


async def test_halons_tokens_hold_on_their_own_domain_only(tracked: Tracker) -> None:
    answer = await tracked.get(halon_path("c", target=TARGET), Host="elsewhere.example.com")
    assert answer.status == 404


async def test_halons_pixel_token_unsubscribes_by_the_one_click_body_alone(tracked: Tracker) -> None:
    token = halon_path("o")[3:]
    assert (await tracked.get("/o/" + token)).status == 200
    assert (await tracked.get("/u/" + token)).status == 200
    assert (await tracked.post("/u/" + token, b"")).status == 400
    assert (await tracked.get("/c/" + token)).status == 404
    assert (await tracked.get(halon_path("c", target=TARGET).replace("/c/", "/u/"))).status == 404
    assert [event.type for event in await tracked.events()] == ["email.opened"]
    assert (await tracked.post("/u/" + token, ONE_CLICK, Content_Type=URLENCODED)).status == 200
    assert (await tracked.events())[1].type == "email.unsubscribed"


# --- unsubscribing


async def test_looking_at_the_unsubscribe_page_changes_nothing(tracked: Tracker) -> None:
    for method in ("GET", "HEAD", "OPTIONS", "PUT"):
        answer = await tracked.request(method, tracked.link(Purpose.UNSUBSCRIBE))
        assert answer.status == (200 if method in ("GET", "HEAD") else 405)
    assert await tracked.events() == []


async def test_one_click_works_urlencoded_and_multipart_and_again(tracked: Tracker) -> None:
    path = tracked.link(Purpose.UNSUBSCRIBE)
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("List-Unsubscribe", "One-Click")
    for body, headers in ((ONE_CLICK, {"Content_Type": URLENCODED}), (form, {}), (ONE_CLICK + "\r\n", {})):
        answer = await tracked.post(path, body, **headers)
        assert answer.status == 200
        assert "location" not in answer.headers
    events = await tracked.events()
    assert {(event.type, event.recipient, event.list_id) for event in events} == {
        ("email.unsubscribed", "alice@example.org", "news")
    }
    assert {event.extra["method"] for event in events} == {"one_click"}


@pytest.mark.parametrize("body", [b"", b"a=b", b"List-Unsubscribe=Two-Click", b"\xff\xfe", b"x" * 100_000])
async def test_another_body_does_not_unsubscribe(tracked: Tracker, body: bytes) -> None:
    answer = await tracked.post(tracked.link(Purpose.UNSUBSCRIBE), body, Content_Type=URLENCODED)
    assert answer.status == 400
    assert await tracked.events() == []


async def test_the_form_of_the_page_unsubscribes(tracked: Tracker) -> None:
    path = tracked.link(Purpose.UNSUBSCRIBE)
    page = (await tracked.get(path)).text
    assert 'name="List-Unsubscribe" value="One-Click"' in page
    assert "a…@example.org" in page
    assert "alice@" not in page
    answer = await tracked.post(path, {"List-Unsubscribe": "One-Click", "by": "page"})
    assert "You are unsubscribed" in answer.text
    assert (await tracked.events())[0].extra == {"method": "page", "signals": {"method": "POST"}}


@pytest.mark.parametrize("whose", ["halon", "own"])
@pytest.mark.parametrize(
    ("sample", "status", "types"),
    [
        ("get_prefetch", 200, []),
        ("head_prefetch", 200, []),
        ("post_empty_body", 400, []),
        ("post_wrong_body", 400, []),
        ("post_urlencoded", 200, ["email.unsubscribed"]),
        ("post_multipart", 200, ["email.unsubscribed"]),
    ],
)
async def test_requests_as_mail_programs_and_scanners_send_them(
    tracked: Tracker, sample: str, status: int, types: list[str], whose: str
) -> None:
    """Byte for byte, with Halon's token as it stands there, and with one of our own in its place."""
    request = (SAMPLES / f"{sample}.http").read_bytes()
    path = request.split()[1].decode()
    token = path.rpartition("/")[2]
    halon = HalonLinks({token_key(token): b"badsecret"}, allow_short_keys=True)
    tracked.domains["track.example.com"] = TrackingDomain("track.example.com", "acme", halon)
    if whose == "own":
        request = request.replace(path.encode(), tracked.link(Purpose.UNSUBSCRIBE).encode())
    for times in (1, 2):
        head, body = await sent(tracked, request)
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"location:" not in head.lower(), "whoever is redirected may turn POST into GET (RFC 8058)"
        assert b"set-cookie:" not in head.lower()
        assert (body == b"") is (sample == "head_prefetch")
        assert (b'name="List-Unsubscribe" value="One-Click"' in body) is (sample == "get_prefetch")
        assert [event.type for event in await tracked.events()] == types * times
    if types:
        first, again = await tracked.events()
        assert first.recipient == again.recipient != ""
        assert first.extra["method"] == "one_click"
        assert first.time < again.time, "the first one stays as it is"


async def sent(tracked: Tracker, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the answer to a request, sent as it is."""
    host, port = tracked.url.removeprefix("http://").split(":")
    head, blank, body = request.partition(b"\r\n\r\n")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(head + b"\r\nConnection: close" + blank + body)
    answer = await reader.read()
    writer.close()
    found, _, rest = answer.partition(b"\r\n\r\n")
    return found, rest


MULTIPART = 'multipart/form-data; boundary="b-1"'
PART = '--b-1\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n'


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (URLENCODED, "List-Unsubscribe=One-Click&more=1"),
        (URLENCODED, "a=b&List-Unsubscribe=One-Click"),
        (URLENCODED + "; charset=UTF-8", "List-Unsubscribe=One-Click\r\n"),
        ("text/plain", "List-Unsubscribe=One-Click"),
        ("Multipart/Form-Data; boundary=b-1", PART + "--b-1--\r\n"),
        (MULTIPART, PART + '--b-1\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n--b-1--'),
        (MULTIPART, PART.replace("\r\n", "\n") + "--b-1--\n"),
        (MULTIPART, "preamble\r\n" + PART.replace("\r\n\r\n", "\r\nContent-Type: text/plain\r\n\r\n") + "--b-1--"),
    ],
)
async def test_the_pair_is_found_however_a_mail_program_writes_it(tracked: Tracker, type_: str, body: str) -> None:
    """Nor does it matter where the request comes from: there is no session that another site could use."""
    answer = await tracked.post(
        tracked.link(Purpose.UNSUBSCRIBE),
        body.encode(),
        Content_Type=type_,
        Origin="https://mail.example",
        Cookie="a=b",
    )
    assert answer.status == 200
    assert [event.type for event in await tracked.events()] == ["email.unsubscribed"]


async def test_no_address_of_the_provider_is_slowed_while_its_tokens_are_good(tracked: Tracker) -> None:
    for number in range(tracked.tracking.throttle.ALLOWED + 5):
        path = tracked.link(Purpose.UNSUBSCRIBE, recipient=f"{number}@example.org")
        assert (await tracked.post(path, ONE_CLICK, Content_Type=URLENCODED)).status == 200


def token_key(token: str) -> int:
    """The id of the key that made a token of Halon's."""
    return urlsafe_b64decode(token[:4])[0]


# --- pages


async def test_pages_come_in_the_language_that_is_asked_for(tracked: Tracker) -> None:
    path = tracked.link(Purpose.UNSUBSCRIBE)
    asked = {"ru-RU,ru;q=0.9,en;q=0.8": "ru", "en;q=0.5, ru;q=0.9": "ru", "de,fr": "en", "ru;q=0": "en", "": "en"}
    for accepted, language in asked.items():
        page = (await tracked.get(path, Accept_Language=accepted)).text
        assert f'<html lang="{language}">' in page
    assert "Отписаться" in (await tracked.get(path, Accept_Language="ru")).text


@pytest.mark.parametrize("language", WORDING)
def test_every_language_says_the_same_things(language: str) -> None:
    assert WORDING[language].keys() == WORDING["en"].keys()
    for key, text in WORDING[language].items():
        assert text.strip() == text, key
        assert text.count("{person}") == WORDING["en"][key].count("{person}"), key


async def test_a_page_says_nothing_that_an_address_could_write_into_it(tracked: Tracker) -> None:
    for recipient in ('"><script>@<b>.example', "{person}@{0}.example", "\0\0\0@a\0b.example", "x" * 7):
        for purpose in (Purpose.UNSUBSCRIBE, Purpose.PREFERENCES):
            page = (await tracked.get(tracked.link(purpose, recipient=recipient))).text
            assert "<script" not in page
            assert "<b>" not in page
            assert page.count("<bdi>") == 1


async def test_pages_run_nothing_and_load_nothing(tracked: Tracker) -> None:
    answer = await tracked.get(tracked.link(Purpose.PREFERENCES))
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    page = answer.text
    assert "<script" not in page
    assert " src=" not in page
    assert "http" not in page.partition("<body>")[2]


# --- confirming


async def test_a_confirmation_always_carries_the_person(tracked: Tracker) -> None:
    await tracked.people.set_level("acme", "alice@example.org", Level.NONE)
    assert (await tracked.request("HEAD", tracked.link(Purpose.CONFIRM))).status == 200
    assert "<button" in (await tracked.get(tracked.link(Purpose.CONFIRM), Sec_Purpose="prefetch")).text
    assert await tracked.events() == []
    assert (await tracked.get(tracked.link(Purpose.CONFIRM, level=Level.ANONYMOUS))).status == 200
    assert (await tracked.get(tracked.link(Purpose.CONFIRM, list_id=""))).status == 200
    subscribed, confirmed = await tracked.events()
    assert (subscribed.type, subscribed.source.word) == ("email.subscription_confirmed", "confirmsub")
    assert (confirmed.type, confirmed.source.word) == ("email.confirmed", "confirm")
    assert {subscribed.recipient, confirmed.recipient} == {"alice@example.org"}


# --- levels


async def test_nothing_is_kept_of_a_link_or_a_person_at_level_none(tracked: Tracker) -> None:
    await tracked.people.set_level("acme", "Bob@example.org", Level.NONE)
    for path in (tracked.link(level=Level.NONE), tracked.link(recipient="bob@Example.org")):
        assert (await tracked.get(path)).status == 302
    assert (await tracked.get(tracked.link(Purpose.OPEN, level=Level.NONE))).status == 200
    assert await tracked.events() == []
    assert "hits" not in tracked.telemetry.text()


async def test_an_anonymous_click_says_type_hour_campaign_and_link_alone(tracked: Tracker) -> None:
    await tracked.people.set_level("acme", "alice@example.org", Level.ANONYMOUS)
    await tracked.get(tracked.link(place=2))
    await tracked.get(tracked.link(place=2))
    first, second = await tracked.events()
    assert first.id != second.id
    assert first.time % HOUR == first.received_at % HOUR == 0
    assert (first.type, first.campaign_id, first.url) == ("email.clicked", "spring", TARGET)
    for name in ("recipient", "message_id", "list_id", "ip", "user_agent", "actor"):
        assert getattr(first, name) is None
    assert (first.extra, first.source.id) == ({}, None)


async def test_the_lower_of_link_and_person_holds(tracked: Tracker) -> None:
    await tracked.people.set_level("acme", "alice@example.org", Level.ANONYMOUS)
    await tracked.get(tracked.link(level=Level.NONE))
    assert await tracked.events() == []
    await tracked.people.set_level("acme", "alice@example.org", Level.FULL)
    await tracked.get(tracked.link(level=Level.ANONYMOUS))
    assert [event.recipient for event in await tracked.events()] == [None]


# --- preferences


async def test_the_preference_page_offers_lists_channels_and_levels(tracked: Tracker) -> None:
    page = (await tracked.get(tracked.link(Purpose.PREFERENCES, list_id="own"))).text
    assert 'name="list" value="own"' in page
    assert "Special &lt;offers&gt;" in page
    assert 'name="channel" value="sms"' in page
    assert 'value="full" checked' in page
    assert page.count("<fieldset><legend>") == 3
    assert page.count("<input type=") - page.count('type="hidden"') == page.count("<label><input")


async def test_saving_preferences_ends_what_was_ticked_and_lowers_the_level(tracked: Tracker) -> None:
    path = tracked.link(Purpose.PREFERENCES)
    body = "preferences=save&list=offers&list=unknown&channel=sms&channel=bogus&level=none"
    answer = await tracked.post(path, body, Content_Type=URLENCODED)
    assert answer.status == 200
    offers, sms, consent = await tracked.events()
    assert (offers.type, offers.list_id) == ("email.unsubscribed", "offers")
    assert sms.type == "sms.unsubscribed"
    assert (consent.type, consent.source.word, consent.recipient) == ("other", "consent", "alice@example.org")
    assert (consent.extra["level"], consent.extra["level_before"]) == ("none", "full")
    assert tracked.people.level("acme", person_key("acme", "alice@example.org")) is Level.NONE
    await tracked.get(tracked.link())
    assert len(await tracked.events()) == 3
    assert 'value="none" checked' in (await tracked.get(path)).text


async def test_preferences_change_by_the_forms_own_body_alone(tracked: Tracker) -> None:
    path = tracked.link(Purpose.PREFERENCES)
    assert (await tracked.post(path, "level=none", Content_Type=URLENCODED)).status == 400
    assert (await tracked.post(path, "preferences=save&level=bogus", Content_Type=URLENCODED)).status == 200
    assert (await tracked.get(tracked.link(Purpose.PREFERENCES, recipient=""))).status == 404
    assert await tracked.events() == []

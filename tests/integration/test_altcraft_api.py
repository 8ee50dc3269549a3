"""Altcraft's capture APIs over a real socket: the transcripts of its clients, byte by byte, and what comes of them."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from tests.integration.capturing import NOW, Kept, exchange, raw, serving

from aftersend.capture import altcraft_api
from aftersend.capture.altcraft_api import AltcraftApi
from aftersend.capture.altcraft_callers import Callers
from aftersend.core.errors import AccessError, ScopeError, StoreError
from aftersend.core.event import Event
from aftersend.core.registry import Domain, SourceRecord
from aftersend.core.secret import Secret
from aftersend.core.timestamps import SECOND, parse_time
from aftersend.core.xml import local_name, parse_xml
from aftersend.telemetry import Telemetry

SAMPLES = Path(__file__).parents[1] / "fixtures" / "foreign" / "altcraft"
SMID = "uBAhiRBRQhARg7y489hr5F2b2aXMJaztFS7vM7DE1NGJhZWM5"
TIME = 1_760_000_000 * SECOND
TOKEN = "abcdefghijklmnqrstuvwxyz"
ROLE = {"Authorization": "Bearer rtoken@0123456789abcdef"}
APP = {"Authorization": "Bearer rtoken@as_app"}
JWT_SAMPLE = "sdk_android_push_event_delivery_jwt.http"
JWT = next(
    line.split("Bearer ")[1]
    for line in (SAMPLES / JWT_SAMPLE).read_text().splitlines()
    if line.startswith("Authorization")
)
SECRET = "a secret that is long enough, 32 b"
POST_EVENTS, GOALS = "/api/v1.1/pushes/post_events", "/api/v1.1/goals/register"


def check(token: str, scope: str) -> str:
    if token == "broken":
        raise StoreError("the keys cannot be read")
    scopes = {TOKEN: "ingest", "0123456789abcdef": "ingest", "as_app": "app", "as_read": "read"}
    if token not in scopes:
        raise AccessError
    if scopes[token] != scope:
        raise ScopeError
    return "acme"


def signed(secret: str = SECRET, said: str = JWT, **claims: object) -> str:
    """The transcript's token, signed; or one with other claims."""
    head, body, _ = said.split(".")
    if claims:
        body = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    signature = urlsafe_b64encode(hmac.digest(secret.encode(), f"{head}.{body}".encode(), "sha256")).decode()
    return f"{head}.{body}.{signature.rstrip('=')}"


def bearer(token: str, host: str = "api.example.com") -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", "Host": host}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def callers(kept: Kept) -> Callers:
    """Two tenants with a tracking domain each; the app of one has tokens that are signed with SECRET."""
    made = Callers(check, kept.clock)
    domains = [Domain(name="api.example.com", tenant="acme"), Domain(name="api.other.example", tenant="other")]
    sources = [SourceRecord(name="shop-app", tenant="acme", dialect="altcraft", app_key=Secret(SECRET))]
    made.load(sources, {domain.name: domain for domain in domains})
    return made


@pytest.fixture
def api(kept: Kept, callers: Callers) -> AltcraftApi:
    return AltcraftApi(callers=callers, hits=kept, clock=kept.clock, telemetry=Telemetry())


def sample(name: str) -> bytes:
    """A transcript as it is, but for the signature of its token, which nobody made."""
    return (SAMPLES / name).read_bytes().replace(JWT.encode(), signed().encode())


async def replay(api: AltcraftApi, name: str) -> tuple[int, object]:
    """Send a transcript as it is; what is answered, read as the SDK reads it."""
    async with serving(api) as port:
        head, _, body = (await raw(port, sample(name))).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def post(
    api: AltcraftApi, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, object]]:
    async with serving(api) as port:
        head, answer = await exchange(port, "POST", path, body, headers)
    return head.status, json.loads(answer)


def said(event: Event) -> tuple[str, str, int, str | None]:
    return event.type, event.source.word, event.time, event.message_id


@pytest.mark.parametrize(
    ("name", "type_", "word"),
    [
        ("sdk_android_push_event_open.http", "push.opened", "open_push"),
        ("sdk_android_push_event_delivery_jwt.http", "push.delivered", "deliv_push"),
        ("sdk_ios_push_event_open.http", "push.opened", "open_push"),
    ],
)
async def test_a_push_event_of_the_sdks_is_kept_and_answered_in_json(
    api: AltcraftApi, kept: Kept, name: str, type_: str, word: str
) -> None:
    assert await replay(api, name) == (200, {"error": 0, "error_text": "Successful operation"})
    (event,) = kept.events
    assert said(event) == (type_, word, TIME, SMID), "the kind that iOS appends is no part of the message's id"
    assert (event.tenant, event.channel) == ("acme", "push")


async def test_the_jwt_says_whom_a_push_event_is_about(api: AltcraftApi, kept: Kept) -> None:
    await replay(api, JWT_SAMPLE)
    assert (kept.events[0].recipient, kept.events[0].source.name) == ("john@example.com", "shop-app")


PUSH = b'{"time":1760000000,"smid":"s"}'


@pytest.mark.parametrize(
    "headers",
    [
        bearer(JWT),
        bearer(signed("another secret that is long enough")),
        bearer(signed(), "api.other.example"),
        bearer(signed(), "unknown.example"),
        bearer(signed(exp=NOW // SECOND - 60)),
        bearer(signed(nbf=NOW // SECOND + 61)),
        bearer("rtoken@" + signed()),
    ],
    ids=["not signed", "another key", "another tenant's host", "nobody's host", "too old", "too new", "as a role"],
)
async def test_a_token_that_proves_nothing_is_refused(api: AltcraftApi, kept: Kept, headers: dict[str, str]) -> None:
    assert (await post(api, "/event/push/open", PUSH, headers))[0] == 401
    assert kept.events == []
    assert (await post(api, "/event/push/open", PUSH, bearer(signed(exp=NOW // SECOND, sub="7"))))[0] == 200
    assert kept.events[0].recipient is None, "a token without `matching` names nobody"


async def test_a_key_that_another_tenant_registers_too_hears_nothing_of_this_one(
    api: AltcraftApi, kept: Kept, callers: Callers
) -> None:
    sources = [
        SourceRecord(name=name, tenant=tenant, dialect="altcraft", app_key=Secret(SECRET))
        for name, tenant in (("a-thief", "other"), ("shop-app", "acme"))
    ]
    domains = [Domain(name="api.example.com", tenant="acme"), Domain(name="api.other.example", tenant="other")]
    callers.load(sources, {domain.name: domain for domain in domains})
    assert (await post(api, "/event/push/open", PUSH, bearer(signed(), "API.example.com:8443")))[0] == 200
    (event,) = kept.events
    assert (event.tenant, event.source.name) == ("acme", "shop-app")


async def test_a_source_that_was_removed_or_cannot_be_read_has_no_apps(
    api: AltcraftApi, callers: Callers, caplog: pytest.LogCaptureFixture
) -> None:
    domains = {"api.example.com": Domain(name="api.example.com", tenant="acme")}
    for sources in (
        [],
        [SourceRecord(name="s", tenant="acme", dialect="altcraft", app_key=Secret(SECRET), enabled=False)],
        [SourceRecord(name="s", tenant="acme", dialect="altcraft", app_key=Secret("short"))],
    ):
        callers.load(sources, domains)
        assert (await post(api, "/event/push/open", PUSH, bearer(signed())))[0] == 401
    assert "tokens of its apps are refused" in caplog.text


async def test_an_apps_key_is_good_for_the_apps_calls_alone(api: AltcraftApi, kept: Kept) -> None:
    assert (await post(api, "/event/push/open", PUSH, APP))[0] == 200
    _, answer = await post(api, POST_EVENTS, b'{"events": 1, "uid": "u"}', APP)
    assert answer["error"] == 401
    _, answer = await post(api, GOALS, b'{"pixel_id": 1, "goal": "g", "token": "as_app"}')
    assert answer["error"] == 401
    assert (await post(api, "/event/push/open", PUSH, {"Authorization": "Bearer as_read"}))[0] == 401
    assert [event.type for event in kept.events] == ["push.opened"]


async def test_what_apps_tell_has_a_rate_and_what_servers_tell_has_none(
    api: AltcraftApi, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(altcraft_api, "ADDRESS_BURST", 2.0)
    api = AltcraftApi(callers=api._callers, hits=kept, clock=kept.clock, telemetry=Telemetry())

    async def tell(credential: dict[str, str]) -> list[int]:
        names = [credential | {"Request-ID": str(number)} for number in range(4)]
        return [(await post(api, "/event/push/open", PUSH, headers))[0] for headers in names]

    assert await tell(ROLE) == [200] * 4
    assert await tell(APP) == [200, 200, 503, 503], "503, not 429: the SDKs come again"
    kept.now += SECOND
    assert await tell(bearer(signed())) == [200, 200, 503, 503]


@pytest.mark.parametrize("name", ["sdk_android_mobile_event.http", "sdk_ios_mobile_event.http"])
async def test_a_mobile_event_of_either_sdk_says_the_same(api: AltcraftApi, kept: Kept, name: str) -> None:
    assert await replay(api, name) == (200, {"error": 0, "error_text": "Successful operation"})
    (event,) = kept.events
    assert said(event) == ("web.pixel_opened", "pixel_open", TIME, SMID), "Android's id is not quoted, iOS's is"
    assert (event.recipient, event.url_name) == ("john@example.com", "purchase")
    assert event.extra == {
        "mm": "email_profile",
        "cn": "spring",
        "cs": "newsletter",
        "wd": {"sum": 100.5, "currency": "EUR"},
        "ma": {"db_id": 1, "matching": "email_profile", "email": "john@example.com"},
        "sn": {"resource_id": 1, "email": "john@example.com", "channel": "email"},
        "pf": {"_fname": "John"},
        "utc_offset_minutes": 180,
        "pixel": "pixel-sid",
    }


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.glob("sdk_*.http")))
async def test_a_retry_days_later_is_the_same_event(api: AltcraftApi, kept: Kept, name: str) -> None:
    await replay(api, name)
    kept.now += 3 * 86_400 * SECOND
    assert (await replay(api, name))[0] == 200
    assert len(kept.events) == 1


async def test_two_requests_with_names_of_their_own_are_two_events(api: AltcraftApi, kept: Kept) -> None:
    body = json.dumps({"time": 1_760_000_000, "smid": SMID}).encode()
    for name in ("first", "second", "second"):
        assert (await post(api, "/event/push/open", body, ROLE | {"Request-ID": name}))[0] == 200
    assert len(kept.events) == 2


async def test_without_a_name_the_message_and_the_kind_make_the_fact(api: AltcraftApi, kept: Kept) -> None:
    body = json.dumps({"time": 1_760_000_000, "smid": SMID}).encode()
    for path in ("/event/push/open", "/event/push/open", "/event/push/delivery"):
        await post(api, path, body, ROLE)
    assert [event.type for event in kept.events] == ["push.opened", "push.delivered"]


async def test_a_phone_with_a_wrong_clock_is_heard_at_its_arrival_and_only_once(api: AltcraftApi, kept: Kept) -> None:
    body = json.dumps({"time": 9_999_999_999, "smid": SMID}).encode()
    for _ in range(2):
        await post(api, "/event/push/open", body, ROLE)
        kept.now += 60 * SECOND
    (event,) = kept.events
    assert (event.time, event.suspect) == (NOW, ["time"])
    assert event.extra["client_time"] == str(9_999_999_999 * SECOND)


@pytest.mark.parametrize("path", ["/event/push/open", "/event/post", POST_EVENTS, GOALS])
async def test_what_cannot_be_kept_now_is_answered_503_so_that_it_comes_again(
    api: AltcraftApi, kept: Kept, path: str
) -> None:
    kept.takes = False
    bodies = {
        "/event/push/open": b'{"time":1760000000,"smid":"s"}',
        "/event/post": sample("sdk_android_mobile_event.http").partition(b"\r\n\r\n")[2],
        POST_EVENTS: b'{"events": 1, "uid": "u"}',
        GOALS: b'{"db_id": 1, "pixel_id": 1, "goal": "card"}',
    }
    form = {"Content-Type": "multipart/form-data; boundary=d1b6a2f0-0000-4000-8000-000000000001"}
    status, answer = await post(api, path, bodies[path], ROLE | (form if path == "/event/post" else {}))
    assert (status, answer["error"]) == (503, 503)
    kept.takes = True
    assert (await post(api, path, bodies[path], ROLE | (form if path == "/event/post" else {})))[0] == 200
    assert len(kept.events) == 1


async def test_keys_that_cannot_be_read_are_no_wrong_key(api: AltcraftApi) -> None:
    status, _ = await post(api, "/event/push/open", b"{}", {"Authorization": "Bearer rtoken@broken"})
    assert status == 503


@pytest.mark.parametrize(
    "authorization", ["", "Bearer rtoken@wrong", "Basic eDp5", "Bearer a.b.c", "Bearer " + "x" * 30_000]
)
async def test_a_wrong_token_is_refused_for_good(api: AltcraftApi, kept: Kept, authorization: str) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    status, answer = await post(api, "/event/push/open", b'{"time":1760000000,"smid":"s"}', headers)
    assert (status, answer["error"], kept.events) == (401, 401, [])
    status, answer = await post(api, POST_EVENTS, b'{"token": "wrong", "events": 1, "uid": "u"}', headers)
    assert (status, answer["error"]) == (200, 401), "the server's API tells errors in its answer"


async def test_posted_push_events_are_answered_as_altcraft_does(api: AltcraftApi, kept: Kept) -> None:
    success = json.loads(sample("api_success_response.json"))
    assert await post(api, POST_EVENTS, sample("pushes_post_events_request.json")) == (200, success)
    assert await post(api, POST_EVENTS, sample("pushes_post_events_request_full.json")) == (200, success)
    compact, full = kept.events
    assert said(compact) == ("push.delivered", "deliv_push", NOW, "w4HFn8RPDFUi_2_4S_S_3___6.2NvyN8Hb67wmzJshM_6BuFTt")
    assert said(full) == ("push.delivered", "deliv_push", NOW, "uid")
    assert (full.job_id, full.device_id) == ("launch_id", "subscriptionid")
    assert full.extra == {"provider": "android-firebase", "uid": "uid"}
    assert (full.ip, full.user_agent) == (None, None), "a server called, not the person's device"


async def test_the_same_in_xml_is_the_same_event_and_is_answered_in_xml(api: AltcraftApi, kept: Kept) -> None:
    async with serving(api) as port:
        head, body = await exchange(port, "POST", POST_EVENTS, sample("pushes_post_events_request_full.xml"))
        assert (head.status, head.headers["content-type"]) == (200, "application/xml")
        root = parse_xml(body)
        answer = {local_name(child.tag): child.text for child in root}  # type: ignore[union-attr]
        assert answer == {"error": "0", "error_text": "Successful operation"}
        await exchange(port, "POST", POST_EVENTS, sample("pushes_post_events_request_full.json"))
    assert [said(event) for event in kept.events] == [("push.delivered", "deliv_push", NOW, "uid")]


async def test_both_events_come_of_a_three(api: AltcraftApi, kept: Kept) -> None:
    await post(api, POST_EVENTS, b'{"token": "%s", "events": 3, "uid": "u"}' % TOKEN.encode())
    assert [event.type for event in kept.events] == ["push.delivered", "push.opened"]


async def test_a_server_that_repeats_itself_is_heard_once(api: AltcraftApi, kept: Kept) -> None:
    for _ in range(2):
        await post(api, POST_EVENTS, sample("pushes_post_events_request.json"))
        kept.now += 5 * SECOND
    assert len(kept.events) == 1


async def test_a_goal_is_an_open_of_its_pixel(api: AltcraftApi, kept: Kept) -> None:
    status, answer = await post(api, GOALS, sample("goals_register_request.json"))
    assert (status, answer["error"]) == (200, 0)
    (event,) = kept.events
    assert said(event) == ("web.pixel_opened", "pixel_open", parse_time("2006-01-25T08:04:05Z"), None)
    assert (event.recipient, event.list_id, event.test) == ("john@example.com", "1", False)
    assert event.extra["goals"] == [{"goal": "card", "value": 10.0}]
    assert event.extra["pixel_data"] == {"key": "value"}
    assert "token" not in event.extra


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (POST_EVENTS, b'{"events": 4, "uid": "u"}'),
        (POST_EVENTS, b'{"events": 1}'),
        (POST_EVENTS, b"<xml><events>1</events>"),
        (POST_EVENTS, b'<!DOCTYPE x [<!ENTITY y "z">]><xml><events>1</events><uid>&y;</uid></xml>'),
        (POST_EVENTS, b"[]"),
        (POST_EVENTS, b"\xff"),
        (GOALS, b'{"pixel_id": 1}'),
        (GOALS, b'{"pixel_id": 1, "goal": "g", "date": "yesterday"}'),
        (GOALS, json.dumps({"pixel_id": 1, "goal": "g", "pixel_data": {"k": "x" * 1_100}}).encode()),
    ],
)
async def test_a_request_that_is_wrong_is_told_so_in_the_answer(
    api: AltcraftApi, kept: Kept, path: str, body: bytes
) -> None:
    status, answer = (await _told(api, path, body)) if body[:1] == b"<" else await post(api, path, body, ROLE)
    assert (status, int(str(answer["error"])), kept.events) == (200, 400, [])
    assert answer["error_text"]


async def _told(api: AltcraftApi, path: str, body: bytes) -> tuple[int, dict[str, object]]:
    async with serving(api) as port:
        head, answer = await exchange(port, "POST", path, body, ROLE)
    return head.status, {local_name(child.tag): child.text for child in parse_xml(answer)}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "change",
    [
        (b'name="wn"', b'name="wx"'),
        (b"000000000001--\r\n", b"000000000001\r\n\r\n"),
        (b"multipart/form-data;", b"multipart/mixed    ;"),
        (b'form-data; name="aci"', b"form-data; title=aci  "),
    ],
    ids=["no name", "cut off", "another type", "a part without a name"],
)
async def test_a_mobile_event_that_cannot_be_read_is_refused_for_good(
    api: AltcraftApi, kept: Kept, change: tuple[bytes, bytes]
) -> None:
    data = sample("sdk_android_mobile_event.http")
    assert change[0] in data
    async with serving(api) as port:
        head = await raw(port, data.replace(*change))
    assert head.startswith(b"HTTP/1.1 400 ")
    assert not kept.events


async def test_other_paths_methods_and_sizes_are_refused_in_json(api: AltcraftApi) -> None:
    async with serving(api) as port:
        for method, path, length, status in (
            ("POST", "/event/push/other", 0, 404),
            ("POST", "/api/v1.1/profiles/import", 0, 404),
            ("GET", "/event/push/open", 0, 405),
            ("POST", "/event/push/open", 262_145, 413),
        ):
            headers = ROLE | ({"Content-Length": str(length)} if length else {})
            head, body = await exchange(port, method, path, b"", headers)
            assert (head.status, json.loads(body)["error"]) == (status, status)

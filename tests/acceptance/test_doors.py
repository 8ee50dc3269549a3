"""The doors: what a sender hears, and what is kept of what it sent."""

import gzip
import os
import socket
import time
from base64 import b64encode
from pathlib import Path

import msgspec
import zstandard
from tests.acceptance.conftest import Server

from aftersend.core.signing import Signer

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"
OPEN = {"type": "email.opened", "time": "2026-01-15T08:00:00Z", "recipient": "a@example.org", "message_id": "m1"}


def answer(body: bytes) -> dict[str, object]:
    return msgspec.json.decode(body, type=dict[str, object])


async def post(server: Server, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, object]]:
    status, data, _ = await server.request("POST", path, body, **headers)
    return status, answer(data)


async def test_an_event_is_kept_once_and_told_back(server: Server) -> None:
    body = msgspec.json.encode(OPEN)
    assert await post(server, "/v1/events", body) == (200, {"accepted": 1, "duplicates": 0, "rejected": []})
    assert await post(server, "/v1/events", body) == (200, {"accepted": 0, "duplicates": 1, "rejected": []})
    events = [event for event in await server.events() if event["type"] == "email.opened"]
    assert [event["recipient"] for event in events] == ["a@example.org"]


async def test_the_five_vendors_and_standards_come_in(server: Server) -> None:
    for dialect, file in (
        ("pure360", "pure360/http/OPEN.normalised.form"),
        ("pure360/ftp", "pure360/ftp/events.normalised.log"),
        ("activatepro", "activatepro/api/Message_Clicked.json"),
        ("altcraft", "altcraft/hook_click_new_envelope.json"),
        ("halon", "halon/batch_mixed.json"),
        ("messagegears", "messagegears/canonical_v31/_mixed_batch.xml"),
    ):
        status, said = await post(server, f"/v1/events/{dialect}", (FIXTURES / file).read_bytes())
        assert status == 200, (dialect, said)
        assert said["accepted"], (dialect, said)
        assert not said["rejected"], (dialect, said)


async def test_one_bad_event_among_good_ones_is_told_and_kept_aside(server: Server) -> None:
    body = msgspec.json.encode(
        [OPEN, {"type": "email.opened", "time": "yesterday"}, OPEN | {"recipient": "b@x.example"}]
    )
    status, said = await post(server, "/v1/events", body)
    assert (status, said["accepted"]) == (200, 2)
    assert [(item["index"], item["reason"]) for item in said["rejected"]] == [(1, "invalid_time")]  # type: ignore[attr-defined]
    (kept,) = await server.json("GET", "/v1/quarantine")  # type: ignore[misc]
    assert "yesterday" in kept["body"]
    assert kept["reason"] == "invalid_time"


async def test_what_cannot_be_split_is_refused_with_one_line_and_not_kept(server: Server) -> None:
    for body, reason in (
        (b"", "empty_body"),
        (b"\xff\xfe[1", "invalid_utf8"),
        (b'[{"type": "email.opened"', "invalid_json"),
        (b"[" * 100_000, "too_deep"),
        (b'[{"type": NaN}]', "invalid_json"),
    ):
        status, said = await post(server, "/v1/events", body)
        assert (status, said["error"]) == (400, reason)
        assert "\n" not in str(said["detail"])
    assert await server.json("GET", "/v1/quarantine") == []
    assert await server.events() == []


async def test_an_empty_batch_is_fine(server: Server) -> None:
    assert await post(server, "/v1/events", b"[]") == (200, {"accepted": 0, "duplicates": 0, "rejected": []})


async def test_impossible_values_are_rejected_one_by_one(server: Server) -> None:
    wrong = [
        OPEN | {"time": "1969-12-31T23:59:59Z"},
        OPEN | {"time": "2999-01-01T00:00:00Z"},
        OPEN | {"recipient": 99999999999999999999999},
        OPEN | {"type": None},
        OPEN | {"geo": {"latitude": "north"}},
        [OPEN],
        "text",
    ]
    status, said = await post(server, "/v1/events", msgspec.json.encode(wrong).replace(b"9" * 23, b"1e400"))
    assert status in (200, 400)
    status, said = await post(server, "/v1/events", msgspec.json.encode([*wrong[:2], *wrong[3:]]))
    assert status == 200
    assert [item["reason"] for item in said["rejected"]] == [  # type: ignore[attr-defined]
        "time_out_of_range",
        "time_out_of_range",
        "wrong_type",
        "wrong_type",
        "not_an_object",
        "not_an_object",
    ]


async def test_a_key_twice_in_one_event_is_rejected_because_one_value_would_be_lost(server: Server) -> None:
    status, said = await post(server, "/v1/events", b'[{"type": "email.opened", "recipient": "a", "recipient": "b"}]')
    assert (status, said["accepted"]) == (200, 0)
    assert said["rejected"][0]["reason"] == "duplicate_key"  # type: ignore[index]


async def test_bodies_are_inflated_with_a_bound(server: Server) -> None:
    body = msgspec.json.encode(OPEN)
    packed = {"gzip": gzip.compress(body), "zstd": zstandard.compress(body)}
    for encoding, data in packed.items():
        status, said = await post(server, "/v1/events", data, Content_Encoding=encoding)
        assert status == 200, said
    bombs = {"gzip": gzip.compress(bytes(30_000_000)), "zstd": zstandard.compress(bytes(30_000_000))}
    for encoding, data in bombs.items():
        status, said = await post(server, "/v1/events", data, Content_Encoding=encoding)
        assert (status, said["error"]) == (413, "too_large")
    status, said = await post(server, "/v1/events", b"x", Content_Encoding="gzip")
    assert status == 400
    status, said = await post(server, "/v1/events", packed["gzip"][:-6], Content_Encoding="gzip")
    assert status == 400
    status, said = await post(server, "/v1/events", b"x", Content_Encoding="br")
    assert (status, said["error"]) == (415, "unknown_encoding")


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(server: Server) -> None:
    status, said = await post(server, "/v1/events", bytes(20_000_001))
    assert (status, said["error"]) == (413, "too_large")


async def test_an_unknown_dialect_is_named(server: Server) -> None:
    status, said = await post(server, "/v1/events/klingon", b"{}")
    assert status in (400, 404)
    assert "klingon" in str(said["detail"])
    status, said = await post(server, "/v1/events/pure360/pigeon", b"{}")
    assert "pigeon" in str(said["detail"])


async def test_keys_that_are_missing_wrong_revoked_or_too_weak_open_nothing(server: Server) -> None:
    body = msgspec.json.encode(OPEN)
    reader = await server.json("POST", "/v1/keys", {"name": "r", "scopes": ["read"]}, 201)
    sender = await server.json("POST", "/v1/keys", {"name": "s", "scopes": ["ingest"]}, 201)
    assert isinstance(reader, dict)
    assert isinstance(sender, dict)
    assert (await server.request("POST", "/v1/events", body, key=""))[0] == 401
    assert (await server.request("POST", "/v1/events", body, key=sender["key"][:-1] + "!"))[0] == 401
    assert (await server.request("POST", "/v1/events", body, key=reader["key"]))[0] == 403
    assert (await server.request("GET", "/v1/subscriptions", key=sender["key"]))[0] == 403
    assert (await server.request("POST", "/v1/events", body, key=sender["key"]))[0] == 200
    await server.json("DELETE", f"/v1/keys/{sender['id']}")
    assert (await server.request("POST", "/v1/events", body, key=sender["key"]))[0] == 401
    listed = await server.request("GET", "/v1/keys")
    assert sender["key"].encode() not in listed[1]
    assert b"digest" not in listed[1]


async def test_a_tenant_sees_and_governs_itself_alone(server: Server) -> None:
    await server.json("POST", "/v1/tenants", {"name": "acme"}, 201)
    admin = await server.json("POST", "/v1/keys", {"tenant": "acme", "name": "a", "scopes": ["admin"]}, 201)
    assert isinstance(admin, dict)
    key = admin["key"]
    body = msgspec.json.encode(OPEN)
    await server.request("POST", "/v1/events", body, key=key)
    await server.request("POST", "/v1/events", body)
    mine = answer((await server.request("GET", "/v1/events", key=key))[1])["events"]
    assert {event["tenant"] for event in mine} == {"acme"}  # type: ignore[attr-defined]
    assert (await server.request("GET", "/v1/events?tenant=default", key=key))[0] == 403
    assert (await server.request("POST", "/v1/keys", b'{"tenant":"default","scopes":["admin"]}', key=key))[0] == 403
    assert (await server.request("POST", "/v1/sources", b'{"tenant":"default","name":"s","dialect":"halon"}', key=key))[
        0
    ] == 403
    assert (await server.request("DELETE", f"/v1/keys/{admin['id']}", key=key))[0] == 200


async def test_a_repeated_request_keeps_events_without_a_time_once(server: Server) -> None:
    body = msgspec.json.encode({"type": "email.opened", "recipient": "a@example.org"})
    first = await post(server, "/v1/events", body, Idempotency_Key="batch-7")
    again = await post(server, "/v1/events", body, Idempotency_Key="batch-7")
    assert first == again == (200, {"accepted": 1, "duplicates": 0, "rejected": []})
    other = await post(server, "/v1/events", body, Idempotency_Key="batch-8")
    assert other[1]["accepted"] == 1


async def test_a_source_is_proven_by_path_header_or_basic_and_hears_the_vendors_answer(server: Server) -> None:
    form = (FIXTURES / "pure360/http/OPEN.normalised.form").read_bytes()
    made = await server.json("POST", "/v1/sources", {"name": "spotler", "dialect": "pure360"}, 201)
    assert isinstance(made, dict)
    secret = made["secret"]
    assert await server.request("POST", made["path"], form, key="") == (
        200,
        b"OK",
        {
            "content-length": "2",
            "content-type": "text/plain",
        },
    )
    for headers in (
        {"X_API_Key": secret},
        {"Authorization": f"Bearer {secret}"},
        {"Authorization": "Basic " + b64encode(f"any:{secret}".encode()).decode()},
    ):
        status, body, _ = await server.request("POST", "/in/spotler", form, key="", **headers)
        assert (status, body) == (200, b"OK"), headers
    assert (await server.request("POST", "/in/spotler", form, key=""))[0] == 401
    assert (await server.request("POST", "/in/spotler/wrong", form, key=""))[0] == 401
    assert (await server.request("POST", "/in/nobody/x", form, key=""))[0] == 404
    listed = await server.request("GET", "/v1/sources")
    assert secret.encode() not in listed[1]
    (event,) = [event for event in await server.events() if event["type"] == "email.opened"]
    assert event["source"]["name"] == "spotler"  # type: ignore[index]


async def test_an_unreadable_body_of_a_proven_source_is_kept_and_answered_with_success(server: Server) -> None:
    made = await server.json("POST", "/v1/sources", {"name": "mta", "dialect": "halon"}, 201)
    assert isinstance(made, dict)
    status, _, _ = await server.request("POST", made["path"], b"\x00not json", key="")
    assert status == 200
    (kept,) = await server.json("GET", "/v1/quarantine")  # type: ignore[misc]
    assert (kept["source"], kept["body"]) == ("mta", "\x00not json")


async def test_a_signed_source_refuses_what_is_not_signed(server: Server) -> None:
    secret = "whsec_" + "A" * 43 + "="
    fields = {"name": "signed", "dialect": "canonical", "secret": False, "signing_secret": secret}
    await server.json("POST", "/v1/sources", fields, 201)
    body = msgspec.json.encode(OPEN)
    assert (await server.request("POST", "/in/signed", body, key=""))[0] == 401
    now = int(time.time())
    headers = {
        "webhook_id": "m1",
        "webhook_timestamp": str(now),
        "webhook_signature": Signer([secret]).sign("m1", now, body),
    }
    assert (await server.request("POST", "/in/signed", body, key="", **headers))[0] == 200
    assert (await server.request("POST", "/in/signed", body + b" ", key="", **headers))[0] == 401


async def test_activatepros_own_call_answers_as_activatepro_does(server: Server) -> None:
    body = (FIXTURES / "activatepro/api/Message_Clicked.json").read_bytes()
    token = {"X_XNG_AuthToken": server.key, "X_XNG_ApiVersion": "1"}
    status, said, headers = await server.request("POST", "/events", body, key="", **token)
    assert (status, said, headers["content-type"]) == (202, b"", "application/json;charset=UTF-8")
    assert headers["x-request-id"]
    status, said, _ = await server.request("POST", "/events", body, key="", X_XNG_AuthToken="wrong")
    assert (status, said) == (401, b"")
    many = {"id": "A", "events": [{"event": "Message Sent", "timestamp": "2022-01-11T00:00:00Z"}] * 51}
    for wrong in (msgspec.json.encode(many), b"{", b'{"events": [{"event": "Message Sent"}]}'):
        status, said, _ = await server.request("POST", "/events", wrong, key="", **token)
        assert status == 400, wrong
        assert set(answer(said)) == {"field", "type"}


async def test_with_an_address_of_its_own_the_api_is_not_served_at_the_doors(stopped_server: Server) -> None:
    server = stopped_server
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = f"127.0.0.1:{free.getsockname()[1]}"
    server.options = ("--admin-listen", admin)
    await server.start()
    assert (await post(server, "/v1/events", msgspec.json.encode(OPEN)))[0] == 200
    assert (await server.request("GET", "/healthz"))[0] == 200
    for path in ("/v1/events", "/v1/keys", "/metrics"):
        assert (await server.request("GET", path))[0] == 404
    server.url = f"http://{admin}"
    assert len(await server.events()) >= 1
    assert (await server.request("GET", "/v1/keys"))[0] == 200


async def test_nothing_answers_with_a_stack_trace(server: Server) -> None:
    for method, path in (
        ("GET", "/v1/events?after=x"),
        ("GET", "/v1/events?limit=" + "9" * 40),
        ("GET", "/v1/subscriptions/none"),
        ("POST", "/v1/subscriptions"),
        ("PATCH", "/v1/subscriptions/none"),
        ("POST", "/v1/keys"),
        ("DELETE", "/v1/keys/none"),
        ("PUT", "/v1/events"),
        ("GET", "/in/x"),
        ("POST", "/in/"),
        ("GET", "/" + "a" * 3_000),
    ):
        status, body, _ = await server.request(method, path, os.urandom(20) if method != "GET" else None)
        assert status in (400, 404, 405), (method, path, status, body)
        assert b"Traceback" not in body

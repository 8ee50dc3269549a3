"""The contract test for receivers, against real receivers: a good one, and some that get one thing wrong."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import standardwebhooks
from aiohttp import web

from aftersend.core.errors import AccessError, ConfigurationError
from aftersend.core.outcome import Acknowledgement
from aftersend.core.signing import Verifier, format_secret
from aftersend.dialects import canonical
from aftersend.egress import Egress
from aftersend.testing import receiver
from aftersend.testing.receiver import Finding, check
from aftersend.transports.http import HttpClient

SECRET = format_secret(b"k" * 32)
FIELDS = {"id", "type", "time", "source", "received_at", "channel", "recipient", "message_id", "url", "test", "tenant"}
FORGERIES = ("wrongly signed", "altered", "renamed", "unsigned", "old timestamp", "future timestamp")

Receive = Callable[[bytes, dict[str, str]], tuple[int, str]]


def good(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
    """What the documentation tells receivers to do."""
    try:
        standardwebhooks.Webhook(SECRET).verify(body, headers, json_parse=False)
    except standardwebhooks.WebhookVerificationError:
        return 401, "not signed by you"
    try:
        events = json.loads(body)
    except ValueError:
        return 400, "not JSON"
    return (200, "OK") if all(event["type"] for event in events) else (422, "no type")


@asynccontextmanager
async def receiving(receive: Receive, wait: float = 0.0, limit: int = 10_000_000) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.Response:
        await asyncio.sleep(wait)
        status, text = receive(await request.read(), {name.lower(): value for name, value in request.headers.items()})
        return web.Response(status=status, text=text)

    application = web.Application(client_max_size=limit)
    application.router.add_post("/hook", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        yield f"http://127.0.0.1:{port}/hook"
    finally:
        await runner.cleanup()


async def findings(
    receive: Receive,
    secrets: tuple[str, ...] = (SECRET,),
    dialect: canonical.Dialect | None = None,
    wait: float = 0.0,
    limit: int = 10_000_000,
) -> list[Finding]:
    async with receiving(receive, wait, limit) as url:
        client = HttpClient(Egress.read(["127.0.0.0/8"]))
        try:
            found = await check(client.poster(url), dialect or canonical.Dialect(), time.time_ns, secrets)
        finally:
            await client.close()
    for finding in found:
        assert finding.detail.isprintable()
        assert finding.level in ("ok", "warning", "error", "skipped")
    return found


def amiss(found: list[Finding]) -> dict[str, str]:
    return {finding.check: finding.level for finding in found if finding.level != "ok"}


def detail(found: list[Finding], name: str) -> str:
    return next(finding.detail for finding in found if finding.check == name)


async def test_a_good_receiver_gets_nothing_wrong() -> None:
    found = await findings(good)
    assert amiss(found) == {}
    assert [finding.check for finding in found] == [
        *("valid", "repeated", "batch", "unknown field", "large", "unreadable"),
        *FORGERIES,
        "several signatures",
    ]


async def test_each_request_but_the_repeat_has_its_own_id() -> None:
    ids = []

    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        ids.append(headers.get("webhook-id"))
        return good(body, headers)

    await findings(receive)
    assert ids[0] == ids[1]
    assert None in ids
    genuine = ids[1:6]
    assert len(set(genuine)) == len(genuine)


async def test_a_receiver_that_believes_everybody_is_told() -> None:
    found = await findings(lambda body, headers: (200, "OK"))
    assert amiss(found) == {"unreadable": "warning", **dict.fromkeys(FORGERIES, "error")}
    assert detail(found, "wrongly signed") == (
        "took a signature of another key: anybody could send you events; answer 401"
    )


async def test_a_receiver_that_forgets_the_time_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        stamp = headers.get("webhook-timestamp", "0")
        try:
            Verifier([SECRET]).verify(headers, body, int(stamp))
        except AccessError:
            return 401, ""
        return (200, "") if body.endswith(b"]") else (400, "")

    assert amiss(await findings(receive)) == {"old timestamp": "error", "future timestamp": "error"}


async def test_a_receiver_that_signs_what_it_parsed_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        return good(body.strip(), headers)

    found = await findings(receive)
    assert amiss(found) == {"altered": "error"}


async def test_a_receiver_that_reads_only_the_first_signature_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        first = headers.get("webhook-signature", "").partition(" ")[0]
        return good(body, {**headers, "webhook-signature": first})

    found = await findings(receive)
    assert amiss(found) == {"several signatures": "error"}
    assert "one signature that matches is enough" in detail(found, "several signatures")


async def test_a_receiver_that_refuses_repeats_is_told() -> None:
    seen = set()

    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        status, text = good(body, headers)
        if status == 200 and headers["webhook-id"] in seen:
            return 409, "had that already"
        seen.add(headers.get("webhook-id"))
        return status, text

    found = await findings(receive)
    assert amiss(found) == {"repeated": "error"}
    assert detail(found, "repeated").startswith("answered 409 (had that already); a repeat")


async def test_a_receiver_that_refuses_unknown_fields_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        status, text = good(body, headers)
        if status == 200 and not all(event.keys() <= FIELDS for event in json.loads(body)):
            return 422, "unknown field"
        return status, text

    assert amiss(await findings(receive)) == {"unknown field": "error"}


async def test_a_receiver_that_takes_one_event_only_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        status, text = good(body, headers)
        return (500, "too many") if status == 200 and len(json.loads(body)) > 1 else (status, text)

    assert amiss(await findings(receive)) == {"batch": "error", "large": "error"}


async def test_a_small_limit_is_a_warning_when_it_is_told_as_413() -> None:
    found = await findings(good, limit=10_000)
    assert amiss(found) == {"large": "warning"}


async def test_a_receiver_that_breaks_on_bad_bodies_is_told() -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        status, text = good(body, headers)
        return (500 if status == 400 else status), text

    found = await findings(receive)
    assert amiss(found) == {"unreadable": "error"}


@pytest.mark.parametrize(("status", "level"), [(400, "warning"), (500, "error")])
async def test_another_refusal_than_401_is_told(status: int, level: str) -> None:
    def receive(body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        code, text = good(body, headers)
        return (status if code == 401 else code), text

    assert amiss(await findings(receive)) == dict.fromkeys(FORGERIES, level)


async def test_a_redirect_is_told() -> None:
    found = await findings(lambda body, headers: (308, ""), ())
    assert "never followed" in detail(found, "valid")


async def test_the_words_of_the_dialects_vendor_decide_what_is_taken() -> None:
    class Particular(canonical.Dialect):
        acknowledgement = Acknowledgement("200", "OK")

    assert amiss(await findings(good, dialect=Particular())) == {}
    found = await findings(lambda body, headers: (202, "OK"), (), Particular())
    assert "mind the exact status and body" in detail(found, "valid")


async def test_without_a_secret_signatures_are_not_tried() -> None:
    found = await findings(lambda body, headers: (400, "") if body[-1:] != b"]" else (200, ""), ())
    assert amiss(found) == {"signatures": "skipped"}
    assert not {finding.check for finding in found} & set(FORGERIES)


async def test_a_slow_receiver_is_warned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "SLOW", 10_000_000)
    found = await findings(good, wait=0.02)
    assert "valid: time" in amiss(found)
    assert "take in first" in detail(found, "valid: time")


async def test_nobody_there_ends_the_check_at_once() -> None:
    async with receiving(good) as url:
        pass
    client = HttpClient(Egress.read(["127.0.0.0/8"]))
    found = await check(client.poster(url), canonical.Dialect(), time.time_ns, [SECRET])
    await client.close()
    assert [(finding.check, finding.level) for finding in found] == [("valid", "error")]
    assert found[0].detail.startswith("connect: ")


async def test_a_secret_of_another_form_is_told() -> None:
    with pytest.raises(ConfigurationError, match="signing secret"):
        await findings(good, ("hush",))

"""Pulling from a real server: batches, leases, a kill before the answer, turns with push, streams, a quick stop."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import msgspec
from tests.acceptance.conftest import Inlet, Server, run

PULLED = {"name": "crm", "transport": "rest_pull", "start": "beginning", "types": ["email.*"]}


def opened(first: int, last: int) -> bytes:
    """Opens with the numbers of a run."""
    return msgspec.json.encode(
        [
            {
                "id": f"n{number}",
                "type": "email.opened",
                "time": "2026-10-01T08:00:00Z",
                "recipient": f"r{number}@example.org",
                "message_id": f"m{number}",
            }
            for number in range(first, last)
        ]
    )


async def tell(server: Server, first: int, last: int) -> None:
    status, body, _ = await server.request("POST", "/v1/events", opened(first, last))
    assert status == 200, body


class Batch:
    """What a pull was answered."""

    def __init__(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.status, self.body, self.headers = status, body, headers
        self.lease = headers.get("aftersend-lease", "")

    @property
    def names(self) -> list[str]:
        return [event["source"]["id"] for event in self.events if event["type"] == "email.opened"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(line) for line in self.body.splitlines()]


async def pull(server: Server, query: str = "", key: str | None = None, name: str = "crm") -> Batch:
    return Batch(*await server.request("GET", f"/v1/subscriptions/{name}/batch?{query}", key=key))


async def answer(server: Server, what: str, status: int = 200, **fields: object) -> Any:
    return await server.json("POST", f"/v1/subscriptions/crm/{what}", fields, status)


async def drain(server: Server, query: str = "max=1000") -> list[dict[str, Any]]:
    """Everything there is, acknowledged batch by batch."""
    found: list[dict[str, Any]] = []
    while (batch := await pull(server, query)).status == 200:
        found += batch.events
        await answer(server, "ack", lease=batch.lease)
    assert batch.status == 204, batch.body
    return found


async def test_a_consumer_pulls_acknowledges_refuses_and_extends(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"], "retry": [1]}, 201)
    nothing = await pull(server)
    assert (nothing.status, nothing.body) == (204, b"")
    assert nothing.headers["aftersend-detail"] == "nothing came within the wait; ask again"
    await tell(server, 0, 5)
    batch = await pull(server, "max=4&consumer=worker-1&lease=30")
    assert batch.names == ["n0", "n1", "n2", "n3"]
    assert batch.headers["content-type"] == "application/x-ndjson"
    shown = {name: batch.headers[f"aftersend-{name}"] for name in ("epoch", "sequence", "previous", "count")}
    assert shown == {"epoch": "1", "sequence": "1-4", "previous": "0", "count": "4"}
    ids = [event["id"] for event in batch.events]
    assert await answer(server, "ack", lease=batch.lease, ids=["n0"]) == {
        "lease": batch.lease,
        "events": 1,
        "left": 3,
        "until": batch.headers["aftersend-until"],
    }
    refused = await answer(server, "nack", lease=batch.lease, ids=ids[1:2], reason="no such\nperson")
    assert (refused["events"], refused["left"]) == (1, 2)
    extended = await answer(server, "extend", lease=batch.lease, seconds=600)
    assert extended["until"] > batch.headers["aftersend-until"]
    standing = (await server.json("GET", "/v1/subscriptions/crm"))["standing"]  # type: ignore[index]
    assert (standing["position"], standing["sequence"], standing["leases"], standing["leased"]) == (2, 2, 1, 2)
    await answer(server, "ack", lease=batch.lease)
    assert (await pull(server)).names == ["n4"]
    late = await pull(server, "wait=10")
    assert (late.names, late.headers["aftersend-late"], late.headers["aftersend-sequence"]) == (["n1"], "true", "2-2")
    (aside,) = await server.json("GET", "/v1/subscriptions/crm/aside")  # type: ignore[misc]
    assert aside["detail"] == "refused by worker-1: no such person"


async def test_wrong_requests_are_told_in_one_line(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED, 201)
    for query, detail in (
        ("max=0", "max is 1 to 10000, not 0"),
        ("max=all", "max is not a number: 'all'"),
        ("wait=61", "wait is 0 to 60, not 61"),
        ("lease=43201", "lease is 1 to 43200, not 43201"),
        ("dialect=hal", "there is no dialect 'hal'; there are:"),
        ("consumer=stream_1", "consumer is a name of at most 100 printable characters"),
    ):
        refused = await pull(server, query)
        assert refused.status == 400
        assert msgspec.json.decode(refused.body)["detail"].startswith(detail)
    assert (await pull(server, name="cmr")).status == 404
    said = await answer(server, "ack", 404, lease="lease_1")
    assert said["detail"] == "there is no lease 'lease_1' on crm; it was answered, has ended, or never was"
    for what, fields in (("ack", {}), ("extend", {"lease": "x", "seconds": 0}), ("nack", {"lease": "x", "id": "y"})):
        assert (await answer(server, what, 400, **fields))["detail"].startswith("the body cannot be read: ")


async def test_any_dialect_may_be_asked_for_and_nothing_is_left_out(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened", "profile.*"]}, 201)
    await tell(server, 0, 2)
    event = {"type": "profile.merged", "time": "2026-10-01T08:00:00Z", "id": "p"}
    await server.json("POST", "/v1/events", [event])
    altcraft = await pull(server, "dialect=halon&max=100&lease=1")
    assert altcraft.headers["content-type"] == "application/json"
    assert len(msgspec.json.decode(altcraft.body)) == int(altcraft.headers["aftersend-count"]) == 2
    await answer(server, "ack", lease=altcraft.lease)
    for _ in range(2):
        said = await pull(server, "dialect=halon")
        assert said.status == 409
        assert b"halon has no word for the next event, profile.merged; ask for another dialect" in said.body
    array = await pull(server, "dialect=canonical&lease=1")
    assert msgspec.json.decode(array.body)[0]["type"] == "profile.merged"
    await answer(server, "ack", lease=array.lease)
    await tell(server, 2, 4)
    lines = await pull(server, "dialect=cloudevents/structured&max=2")
    assert lines.headers["content-type"] == "application/x-ndjson"
    assert [event["specversion"] for event in lines.events] == ["1.0"] * int(lines.headers["aftersend-count"])


async def test_an_answer_holds_no_more_bytes_than_a_batch_may(server: Server) -> None:
    fields = PULLED | {"types": ["email.opened"], "batch": {"max_events": 10_000, "max_bytes": 20_000}}
    await server.json("POST", "/v1/subscriptions", fields, 201)
    await tell(server, 0, 500)
    found: list[str] = []
    while (batch := await pull(server)).status == 200:
        assert len(batch.body) <= 20_000
        found += batch.names
        await answer(server, "ack", lease=batch.lease)
    assert found == [f"n{number}" for number in range(500)]


async def test_a_long_poll_is_answered_as_soon_as_something_comes(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"]}, 201)
    waiting = [asyncio.create_task(pull(server, "wait=30&max=1")) for _ in range(3)]
    await asyncio.sleep(0.2)
    began = time.monotonic()
    await tell(server, 0, 3)
    found = await asyncio.gather(*waiting)
    assert time.monotonic() - began < 2
    assert sorted(name for batch in found for name in batch.names) == ["n0", "n1", "n2"]


async def test_who_has_gone_is_given_nothing(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"]}, 201)
    gone = asyncio.create_task(pull(server, "wait=30"))
    await asyncio.sleep(0.2)
    gone.cancel()
    await asyncio.sleep(0.2)
    await tell(server, 0, 1)
    assert (await pull(server, "wait=5")).names == ["n0"]


async def test_a_kill_between_lease_and_answer_loses_nothing(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"], "retry": [3_600]}, 201)
    await tell(server, 0, 30)
    batches = [await pull(server, "max=5&lease=4") for _ in range(4)]
    await answer(server, "ack", lease=batches[2].lease)
    await answer(server, "ack", lease=batches[0].lease, ids=["n0", "n1"])
    await answer(server, "nack", lease=batches[1].lease, ids=["n6"])
    await server.kill()
    await server.start()
    assert (await pull(server, "max=5")).names == [f"n{number}" for number in range(20, 25)], "leases hold"
    await answer(server, "ack", lease=batches[3].lease)
    await asyncio.sleep(4)
    left = await drain(server)
    names = [event["source"]["id"] for event in left]
    assert names == [f"n{number}" for number in (2, 3, 4, 5, 7, 8, 9, 25, 26, 27, 28, 29)]
    ids = {event["source"]["id"]: event["id"] for event in [*batches[0].events, *batches[1].events]}
    assert all(ids.get(event["source"]["id"], event["id"]) == event["id"] for event in left), "the same ids"


async def test_a_subscription_that_is_pushed_is_not_pulled_until_its_breaker_opens(
    server: Server, inlets: Callable[[], Awaitable[Inlet]]
) -> None:
    receiver = await inlets()
    fields = {"name": "crm", "url": receiver.url, "start": "beginning", "types": ["email.opened"]}
    batch = {"max_events": 5, "max_wait": 0.01}
    await server.json("POST", "/v1/subscriptions", fields | {"retry": [0.05], "batch": batch}, 201)
    await tell(server, 0, 5)
    await receiver.until(lambda: len(receiver.events()) == 5)
    refused = await pull(server)
    assert refused.status == 409
    assert msgspec.json.decode(refused.body)["detail"] == (
        "crm is pushed by http; to pull it, pause it, or add a subscription with the transport rest_pull"
    )

    async def fail(headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return 500, b""

    receiver.answer = fail
    await tell(server, 5, 40)
    async with asyncio.timeout(20):
        while (first := await pull(server, "max=10&lease=60")).status == 409:
            await asyncio.sleep(0.05)
    assert first.names == [f"n{number}" for number in range(5, 15)]
    assert first.headers["aftersend-sequence"] == "6-15"
    second = await pull(server, "max=5&lease=60")
    await answer(server, "ack", lease=second.lease)
    receiver.answer = receiver.take
    await asyncio.sleep(0.5)
    assert len(receiver.events()) == 5, "push does not overtake a live lease"
    await answer(server, "ack", lease=first.lease)
    await receiver.until(lambda: len(receiver.events()) == 25)
    pushed = [str(event["source"]["id"]) for event in receiver.events()]  # type: ignore[index]
    assert pushed == [f"n{number}" for number in (*range(5), *range(20, 40))]
    assert receiver.requests[1][0]["aftersend-previous"] == "20"
    assert (await pull(server)).status == 409
    standing = (await server.json("GET", "/v1/subscriptions/crm"))["standing"]  # type: ignore[index]
    assert (standing["sequence"], standing["breaker"]) == (40, "closed")


async def test_a_paused_push_is_pulled_and_goes_on_where_pull_ended(
    server: Server, inlets: Callable[[], Awaitable[Inlet]]
) -> None:
    receiver = await inlets()
    fields = {"name": "crm", "url": receiver.url, "start": "beginning", "types": ["email.opened"], "state": "paused"}
    await server.json("POST", "/v1/subscriptions", fields | {"batch": {"max_wait": 0.01}}, 201)
    await tell(server, 0, 9)
    first = await pull(server, "max=3&lease=2")
    await answer(server, "ack", lease=first.lease)
    held = await pull(server, "max=3&lease=2")
    await server.json("PATCH", "/v1/subscriptions/crm", {"state": "active"})
    assert (await pull(server)).status == 409
    await asyncio.sleep(0.5)
    assert receiver.events() == []
    await receiver.until(lambda: len(receiver.events()) == 6)
    assert [str(event["source"]["id"]) for event in receiver.events()] == [  # type: ignore[index]
        f"n{number}" for number in range(3, 9)
    ]
    late = await answer(server, "ack", 409, lease=held.lease)
    assert late["detail"].endswith("it has ended, and its events are offered again")


async def test_a_changed_filter_voids_what_was_handed_out_before(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"]}, 201)
    await tell(server, 0, 4)
    before = await pull(server, "max=2")
    await server.json("PATCH", "/v1/subscriptions/crm", {"types": ["email.open*"]})
    assert (await answer(server, "ack", 409, lease=before.lease))["error"]
    anew = await pull(server)
    assert (anew.names, anew.headers["aftersend-epoch"]) == ([f"n{number}" for number in range(4)], "2")


async def test_tenants_are_never_mixed_and_the_key_must_reach(server: Server) -> None:
    await server.json("POST", "/v1/tenants", {"name": "acme"}, 201)
    keys = {}
    for name, fields in {
        "acme": {"tenant": "acme", "scopes": ["deliver", "ingest"]},
        "reader": {"scopes": ["read", "ingest"]},
    }.items():
        keys[name] = (await server.json("POST", "/v1/keys", fields, 201))["key"]  # type: ignore[index]
    for key in (None, keys["acme"]):
        status, body, _ = await server.request("POST", "/v1/subscriptions", msgspec.json.encode(PULLED), key)
        assert status == 201, body
    await tell(server, 0, 2)
    mine = await pull(server)
    assert (await pull(server, key=keys["acme"])).status == 204
    body = msgspec.json.encode({"lease": mine.lease})
    status, _, _ = await server.request("POST", "/v1/subscriptions/crm/ack", body, keys["acme"])
    assert status == 404
    assert (await pull(server, key=keys["reader"])).status == 403
    assert (await pull(server, key="")).status == 401
    assert (await pull(server, "tenant=default", key=keys["acme"])).status == 403


async def test_the_command_line_pulls(server: Server) -> None:
    data = ("--data", str(server.data))
    await run("subscriptions", "add", "crm", "--transport", "rest_pull", "--types", "email.opened", *data)
    assert await run("subscriptions", "pull", "crm", *data) == b""
    await tell(server, 0, 3)
    lines = (await run("subscriptions", "pull", "crm", "--wait", "5", *data)).splitlines()
    assert [msgspec.json.decode(line)["source"]["id"] for line in lines] == ["n0", "n1", "n2"]
    await asyncio.sleep(1.1)
    shown = msgspec.json.decode(await run("subscriptions", "pull", "crm", "--ack", "--json", *data))
    assert (shown["count"], shown["sequence"], len(shown["events"])) == ("3", "1-3", 3)
    assert await run("subscriptions", "pull", "crm", "--max", "0", *data, status=2) == b""
    standing = (await server.json("GET", "/v1/subscriptions/crm"))["standing"]  # type: ignore[index]
    assert standing["sequence"] == 3


class Stream:
    """A client of server-sent events as browsers are: it comes back with the last id it saw."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.last = ""
        self.names: list[str] = []

    async def run(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                await self.once(session)

    async def once(self, session: aiohttp.ClientSession) -> None:
        headers = {"Authorization": f"Bearer {self.server.key}"} | ({"Last-Event-ID": self.last} if self.last else {})
        url = f"{self.server.url}/v1/subscriptions/crm/stream"
        async with session.get(url, headers=headers) as answered:
            assert answered.status == 200, await answered.read()
            async for fields in frames(answered):
                if "data" in fields and fields["event"] == "email.opened":
                    self.names.append(msgspec.json.decode(fields["data"])["source"]["id"])
                self.last = fields.get("id", self.last)


async def frames(answered: aiohttp.ClientResponse) -> AsyncIterator[dict[str, str]]:
    fields: dict[str, str] = {}
    async for line in answered.content:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if line == b"\n":
            yield fields
            fields = {}
        elif name:
            fields[name] = value


async def test_a_stream_is_acknowledged_by_coming_back(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED | {"types": ["email.opened"]}, 201)
    stream = Stream(server)
    # More than one stream holds unconfirmed: the server ends it, and the client comes back by itself.
    await tell(server, 0, 2_500)
    running = asyncio.create_task(stream.run())
    async with asyncio.timeout(30):
        while len(stream.names) < 2_500:
            await asyncio.sleep(0.05)
    await tell(server, 2_500, 2_510)
    async with asyncio.timeout(10):
        while len(stream.names) < 2_510:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    assert stream.names == [f"n{number}" for number in range(2_510)]
    cursor = (await server.json("GET", "/v1/subscriptions/crm"))["standing"]  # type: ignore[index]
    assert cursor["sequence"] == 2_000, "what was not confirmed is not acknowledged"
    again = Stream(server)
    again.last = stream.last.rpartition(".")[0] + ".2504"
    running = asyncio.create_task(again.run())
    async with asyncio.timeout(10):
        while len(again.names) < 6:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    assert again.names == [f"n{number}" for number in range(2_504, 2_510)]


async def test_a_stop_waits_for_nobody(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", PULLED, 201)
    head = (await server.json("GET", "/v1/events"))["next"]  # type: ignore[index]
    paths = ("/v1/subscriptions/crm/batch?wait=60", "/v1/subscriptions/crm/stream", "/v1/stream")
    waiting = [
        asyncio.create_task(server.request("GET", path)) for path in (*paths, f"/v1/events?after={head}&wait=60")
    ]
    await asyncio.sleep(0.5)
    assert not any(task.done() for task in waiting)
    began = time.monotonic()
    assert await server.stop() == 0
    assert time.monotonic() - began < 3
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [found[0] for found in answers if isinstance(found, tuple)] == [204, 200, 200, 200]

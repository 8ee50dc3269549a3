"""The SQS transport against moto's server, read by boto3."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from tests.integration.doors import Door
from tests.integration.sqs_server import SqsServer, sqs_server

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.event import Event, Receipt
from aftersend.core.outcome import Outcome, Piece, Verdict
from aftersend.core.secret import Secret
from aftersend.dialects import messagegears
from aftersend.egress import Egress
from aftersend.testing.pieces import PieceSuite, Queue, ids, parcel_of, piece
from aftersend.testing.transports import assert_told
from aftersend.transports import sqs
from aftersend.transports.sqs import Transport

LISTED = Egress.read(["127.0.0.0/8"], brokers=["127.0.0.1", "queues.example.com"])
TAKEN = Outcome(Verdict.TAKEN)
AMAZON = "https://sqs.eu-west-1.amazonaws.com/123456789012/events"


def transport(url: str, **options: Any) -> Transport:
    key = {"access_key": "AKIA", "secret_key": Secret("hunter2"), "timeout": 10.0, "region": "eu-west-1"}
    return Transport(url=url, egress=options.pop("egress", LISTED), **{**key, **options})


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Transport]:
    made = transport(url, **options)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
def server() -> Iterator[SqsServer]:
    with sqs_server() as made:
        yield made


class _Suite(PieceSuite):
    module = sqs
    too_large = 262_144
    many = 90  # moto looks through all it has for every message
    ending: str

    @pytest.fixture(autouse=True)
    def _server(self, server: SqsServer) -> None:
        self.server = server

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Queue]:
        path = self.server.create(f"events-{uuid4().hex}{self.ending}")
        door = await Door(self.server.port).open()

        async def arrived() -> Any:
            return await asyncio.to_thread(self.server.arrived, path)

        try:
            async with opened(f"http://127.0.0.1:{door.port}{path}", session_token=Secret("token-3")) as transport_:
                yield Queue(transport_, arrived, door.shut, secrets=("hunter2", "token-3"))
        finally:
            await door.shut()


class TestFifo(_Suite):
    ending = ".fifo"


class TestStandard(_Suite):
    ending = ""

    async def test_order_is_kept_for_each_key(self) -> None:
        """Amazon promises no order here: all that must hold is that everything arrives."""
        pieces = [piece(number, key=f"key {number % 7}") for number in range(self.many)]
        async with self.connected() as queue:
            assert await queue.transport.send(parcel_of(pieces)) == TAKEN
            assert sorted(ids(await queue.arrived())) == [one.id for one in pieces]

    async def test_a_send_that_is_called_off_leaves_the_transport_usable(self) -> None:
        """As in the suite, without the order."""
        pieces = [piece(number) for number in range(self.many // 3)]
        async with self.connected() as queue:
            for turns in (0, 1, 3, 8, 40):
                task = asyncio.ensure_future(queue.transport.send(parcel_of(pieces)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
            assert await queue.transport.send(parcel_of(pieces)) == TAKEN
            assert set(ids(await queue.arrived())) == {one.id for one in pieces}


def at(server: SqsServer, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


async def test_characters_that_amazon_refuses_are_spelt_out_in_json_and_encoded_elsewhere(server: SqsServer) -> None:
    body = '{"user_agent":"\ufffe and \uffff"}'.encode()
    pieces = [piece(1, body), piece(2, body, content_type="text/plain"), piece(3, b"\x00", content_type="text/csv")]
    path = server.create(f"events-{uuid4().hex}.fifo")
    async with opened(at(server, path)) as transport_:
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    messages = {one["MessageAttributes"]["aftersend-id"]["StringValue"]: one for one in server.messages(path)}
    spelt, *encoded = (messages[one.id] for one in pieces)
    assert msgspec.json.decode(spelt["Body"]) == msgspec.json.decode(body)
    assert "aftersend-encoding" not in spelt["MessageAttributes"]
    for message, sent in zip(encoded, pieces[1:], strict=True):
        assert base64.b64decode(message["Body"]) == sent.body
        assert message["MessageAttributes"]["aftersend-encoding"]["StringValue"] == "base64"


async def test_a_fifo_queue_drops_what_is_told_again(server: SqsServer) -> None:
    path = server.create(f"events-{uuid4().hex}.fifo")
    pieces = [piece(number) for number in range(25)]
    for _ in range(2):
        async with opened(at(server, path)) as transport_:
            assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert sorted(ids(server.arrived(path))) == [one.id for one in pieces]


async def test_a_message_larger_than_the_queue_takes_is_found_and_is_the_only_one_refused(server: SqsServer) -> None:
    path = server.create(f"events-{uuid4().hex}", MaximumMessageSize="2048")
    pieces = [piece(number, b"x" * (3_000 if number == 7 else 10)) for number in range(20)]
    async with opened(at(server, path)) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
    assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[7].id,))
    assert set(ids(server.arrived(path))) == {one.id for one in pieces} - {pieces[7].id}


async def test_a_queue_that_is_not_there_is_a_failure_told(server: SqsServer) -> None:
    async with opened(at(server, "/123456789012/nowhere")) as transport_:
        for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
            assert (outcome.verdict, "does not exist" in outcome.detail) == (Verdict.FAILED, True)
            assert_told(outcome)


@pytest.mark.parametrize("ending", ["", ".fifo"])
async def test_a_connection_cut_amid_a_parcel_loses_nothing_and_repeats_the_same_ids(
    server: SqsServer, ending: str
) -> None:
    path = server.create(f"events-{uuid4().hex}{ending}")
    pieces = [piece(number, key=f"key {number % 5}") for number in range(80)]
    door = await Door(server.port).open()
    async with opened(f"http://127.0.0.1:{door.port}{path}") as transport_:
        task = asyncio.create_task(transport_.send(parcel_of(pieces)))
        while door.answers < 2:
            await asyncio.sleep(0)
        await door.shut()
        outcome = await task
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        await door.open()
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    await door.shut()
    arrived = ids(await asyncio.to_thread(server.arrived, path))
    assert set(arrived) == {one.id for one in pieces}
    if ending:
        assert len(arrived) == len(pieces)


# --- answers that moto does not give

Answer = Callable[[dict[str, Any]], tuple[int, dict[str, Any]]]


@asynccontextmanager
async def answering(answer: Answer, requests: list[dict[str, Any]]) -> AsyncIterator[str]:
    """A queue that answers as it is told, in Amazon's JSON."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length: ")[1].split("\r\n")[0])
                request = msgspec.json.decode(await reader.readexactly(length))
                requests.append(request)
                status, said = answer(request)
                body = msgspec.json.encode(said)
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Type: application/x-amz-json-1.0\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n".encode()
                    + body
                )
        except asyncio.IncompleteReadError:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/1/events"


def entries(request: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request["Entries"]
    return found


def successful(one: dict[str, Any]) -> dict[str, str]:
    return {"Id": one["Id"], "MessageId": "m", "MD5OfMessageBody": "x"}


def all_taken(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"Successful": [successful(one) for one in entries(request)]}


def body_of(one: dict[str, Any]) -> int:
    return int(one["MessageBody"])


def numbered(count: int, **options: Any) -> list[Piece]:
    return [piece(number, b"%d" % number, **options) for number in range(count)]


async def test_the_body_is_the_dialects_text_and_nothing_else() -> None:
    """Not shown with moto, which puts an id of its own wherever it sees `<RequestId>`."""
    fixture = Path(__file__).parents[1] / "fixtures/dialects/messagegears/docs_v31/OpenActivity.xml"
    dialect, now = messagegears.Dialect(), time.time_ns()
    (event,) = dialect.decode(Receipt(fixture.read_bytes(), now))
    assert isinstance(event, Event)
    (told,) = dialect.encode([event])
    requests: list[dict[str, Any]] = []
    async with answering(all_taken, requests) as url, opened(url) as transport_:
        sent = Piece(event.id, "zoë@example.com", event.type, told.data, told.content_type)
        assert await transport_.send(parcel_of([sent])) == TAKEN
    ((entry,),) = map(entries, requests)
    assert entry["MessageBody"].encode() == told.data
    assert [one.id for one in dialect.decode(Receipt(entry["MessageBody"].encode(), now)) if isinstance(one, Event)]


async def test_the_senders_faults_are_refused_singly_and_amazons_own_are_tried_again() -> None:
    requests: list[dict[str, Any]] = []
    broken = {13}

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        failed = [
            {"Id": one["Id"], "SenderFault": body_of(one) == 4, "Code": "InternalError", "Message": "not now"}
            for one in entries(request)
            if body_of(one) in {4} | broken
        ]
        ids_ = {one["Id"] for one in failed}
        return 200, {
            "Successful": [successful(one) for one in entries(request) if one["Id"] not in ids_],
            "Failed": failed,
        }

    pieces = numbered(20)
    async with answering(answer, requests) as url, opened(url) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
        assert (outcome.verdict, outcome.detail) == (Verdict.FAILED, "InternalError: not now")
        broken.clear()
        requests.clear()
        outcome = await transport_.send(parcel_of(pieces))
        assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[4].id,))
    assert sorted(body_of(one) for request in requests for one in entries(request)) == list(range(13, 20))


async def test_a_message_of_which_nothing_is_said_is_not_believed_taken() -> None:
    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 200, {"Successful": [successful(one) for one in entries(request)[:-1]], "Failed": []}

    async with answering(answer, []) as url, opened(url) as transport_:
        outcome = await transport_.send(parcel_of(numbered(3)))
    assert (outcome.verdict, outcome.detail) == (Verdict.FAILED, "not answered")


async def test_a_lane_of_a_fifo_queue_stops_at_the_first_message_that_is_not_taken() -> None:
    requests: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return 500, {"__type": "InternalError", "message": "not now"}

    async with answering(answer, requests) as url, opened(f"{url}.fifo") as transport_:
        outcome = await transport_.send(parcel_of(numbered(45, key="one")))
    assert outcome.verdict is Verdict.FAILED
    assert len(requests) == 1


async def test_requests_go_at_once_but_no_more_than_allowed() -> None:
    requests: list[dict[str, Any]] = []
    async with answering(all_taken, requests) as url:
        door = await Door(int(url.split(":")[2].split("/")[0])).open()
        async with opened(f"http://127.0.0.1:{door.port}/1/events") as transport_:
            assert await transport_.send(parcel_of(numbered(400))) == TAKEN
            at_once = len(door.tasks)
        await door.shut()
    assert len(requests) == 40
    assert 1 < at_once <= sqs.REQUESTS_AT_ONCE


@pytest.mark.parametrize(
    "code", ["AWS.SimpleQueueService.NonExistentQueue", "InvalidClientTokenId", "RequestThrottled"]
)
async def test_a_refused_request_is_a_failure_and_not_a_refusal_of_its_messages(code: str) -> None:
    async with answering(lambda _: (400, {"__type": code, "message": "no"}), []) as url, opened(url) as transport_:
        assert (await transport_.send(parcel_of(numbered(3)))).verdict is Verdict.FAILED


async def test_a_sender_that_may_not_look_at_the_queue_may_still_send() -> None:
    denied = 400, {"__type": "com.amazonaws.sqs#AccessDenied", "message": "hunter2 may not"}
    async with answering(lambda _: denied, []) as url, opened(url) as transport_:
        assert (await transport_.probe()).verdict is Verdict.TAKEN
        outcome = await transport_.send(parcel_of([piece(1)]))
        assert outcome.verdict is Verdict.FAILED
        assert "hunter2" not in outcome.detail


async def test_a_queue_that_says_nothing_is_a_failure_in_time() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        url = f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/1/events"
        async with opened(url, timeout=0.5) as transport_:
            for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
                assert outcome.verdict is Verdict.FAILED
                assert_told(outcome)


# --- what it connects to


def names(answer: str) -> Callable[[str, int], Awaitable[list[str]]]:
    async def look_up(host: str, port: int) -> list[str]:
        return [answer]

    return look_up


async def test_a_name_of_amazons_that_leads_into_our_network_is_refused_by_the_guard() -> None:
    guard = Egress(lookup=names("169.254.169.254"))
    async with opened(AMAZON, egress=guard) as transport_:
        for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
            assert outcome.verdict is Verdict.FAILED
            assert outcome.ours
            assert "metadata" in outcome.detail


async def test_a_redirect_to_an_address_of_our_network_is_not_followed(server: SqsServer) -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 307 X\r\nLocation: http://127.0.0.2:9/x\r\nContent-Length: 0\r\n\r\n")
        await reader.read()
        writer.close()

    guard = Egress.read(["127.0.0.1/32"], brokers=["127.0.0.1"])
    listening = await asyncio.start_server(redirect, "127.0.0.1", 0)
    async with listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/1/events"
        async with opened(url, egress=guard) as transport_:
            outcome = await transport_.send(parcel_of([piece(1)]))
    assert outcome.verdict is Verdict.FAILED
    assert "127.0.0.2" in outcome.detail


async def test_nothing_of_the_surroundings_is_used(server: SqsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_PROFILE": "nobody",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_SQS": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "other",
    }.items():
        monkeypatch.setenv(name, value)
    path = server.create(f"events-{uuid4().hex}")
    async with opened(at(server, path)) as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == TAKEN


async def test_the_machines_identity_is_used_only_where_the_option_says_so(
    server: SqsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "machine")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "machine")
    path = server.create(f"events-{uuid4().hex}")
    with pytest.raises(ConfigurationError, match="identity"):
        transport(at(server, path), access_key="", secret_key=None)
    async with opened(at(server, path), access_key="", secret_key=None, identity="machine") as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == TAKEN


def test_amazons_own_addresses_need_no_listing_and_say_their_region() -> None:
    unlisted = Egress()
    for url, region in (
        (AMAZON, "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/events", "cn-north-1"),
        ("https://sqs-fips.us-east-2.amazonaws.com/1/events.fifo", "us-east-2"),
        ("https://us-west-2.queue.amazonaws.com/1/events", "us-west-2"),
    ):
        assert transport(url, egress=unlisted, region="")._region == region


@pytest.mark.parametrize(
    "url",
    [
        "https://queues.example.org/1/events",
        "https://sqs.eu-west-1.amazonaws.com.example.org/1/events",
        "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com/1/events",
        "https://AKIA:hunter2@sqs.eu-west-1.amazonaws.com/1/events",
    ],
)
def test_any_other_address_must_be_listed(url: str) -> None:
    with pytest.raises(EgressError):
        transport(url)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"url": "http://sqs.eu-west-1.amazonaws.com/1/events"}, "https"),
        ({"url": "https://sqs.eu-west-1.amazonaws.com:8443/1/events"}, "usual port"),
        ({"url": "https://sqs.eu-west-1.amazonaws.com/"}, "url"),
        ({"url": f"{AMAZON}?x=1"}, "url"),
        ({"timeout": 0.0}, "timeout"),
        ({"access_key": ""}, "access_key"),
        ({"identity": "machine"}, "identity"),
        ({"region": "Mars!"}, "region"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        transport(options.pop("url", AMAZON), **options)

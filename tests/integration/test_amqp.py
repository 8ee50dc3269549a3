"""The AMQP transport against a real RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from tests.conftest import found
from tests.integration.doors import Door
from tests.integration.rabbitmq import RabbitMq, rabbitmq
from tests.integration.relaying import certificate

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.testing.pieces import PieceSuite, Queue, ids, parcel_of, piece
from aftersend.testing.transports import assert_told
from aftersend.transports import amqp
from aftersend.transports.amqp import Transport

LISTED = Egress.read(["127.0.0.0/8"], brokers=["127.0.0.1", "localhost", "rabbit.example.com"])
TAKEN = Outcome(Verdict.TAKEN)
NEEDED = ("rabbitmq-server", "epmd")
needs_a_broker = pytest.mark.server(*NEEDED)


def transport(url: str, **options: Any) -> Transport:
    login = {"user": "ann", "password": Secret("hunter2"), "timeout": 10.0}
    return Transport(url=url, egress=LISTED, clock=time.time_ns, **{**login, **options})


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Transport]:
    made = transport(url, **options)
    try:
        yield made
    finally:
        await made.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMq]:
    """One broker for all: it takes seconds to start."""
    pem = certificate(tmp_path_factory.mktemp("certificate"), "localhost")
    with rabbitmq(found(NEEDED)["rabbitmq-server"], pem) as made:
        yield made


@pytest.fixture
async def queue(broker: RabbitMq) -> str:
    """A new queue."""
    name = f"events-{uuid4().hex}"
    await broker.declare(name)
    return name


@needs_a_broker
class TestAmqp(PieceSuite):
    module = amqp
    large = 1_400_000
    too_large = 1_600_000

    @pytest.fixture(autouse=True)
    def _broker(self, broker: RabbitMq) -> None:
        self.broker = broker

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Queue]:
        name = f"events-{uuid4().hex}"
        await self.broker.declare(name)
        door = await Door(self.broker.port).open()
        try:
            async with opened(f"amqp://127.0.0.1:{door.port}", queue=name) as transport_:
                yield Queue(transport_, lambda: self.broker.arrived(name), door.shut, secrets=("hunter2",))
        finally:
            await door.shut()


@needs_a_broker
async def test_an_unused_connection_is_closed_and_made_anew(
    broker: RabbitMq, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp, "IDLE_LIMIT", -9.7)
    async with opened(broker.url, queue=queue) as transport_:
        for number in range(2):
            assert await transport_.send(parcel_of([piece(number)])) == TAKEN
            session = transport_._session
            assert session is not None
            await asyncio.sleep(0.5)
            assert session.connection.is_closed
    assert len(await broker.arrived(queue)) == 2


@needs_a_broker
async def test_a_message_says_what_it_is(broker: RabbitMq, queue: str) -> None:
    async with opened(broker.url, queue=queue) as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == TAKEN
    async with broker.channel() as channel:
        message: Any = await (await channel.get_queue(queue)).get()
        await message.ack()
    assert (message.message_id, message.type, message.app_id) == (piece(1).id, "email.clicked", "aftersend")
    assert message.delivery_mode == 2
    assert abs(message.timestamp.timestamp() - time.time()) < 60


@needs_a_broker
async def test_an_exchange_gets_the_type_as_routing_key_and_what_no_queue_wants_is_refused(
    broker: RabbitMq, queue: str
) -> None:
    exchange = f"mail-{uuid4().hex}"
    async with broker.channel() as channel:
        made = await channel.declare_exchange(exchange, "topic", durable=True)
        await (await channel.get_queue(queue)).bind(made, "mail.email.*")
    pieces = [piece(number) for number in range(20)]
    strange = [one.__class__(one.id, one.key, "sms.sent", one.body, one.content_type) for one in pieces[5:7]]
    async with opened(broker.url, exchange=exchange, routing_key="mail.{type}") as transport_:
        assert (await transport_.probe()) == TAKEN
        outcome = await transport_.send(parcel_of([*pieces[:5], *strange, *pieces[7:]]))
        assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[5].id, pieces[6].id))
        assert "NO_ROUTE" in outcome.detail
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert set(ids(await broker.arrived(queue))) == {one.id for one in pieces}


@needs_a_broker
async def test_a_missing_queue_or_exchange_is_a_failure_told(broker: RabbitMq) -> None:
    for options in ({"queue": "nowhere"}, {"exchange": "nowhere"}):
        async with opened(broker.url, **options) as transport_:
            for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
                assert outcome.verdict is Verdict.FAILED
                assert_told(outcome)
            assert "nowhere" in outcome.detail


@needs_a_broker
async def test_a_full_queue_is_a_failure_told_and_gets_the_rest_when_it_has_room(broker: RabbitMq) -> None:
    name = f"small-{uuid4().hex}"
    await broker.declare(name, max_length=30, overflow="reject-publish")
    pieces = [piece(number) for number in range(50)]
    seen: list[str] = []
    async with opened(broker.url, queue=name) as transport_:
        outcome = await transport_.send(parcel_of(pieces))
        assert outcome.verdict is Verdict.FAILED
        assert "full" in outcome.detail
        for _ in range(5):
            seen += ids(await broker.arrived(name))
            if (await transport_.send(parcel_of(pieces))) == TAKEN:
                break
        else:
            raise AssertionError("a queue with room for 30 never gets through a parcel of 50")
    seen += ids(await broker.arrived(name))
    assert set(seen) == {one.id for one in pieces}


@needs_a_broker
async def test_a_wrong_password_is_told_without_it(broker: RabbitMq) -> None:
    async with opened(broker.url, queue="x", password=Secret("wrong-one")) as transport_:
        for outcome in (await transport_.send(parcel_of([piece(1)])), await transport_.probe()):
            assert "refused" in outcome.detail.lower()
            assert "wrong-one" not in outcome.detail


@needs_a_broker
async def test_an_encrypted_connection_verifies_the_name(broker: RabbitMq, queue: str) -> None:
    url, ca = f"amqps://localhost:{broker.tls_port}", broker.pem.read_text()
    async with opened(url, queue=queue, ca=ca) as transport_:
        assert await transport_.send(parcel_of([piece(1)])) == TAKEN
    for other, options in ((f"amqps://127.0.0.1:{broker.tls_port}", {"ca": ca}), (url, {})):
        async with opened(other, queue=queue, **options) as transport_:
            outcome = await transport_.probe()
            assert outcome.verdict is Verdict.FAILED
            assert "certificate" in outcome.detail.lower()


@needs_a_broker
async def test_a_connection_cut_amid_a_parcel_loses_nothing(broker: RabbitMq, queue: str) -> None:
    pieces = [piece(number, b"x" * 2_000) for number in range(1_000)]
    door = await Door(broker.port).open()
    async with opened(f"amqp://127.0.0.1:{door.port}", queue=queue) as transport_:
        task = asyncio.create_task(transport_.send(parcel_of(pieces)))
        while not await broker.count(queue):
            await asyncio.sleep(0)
        await door.shut()
        outcome = await task
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
    async with opened(broker.url, queue=queue) as transport_:
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    arrived = ids(await broker.arrived(queue))
    assert set(arrived) == {one.id for one in pieces}
    assert arrived[-1] == pieces[-1].id


@pytest.mark.slow
@needs_a_broker
async def test_a_broker_killed_amid_a_parcel_and_started_again_short_of_disk_loses_nothing(
    broker: RabbitMq, queue: str
) -> None:
    pieces = [piece(number, b"x" * 2_000) for number in range(1_000)]
    async with opened(broker.url, queue=queue, timeout=2.0) as transport_:
        task = asyncio.create_task(transport_.send(parcel_of(pieces)))
        while not await broker.count(queue):
            await asyncio.sleep(0)
        broker.stop()
        outcome = await task
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        assert (await transport_.send(parcel_of(pieces))).verdict is Verdict.FAILED
        await asyncio.to_thread(broker.start, "disk_free_limit.absolute = 9000000GB")
        for number in range(100):
            outcome = await transport_.send(parcel_of([piece(1)], f"try {number}"))
            if outcome != TAKEN:
                break
            # It looks at its disk a moment after it listens.
            await asyncio.sleep(0.05)
        assert (outcome.verdict, "short of disk" in outcome.detail) == (Verdict.FAILED, True)
        broker.stop()
        await asyncio.to_thread(broker.start)
        assert await transport_.send(parcel_of(pieces)) == TAKEN
    assert set(ids(await broker.arrived(queue))) == {one.id for one in pieces}


async def test_a_broker_that_says_nothing_is_a_failure_in_time() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        async with opened(f"amqp://127.0.0.1:{port}", queue="x", timeout=0.5) as transport_:
            outcome = await transport_.send(parcel_of([piece(1)]))
    assert outcome.verdict is Verdict.FAILED
    assert_told(outcome)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "one of them"),
        ({"queue": "a", "exchange": "b"}, "one of them"),
        ({"queue": "a", "timeout": 0.0}, "timeout"),
        ({"queue": "a" * 300}, "queue"),
        ({"queue": "a", "ca": "x"}, "amqps"),
        ({"queue": "a", "ca": "x", "url": "amqps://127.0.0.1"}, "PEM"),
        ({"queue": "a", "url": "amqps://127.0.0.1/?no_verify_ssl=1"}, "url"),
    ],
)
def test_options_that_cannot_work_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        transport(options.pop("url", "amqp://127.0.0.1"), **options)


def test_the_broker_must_be_listed() -> None:
    with pytest.raises(EgressError, match="listed broker"):
        transport("amqp://other.example.com", queue="x")
    with pytest.raises(EgressError, match="user name or password"):
        transport("amqp://ann:hunter2@rabbit.example.com", queue="x")

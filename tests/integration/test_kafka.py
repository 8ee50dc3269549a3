"""The Kafka transport against librdkafka's mock cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.integration.kafka_cluster import (
    CLUSTER_AUTHORIZATION_FAILED,
    INIT_PRODUCER_ID,
    METADATA,
    MSG_SIZE_TOO_LARGE,
    PRODUCE,
    STORAGE_ERROR,
    TOPIC_AUTHORIZATION_FAILED,
    UNKNOWN_TOPIC,
    Cluster,
    cluster,
)

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress
from aftersend.testing.pieces import PieceSuite, Queue, ids, parcel_of, piece
from aftersend.testing.transports import assert_told
from aftersend.transports import kafka
from aftersend.transports.kafka import Transport

LISTED = Egress.read(["127.0.0.0/8"], brokers=["127.0.0.1", "kafka.example.com"])
TAKEN = Outcome(Verdict.TAKEN)


def transport(url: str, **options: Any) -> Transport:
    return Transport(url=url, egress=LISTED, **{"security": "plaintext", "timeout": 2.0, **options})


@asynccontextmanager
async def opened(made: Cluster, **options: Any) -> AsyncIterator[Transport]:
    producer = transport(made.url, **options)
    try:
        yield producer
    finally:
        await producer.close()


@pytest.fixture
def kafka_cluster() -> Iterator[Cluster]:
    with cluster() as made:
        yield made


class TestKafka(PieceSuite):
    module = kafka
    large = 900_000
    too_large = 1_100_000

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Queue]:
        with cluster() as made:

            async def arrived() -> Any:
                return await asyncio.to_thread(made.arrived)

            async def vanish() -> None:
                made.down()

            async with opened(made) as producer:
                # The mock cluster knows no logins; what is printed of this one is looked at all the same.
                producer.password = Secret("hunter2")
                yield Queue(producer, arrived, vanish, secrets=("hunter2",))


async def test_the_key_is_the_person_and_goes_where_javas_clients_put_it(kafka_cluster: Cluster) -> None:
    async with opened(kafka_cluster) as producer:
        assert producer._settings()["partitioner"] == "murmur2_random"
        assert await producer.send(parcel_of([piece(1, key="ann@example.com")])) == TAKEN
    assert [one.key for one in kafka_cluster.arrived()] == ["ann@example.com"]


async def test_a_cluster_that_goes_down_amid_a_parcel_and_comes_back_gets_every_event(kafka_cluster: Cluster) -> None:
    pieces = [piece(number, key=f"key {number % 5}") for number in range(500)]
    async with opened(kafka_cluster, timeout=0.8) as producer:
        kafka_cluster.slow(100)
        task = asyncio.create_task(producer.send(parcel_of(pieces)))
        await asyncio.sleep(0.25)
        kafka_cluster.down()
        outcome = await task
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        kafka_cluster.slow(0)
        kafka_cluster.up()
        for _ in range(10):
            outcome = await producer.send(parcel_of(pieces))
            if outcome == TAKEN:
                break
        assert outcome == TAKEN
    arrived = ids(kafka_cluster.arrived())
    assert set(arrived) == {one.id for one in pieces}


async def test_a_short_outage_within_the_time_of_a_parcel_repeats_nothing(kafka_cluster: Cluster) -> None:
    pieces = [piece(number) for number in range(100)]
    async with opened(kafka_cluster, timeout=10.0) as producer:
        assert await producer.send(parcel_of(pieces[:1])) == TAKEN
        kafka_cluster.down()
        task = asyncio.create_task(producer.send(parcel_of(pieces[1:])))
        await asyncio.sleep(0.3)
        kafka_cluster.up()
        assert await task == TAKEN
    assert sorted(ids(kafka_cluster.arrived())) == [one.id for one in pieces]


async def test_a_broker_whose_disk_fails_is_waited_for_and_told(kafka_cluster: Cluster) -> None:
    async with opened(kafka_cluster, timeout=1.0) as producer:
        kafka_cluster.refuse(PRODUCE, STORAGE_ERROR, 500)
        outcome = await producer.send(parcel_of([piece(1)]))
    assert outcome.verdict is Verdict.FAILED
    assert_told(outcome)


async def test_a_topic_that_we_may_not_write_to_is_a_failure_that_says_so(kafka_cluster: Cluster) -> None:
    async with opened(kafka_cluster) as producer:
        kafka_cluster.refuse(PRODUCE, TOPIC_AUTHORIZATION_FAILED, 1)
        outcome = await producer.send(parcel_of([piece(1)]))
        assert (outcome.verdict, "uthoriz" in outcome.detail) == (Verdict.FAILED, True)
        assert await producer.send(parcel_of([piece(1)])) == TAKEN


async def test_a_broker_that_takes_only_smaller_batches_gets_smaller_parcels(kafka_cluster: Cluster) -> None:
    pieces = [piece(number, key="one") for number in range(10)]
    async with opened(kafka_cluster) as producer:
        kafka_cluster.refuse(PRODUCE, MSG_SIZE_TOO_LARGE, 1)
        assert (await producer.send(parcel_of(pieces))).verdict is Verdict.TOO_LARGE
        kafka_cluster.refuse(PRODUCE, MSG_SIZE_TOO_LARGE, 1)
        outcome = await producer.send(parcel_of(pieces[:1], "single"))
        assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[0].id,))


async def test_a_producer_that_is_refused_its_number_is_made_anew(kafka_cluster: Cluster) -> None:
    async with opened(kafka_cluster) as producer:
        kafka_cluster.refuse(INIT_PRODUCER_ID, CLUSTER_AUTHORIZATION_FAILED, 1)
        outcome = await producer.send(parcel_of([piece(1)]))
        assert outcome.verdict is Verdict.FAILED
        assert_told(outcome)
        assert await producer.send(parcel_of([piece(1)])) == TAKEN


async def test_a_missing_topic_is_seen_before_anything_is_told(kafka_cluster: Cluster) -> None:
    async with opened(kafka_cluster) as producer:
        kafka_cluster.refuse(METADATA, UNKNOWN_TOPIC, 50)
        outcome = await producer.probe()
    assert outcome.verdict is Verdict.FAILED
    assert_told(outcome)


async def test_an_unused_producer_is_let_go_and_made_anew(
    kafka_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "IDLE_LIMIT", -1.2)
    async with opened(kafka_cluster, timeout=2.0) as producer:
        for number in range(2):
            assert await producer.send(parcel_of([piece(number)])) == TAKEN
            await asyncio.sleep(1.0)
            assert producer._line is None
    assert len(kafka_cluster.arrived()) == 2


async def test_closing_leaves_no_thread_behind(kafka_cluster: Cluster) -> None:
    before = threading.active_count()
    async with opened(kafka_cluster) as producer:
        assert await producer.send(parcel_of([piece(1)])) == TAKEN
    for _ in range(100):
        if threading.active_count() <= before:
            break
        await asyncio.sleep(0.02)
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    ("url", "options", "named"),
    [
        ("kafka://127.0.0.1:9092", {}, "topic"),
        ("kafka://127.0.0.1:9092/a/b", {}, "topic"),
        ("kafka://127.0.0.1:9092/..", {}, "topic"),
        ("kafka://127.0.0.1:9092/a?b=c", {}, "topic"),
        ("kafka://127.0.0.1:9092/a", {"timeout": 0.0}, "timeout"),
        ("kafka://127.0.0.1:9092/a", {"message_limit": 1}, "message_limit"),
        ("kafka://127.0.0.1:9092/a", {"user": "ann"}, "password"),
        ("kafka://127.0.0.1:9092/a", {"certificate": "x"}, "private_key"),
        ("kafka://127.0.0.1:9092/a", {"ca": "x"}, "tls"),
    ],
)
def test_options_that_cannot_work_are_named(url: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        transport(url, **options)


def test_every_broker_must_be_listed() -> None:
    with pytest.raises(EgressError, match=r"other\.example\.com"):
        transport("kafka://other.example.com:9092/events")
    with pytest.raises(EgressError, match=r"other\.example\.com"):
        transport("kafka://kafka.example.com:9092/events", brokers=("127.0.0.1:9092", "other.example.com:9092"))
    with pytest.raises(EgressError, match="user name or password"):
        transport("kafka://ann:secret@kafka.example.com:9092/events")


def test_encryption_and_login_are_told_to_the_library() -> None:
    made = transport(
        "kafka://kafka.example.com/events",
        brokers=("127.0.0.1:19092",),
        security="tls",
        user="ann",
        password=Secret("hunter2"),
    )
    settings = made._settings()
    assert settings["bootstrap.servers"] == "kafka.example.com:9092,127.0.0.1:19092"
    assert settings["security.protocol"] == "SASL_SSL"
    assert settings["sasl.mechanism"] == "SCRAM-SHA-512"
    assert settings["sasl.password"] == "hunter2"
    assert settings["enable.idempotence"] is True
    assert "hunter2" not in repr(made)

"""librdkafka's own mock cluster: real sockets and Kafka's real protocol, driven through its C interface.

confluent-kafka's `test.mock.num.brokers` makes one too, but cannot take it down, up, or make it refuse.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import confluent_kafka
from confluent_kafka import Consumer, KafkaException, TopicPartition

from aftersend.testing.pieces import Arrived

PRODUCE, METADATA, INIT_PRODUCER_ID = 0, 3, 22
"""Kinds of request, by Kafka's numbers."""
UNKNOWN_TOPIC, MSG_SIZE_TOO_LARGE, TOPIC_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED, STORAGE_ERROR = (
    3,
    10,
    29,
    31,
    56,
)
"""Errors, by Kafka's numbers."""
_PRODUCER = 0


def _library() -> ctypes.CDLL:
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*.so*"))))
    library.rd_kafka_conf_new.restype = ctypes.c_void_p
    library.rd_kafka_conf_set.argtypes = [
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    library.rd_kafka_new.restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_new.restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_topic_create.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
    for name in ("set_down", "set_up"):
        getattr(library, f"rd_kafka_mock_broker_{name}").argtypes = [ctypes.c_void_p, ctypes.c_int32]
    library.rd_kafka_mock_broker_set_rtt.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
    library.rd_kafka_mock_push_request_errors_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_int16,
        ctypes.c_size_t,
        ctypes.POINTER(ctypes.c_int),
    ]
    return library


class Cluster:
    """One broker."""

    def __init__(self, library: ctypes.CDLL, pointer: int) -> None:
        self._library, self._pointer = library, pointer
        self.address: str = library.rd_kafka_mock_cluster_bootstraps(pointer).decode().split(",")[0]
        self.topic = f"events-{uuid4().hex[:12]}"
        self.create(self.topic)

    @property
    def url(self) -> str:
        return f"kafka://{self.address}/{self.topic}"

    def create(self, topic: str, partitions: int = 4) -> None:
        self._library.rd_kafka_mock_topic_create(self._pointer, topic.encode(), partitions, 1)

    def down(self) -> None:
        """Cut every connection and take no new one; what is kept is kept."""
        self._library.rd_kafka_mock_broker_set_down(self._pointer, 1)

    def up(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._pointer, 1)

    def slow(self, milliseconds: int) -> None:
        self._library.rd_kafka_mock_broker_set_rtt(self._pointer, 1, milliseconds)

    def refuse(self, request: int, code: int, times: int) -> None:
        """The next requests of a kind are answered with an error."""
        codes = (ctypes.c_int * times)(*[code] * times)
        self._library.rd_kafka_mock_push_request_errors_array(self._pointer, request, times, codes)

    def arrived(self) -> list[Arrived]:
        """Everything in the topic, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self.address, "group.id": "test", "fetch.wait.max.ms": 10, "log_level": 0}
        )
        try:
            return [
                one for partition in range(4) for one in self._read(consumer, TopicPartition(self.topic, partition))
            ]
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, place: TopicPartition) -> Iterator[Arrived]:
        first, end = _ends(consumer, place)
        place.offset = first
        consumer.assign([place])
        seen = first
        while seen < end:
            for message in consumer.consume(min(1_000, end - seen), timeout=5):
                assert message.error() is None, message.error()
                yield _arrived(message)
                seen = (message.offset() or 0) + 1
        consumer.unassign()


def _ends(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    for _ in range(20):
        try:
            return consumer.get_watermark_offsets(place, timeout=5)
        except KafkaException:
            continue
    raise AssertionError("the cluster does not answer")


def _arrived(message: confluent_kafka.Message) -> Arrived:
    headers = {name: (value or b"").decode() for name, value in message.headers() or []}
    return Arrived(
        headers["aftersend-id"],
        headers["aftersend-type"],
        message.value() or b"",
        headers["content-type"],
        (message.key() or b"").decode(),
    )


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A running cluster of one broker, on loopback."""
    library = _library()
    said = ctypes.create_string_buffer(512)
    settings = library.rd_kafka_conf_new()
    library.rd_kafka_conf_set(settings, b"log_level", b"0", said, 512)
    handle = library.rd_kafka_new(_PRODUCER, settings, said, 512)
    assert handle, said.value
    pointer = library.rd_kafka_mock_cluster_new(handle, 1)
    try:
        yield Cluster(library, pointer)
    finally:
        library.rd_kafka_mock_cluster_destroy(pointer)
        library.rd_kafka_destroy(handle)

"""Events as Kafka messages, one by one: an idempotent producer, keyed by person, all replicas asked.

librdkafka connects, batches and retries on threads of its own. What would block runs on one thread of ours per
transport, which takes a parcel after the other; the producer is made anew when a parcel did not get through.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import urlsplit

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.excerpts import one_line
from aftersend.core.handover import Fault, Handovers
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Piece, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import Egress

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, Producer

LINGER_MS = 2
"""How long librdkafka waits for more messages of a parcel before it sends what it has."""
LOOK_SECONDS = 0.05
"""How often the thread looks whether its parcel was called off."""
GRACE_SECONDS = 0.5
"""How long after a parcel's time limit librdkafka's own last words are waited for."""
IDLE_LIMIT = 300.0
"""Seconds that an unused producer is kept."""
MESSAGE_LIMIT = 1_000_000
"""Bytes of a message that brokers take unless they are told otherwise."""

log = logging.getLogger("aftersend.kafka")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_STATE = re.compile(r" \(after \d+ms in state \w+.*\)$")


class _Batch:
    """The pieces of one try, and what the broker reported of each."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.is_off = threading.Event()
        self.waiting = {piece.id for piece in pieces}
        """Those of which nothing was reported yet."""
        self.faults: dict[str, Fault] = {}
        self.too_large = 0
        """Messages that the broker, not librdkafka, found too large: perhaps only together."""

    def give_up(self, why: str) -> None:
        """Nothing more will be heard of the pieces that wait."""
        self.faults.update((id_, Fault(why)) for id_ in self.waiting)
        self.waiting.clear()


class _Line:
    """A producer with its topic; used on one thread only."""

    def __init__(self, settings: Mapping[str, Any], topic: str) -> None:
        library = _library()
        self._errors: Any = library.KafkaError
        self._failure: Any = library.KafkaException
        self._topic = topic
        self.trouble = ""
        """The last thing that librdkafka said about its connections."""
        self.is_refused = False
        """The trouble does not end by waiting: a login that is refused, a producer that is broken."""
        self._producer: Producer = library.Producer({**settings, "error_cb": self._on_error}, logger=log)

    def tell(self, batch: _Batch, seconds: float) -> None:
        """Produce the pieces and wait for their reports, as long as there is time."""
        deadline = monotonic() + seconds
        for piece in batch.pieces:
            self._produce(batch, piece)
        # Messages expire by themselves at the deadline, so the reports say more than we could.
        while batch.waiting and not batch.is_off.is_set():
            self._poll(LOOK_SECONDS)
            if self.is_refused or monotonic() > deadline + GRACE_SECONDS:
                break
        batch.give_up(self.trouble or f"no report within {seconds:g} s")

    def topics(self, seconds: float) -> Any:
        """What the cluster says about the topic; raises KafkaException."""
        try:
            return self._producer.list_topics(self._topic, timeout=seconds)
        finally:
            self._poll(0)

    def end(self) -> None:
        """Forget what is waiting and let go of connections."""
        self._producer.purge()
        self._poll(0)
        self._producer.close()

    def _poll(self, seconds: float) -> None:
        """Serve what librdkafka has to say. A producer that is broken for good raises here rather than reporting."""
        try:
            self._producer.poll(seconds)
        except self._failure as error:
            self._on_error(error.args[0])

    def _produce(self, batch: _Batch, piece: Piece) -> None:
        def report(error: KafkaError | None, message: Message) -> None:
            if piece.id in batch.waiting:
                batch.waiting.discard(piece.id)
                self._note(batch, piece, error)

        headers: list[tuple[str, str | bytes | None]] = [
            ("aftersend-id", piece.id.encode()),
            ("aftersend-type", piece.type.encode()),
            ("content-type", piece.content_type.encode()),
        ]
        try:
            self._producer.produce(
                self._topic, piece.body, piece.key.encode("utf-8", "replace"), headers=headers, on_delivery=report
            )
        except self._failure as error:
            batch.waiting.discard(piece.id)
            is_final = error.args[0].code() == self._errors.MSG_SIZE_TOO_LARGE
            batch.faults[piece.id] = Fault(one_line(error.args[0].str()), is_final)
        except BufferError:
            batch.waiting.discard(piece.id)
            batch.faults[piece.id] = Fault("too much is waiting for the brokers already")

    def _note(self, batch: _Batch, piece: Piece, error: KafkaError | None) -> None:
        if error is None:
            return
        code, said = error.code(), one_line(error.str())
        if code == self._errors._MSG_TIMED_OUT and self.trouble:
            said = f"{said}: {self.trouble}"
        is_final = code in (self._errors.MSG_SIZE_TOO_LARGE, self._errors.INVALID_RECORD)
        batch.too_large += code == self._errors.MSG_SIZE_TOO_LARGE
        batch.faults[piece.id] = Fault(said, is_final)

    def _on_error(self, error: KafkaError) -> None:
        self.trouble = _in_words(error)
        if error.fatal() or error.code() in (self._errors._AUTHENTICATION, self._errors._SSL):
            self.is_refused = True


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """A topic of Kafka."""

    name: ClassVar[str] = "kafka"
    schemes: ClassVar[tuple[str, ...]] = ("kafka",)
    brokered: ClassVar[bool] = True

    url: str = option(help="A broker and the topic: kafka://broker.example.com:9092/events.")
    timeout: float = option(15.0, help="Seconds for a parcel until every message of it is confirmed.")
    brokers: tuple[str, ...] = option((), help="More brokers to begin with, each as host:port.")
    security: Literal["plaintext", "tls"] = option("tls", help="Whether connections are encrypted.")
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = option(
        "SCRAM-SHA-512", help="How to log in, where a user is given (SASL)."
    )
    user: str = option("", help="User to log in as; none: no login.")
    password: Secret | None = option(None, help="The user's password.", secret=True)
    ca: str = option("", help="Certificates of the authorities to trust, as PEM text; none: the machine's.")
    certificate: str = option("", help="Our certificate, as PEM text, where the brokers ask for one.")
    private_key: Secret | None = option(None, help="The key of our certificate, as PEM text.", secret=True)
    compression: Literal["none", "gzip", "lz4", "zstd"] = option("lz4", help="How batches are compressed.")
    message_limit: int = option(MESSAGE_LIMIT, help="Bytes of the largest message that the topic takes.")

    egress: Egress = field(repr=False)
    _topic: str = field(init=False, repr=False)
    _bootstrap: tuple[str, ...] = field(init=False, repr=False)
    _handovers: Handovers = field(init=False, repr=False, default_factory=Handovers)
    _line: _Line | None = field(init=False, repr=False, default=None)
    _thread: ThreadPoolExecutor | None = field(init=False, repr=False, default=None)
    _idle: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Raises EgressError for a broker that is not listed and ConfigurationError for anything else."""
        self._topic = self._checked_topic()
        self._bootstrap = self._checked_brokers()
        self._check_options()
        _library()

    @property
    def carries(self) -> Literal["pieces"]:
        """A message an event."""
        return "pieces"

    async def probe(self) -> Outcome:
        """Connect, log in and look for the topic."""
        detail = await self._work(self._look, threading.Event())
        return Outcome(Verdict.FAILED, detail) if detail else Outcome(Verdict.TAKEN)

    async def send(self, parcel: Parcel) -> Outcome:
        """Produce the pieces and wait for the brokers' word on each."""
        batch = _Batch(self._handovers.take_up(parcel).pieces)
        await self._work(self._tell, batch.is_off, batch)
        if batch.too_large > 1:
            return Outcome(Verdict.TOO_LARGE, "the broker finds the messages too large together, or each of them")
        return self._handovers.settle(parcel, batch.faults)

    async def close(self) -> None:
        """Let go of the producer and its threads."""
        if self._idle is not None:
            self._idle.cancel()
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._drop)
            thread.shutdown(wait=False)

    # --- on the loop

    async def _work(self, work: Any, is_off: threading.Event, *given: Any) -> Any:
        """Do it on our thread. Called off, the thread is told so, and goes on with the next parcel."""
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "kafka")
        self._keep()
        task = asyncio.get_running_loop().run_in_executor(self._thread, work, *given)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            is_off.set()
            task.cancel()
            raise

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        loop = asyncio.get_running_loop()
        self._idle = loop.call_later(IDLE_LIMIT + self.timeout, self._rest)

    def _rest(self) -> None:
        if self._thread is not None:
            self._thread.submit(self._drop)

    # --- on the thread

    def _tell(self, batch: _Batch) -> None:
        if batch.is_off.is_set():
            return
        line = self._line = self._line or self._opened()
        line.tell(batch, self.timeout)
        if line.is_refused or any(not fault.is_final for fault in batch.faults.values()):
            self._drop()

    def _look(self) -> str:
        """What is wrong with the topic, in one line; empty: nothing."""
        line = self._line = self._line or self._opened()
        try:
            found = line.topics(self.timeout).topics.get(self._topic)
        except _library().KafkaException as error:
            self._drop()
            return one_line(line.trouble or _in_words(error.args[0]), (self.password,))
        if found is None or found.error is not None:
            return f"topic {self._topic}: {one_line(found.error.str() if found else 'there is none')}"
        return ""

    def _opened(self) -> _Line:
        return _Line(self._settings(), self._topic)

    def _drop(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.end()

    # --- options

    def _checked_topic(self) -> str:
        parts = urlsplit(self.url)
        topic = parts.path.removeprefix("/")
        if not _TOPIC.fullmatch(topic) or topic in (".", "..") or parts.query or parts.fragment:
            raise ConfigurationError("url: write the topic behind the broker, as in kafka://broker.example.com/events")
        return topic

    def _checked_brokers(self) -> tuple[str, ...]:
        urls = [self.url, *(f"kafka://{broker}" for broker in self.brokers)]
        targets = [self.egress.check_url(url, self.schemes) for url in urls]
        for _, host, port in targets:
            self.egress.check_broker(host, port)
        return tuple(target.authority for target in targets)

    def _check_options(self) -> None:
        check_timeout(self.timeout)
        if not 1_000 <= self.message_limit <= 100_000_000:
            raise ConfigurationError("message_limit: from 1,000 to 100,000,000 bytes")
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("user, password: give both or none")
        if bool(self.certificate) != bool(self.private_key):
            raise ConfigurationError("certificate, private_key: give both or none")
        if self.security == "plaintext" and (self.ca or self.certificate):
            raise ConfigurationError("security: certificates need tls")

    def _settings(self) -> dict[str, Any]:
        """The producer's settings, in librdkafka's words."""
        wait_ms = int(self.timeout * 1000)
        settings: dict[str, Any] = {
            "bootstrap.servers": ",".join(self._bootstrap),
            "client.id": "aftersend",
            "enable.idempotence": True,
            "linger.ms": LINGER_MS,
            "message.timeout.ms": wait_ms,
            "message.max.bytes": self.message_limit,
            "topic.metadata.propagation.max.ms": max(1, wait_ms // 2),
            "socket.connection.setup.timeout.ms": max(1_000, min(wait_ms, 10_000)),
            "compression.type": self.compression,
            # The one that Java's clients use: a person's events meet in one partition whoever sends them.
            "partitioner": "murmur2_random",
            "security.protocol": self._protocol(),
            "log_level": 0,
        }
        return settings | self._login() | self._certificates()

    def _protocol(self) -> str:
        return ("SASL_" if self.user else "") + ("SSL" if self.security == "tls" else "PLAINTEXT")

    def _login(self) -> dict[str, str]:
        if not self.user or self.password is None:
            return {}
        return {
            "sasl.mechanism": self.mechanism,
            "sasl.username": self.user,
            "sasl.password": self.password.reveal(),
        }

    def _certificates(self) -> dict[str, str]:
        settings = {"ssl.ca.pem": self.ca} if self.ca else {}
        if self.private_key is not None:
            settings |= {"ssl.certificate.pem": self.certificate, "ssl.key.pem": self.private_key.reveal()}
        return settings


def _in_words(error: KafkaError) -> str:
    """What the library says, without the states that it is in."""
    if "Invalid response size" in error.str():
        return "what answers there does not speak Kafka, or speaks TLS"
    return one_line(_STATE.sub("", error.str()))


def _library() -> Any:
    try:
        return import_module("confluent_kafka")
    except ImportError:
        raise ConfigurationError(
            "the transport kafka needs confluent-kafka; install it with: pip install 'aftersend[kafka]'"
        ) from None


_proof: type[Contract] = Transport

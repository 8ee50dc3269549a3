"""Every measurement by the name that people type, and how runs of them become a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from aftersend.bench import (
    clicks,
    conversion,
    daily_files,
    delivery,
    files,
    ingestion,
    neighbours,
    pull,
    queues,
    remote_files,
    soap,
    storage,
    subscriptions,
    waiting,
)
from aftersend.bench.readings import Measure, Reading, Report, Row, Scale
from aftersend.core.errors import AftersendError

MEASURES: Mapping[str, Measure] = {
    "convert-json": conversion.json_dialects,
    "convert-xml": conversion.xml,
    "convert-forms": conversion.forms,
    "ingest": ingestion.ingestion,
    "clicks": clicks.clicks,
    "rewrite": clicks.rewriting,
    "held": clicks.held,
    "append": storage.append,
    "deliver": delivery.delivery,
    "pull": pull.pulling,
    "soap": soap.soap,
    "daily-files": daily_files.daily_files,
    "files": files.files,
    "remote-files": remote_files.remote_files,
    "queues": queues.queues,
    "subscriptions": subscriptions.subscriptions,
    "growth": storage.growth,
    "disk": storage.disk,
    "memory": waiting.waiting,
    "neighbours": neighbours.neighbours,
}


def run(names: Sequence[str], runs: int, scale: Scale, report: Report) -> dict[Row, list[Reading]]:
    """The readings of each row, in the order of the table. Raises AftersendError where a measurement does not end."""
    readings: dict[Row, list[Reading]] = {}
    for name in names:
        for number in range(1, runs + 1):
            for reading in _one(name, scale, _under(report, f"{name}, run {number} of {runs}")):
                readings.setdefault(reading.row, []).append(reading)
    return readings


def _under(report: Report, title: str) -> Report:
    return lambda note: report(f"{title}: {note}")


def _one(name: str, scale: Scale, report: Report) -> Iterator[Reading]:
    try:
        yield from MEASURES[name](scale, report)
    except TimeoutError:
        raise AftersendError(f"{name} did not end in its time; is this machine very busy?") from None


def summary(row: Row, readings: Sequence[Reading]) -> dict[str, Any]:
    """A row's median and spread."""
    values = [reading.value for reading in readings]
    ratios = [reading.value / reading.reference for reading in readings if reading.reference]
    middle = median(values)
    return {
        "name": row.name,
        "unit": row.unit,
        "median": middle,
        "lowest": min(values),
        "highest": max(values),
        "of_bare_loop": median(ratios) if ratios else None,
        "bare_loop": median([reading.reference for reading in readings]) if ratios else None,
        "floor": row.floor,
        "reach": row.reach,
        "verdict": row.verdict(middle),
        "events": readings[0].count,
        "runs": len(readings),
    }

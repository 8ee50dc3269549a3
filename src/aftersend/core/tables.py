"""Canonical events as lines and as rows of flat columns: NDJSON, CSV, and what Parquet is made of."""

from __future__ import annotations

import csv
from collections.abc import Callable
from operator import attrgetter
from typing import Any, Literal

import msgspec
from msgspec import Struct

from aftersend.core.canonical import spoken
from aftersend.core.event import Event
from aftersend.core.framing import Framing, Joined, lines
from aftersend.core.timestamps import format_time

Kind = Literal["text", "time", "number", "fraction", "flag", "json"]

_encode = msgspec.json.Encoder().encode


class Column(Struct, frozen=True):
    """One column of a table of events."""

    name: str
    kind: Kind
    value: Callable[[Event], Any]
    """Its value: text, ns since 1970, a number, True or False; None where an event has none."""


def _inner(outer: str, inner: str) -> Callable[[Event], Any]:
    get = attrgetter(f"{outer}.{inner}")
    has = attrgetter(outer)
    return lambda event: get(event) if has(event) is not None else None


def _json(name: str) -> Callable[[Event], str | None]:
    get = attrgetter(name)

    def value(event: Event) -> str | None:
        found = get(event)
        return _encode(found).decode() if found else None

    return value


def _reasons(event: Event) -> str | None:
    return _encode(event.actor.reasons).decode() if event.actor and event.actor.reasons else None


def _text(*names: str) -> list[Column]:
    return [Column(name, "text", attrgetter(name)) for name in names]


COLUMNS: tuple[Column, ...] = (
    *_text("id", "type"),
    Column("time", "time", attrgetter("time")),
    Column("received_at", "time", lambda event: event.received_at or None),
    *_text("tenant"),
    Column("source", "text", attrgetter("source.name")),
    Column("source_dialect", "text", attrgetter("source.dialect")),
    Column("source_word", "text", attrgetter("source.word")),
    Column("source_id", "text", attrgetter("source.id")),
    *_text("channel", "recipient", "profile_id", "device_id", "message_id", "campaign_id", "job_id", "correlation_id"),
    *_text("template_id", "list_id", "category", "ip", "user_agent"),
    *(Column(f"geo_{name}", "text", _inner("geo", name)) for name in ("country", "region", "city", "postal_code")),
    Column("geo_latitude", "fraction", _inner("geo", "latitude")),
    Column("geo_longitude", "fraction", _inner("geo", "longitude")),
    Column("geo_timezone", "text", _inner("geo", "timezone")),
    *_text("url", "url_name"),
    Column("failure_class", "text", _inner("failure", "class_")),
    Column("failure_code", "number", _inner("failure", "code")),
    *(Column(f"failure_{name}", "text", _inner("failure", name)) for name in ("category", "status", "reply")),
    Column("failure_final", "flag", _inner("failure", "final")),
    Column("failure_detail", "text", _inner("failure", "detail")),
    Column("actor", "text", _inner("actor", "kind")),
    Column("actor_reasons", "json", _reasons),
    Column("actor_ruleset", "text", _inner("actor", "ruleset")),
    Column("test", "flag", attrgetter("test")),
    Column("suspect", "json", _json("suspect")),
    Column("extra", "json", _json("extra")),
)
"""The columns of every table, in order; new ones are put behind."""


class _Line:
    """What a CSV writer writes to; it gives each line back."""

    @staticmethod
    def write(text: str) -> str:
        return text


def _cell(column: Column) -> Callable[[Event], Any]:
    value = column.value
    if column.kind == "time":

        def time(event: Event) -> str | None:
            found = value(event)
            return None if found is None else format_time(found)

        return time
    if column.kind == "flag":

        def flag(event: Event) -> str | None:
            found = value(event)
            return None if found is None else ("true" if found else "false")

        return flag
    return value


_CELLS = tuple(_cell(column) for column in COLUMNS)
_row: Callable[[list[Any]], str] = csv.writer(_Line()).writerow


def _csv_line(event: Event) -> bytes:
    return _row([cell(event) for cell in _CELLS]).encode("utf-8", "replace")


def _json_line(event: Event) -> bytes:
    return _encode(spoken(event)) + b"\n"


_HEADER = _row([column.name for column in COLUMNS]).encode()

NDJSON = Framing(content_type="application/x-ndjson", ending=".ndjson", pen=lines(_json_line))
"""One canonical event a line: nothing is lost, and any door takes it in again."""

CSV = Framing(
    content_type="text/csv; charset=utf-8; header=present", ending=".csv", pen=lambda _: Joined(_csv_line, _HEADER)
)
"""RFC 4180 with a line of names; what has no column of its own stands as JSON in `extra`."""

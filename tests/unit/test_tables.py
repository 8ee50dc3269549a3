"""Tables of events have a place for everything that an event says."""

import csv
import io

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Actor, Event, Failure, Geo, Receipt, Source
from aftersend.core.framing import Sheet
from aftersend.core.tables import COLUMNS, CSV, NDJSON
from aftersend.core.timestamps import SECOND, format_time
from aftersend.dialects import canonical

NOW = 1_785_594_000 * SECOND
NESTED = {"source": Source, "geo": Geo, "failure": Failure, "actor": Actor}
IRREGULAR = {"source_name": "source", "actor_kind": "actor"}

text = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=20))
tellers = st.builds(Source, st.just("s"), st.just("canonical"), st.just("email.opened"), text)
told = st.builds(
    Event,
    st.just("019fbdb2-3280-81d3-beb1-ce20e5dbbc1b"),
    st.just("email.opened"),
    st.integers(0, NOW),
    tellers,
    received_at=st.integers(1, NOW),
    recipient=text,
    url=text,
    geo=st.one_of(st.none(), st.builds(Geo, country=text, latitude=st.floats(-90, 90))),
    failure=st.one_of(st.none(), st.builds(Failure, code=st.integers(0, 999), reply=text, final=st.booleans())),
    actor=st.one_of(st.none(), st.builds(Actor, reasons=st.lists(st.text("abc", max_size=3), max_size=2))),
    test=st.booleans(),
    extra=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(), max_size=2),
)


def file(framing: object, *events: Event) -> bytes:
    pen = framing.pen(Sheet(0, 0))  # type: ignore[attr-defined]
    return b"".join([pen.head(), *map(pen.tell, events), pen.foot()])


def test_every_field_of_an_event_has_a_column() -> None:
    names = []
    for field in msgspec.structs.fields(Event):
        inner = NESTED.get(field.name)
        parts = [part.encode_name for part in msgspec.structs.fields(inner)] if inner else []
        names += [f"{field.name}_{part}" for part in parts] or [field.name]
    assert [column.name for column in COLUMNS] == sorted(
        [IRREGULAR.get(name, name) for name in names], key=[column.name for column in COLUMNS].index
    )


@given(st.lists(told, max_size=4))
def test_whoever_reads_csv_reads_what_was_told(events: list[Event]) -> None:
    rows = list(csv.DictReader(io.StringIO(file(CSV, *events).decode(), newline="")))
    assert len(rows) == len(events)
    for row, event in zip(rows, events, strict=True):
        assert row["recipient"] == (event.recipient or "")
        assert row["url"] == (event.url or "")
        assert row["source_id"] == (event.source.id or "")
        assert row["time"] == format_time(event.time)
        assert row["test"] == ("true" if event.test else "false")
        assert row["geo_latitude"] == (str(event.geo.latitude) if event.geo else "")
        assert row["failure_code"] == (str(event.failure.code) if event.failure else "")
        assert row["failure_final"] == (str(event.failure.final).lower() if event.failure else "")
        assert msgspec.json.decode(row["extra"] or "{}") == event.extra


@given(st.lists(told, min_size=1, max_size=4))
def test_lines_are_read_back_as_they_were(events: list[Event]) -> None:
    found = canonical.Dialect().decode(Receipt(file(NDJSON, *events), NOW, verbatim=True))
    assert [(item.recipient, item.url, item.extra, item.geo) for item in found if isinstance(item, Event)] == [
        (event.recipient, event.url, event.extra, event.geo) for event in events
    ]

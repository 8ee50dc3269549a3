"""Whatever the runs that events come in, the files are the same, and hold every event once and in order."""

import io
import zipfile
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftersend.contracts import Cursor
from aftersend.core.event import Event, Failure, Geo, Receipt, Source
from aftersend.core.identity import make_id
from aftersend.core.registry import Subscription
from aftersend.core.rotation import Rotation, period_of
from aftersend.core.timestamps import SECOND, parse_time
from aftersend.pipeline.draft import Draft, framing_for
from aftersend.pipeline.outbox import Outbox, Plan

NOW = parse_time("2026-08-01T14:00:00Z")
SPOKEN = ("canonical", "cloudevents/batched", "halon", "altcraft", "activatepro/feed", "pure360/csv", "pure360/ftp")
LAWS = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))

plain = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Cn", "Co", "Zl", "Zp")), max_size=40)


def event(number: int, wait: int, url: str) -> Event:
    type_ = "email.clicked" if number % 2 else "email.opened"
    recipient = f"r{number}@example.org"
    return Event(
        id=make_id(NOW + number, recipient.encode()),
        type=type_,
        time=NOW + number * SECOND,
        source=Source("s", "canonical", type_),
        received_at=NOW + wait * SECOND,
        recipient=recipient,
        url=url,
        message_id=f"m{number}",
        ip="192.0.2.1",
        geo=Geo(country="NL", latitude=52.1) if number % 3 else None,
        failure=Failure(code=number, final=True) if number % 5 == 0 else None,
        extra={"colour": url} if number % 4 == 0 else {},
    )


@st.composite
def lines(draw: st.DrawFn) -> list[tuple[int, Event]]:
    """Events with positions that rise, in the order in which they were received, nearly."""
    count = draw(st.integers(1, 40))
    wait, position, line = 0, 0, []
    for number in range(count):
        wait = max(0, wait + draw(st.sampled_from((0, 0, 1, 30, 61, 400, -90))))
        position += draw(st.sampled_from((1, 1, 3)))
        line.append((position, event(number, wait, draw(plain))))
    return line


rotations = st.builds(
    Rotation,
    every=st.sampled_from(("minute", "5 minutes", "hour")),
    max_events=st.sampled_from((1, 7, 1_000)),
    max_bytes=st.sampled_from((1_000, 3_000, 1_000_000)),
    compression=st.sampled_from(("none", "zip")),
)
runs = st.lists(st.integers(1, 9), min_size=1, max_size=30)


def write(line: list[tuple[int, Event]], spoken: str, rotation: Rotation, sizes: list[int]) -> list[tuple[Plan, bytes]]:
    """The plans and files that a line becomes when it comes in runs of these sizes."""
    name, _, form = spoken.partition("/")
    dialect = import_module(f"aftersend.dialects.{name}").Dialect()
    framing = framing_for(dialect, form, rotation)
    written = []
    with TemporaryDirectory() as folder:
        outbox = Outbox(Path(folder), "sub_x")
        cursor = Cursor()
        outbox.open(cursor, rotation)
        turn = 0
        while line:
            period = period_of(line[0][1].received_at, rotation)
            draft = Draft(Subscription(id="sub_x", name="x"), rotation, framing, outbox, cursor, period)
            while line and not draft.is_full:
                taken = draft.add(line[: sizes[turn % len(sizes)]])
                line = line[taken:]
                turn += 1
            plan = draft.finish(line[0][0] if line else 10**6, lambda: NOW)
            (volume,) = plan.volumes
            data = Path(volume.path).read_bytes()
            assert len(data) == volume.size
            written.append((plan, data))
            outbox.clear(plan)
            cursor = plan.cursor
    return written


def names_and_bytes(written: list[tuple[Plan, bytes]]) -> list[tuple[str, bytes]]:
    return [(plan.volumes[0].name, data) for plan, data in written]


@LAWS
@given(lines(), rotations, st.sampled_from(SPOKEN), runs, runs)
def test_any_splitting_into_runs_makes_the_same_files(
    line: list[tuple[int, Event]], rotation: Rotation, spoken: str, sizes: list[int], others: list[int]
) -> None:
    assert names_and_bytes(write(line, spoken, rotation, sizes)) == names_and_bytes(
        write(line, spoken, rotation, others)
    )


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
@pytest.mark.parametrize("format_", ["ndjson", "csv"])
@settings(LAWS, max_examples=10)
@given(line=lines(), sizes=runs, others=runs)
def test_the_same_holds_for_tables_in_every_compression(
    line: list[tuple[int, Event]], sizes: list[int], others: list[int], format_: str, compression: str
) -> None:
    rotation = Rotation(format=format_, compression=compression, max_events=20)  # type: ignore[arg-type]
    first, second = (write(line, "canonical", rotation, runs_) for runs_ in (sizes, others))
    assert names_and_bytes(first) == names_and_bytes(second)


@LAWS
@given(lines(), rotations, st.sampled_from(SPOKEN), runs)
def test_the_files_together_hold_every_event_once_in_order(
    line: list[tuple[int, Event]], rotation: Rotation, spoken: str, sizes: list[int]
) -> None:
    name, _, form = spoken.partition("/")
    dialect = import_module(f"aftersend.dialects.{name}").Dialect()
    written = write(line, spoken, rotation, sizes)
    found = [
        item for _, data in written for item in dialect.decode(Receipt(unpacked(data), NOW + 7_200 * SECOND, form))
    ]
    assert [item.recipient for item in found] == [told.recipient for _, told in line]
    assert len({plan.volumes[0].name for plan, _ in written}) == len(written)
    sequence = 0
    for plan, data in written:
        volume = plan.volumes[0]
        assert plan.first_sequence == volume.first_sequence == sequence + 1
        count = volume.last_sequence - sequence
        assert plan.tally.count == volume.tally.count == count <= rotation.max_events
        assert count == 1 or len(unpacked(data)) <= rotation.max_bytes
        sequence = volume.last_sequence
    assert sequence == len(line)
    assert written[-1][0].cursor == Cursor(10**6, 1, len(line))


def unpacked(data: bytes) -> bytes:
    if not data.startswith(b"PK"):
        return data
    archive = zipfile.ZipFile(io.BytesIO(data))
    return archive.read(archive.namelist()[0])


@LAWS
@given(lines(), runs)
def test_no_file_reaches_into_the_next_period(line: list[tuple[int, Event]], sizes: list[int]) -> None:
    rotation = Rotation(every="minute")
    for plan, _ in write(line, "canonical", rotation, sizes):
        volume = plan.volumes[0]
        assert volume.until < plan.until
        assert plan.until == period_of(plan.until - 1, rotation)[1]


def test_a_zip_has_one_entry_named_like_it_without_zip() -> None:
    line = [(number, event(number, 0, "")) for number in range(3)]
    ((plan, data),) = write(line, "activatepro/feed", Rotation(compression="zip"), [2])
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert plan.volumes[0].name == "event_history_20260801140000.json.zip"
    assert archive.namelist() == ["event_history_20260801140000.json"]
    assert archive.infolist()[0].compress_type == zipfile.ZIP_DEFLATED

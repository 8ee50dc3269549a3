"""Files of events: when one ends, what it is called, what is in it, and what becomes of failures."""

import asyncio
import csv
import gzip
import io
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import zstandard
from tests.integration.filing import FAILED, NOW, TAKEN, Shelf, event, events, eventually, house, recipients

from aftersend.contracts import Cursor
from aftersend.core.errors import ConfigurationError, StoreFullError
from aftersend.core.event import Event, Failure, Receipt, Rejected
from aftersend.core.framing import Framing, Sheet, json_array
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.rotation import Rotation
from aftersend.core.timestamps import SECOND
from aftersend.dialects import activatepro, canonical, messagegears, pure360
from aftersend.pipeline import filing
from aftersend.pipeline.draft import framing_for
from aftersend.pipeline.outbox import discard

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
EVERYONE = [f"r{number}@example.org" for number in range(10)]


async def test_a_file_holds_what_was_received_in_its_period(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 3, NOW), *events(3, 5, NOW + HOUR), *events(5, 6, NOW + 3 * HOUR))
        async with home.filing(shelf) as filer:
            names = await shelf.until(2)
            assert [name.split("-")[2] for name in names] == ["20260801T140000Z", "20260801T150000Z"]
            assert recipients(list(shelf.files.values())) == EVERYONE[:5]
            home.now = NOW + 4 * HOUR
            filer.nudge()
            (_, _, last) = await shelf.until(3)
            assert last.endswith("-20260801T170000Z-1-0000000006.json")
            await eventually(lambda: home.outbox() == ["names.json"])
        assert await home.cursor() == Cursor(6, 1, 6)
        assert filer.standing.delivered == 6


async def test_the_clock_ends_a_file_when_its_last_events_have_come(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        home.now = NOW + 40 * MINUTE + SECOND
        await home.keep(event(0))
        async with home.filing(shelf) as filer:
            await eventually(lambda: "1-1.part" in home.outbox())
            await home.keep(event(1, NOW + 39 * MINUTE))
            await asyncio.sleep(0.1)
            assert not shelf.files
            home.now += filing.LAG
            filer.nudge()
            await shelf.until(1)
    assert recipients(list(shelf.files.values())) == EVERYONE[:2]


async def test_a_late_event_belongs_to_the_file_that_is_open(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), event(1, NOW - 5 * HOUR), event(2, NOW + HOUR))
        async with home.filing(shelf):
            (name,) = await shelf.until(1)
    assert "20260801T140000Z" in name
    assert recipients(list(shelf.files.values())) == EVERYONE[:2]


async def test_the_dialect_without_a_word_leaves_an_event_out(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        told = [event(0), event(1, type_="push.glanced"), event(2, type_="email.clicked"), event(3, NOW + HOUR)]
        await home.keep(*told)
        async with home.filing(shelf, "pure360/ftp") as filer:
            await shelf.until(1)
            assert filer.inbox is not None
            assert filer.inbox.untold == 1
    (data,) = shelf.files.values()
    found = pure360.Dialect().decode(Receipt(data, NOW + HOUR, form="ftp"))
    assert [item.type for item in found if isinstance(item, Event)] == ["email.opened", "email.clicked"]


# --- failing


async def test_a_file_that_was_not_taken_is_put_again_as_it_is(tmp_path: Path) -> None:
    answers = [FAILED, Outcome(Verdict.REFUSED, "553 bad name"), FAILED, TAKEN]
    shelf = Shelf(lambda volume: answers.pop(0))
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf) as filer:
            await shelf.until(1)
            await eventually(lambda: filer.standing.failures == 0)
        assert await home.cursor() == Cursor(5, 1, 5)
    assert shelf.put_ == [shelf.put_[0]] * 4


async def test_days_of_nothing_but_failure_disable_and_nothing_is_lost(tmp_path: Path) -> None:
    shelf = Shelf(lambda volume: FAILED)
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf, disable_after=60.0) as filer:
            await eventually(lambda: filer.standing.failures > 1)
            home.now += 2 * MINUTE
            await eventually(lambda: bool(home.disabled))
            assert home.disabled == ["nothing but failure for 60 s: 550 not now"]
        shelf.rule = lambda volume: TAKEN
        async with home.filing(shelf):
            await shelf.until(1)
    assert recipients(list(shelf.files.values())) == EVERYONE[:5]


async def test_a_receiver_that_wants_nothing_any_more_ends_the_line(tmp_path: Path) -> None:
    shelf = Shelf(lambda volume: Outcome(Verdict.GONE, "the account is closed"))
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: home.disabled == ["the account is closed"])


async def test_what_was_put_and_not_noted_is_put_again_with_the_same_bytes(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        move = home.store.move

        async def refuse(*given: object) -> None:
            raise StoreFullError

        async with home.filing(shelf) as filer:
            home.store.move = refuse  # type: ignore[method-assign]
            await eventually(lambda: len(shelf.history) > 2)
            assert filer.standing.detail.startswith("The disk is full")
            home.store.move = move  # type: ignore[method-assign]
            await eventually(lambda: filer.standing.delivered == 5)
        assert await home.cursor() == Cursor(5, 1, 5)
        assert len(set(shelf.history)) == 1
        (manifest,) = await home.store.manifests("sub_x")
        assert (manifest.first_sequence, manifest.last_sequence, manifest.types) == (1, 5, {"email.opened": 5})


async def test_a_plan_outlives_a_restart_and_is_not_written_anew(tmp_path: Path) -> None:
    shelf = Shelf(lambda volume: FAILED)
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: bool(shelf.put_))
        planned = shelf.put_[0]
        shelf.rule = lambda volume: TAKEN
        async with home.filing(shelf):
            await shelf.until(1)
    assert shelf.put_[-1] == planned


@pytest.mark.parametrize("changed", ["epoch", "rotation", "file"])
async def test_a_plan_that_holds_no_more_is_written_anew(tmp_path: Path, changed: str) -> None:
    shelf = Shelf(lambda volume: FAILED)
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: bool(shelf.put_))
        rotation = Rotation()
        if changed == "epoch":
            await home.ledger.restart("sub_x", 2, 0)
        elif changed == "rotation":
            rotation = Rotation(compression="gzip")
        else:
            Path(shelf.put_[0].path).write_bytes(b"[")
        shelf.rule = lambda volume: TAKEN
        async with home.filing(shelf, file=rotation):
            await shelf.until(1)
        (name,) = shelf.files
        assert ("-2-0000000001" in name) == (changed == "epoch")
        assert name.endswith(".json.gz" if changed == "rotation" else ".json")


async def test_what_was_told_already_is_not_put_again(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf) as filer:
            await eventually(lambda: home.outbox() == ["1-6.part", "names.json"])
        async with home.filing(shelf) as filer:
            await eventually(lambda: "1-6.part" in home.outbox())
            assert not filer.standing.requests
    assert len(shelf.put_) == 1


async def test_an_event_that_cannot_be_told_leaves_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def item(told: Event) -> bytes:
        if told.recipient == EVERYONE[2]:
            raise ValueError("of all things")
        return msgspec.json.encode(told.recipient)

    framing = Framing(content_type="application/json", ending=".json", pen=json_array(item))
    monkeypatch.setattr(filing, "framing_for", lambda *given: framing)
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 5), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await shelf.until(1)
            await eventually(lambda: "1-6.part" in home.outbox())
        (aside,) = await home.set_aside()
        assert await home.cursor() == Cursor(5, 1, 5)
    assert (aside.event.recipient, aside.state, aside.sequence) == (EVERYONE[2], "failed", 3)
    assert aside.detail == "cannot be told in canonical: of all things"
    (data,) = shelf.files.values()
    assert msgspec.json.decode(data) == [EVERYONE[0], EVERYONE[1], EVERYONE[3], EVERYONE[4]]


async def test_only_events_that_cannot_be_told_make_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def item(told: Event) -> bytes:
        raise ValueError("never")

    framing = Framing(content_type="application/json", ending=".json", pen=json_array(item))
    monkeypatch.setattr(filing, "framing_for", lambda *given: framing)
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 3), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: "1-4.part" in home.outbox())
        assert len(await home.set_aside()) == 3
        assert await home.cursor() == Cursor(3, 1, 3)
    assert not shelf.put_


# --- the folder


async def test_nobody_else_can_read_what_is_on_its_way(tmp_path: Path) -> None:
    shelf = Shelf(lambda volume: FAILED)
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: bool(shelf.put_))
        folder = home.data / "outbox"
        assert {path.stat().st_mode & 0o777 for path in (folder, folder / "sub_x")} == {0o700}
        assert {path.stat().st_mode & 0o777 for path in (folder / "sub_x").iterdir()} == {0o600}
        assert home.outbox() == ["1-1.file", "plan.json"]
        discard(home.data, "sub_x")
        assert not (folder / "sub_x").exists()


async def test_a_data_folder_that_was_moved_still_has_its_plan(tmp_path: Path) -> None:
    shelf = Shelf(lambda volume: FAILED)
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), event(9, NOW + HOUR))
        async with home.filing(shelf):
            await eventually(lambda: bool(shelf.put_))
    (tmp_path / "d").rename(tmp_path / "moved")
    (tmp_path / "d.keys").rename(tmp_path / "moved.keys")
    shelf.rule = lambda volume: TAKEN
    async with house(tmp_path / "moved") as home, home.filing(shelf):
        await shelf.until(1)
    assert shelf.put_[-1].id == shelf.put_[0].id


# --- limits and names


async def test_a_file_ends_where_it_would_have_too_many_events_or_bytes(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 10), event(10, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(max_events=4)):
            names = await shelf.until(3)
    assert [name[-15:-5] for name in names] == ["0000000001", "0000000005", "0000000009"]
    assert [len(recipients([data])) for data in shelf.files.values()] == [4, 4, 2]
    assert recipients(list(shelf.files.values())) == EVERYONE


async def test_an_event_larger_than_a_file_has_one_of_its_own(tmp_path: Path) -> None:
    shelf = Shelf()
    large = event(1, extra={"text": "x" * 3_000})
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), large, event(2), event(3, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(max_bytes=1_000)):
            await shelf.until(3)
    assert [recipients([data]) for data in shelf.files.values()] == [[EVERYONE[0]], [EVERYONE[1]], [EVERYONE[2]]]


async def test_names_are_made_as_the_operator_says(tmp_path: Path) -> None:
    shelf = Shelf()
    pattern = "{tenant}_{date}.{stamp}.{name}"
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 4), event(4, NOW + 24 * HOUR))
        rotation = Rotation(name=pattern, every="day", zone="America/New_York", max_events=2, compression="zstd")
        async with home.filing(shelf, file=rotation):
            names = await shelf.until(2)
    assert names == [
        "default_20260801.20260801040000.x.json.zst",
        "default_20260801.20260801040001.x.json.zst",
    ]
    assert (
        recipients([zstandard.ZstdDecompressor().decompressobj().decompress(b) for b in shelf.files.values()])
        == (EVERYONE[:4])
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "../{stamp}"}, "may have letters"),
        ({"name": ".{stamp}"}, "may have letters"),
        ({"name": "{stamp.__class__}"}, "may have letters"),
        ({"name": "day-{date}"}, "needs {sequence} or {stamp}"),
        ({"name": "{sequence}", "empty": True}, "needs {period} or {stamp}"),
        ({"zone": "Mars/Phobos"}, "no time zone 'Mars/Phobos'"),
        ({"format": "parquet", "compression": "gzip"}, "compressed within itself"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(given: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^file: [^\n]*$") as told:
        framing_for(canonical.Dialect(), "", Rotation(**given))  # type: ignore[arg-type]
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("dialect", "file", "said"),
    [
        ("pure360/http", Rotation(), "pure360/http is told event by event"),
        ("activatepro/api", Rotation(), "activatepro/api is told event by event"),
        ("cloudevents/structured", Rotation(), "cloudevents/structured is told event by event"),
        ("halon", Rotation(format="csv"), "set dialect to canonical"),
        ("activatepro/feed", Rotation(compression="gzip"), "it has: none, zip"),
    ],
)
async def test_a_dialect_that_is_not_told_so_says_so(tmp_path: Path, dialect: str, file: Rotation, said: str) -> None:
    async with house(tmp_path / "d") as home, home.filing(Shelf(), dialect, file=file):
        await eventually(lambda: bool(home.disabled))
    assert said in home.disabled[0]


async def test_periods_without_events_have_empty_files_where_they_are_wanted(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(event(0))
        async with home.filing(shelf, file=Rotation(empty=True)) as filer:
            await eventually(lambda: "1-1.part" in home.outbox())
            home.now = NOW + 2 * HOUR
            filer.nudge()
            await shelf.until(2)
            await home.keep(event(1, NOW + 4 * HOUR))
            await shelf.until(4)
        async with home.filing(shelf, file=Rotation(empty=True)) as filer:
            home.now = NOW + 5 * HOUR
            filer.nudge()
            names = await shelf.until(5)
        assert await home.cursor() == Cursor(2, 1, 2)
    assert [name.split("-")[2][9:11] for name in names] == ["14", "15", "16", "17", "18"]
    assert [recipients([data]) for data in shelf.files.values()] == [[EVERYONE[0]], [], [], [], [EVERYONE[1]]]


# --- forms


async def test_activatepro_feeds_are_split_and_named_as_it_reads_them(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        for start in range(0, 100_000, 10_000):
            await home.keep(*events(start, start + 10_000))
        await home.keep(*events(100_000, 100_003), event(200_000, NOW + HOUR))
        async with home.filing(shelf, "activatepro/feed", file=Rotation(every="15 minutes", compression="zip")):
            names = await shelf.until(2)
    assert names == ["event_history_20260801141500.json.zip", "event_history_20260801141501.json.zip"]
    counts = []
    for name, data in shelf.files.items():
        archive = zipfile.ZipFile(io.BytesIO(data))
        assert archive.namelist() == [name.removesuffix(".zip")]
        assert archive.testzip() is None
        rows = msgspec.json.decode(archive.read(archive.namelist()[0]))
        counts.append(len(rows))
        found = activatepro.Dialect().decode(Receipt(data, NOW + HOUR, file_name=name))
        assert not [item for item in found if isinstance(item, Rejected)]
        assert [item.recipient for item in found if isinstance(item, Event)] == [row["email"] for row in rows]
        assert all(set(row) <= {"id", "email", "event", "timestamp", "channel"} for row in rows[:10])
    assert counts == [100_000, 3]


async def test_pure360_rows_name_their_columns_where_they_change(tmp_path: Path) -> None:
    shelf = Shelf()
    heard = pure360.Dialect().decode(
        Receipt(b"eventMeta,OPEN,type,event date,email,colour\nOPEN,1437585002,a@example.org,red\n", NOW, form="csv")
    )
    (own,) = [msgspec.structs.replace(item, received_at=NOW) for item in heard if isinstance(item, Event)]
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), own, event(1), event(9, NOW + HOUR))
        async with home.filing(shelf, "pure360/csv"):
            await shelf.until(1)
    (data,) = shelf.files.values()
    found = pure360.Dialect().decode(Receipt(data, NOW + HOUR, form="csv"))
    assert [item.recipient for item in found if isinstance(item, Event)] == [EVERYONE[0], "a@example.org", EVERYONE[1]]
    assert isinstance(found[1], Event)
    assert found[1].extra["colour"] == "red"
    assert data.count(b"eventMeta") == 1


async def test_messagegears_has_a_file_for_each_type_and_eastern_day(tmp_path: Path) -> None:
    shelf = Shelf()
    told = [event(number, type_="email.clicked" if number % 2 else "email.opened", url="x:y") for number in range(5)]
    rotation = Rotation(every="day", zone="America/New_York")
    async with house(tmp_path / "d") as home:
        await home.keep(*told, event(9, NOW + 24 * HOUR))
        async with home.filing(shelf, "messagegears", file=rotation):
            names = await shelf.until(2)
        assert await home.cursor() == Cursor(5, 1, 5)
    assert names == ["20260801_OPENS-1-0000000001.xml", "20260801_CLICKS-1-0000000001.xml"]
    found = [messagegears.Dialect().decode(Receipt(data, NOW + HOUR)) for data in shelf.files.values()]
    assert [[item.recipient for item in items if isinstance(item, Event)] for items in found] == [
        EVERYONE[0:5:2],
        EVERYONE[1:5:2],
    ]


def odd(number: int) -> Event:
    return event(number, url='https://x.example/?a="1",2\r\n', test=True)


async def test_lines_of_canonical_events_lose_nothing(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(odd(0), odd(1), event(9, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(format="ndjson", compression="gzip")):
            (name,) = await shelf.until(1)
    assert name.endswith(".ndjson.gz")
    lines = gzip.decompress(shelf.files[name]).splitlines()
    assert [msgspec.json.decode(line)["url"] for line in lines] == [odd(0).url] * 2


async def test_csv_is_read_by_whoever_reads_csv(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(odd(0), odd(1), event(9, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(format="csv")):
            (name,) = await shelf.until(1)
    rows = list(csv.DictReader(io.StringIO(shelf.files[name].decode(), newline="")))
    assert [row["recipient"] for row in rows] == EVERYONE[:2]
    assert [row["url"] for row in rows] == [odd(0).url] * 2
    assert rows[0]["received_at"] == "2026-08-01T14:20:00Z"
    assert rows[0]["test"] == "true"


async def test_parquet_is_read_by_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("aftersend.pipeline.parquet.GROUP_ROWS", 4)
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(*events(0, 9), event(9, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(format="parquet")):
            (name,) = await shelf.until(1)
    assert name.endswith(".parquet")
    file = parquet.ParquetFile(io.BytesIO(shelf.files[name]))
    assert file.num_row_groups == 3
    table = file.read()
    assert table.column("recipient").to_pylist() == EVERYONE[:9]
    assert table.column("received_at")[0].as_py() == datetime.fromtimestamp(NOW // SECOND, UTC)


async def test_a_number_that_parquet_cannot_hold_leaves_the_line(tmp_path: Path) -> None:
    shelf = Shelf()
    async with house(tmp_path / "d") as home:
        await home.keep(event(0), event(1, failure=Failure(code=1 << 63)), event(2), event(9, NOW + HOUR))
        async with home.filing(shelf, file=Rotation(format="parquet")):
            await shelf.until(1)
            await eventually(lambda: "1-4.part" in home.outbox())
        (aside,) = await home.set_aside()
    assert aside.detail == f"cannot be told in canonical: the failure's code {1 << 63} has more than 64 bits"


async def test_parquet_without_its_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigurationError, match=r"need pyarrow; install it with: pip install 'aftersend\[parquet\]'$"):
        framing_for(canonical.Dialect(), "", Rotation(format="parquet"))


async def test_each_type_has_its_own_file_where_the_vendor_has_it_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets: list[Sheet] = []

    def pen(sheet: Sheet) -> object:
        sheets.append(sheet)
        return json_array(lambda told: msgspec.json.encode(told.recipient))(sheet)

    framing = Framing(
        content_type="application/json",
        ending=".json",
        pen=pen,  # type: ignore[arg-type]
        type_of=lambda told: told.type.partition(".")[2].upper(),
    )
    monkeypatch.setattr(filing, "framing_for", lambda *given: framing)
    told = [event(number, type_="email.clicked" if number % 2 else "email.opened") for number in range(5)]
    answers = [TAKEN, FAILED, TAKEN]
    shelf = Shelf(lambda volume: answers.pop(0))
    async with house(tmp_path / "d") as home:
        await home.keep(*told, event(9, NOW + HOUR))
        async with home.filing(shelf):
            names = await shelf.until(2)
            await eventually(lambda: home.outbox() == ["1-6-OPENED.part", "names.json"])
        assert await home.cursor() == Cursor(5, 1, 5)
        (manifest,) = await home.store.manifests("sub_x")
        assert manifest.types == {"email.opened": 3, "email.clicked": 2}
    assert [name.rpartition("-")[2] for name in names] == ["OPENED.json", "CLICKED.json"]
    assert [msgspec.json.decode(data) for data in shelf.files.values()] == [EVERYONE[0:5:2], EVERYONE[1:5:2]]
    assert [(volume.first_sequence, volume.last_sequence) for volume in shelf.put_] == [(1, 5), (2, 4), (2, 4)]
    assert [sheet.type for sheet in sheets[:2]] == ["OPENED", "CLICKED"]

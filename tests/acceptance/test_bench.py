"""`aftersend bench` measures what it says: a tiny run of each measurement. Counts are asserted, never times."""

import subprocess
import sys

import msgspec
import pytest

from aftersend.bench.catalogue import MEASURES, run, summary
from aftersend.bench.readings import Row, Scale

TINY = Scale(0.001)

ROWS = {
    "convert-json": {"convert JSON: median of all pairs": 12_000, "convert halon → altcraft": 1_000},
    "convert-xml": {"convert messagegears → canonical": 1_000, "convert canonical → messagegears": 1_000},
    "convert-forms": {"convert pure360 → canonical": 1_000, "convert canonical → pure360": 1_000},
    "ingest": {"ingest over HTTP, 100 events a request": 300, "ingest over HTTP, 1 event a request": 100},
    "clicks": {"click to redirect, durable, 64 connections": 64, "99th percentile of a click, 64 connections": 64},
    "rewrite": {"rewriting a 60 kB mail with 40 links": 1},
    "held": {"memory of a picture held open, 2 at once": 2},
    "append": {"append, 1000 events a batch": 1_000},
    "deliver": {"delivery, 500 events a POST": 1_000, "delivery, 1 event a POST": 1_000},
    "pull": {"pull, 1,000 events a batch": 1_000},
    "soap": {"SOAP getBatch of 10,000 events": 10_000},
    "daily-files": {"MessageGears' daily file over REST": 1_000, "MessageGears' daily counts over REST": 1_000},
    "files": {"files, NDJSON into a folder": 1_000, "memory while a file of 1,000 events is written": 1_000},
    "remote-files": {
        "files by FTP to a local server, NDJSON": 1_000,
        "files by SFTP to a local server, NDJSON": 1_000,
    },
    "queues": {
        "SQS, 10 events a request": 500,
        "Kafka, 1,000 events a parcel": 1_000,
        "NATS JetStream, 1,000 events a parcel": 1_000,
    },
    "subscriptions": {
        "100 subscriptions that split a stream, against 1 that takes it all": 1_000,
        "100 subscriptions that match nothing, against none": 1_000,
    },
    "growth": {"append rate with 20,000 stored, against 2,000": 20_000},
    "disk": {"bytes on disk of a 400-byte event": 1_000},
    "memory": {"memory growth, 1,000 events wait for a dead endpoint": 1_000},
    "neighbours": {"99th percentile delay of 20 healthy receivers beside a dead and a slow one": 400},
}
"""What each measurement says in a tiny run, and with how many events."""


MARKS = {"remote-files": pytest.mark.server("vsftpd", "sshd")}


def test_every_measurement_is_tried_here() -> None:
    assert ROWS.keys() == MEASURES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", [pytest.param(name, marks=MARKS[name]) if name in MARKS else name for name in ROWS])
def test_a_measurement_reads_its_rows_with_all_of_the_events(name: str) -> None:
    readings = run([name], 1, TINY, lambda note: None)
    counts = {row.name: taken[0].count for row, taken in readings.items()}
    assert ROWS[name].items() <= counts.items()
    assert all(reading.value > 0 for taken in readings.values() for reading in taken)


def test_a_row_is_judged_by_its_floor_and_its_reach() -> None:
    rising, falling = Row("", "", 10, 20), Row("", "", 20, 10, rising=False)
    assert [rising.verdict(value) for value in (9, 10, 20)] == ["missed", "enough", "good"]
    assert [falling.verdict(value) for value in (21, 20, 10)] == ["missed", "enough", "good"]


def test_several_runs_make_a_median_and_a_spread() -> None:
    ((row, readings),) = run(["disk"], 3, TINY, lambda note: None).items()
    shown = summary(row, readings)
    assert shown["runs"] == 3
    assert shown["lowest"] <= shown["median"] <= shown["highest"]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aftersend", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_prints_json_for_programs_and_its_progress_elsewhere() -> None:
    done = bench("disk", "--runs", "1", "--share", "0.001", "--json")
    assert done.returncode == 0, done.stderr
    assert [row["events"] for row in msgspec.json.decode(done.stdout)] == [1_000]
    assert "disk, run 1 of 1" in done.stderr


def test_an_unknown_measurement_is_a_line_that_names_the_known_ones() -> None:
    done = bench("speed")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "convert-json" in done.stderr

"""`aftersend demo` for real: vendors post, receivers hear, and nothing is lost."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from select import select

import msgspec
import pytest

from aftersend.core.event import Event, Receipt
from aftersend.demo.story import Story
from aftersend.rack import find_dialect
from aftersend.simulation.campaign import campaign
from aftersend.simulation.vendors import WORDS, tell, told

START = 1_770_000_000_000_000_000
LIMIT = 90


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "aftersend", "demo", *arguments]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A demo that is told to end if the test does not wait for it."""
    process = subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(folder)
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=LIMIT)


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}


def test_everything_that_six_vendors_tell_reaches_both_receivers(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--messages", "900", "--json"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    result = msgspec.json.decode(done.stdout)
    assert result["sound"] is True
    assert all(finding["holds"] for finding in result["findings"])
    assert result["dialects"].keys() == WORDS.keys()
    assert all(figures["accepted"] > 0 for figures in result["dialects"].values())
    assert sum(figures.get("duplicate", 0) for figures in result["dialects"].values()) > 0
    assert sum(figures.get("rejected", 0) for figures in result["dialects"].values()) > 0
    assert {receiver["delivered"] for receiver in result["receivers"].values()} == {result["log"]}
    assert "503" in str(result["findings"])
    assert not list(tmp_path.iterdir()), "the store is left behind"


def test_the_address_and_the_lines_to_try_work_while_it_runs(tmp_path: Path) -> None:
    with running(tmp_path, "--messages", "1500") as process:
        assert process.stdout is not None
        shown = "".join(process.stdout.readline() for _ in range(4))
        (url, key, body) = re.findall(r"curl (\S+/v1/events) -H 'Authorization: (Bearer \S+)' -d '(.*)'", shown)[0]
        request = urllib.request.Request(url, body.encode(), {"Authorization": key})
        with urllib.request.urlopen(request, timeout=10) as answer:
            assert msgspec.json.decode(answer.read())["accepted"] == 1
        rest, faults = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, rest + faults
        assert "1 of yours" in " ".join(rest.split())
        assert "Nothing was lost" in rest


def test_ctrl_c_ends_it_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--messages", "20000") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        _, faults = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        assert faults == "aftersend: interrupted\n"
    assert not list(tmp_path.iterdir())


def test_a_store_that_is_kept_is_named_with_commands_that_work(tmp_path: Path) -> None:
    done = subprocess.run(
        command("--messages", "30", "--keep"), capture_output=True, text=True, timeout=LIMIT, env=environment(tmp_path)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (data,) = tmp_path.glob("*/data")
    assert f"the store is kept in {data}" in done.stdout
    typed = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("  aftersend ")]
    assert [words[0] for words in typed] == ["serve", "tail", "quarantine"]
    tail, quarantine = (
        subprocess.run([sys.executable, "-m", "aftersend", *words], capture_output=True, text=True, timeout=30)
        for words in typed[1:]
    )
    assert (tail.returncode, quarantine.returncode) == (0, 0), tail.stderr + quarantine.stderr
    assert "email." in tail.stdout


def test_on_a_terminal_the_tables_are_drawn(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    wide = {**environment(tmp_path), "COLUMNS": "140", "TERM": "xterm"}
    process = subprocess.Popen(command("--messages", "300"), stdout=theirs, stderr=theirs, env=wide)
    os.close(theirs)
    try:
        shown = "".join(read_all(ours))
    finally:
        process.wait(timeout=LIMIT)
        os.close(ours)
    assert process.returncode == 0, shown
    assert "events accepted" in shown
    assert "warehouse" in shown
    assert "Nothing was lost" in shown


def read_all(descriptor: int) -> Iterator[str]:
    """What a program writes to its terminal until it ends."""
    while select([descriptor], [], [], LIMIT)[0]:
        try:
            data = os.read(descriptor, 65_536)
        except OSError:
            return
        yield data.decode("utf-8", "replace")


@pytest.mark.parametrize("dialect", sorted(WORDS))
def test_each_dialect_reads_what_its_simulated_vendor_tells(dialect: str) -> None:
    happenings = [item for story in campaign(200, 5, START) for item in told(dialect, story)]
    found = [
        item
        for body in tell(dialect, happenings)
        for item in find_dialect(dialect)[0].decode(Receipt(body.data, START, content_type=body.content_type))
    ]
    events = [item for item in found if isinstance(item, Event)]
    assert len({event.id for event in events}) == len(found) == len(happenings)
    assert [event.type for event in events] == [f"email.{item.what}" for item in happenings]
    assert [event.time for event in events] == [item.time for item in happenings]
    assert [event.recipient for event in events] == [item.person.address for item in happenings]


def test_the_same_seed_tells_the_same_story() -> None:
    seed = Random().randrange(1_000_000)
    assert list(Story(400, seed, START).chunks()) == list(Story(400, seed, START).chunks())

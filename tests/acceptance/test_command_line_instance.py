"""The commands that are about an instance, as they are typed, on real folders, with a server and without."""

import gzip
import json
import select
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aftersend import wiring
from aftersend.cli import client

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"
BULK = FIXTURES / "halon" / "bulk.ndjson"
LOCAL = ("--listen", "127.0.0.1:0", "--egress-allow", "127.0.0.0/8")


def aftersend(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What a command prints and how it ends."""
    command = [sys.executable, "-m", "aftersend", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def said(*arguments: object) -> str:
    """What a command that goes well prints."""
    done = aftersend(*arguments)
    assert done.returncode == 0, done
    assert done.stderr == b"" or b"begins with" in done.stderr, done
    return done.stdout.decode()


def told(*arguments: object) -> Any:
    """What a command that goes well prints as JSON."""
    return json.loads(said(*arguments, "--json"))


def fault(*arguments: object, code: int = 1) -> str:
    """The one line of a command that does not go well."""
    done = aftersend(*arguments)
    assert done.returncode == code, done
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    assert done.stderr.startswith(b"aftersend: "), done
    return done.stderr.decode()


def served(data: Path, *options: str) -> tuple[subprocess.Popen[bytes], str]:
    """A server that is ready, and its address."""
    command = [sys.executable, "-m", "aftersend", "serve", "--data", str(data), *LOCAL, *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    line = process.stdout.readline().decode()
    assert "ready" in line, (line, process.stderr.read() if process.stderr else b"")
    return process, line.split()[4]


def ended(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """How a server ends when it is asked to, and what it complained of."""
    process.send_signal(signal.SIGTERM)
    _, complaints = process.communicate(timeout=30)
    return process.returncode, complaints


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A fresh data folder."""
    said("init", "--data", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str, str]]:
    """A folder that is served, its address and its admin key."""
    folder = tmp_path_factory.mktemp("running") / "data"
    key = told("init", "--data", folder)["admin_key"]
    process, url = served(folder)
    yield folder, url, key
    assert ended(process) == (0, b"")


# Setting up


def test_init_makes_a_folder_for_its_owner_alone_and_shows_a_key(tmp_path: Path) -> None:
    made = told("init", "--data", tmp_path / "new" / "data")
    assert made["admin_key"].startswith("as_")
    assert (tmp_path / "new" / "data").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "data" / "keyring.json").stat().st_mode & 0o777 == 0o600
    assert "# listen = " in (tmp_path / "new" / "data" / "aftersend.toml").read_text()


def test_init_leaves_an_existing_store_as_it_is(data: Path) -> None:
    before = {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()}
    assert "is set up already" in fault("init", "--data", data)
    assert {path.name: path.read_bytes() for path in data.iterdir() if path.is_file()} == before


def test_init_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERSEND_EGRESS_ALLOW", "nowhere")
    assert "nowhere" in fault("init", "--data", tmp_path / "data", code=2)
    assert not (tmp_path / "data").exists()


def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be made" in fault("init", "--data", tmp_path / "file")
    assert "cannot be made" in fault("init", "--data", tmp_path / "file" / "below")
    assert "there is no data folder" in fault("serve", "--data", tmp_path / "file")


# Serving


def test_a_second_server_leaves_the_first_in_peace(running: tuple[Path, str, str]) -> None:
    folder, _, _ = running
    assert "is held by process" in fault("serve", "--data", folder, "--listen", "127.0.0.1:0")
    assert said("tenants", "list", "--data", folder).startswith("name")


def test_a_port_in_use_is_told(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert "address already in use" in fault("serve", "--data", data, "--listen", f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--listen", "everywhere"), ("--egress-allow", "10.0.0.0/99"), ("--log-level", "loud"), ("--retention-days", "x")],
)
def test_a_wrong_setting_is_told(data: Path, option: str, value: str) -> None:
    done = aftersend("serve", "--data", data, option, value)
    assert done.returncode in (1, 2)
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()


def test_a_wrong_settings_file_is_told(data: Path) -> None:
    (data / "aftersend.toml").write_text('volume = "loud"\n')
    assert "volume" in fault("serve", "--data", data, code=2)


def test_a_store_of_a_newer_version_is_left_alone(data: Path) -> None:
    with sqlite3.connect(data / "control.db") as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()
    for command in (("serve", "--listen", "127.0.0.1:0"), ("tail",)):
        assert "has version 999" in fault(*command, "--data", data)


def test_a_server_ends_cleanly_and_leaves_no_socket(data: Path) -> None:
    process, _ = served(data)
    assert (data / client.SOCKET).exists()
    assert ended(process) == (0, b"")
    assert not (data / client.SOCKET).exists()


def test_commands_and_server_mean_the_same_socket() -> None:
    assert client.SOCKET == wiring.SOCKET


# Events


def test_files_are_taken_in_once_whether_a_server_runs_or_not(data: Path) -> None:
    arguments = ("ingest", "--as", "halon", "--data", data, BULK)
    assert said(*arguments) == "3 accepted, 0 duplicate, 0 rejected\n"
    assert said(*arguments) == "0 accepted, 3 duplicate, 0 rejected\n"
    process, _ = served(data)
    assert said(*arguments) == "0 accepted, 3 duplicate, 0 rejected\n"
    assert ended(process)[0] == 0


def test_events_without_a_time_are_the_same_when_their_file_comes_again(data: Path, tmp_path: Path) -> None:
    (tmp_path / "timeless.ndjson").write_text('{"type":"email.opened","recipient":"a@x.example"}\n' * 1)
    arguments = ("ingest", "--as", "canonical", "--data", data, tmp_path / "timeless.ndjson")
    assert told(*arguments) == {"accepted": 1, "duplicates": 0, "rejected": 0, "reasons": {}}
    assert told(*arguments) == {"accepted": 0, "duplicates": 1, "rejected": 0, "reasons": {}}


def test_a_long_file_is_taken_in_in_pieces(running: tuple[Path, str, str], tmp_path: Path) -> None:
    events = [{"type": "email.opened", "time": "2026-01-15T08:00:00Z", "message_id": f"m-{n}"} for n in range(70_000)]
    (tmp_path / "array.json").write_text(json.dumps(events))
    assert (tmp_path / "array.json").stat().st_size > 4_000_000
    (tmp_path / "lines.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, events)).encode()))
    arguments = ("ingest", "--as", "canonical", "--data", running[0])
    assert told(*arguments, tmp_path / "array.json")["accepted"] == 70_000
    assert told(*arguments, tmp_path / "lines.gz")["duplicates"] == 70_000


def test_bodies_of_a_one_event_form_are_taken_in_line_by_line(data: Path, tmp_path: Path) -> None:
    forms = "".join(f"type=OPEN&email=a{number}%40x.example&Event_date=1437585002\n" for number in range(5))
    (tmp_path / "forms").write_text(forms)
    assert said("ingest", "--as", "pure360", "--data", data, tmp_path / "forms").startswith("5 accepted")


def test_what_cannot_be_read_is_told_and_goes_to_quarantine(data: Path) -> None:
    done = aftersend("ingest", "--as", "canonical", "--data", data, FIXTURES / "canonical" / "bad_members.ndjson")
    assert done.returncode == 3
    assert done.stdout == b"3 accepted, 0 duplicate, 7 rejected\n"
    assert b"invalid_time" in done.stderr
    kept = told("quarantine", "list", "--data", data)
    assert len(kept) == 7
    assert "yesterday" in said("quarantine", "show", kept[0]["number"], "--data", data)
    replayed = aftersend("quarantine", "replay", "--data", data)
    assert (replayed.returncode, replayed.stdout) == (3, b"0 could be read now, 7 still not.\n")
    said("quarantine", "discard", *[entry["number"] for entry in kept], "--data", data)
    assert "could be read" in said("quarantine", "list", "--data", data)


def test_files_that_are_no_events_are_told(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "odd").write_bytes(b"\xff\xfe{}")
    for name, reason in (("empty", b"empty_body"), ("odd", b"invalid_utf8")):
        done = aftersend("ingest", "--as", "canonical", "--data", data, tmp_path / name)
        assert (done.returncode, done.stdout) == (3, b"0 accepted, 0 duplicate, 1 rejected\n"), done
        assert reason in done.stderr


def test_the_newest_events_are_shown_last(running: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = running[0]
    said("tenants", "add", "tailed", "--data", folder)
    said("ingest", "--as", "halon", "--tenant", "tailed", "--data", folder, BULK)
    tail = ("tail", "--tenant", "tailed", "--data", folder, "--types", "email.clicked", "email.opened")
    everything = said(*tail, "--from-start", "--json").splitlines()
    assert len(everything) == 3
    assert said(*tail, "-n", "2", "--json").splitlines() == everything[-2:]
    assert said(*tail, "-n", "1").startswith(json.loads(everything[-1])["time"])
    assert json.loads(said(*tail, "-n", "1", "--dialect", "altcraft"))[0]["event_type"] in ("click", "open")


def test_what_comes_is_followed_as_it_comes(running: tuple[Path, str, str], tmp_path: Path) -> None:
    folder = running[0]
    command = [sys.executable, "-m", "aftersend", "tail", "-f", "-n", "0", "--json", "--types", "popup.custom"]
    with subprocess.Popen([*command, "--data", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        for number in range(50):
            (tmp_path / "one").write_text(json.dumps({"type": "popup.custom", "message_id": str(number)}))
            said("ingest", "--as", "canonical", "--data", folder, tmp_path / "one")
            if select.select([process.stdout], [], [], 0.5)[0]:
                break
        assert json.loads(process.stdout.readline())["type"] == "popup.custom"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == b"aftersend: interrupted\n"
        assert process.wait(timeout=30) == 130


# What is registered


def test_empty_lists_say_what_to_do(data: Path) -> None:
    assert "Add one: aftersend subscriptions add NAME --url" in said("subscriptions", "list", "--data", data)
    assert "Add one: aftersend sources add NAME" in said("sources", "list", "--data", data)
    assert told("subscriptions", "list", "--data", data) == []


def test_a_subscription_is_added_changed_paused_and_removed(running: tuple[Path, str, str]) -> None:
    here = ("--data", running[0])
    url = "http://127.0.0.1:9099/hook"
    made = told("subscriptions", "add", "crm", "--url", url, "--dialect", "halon", "--types", "email.*", "sms.*", *here)
    assert made["signing_secrets"][0].startswith("whsec_")
    assert made["types"] == ["email.*", "sms.*"]
    assert "there is a subscription 'crm' already" in fault("subscriptions", "add", "crm", "--url", url, *here)
    changed = told("subscriptions", "set", "crm", "--max-events", "7", "--header", "X-Team=a=b", *here)
    assert (changed["batch"]["max_events"], changed["batch"]["max_wait"]) == (7, 5.0)
    assert changed["headers"] == {"X-Team": "********"}
    said("subscriptions", "pause", "crm", *here)
    assert "paused" in said("subscriptions", "list", *here)
    said("subscriptions", "resume", "crm", *here)
    replay = told("subscriptions", "replay", "crm", "--since", "2020-01-01T00:00:00Z", "--dry-run", *here)
    assert replay["total"] >= 0
    assert told("subscriptions", "aside", "crm", *here) == []
    assert told("subscriptions", "manifest", "crm", *here) == []
    said("subscriptions", "retry", "crm", *here)
    said("subscriptions", "remove", "crm", *here)
    assert "there is no subscription 'crm'" in fault("subscriptions", "show", "crm", *here)


def test_a_command_without_a_server_changes_a_subscription_and_delivers_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERSEND_EGRESS_ALLOW", "127.0.0.0/8")
    with socket.create_server(("127.0.0.1", 0)) as receiver:
        receiver.settimeout(0.2)
        url = f"http://127.0.0.1:{receiver.getsockname()[1]}/"
        here = ("--data", data)
        done = aftersend(
            "subscriptions", "add", "crm", "--url", url, "--types", "email.*", "--start", "beginning", *here
        )
        assert (done.returncode, done.stderr) == (0, b"Delivery begins with `aftersend serve`.\n")
        said("ingest", "--as", "halon", BULK, *here)
        changed = told("subscriptions", "set", "crm", "--types", "email.clicked", *here)
        assert (changed["epoch"], changed["standing"]["epoch"], changed["standing"]["behind"]) == (2, 2, 3)
        assert "a replay needs a running instance" in fault(
            "subscriptions", "replay", "crm", "--since", "2020-01-01T00:00:00Z", *here
        )
        with pytest.raises(TimeoutError):
            receiver.accept()


def test_an_address_that_must_not_be_reached_is_told_with_what_to_do(running: tuple[Path, str, str]) -> None:
    line = fault("subscriptions", "add", "inner", "--url", "http://10.1.2.3/", "--data", running[0], code=2)
    assert "--egress-allow 10.1.2.3/32" in line


def test_sources_tenants_domains_and_keys_come_and_go(running: tuple[Path, str, str]) -> None:
    here = ("--data", running[0])
    path = told("sources", "add", "hal", "--dialect", "halon", "--origin", "account-1", *here)["path"]
    assert path.startswith("/in/hal/")
    assert told("sources", "show", "hal", *here)["origin"] == "account-1"
    assert told("sources", "add", "public", "--dialect", "halon", "--open", *here)["path"] == "/in/public"
    said("tenants", "add", "acme", *here)
    key = told("keys", "add", "--tenant", "acme", "--scope", "ingest", "read", *here)
    assert (key["tenant"], key["scopes"]) == ("acme", ["ingest", "read"])
    assert "still has keys" in fault("tenants", "remove", "acme", *here)
    said("keys", "revoke", key["id"], *here)
    said("tenants", "remove", "acme", *here)
    said("domains", "add", "Click.Example.com.", *here)
    assert [item["name"] for item in told("domains", "list", *here)] == ["click.example.com"]
    said("domains", "remove", "click.example.com", *here)
    said("sources", "remove", "hal", *here)
    assert "there is no source 'hal'" in fault("sources", "show", "hal", *here)


def test_a_remote_instance_is_reached_with_a_key(running: tuple[Path, str, str]) -> None:
    _, url, key = running
    assert told("tenants", "list", "--url", url, "--key", key)
    assert "wrong or revoked" in fault("tenants", "list", "--url", url, "--key", "as_000000000000_no")


def test_events_of_a_source_carry_its_name_and_an_unknown_one_is_told(data: Path) -> None:
    said("sources", "add", "hal", "--dialect", "halon", "--data", data)
    said("ingest", "--as", "halon", "--source", "hal", "--data", data, BULK)
    shown = said("tail", "-n", "1", "--json", "--data", data)
    assert json.loads(shown)["source"]["name"] == "hal"
    assert "there is no source 'nope'" in fault("ingest", "--as", "halon", "--source", "nope", "--data", data, BULK)


# The doctor


def test_the_doctor_finds_nothing_wrong_with_a_new_folder_or_a_running_one(
    data: Path, running: tuple[Path, str, str]
) -> None:
    assert said("doctor", "--data", data).endswith("Nothing is wrong.\n")
    found = told("doctor", "--data", running[0])
    assert found["problems"] == 0
    assert "answers at its socket" in next(item["detail"] for item in found["checks"] if item["check"] == "instance")


def test_the_doctor_names_what_is_wrong(data: Path) -> None:
    (data / "keyring.json").chmod(0o644)
    (log,) = (data / "log").glob("*.db")
    log.write_bytes(b"this is no database" * 500)
    (data / "control.db").chmod(0o640)
    done = aftersend("doctor", "--data", data, "--json")
    assert done.returncode == 1
    problems = {
        item["check"]: item["detail"] for item in json.loads(done.stdout)["checks"] if item["level"] == "problem"
    }
    assert "open to others" in problems["keyring"]
    assert "not a database" in problems["files"]
    assert "chmod 600" in problems["modes"]


def test_the_doctor_says_what_to_do_without_a_folder(tmp_path: Path) -> None:
    done = aftersend("doctor", "--data", tmp_path / "none")
    assert done.returncode == 1
    assert b"aftersend init" in done.stdout

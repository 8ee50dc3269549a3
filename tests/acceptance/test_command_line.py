"""The commands that need no store, as they are typed: what they print, how they end, what they say to wrong input."""

import base64
import gzip
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import zstandard
from jsonschema import Draft202012Validator

from aftersend.cli import COMMANDS, make_app
from aftersend.rack import dialects

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"
FORMS = [f"{name}/{form}" if form else name for name, item in dialects().items() for form in item.forms or ("",)]
CLICK = {"type": "email.clicked", "time": "2026-01-15T08:00:00Z", "recipient": "a@x.example", "message_id": "m"}


def aftersend(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """What a command prints and how it ends."""
    command = [sys.executable, "-m", "aftersend", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def lines(text: bytes) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def clicks(count: int, **fields: str) -> bytes:
    """Events, one a line."""
    events = ({**CLICK, **fields, "message_id": f"m-{number}"} for number in range(count))
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


# How commands end


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("levitate",), 2, 'Unknown command "levitate"'),
        (("convert", "--to", "halon"), 2, "--from"),
        (("convert", "--from", "halon", "--to", "nobody"), 2, "there is no dialect 'nobody'; there are: activatepro"),
        (("convert", "--from", "halon", "--to", "pure360/fax"), 2, "pure360 has no form 'fax'; it has: http"),
        (("convert", "--from", "halon", "--to", "halon", "missing.json"), 2, "missing.json: there is no such file"),
        (("convert", "--from", "halon", "--to", "halon", "."), 2, ". is a folder"),
        (("convert", "--from", "halon", "--to", "halon", "--received-at", "noon"), 2, "not 'noon'"),
        (("schema", "halon", "--name", "fax"), 2, "halon has no schema 'fax'"),
        (("types", "--format", "clay"), 2, "clay"),
        (("check", "ftp://example.com/"), 1, "ftp"),
        (("check", "http://127.0.0.1:8099/"), 1, "--egress-allow"),
        (("tail", "--data", "missing"), 1, "there is no data folder missing; `aftersend init"),
        (("serve", "--data", "missing"), 1, "there is no data folder missing; `aftersend init"),
        (("ingest", "--as", "halon", "--data", "missing", "missing.json"), 2, "missing.json: there is no such file"),
        (("ingest", "--as", "halon"), 2, "name the files"),
        (("subscriptions", "list", "--url", "http://127.0.0.1:1"), 2, "--key"),
        (("subscriptions", "list", "--url", "http://127.0.0.1:1", "--key", "as_x"), 1, "does not answer"),
    ],
)
def test_wrong_input_is_answered_in_one_line(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    done = aftersend(*arguments)
    assert done.returncode == code, done
    assert done.stderr.count(b"\n") == 1, done.stderr.decode()
    assert done.stderr.startswith(b"aftersend: ")
    assert said in done.stderr.decode()
    assert done.stdout == b""


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_the_list_of_commands_says_what_each_does(arguments: tuple[str, ...]) -> None:
    done = aftersend(*arguments)
    assert done.returncode == 0
    listed = " ".join(done.stdout.decode().replace("│", " ").split())
    for commands in COMMANDS.values():
        for name, command in commands.items():
            assert f"{name} {command.summary}" in listed


def test_every_command_says_what_it_does_at_length() -> None:
    app = make_app()
    for commands in COMMANDS.values():
        for name in commands:
            assert app[name].help.strip().endswith("."), name


@pytest.mark.parametrize("arguments", [("--help",), ("convert", "--help"), ("types",), ("schema", "halon")])
def test_light_commands_do_not_load_servers_and_stores(arguments: tuple[str, ...]) -> None:
    code = (
        "import sys; from aftersend.cli import run; run(sys.argv[1:]);"
        "print([name for name in ('uvicorn', 'aiohttp', 'apsw', 'starlette', 'cryptography') if name in sys.modules],"
        " file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=60, check=True)
    assert done.stderr.decode() == "[]\n"


def test_a_reader_that_leaves_ends_the_command_quietly() -> None:
    command = [sys.executable, "-m", "aftersend", "convert", "--from", "canonical", "--to", "halon"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(clicks(10))
        process.stdin.flush()
        assert process.stdout.read(1)
        process.stdout.close()
        try:
            process.stdin.write(clicks(10_000))
            process.stdin.close()
        except BrokenPipeError:
            pass
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 141


def test_an_interrupt_is_one_line() -> None:
    command = [sys.executable, "-m", "aftersend", "convert", "--from", "canonical", "--to", "halon"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(clicks(1))
        process.stdin.flush()
        process.stdout.read(1)
        process.send_signal(2)
        assert process.stderr.read() == b"aftersend: interrupted\n"
        assert process.wait(timeout=30) == 130


# Converting


def test_events_are_told_in_another_dialect() -> None:
    done = aftersend("convert", "--from", "canonical", "--to", "halon", stdin=clicks(3))
    assert (done.returncode, done.stderr) == (0, b"")
    assert [event["type"] for event in json.loads(done.stdout)] == ["click"] * 3


def test_canonical_events_keep_their_ids_on_the_way_out_and_back() -> None:
    heard = aftersend("convert", "--from", "halon", "--to", "canonical", FIXTURES / "halon" / "bulk.ndjson").stdout
    again = aftersend("convert", "--from", "canonical", "--to", "canonical", stdin=heard).stdout
    assert json.loads(heard) == json.loads(again)
    assert len(json.loads(heard)) == 3


def test_output_is_the_same_again_for_the_same_time_of_receipt() -> None:
    arguments = ("convert", "--from", "canonical", "--to", "canonical", "--received-at", "2026-02-01T00:00:00Z")
    timeless = b'{"type":"email.opened","recipient":"a@x.example"}'
    first, second = (aftersend(*arguments, stdin=timeless).stdout for _ in range(2))
    assert first == second
    assert json.loads(first)[0]["time"] == "2026-02-01T00:00:00Z"


@pytest.mark.parametrize("spoken", FORMS)
def test_many_events_survive_every_form_of_every_vendor(spoken: str) -> None:
    told = aftersend("convert", "--from", "canonical", "--to", spoken, stdin=clicks(60))
    assert (told.returncode, told.stderr) == (0, b"")
    back = aftersend("convert", "--from", spoken, "--to", "canonical", stdin=told.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert [event["message_id"] for event in json.loads(back.stdout)] == [f"m-{number}" for number in range(60)]


def test_what_cannot_be_read_is_told_line_by_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "mixed.ndjson"
    file.write_bytes(clicks(2) + b'{"time":"2026-01-15T08:00:00Z"}\nnot json\n' + clicks(1))
    done = aftersend("convert", "--from", "canonical", "--to", "canonical", file)
    assert done.returncode == 3
    assert len(json.loads(done.stdout)) == 3
    assert [(line["index"], line["reason"]) for line in lines(done.stderr)] == [
        (2, "missing_field"),
        (3, "invalid_json"),
    ]
    assert all(set(line) == {"file", "index", "reason", "detail"} for line in lines(done.stderr))
    assert lines(done.stderr)[0]["file"] == str(file)


def test_an_event_without_a_word_in_the_other_dialect_is_told_as_rejected() -> None:
    stdin = clicks(1) + b'{"type":"profile.merged","time":"2026-01-15T08:00:00Z"}\n' + clicks(1)
    done = aftersend("convert", "--from", "canonical", "--to", "halon", stdin=stdin)
    assert done.returncode == 3
    assert [(line["index"], line["reason"]) for line in lines(done.stderr)] == [(1, "no_word")]
    assert len(json.loads(done.stdout)) == 2


def test_bytes_that_are_not_utf8_are_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b'{"type":"email.opened","recipient":"\xff\xfe"}')
    done = aftersend("convert", "--from", "canonical", "--to", "halon", tmp_path / "odd")
    assert done.returncode == 3
    assert [line["reason"] for line in lines(done.stderr)] == ["invalid_utf8"]


def test_an_empty_file_is_rejected_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    done = aftersend("convert", "--from", "canonical", "--to", "halon", tmp_path / "empty")
    assert done.returncode == 3
    assert [line["reason"] for line in lines(done.stderr)] == ["empty_body"]


def test_packed_files_are_opened_by_what_they_begin_with(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(gzip.compress(clicks(2)))
    (tmp_path / "b").write_bytes(zstandard.compress(clicks(3)))
    with zipfile.ZipFile(tmp_path / "c", "w") as archive:
        archive.writestr("one.json", clicks(1))
        archive.writestr("two.json", clicks(1))
    done = aftersend("convert", "--from", "canonical", "--to", "halon", *(tmp_path / name for name in "abc"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(json.loads(done.stdout)) == 7


def test_a_packed_file_that_ends_too_early_keeps_what_came_before(tmp_path: Path) -> None:
    chance = os.urandom(400_000).hex().encode()
    packed = gzip.compress(clicks(5) + b'{"type":"email.opened","extra":{"x":"' + chance + b'"}}\n')
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    done = aftersend("convert", "--from", "canonical", "--to", "halon", tmp_path / "cut.gz")
    assert done.returncode == 3
    assert [line["reason"] for line in lines(done.stderr)] == ["unreadable_file"]
    assert len(json.loads(done.stdout)) == 5


def test_long_input_of_every_shape_loses_nothing_at_the_cuts(tmp_path: Path) -> None:
    count = 25_000
    expected = [f"m-{number}" for number in range(count)]
    (tmp_path / "lines").write_bytes(clicks(count, url=f"https://www.example.com/{'long/' * 30}"))
    for spoken in ("canonical", "messagegears", "pure360/csv", "pure360/ftp"):
        told = aftersend("convert", "--from", "canonical", "--to", spoken, tmp_path / "lines").stdout
        assert len(told) > 4_000_000, "longer than a piece"
        back = aftersend("convert", "--from", spoken, "--to", "canonical", stdin=told)
        assert (back.returncode, back.stderr) == (0, b""), spoken
        assert [event["message_id"] for event in json.loads(back.stdout)] == expected, spoken


# Receivers


class Trusting(BaseHTTPRequestHandler):
    """A receiver that takes everything, forged or not."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """Its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Trusting) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_receiver_that_checks_no_signature_is_found_out(receiver: str) -> None:
    secret = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
    arguments = ("check", receiver, "--egress-allow", "127.0.0.0/8")
    assert aftersend(*arguments).returncode == 0
    done = aftersend(*arguments, "--secret", secret, "--json")
    assert done.returncode == 1
    wrong = {finding["check"] for finding in json.loads(done.stdout) if finding["level"] == "error"}
    assert {"wrongly signed", "altered", "unsigned"} <= wrong


# Words and forms


def test_types_are_told_for_people_and_for_programs() -> None:
    assert b"email.clicked" in aftersend("types", "--dialect", "halon").stdout
    rows = json.loads(aftersend("types", "--format", "json").stdout)
    (clicked,) = [row for row in rows if row["type"] == "*.clicked"]
    assert clicked["words"]["pure360"] == {"CLICK": "email.clicked"}
    assert aftersend("types", "--format", "markdown").stdout.startswith(b"# Taxonomy")


def test_schemas_are_schemas_and_the_only_one_stands_alone() -> None:
    halon = json.loads(aftersend("schema", "halon").stdout)
    assert len(halon) == 3
    for schema in [*halon.values(), json.loads(aftersend("schema", "canonical").stdout)]:
        Draft202012Validator.check_schema(schema)
    told = json.loads(aftersend("convert", "--from", "canonical", "--to", "canonical", stdin=clicks(2)).stdout)
    for event in told:
        Draft202012Validator(json.loads(aftersend("schema", "canonical").stdout)).validate(event)

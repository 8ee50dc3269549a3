"""What the vendors exchange besides events, through every dialect and form: nothing breaks, and nothing passes for one.

The files are requests, answers, descriptions, lists and tokens. `OTHERS` and `FORCED` name every exception, so that an
exception that is gone is noticed as well.
"""

import base64
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from aftersend.core.event import Event, Receipt, Rejected
from aftersend.core.outcome import Answer
from aftersend.core.taxonomy import OTHER
from aftersend.core.timestamps import parse_time
from aftersend.core.xml import local_name, parse_xml
from aftersend.dialects import activatepro, altcraft, pure360
from aftersend.rack import dialects
from aftersend.testing.dialects import plain

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOREIGN = FIXTURES / "foreign"
FILES = sorted(str(path.relative_to(FOREIGN)) for path in FOREIGN.rglob("*") if path.is_file())
TRANSCRIPTS = [name for name in FILES if name.endswith((".http", ".http.txt"))]
DOCUMENTS = [name for name in FILES if name.endswith((".xml", ".wsdl"))]
RECEIVED_AT = parse_time("2026-02-01T00:00:00Z")
PIECES = 8

OTHERS = {
    # A JSON object with a `type` is an event with an unknown word.
    ("activatepro/responses/400_unknown_event.docs.json", "canonical"): [OTHER],
    ("activatepro/responses/400_unknown_event.docs.json", "halon"): [OTHER],
    ("activatepro/api/request.http.txt", "activatepro"): ["email.sent"],
}
"""What is an event though the form is found out: the types, by file and dialect."""

FORCED = {
    # The answer carries rows of the csv form as they are; each stands on a line of its own.
    "pure360/soap_encoded/getBatch_response_plain.xml": {"email.clicked", "email.opened"},
    "pure360/soap_literal/getBatch_response_plain.xml": {"email.clicked", "email.opened"},
}
"""What is an event where somebody insists on `pure360/csv`, which has no sign by which to refuse."""


def content(name: str) -> bytes:
    return (FOREIGN / name).read_bytes()


def bodies(name: str) -> list[bytes]:
    """A file as it is; of a transcript also what follows its head, which is what an endpoint is handed."""
    data = content(name)
    return [data, split_transcript(data)[1]] if name in TRANSCRIPTS else [data]


def split_transcript(data: bytes) -> tuple[bytes, bytes]:
    head, _, body = data.replace(b"\r\n\r\n", b"\n\n", 1).partition(b"\n\n")
    return head, body


def readings(name: str, body: bytes, *, forms: bool) -> Iterator[tuple[str, str, list[Event | Rejected]]]:
    """What each dialect reads in a body where the form is found out, or in each of its forms."""
    for dialect in dialects().values():
        for form in dialect.forms if forms else ("",):
            receipt = Receipt(body, RECEIVED_AT, form=form, file_name=Path(name).name)
            yield dialect.name, form, dialect.decode(receipt)


def types_of(found: list[Event | Rejected]) -> list[str]:
    return [item.type for item in found if isinstance(item, Event)]


def cut(body: bytes) -> list[bytes]:
    return [body[: len(body) * piece // PIECES] for piece in range(PIECES)]


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_file_is_no_event(name: str) -> None:
    for body in bodies(name):
        for dialect, form, found in readings(name, body, forms=False):
            handed_over = body == bodies(name)[-1]
            expected = OTHERS.get((name, dialect), []) if handed_over else []
            assert types_of(found) == expected, (dialect, form)
            assert found or not body.strip(), f"{dialect} takes it for an empty batch"


@pytest.mark.parametrize("name", FILES)
def test_insisting_on_a_form_makes_no_event_either(name: str) -> None:
    for dialect, form, found in readings(name, content(name), forms=True):
        allowed = FORCED.get(name, set()) if form == "csv" else set()
        if dialect == "canonical":  # its forms are ways of telling; reading is the same in both
            allowed = set(OTHERS.get((name, dialect), []))
        assert set(types_of(found)) == allowed, (dialect, form)


@pytest.mark.parametrize("name", FILES)
def test_a_foreign_file_that_is_cut_off_is_read_without_an_exception(name: str) -> None:
    for body in bodies(name):
        for piece in cut(body):
            for forms in (False, True):
                for dialect, form, found in readings(name, piece, forms=forms):
                    assert all(type(item) in (Event, Rejected) for item in found), (dialect, form)
                    allowed = {OTHER} | (FORCED.get(name, set()) if form == "csv" else set())
                    assert set(types_of(found)) <= allowed, (dialect, form, piece)


@pytest.mark.parametrize("name", [name for name in TRANSCRIPTS if b"Content-Length" in content(name)])
def test_a_transcripts_length_is_its_bodys(name: str) -> None:
    head, body = split_transcript(content(name))
    (length,) = [line.split(b":")[1] for line in head.splitlines() if line.startswith(b"Content-Length")]
    printed = b"\r\n" not in content(name)
    assert len(body.rstrip(b"\n") if printed else body) == int(length), "line ends were changed on the way here"


def test_the_body_of_activatepros_request_is_one_event() -> None:
    body = split_transcript(content("activatepro/api/request.http.txt"))[1]
    assert activatepro.request_fault(body) is None
    (event,) = activatepro.Dialect().decode(Receipt(body, RECEIVED_AT))
    assert isinstance(event, Event)
    assert (event.type, event.profile_id, event.time) == ("email.sent", "ABC12345", parse_time("2022-01-11T00:00:00Z"))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("activatepro/responses/202_accepted.http.txt", activatepro.Dialect.answer),
        ("pure360/http/ack_success.txt", pure360.Dialect.answer),
    ],
)
def test_a_sender_hears_what_its_vendor_answers(name: str, answer: Answer) -> None:
    head, body = split_transcript(content(name))
    status, *lines = head.decode().splitlines()
    headers = dict(line.split(": ") for line in lines)
    assert (answer.status, answer.content_type) == (int(status.split()[1]), headers["Content-Type"])
    assert (answer.body, len(answer.body)) == (body.rstrip(b"\n"), int(headers["Content-Length"]))


def test_an_event_that_the_account_has_not_is_answered_as_activatepro_does() -> None:
    request = split_transcript(content("activatepro/api/request.http.txt"))[1]
    answer = json.loads(content("activatepro/responses/400_unknown_event.docs.json"))
    assert activatepro.request_fault(request, known=()) == answer


def test_every_name_of_altcrafts_list_has_a_row() -> None:
    families = json.loads(content("altcraft/event_type_names.json"))
    names = [name for family in families.values() for name in family]
    assert sorted(names) == sorted(altcraft.Dialect.columns)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_envelope_and_description_is_read_within_the_limits(name: str) -> None:
    assert not isinstance(parse_xml(content(name)), Rejected)


def values(answer: bytes) -> Mapping[str, str]:
    """The named texts of a SOAP answer, in either binding."""
    root = parse_xml(answer)
    assert not isinstance(root, Rejected)
    found = {}
    for key in root.iter():
        value = key.getnext()
        if local_name(key.tag) == "key" and value is not None:
            found[key.text or ""] = "".join(value.itertext())
    return found


@pytest.mark.parametrize("encoding", ["", "_plain"])
@pytest.mark.parametrize("binding", ["soap_encoded", "soap_literal"])
def test_the_event_data_of_a_soap_answer_is_read_by_its_event_meta(binding: str, encoding: str) -> None:
    told = values(content(f"pure360/{binding}/getBatch_response{encoding}.xml"))
    data = told["eventData"].encode() if encoding else base64.b64decode(told["eventData"], validate=True)
    meta = {word: told[word] for word in ("CLICK", "OPEN")}
    receipt = Receipt(b"", RECEIVED_AT)
    found = pure360.read_rows(data, meta, receipt)
    rows = (FIXTURES / "dialects/pure360/csv/eventData.decoded.csv").read_bytes()
    assert types_of(found) == ["email.clicked", "email.opened", "email.opened", "email.clicked"]
    assert [plain(item) for item in found if isinstance(item, Event)] == [
        plain(item) for item in pure360.read_rows(rows, meta, receipt) if isinstance(item, Event)
    ]

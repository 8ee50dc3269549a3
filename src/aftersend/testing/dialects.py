"""What every dialect must hold: its fixtures, the laws of decoding and speaking, and no exception for any bytes.

Bind it by a subclass that names the dialect and its fixture folder:

    class TestHalon(DialectSuite):
        dialect = halon.Dialect()
        folder = Path("tests/fixtures/dialects/halon")

`expected.jsonl` in the folder holds one line a payload: `file`, `kind` (documented, composed or inferred), optionally
`form`, `content_type` and `sample` (where the payload was taken from), then `events` (canonical) and `rejected`.
"""

from __future__ import annotations

import importlib
import random
import sys
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aftersend.contracts import Dialect
from aftersend.core.event import DEFAULT_TENANT, Event, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.taxonomy import OTHER, channel_of
from aftersend.core.timestamps import SECOND, format_time, parse_time

RECEIVED_AT = parse_time("2026-02-01T00:00:00Z")
"""When every fixture is said to have arrived."""

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))

_text = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn", "Co", "Zl", "Zp")), max_size=30)
_name = _text.map(str.strip).filter(bool)


class Fixture(msgspec.Struct, omit_defaults=True):
    """One line of `expected.jsonl`."""

    file: str
    kind: str
    sample: str = ""
    form: str = ""
    content_type: str = ""
    events: list[dict[str, Any]] = []
    rejected: list[dict[str, Any]] = []


def read_fixtures(folder: Path) -> list[Fixture]:
    """The lines of a fixture folder's `expected.jsonl`."""
    lines = (folder / "expected.jsonl").read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Fixture) for line in lines if line.strip()]


def receipt_of(folder: Path, fixture: Fixture) -> Receipt:
    """A fixture's payload as it reaches a dialect."""
    return Receipt(
        body=(folder / fixture.file).read_bytes(),
        received_at=RECEIVED_AT,
        form=fixture.form,
        content_type=fixture.content_type,
        file_name=Path(fixture.file).name,
    )


def plain(event: Event) -> dict[str, Any]:
    """An event as `expected.jsonl` prints it: canonical, without the time of receipt."""
    fields: dict[str, Any] = msgspec.to_builtins(event)
    fields["time"] = format_time(event.time)
    fields.pop("received_at", None)
    if event.tenant == DEFAULT_TENANT:
        fields.pop("tenant", None)
    return fields


def record(dialect: Dialect, folder: Path) -> None:
    """Write `events` and `rejected` of every line anew from what the dialect says now; read the difference."""
    lines = []
    for fixture in read_fixtures(folder):
        found = dialect.decode(receipt_of(folder, fixture))
        fixture.events = [plain(item) for item in found if isinstance(item, Event)]
        fixture.rejected = [_fault(item) for item in found if isinstance(item, Rejected)]
        lines.append(msgspec.json.encode(fixture))
    (folder / "expected.jsonl").write_bytes(b"\n".join(lines) + b"\n")


def main(names: list[str], fixtures: Path = Path("tests/fixtures/dialects")) -> None:
    """Record the named dialects anew, or all that have a folder."""
    for name in names or sorted(folder.name for folder in fixtures.iterdir()):
        if not (fixtures / name / "expected.jsonl").is_file():
            sys.exit(f"{fixtures / name}/expected.jsonl is missing: write one line for each payload first")
        record(importlib.import_module(f"aftersend.dialects.{name}").Dialect(), fixtures / name)


def _fault(rejected: Rejected) -> dict[str, Any]:
    return {"index": rejected.index, "reason": rejected.reason}


@st.composite
def events(draw: st.DrawFn, types: list[str]) -> Event:
    """An event of one of these types, as some other vendor may have told it."""
    type_ = draw(st.sampled_from(types)).replace("*", "email")
    channel = channel_of(type_)
    time = draw(st.integers(min_value=946_684_801, max_value=RECEIVED_AT // SECOND)) * SECOND
    number = draw(st.from_regex(r"[1-9][0-9]{9,13}", fullmatch=True))
    mail = draw(st.from_regex(r"[a-z][a-z0-9.+']{0,20}[a-z]@[a-z]{1,20}\.example", fullmatch=True))
    word = draw(_name)
    campaign = type_.startswith("campaign.")
    return Event(
        id=event_id(Receipt(b"", RECEIVED_AT), "elsewhere", word, time, [mail]),
        type=type_,
        time=time,
        source=Source("elsewhere", "elsewhere", word, draw(st.none() | _name)),
        received_at=RECEIVED_AT,
        channel=channel or draw(st.sampled_from(["email", "sms"])),
        recipient=None if campaign else number if channel in ("sms", "whatsapp", "viber") else mail,
        profile_id=draw(st.none() | _name),
        message_id=draw(_name),
        campaign_id=draw(st.none() | _name),
        ip=draw(st.none() | st.ip_addresses().map(str)),
        user_agent=draw(st.none() | _name),
        url="https://www.example.com/?q=" + draw(st.from_regex(r"[a-z0-9&=,;%+]{0,30}", fullmatch=True)),
        url_name=draw(st.none() | _name),
    )


class DialectSuite:
    """The laws of DESIGN's event chapter, for one dialect."""

    dialect: ClassVar[Any]
    folder: ClassVar[Path]

    def decoded(self, fixture: Fixture) -> list[Event | Rejected]:
        """What the dialect reads in a fixture."""
        found: list[Event | Rejected] = self.dialect.decode(receipt_of(self.folder, fixture))
        return found

    def test_every_payload_says_what_is_expected(self) -> None:
        for fixture in read_fixtures(self.folder):
            found = self.decoded(fixture)
            assert [plain(item) for item in found if isinstance(item, Event)] == fixture.events, fixture.file
            assert [_fault(item) for item in found if isinstance(item, Rejected)] == fixture.rejected, fixture.file

    def test_every_file_of_the_folder_is_expected(self) -> None:
        files = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        assert files - {"expected.jsonl", "README.md"} == {fixture.file for fixture in read_fixtures(self.folder)}

    def test_decoding_twice_gives_the_same_events(self) -> None:
        for fixture in read_fixtures(self.folder):
            assert self.decoded(fixture) == self.decoded(fixture), fixture.file

    def test_what_was_heard_is_said_again(self) -> None:
        for fixture in read_fixtures(self.folder):
            heard = [item for item in self.decoded(fixture) if isinstance(item, Event)]
            assert all(self.dialect.word(event) is not None for event in heard), fixture.file
            assert self.spoken_and_heard(heard, fixture.form) == [plain(event) for event in heard], fixture.file

    def spoken_and_heard(self, heard: list[Event], form: str) -> list[dict[str, Any]]:
        """Events told in a form and read again."""
        bodies = self.dialect.encode(heard, form)
        assert bodies == self.dialect.encode(heard, form), "speaking is deterministic"
        assert sum(body.count for body in bodies) == len(heard)
        again: list[dict[str, Any]] = []
        for body in bodies:
            assert body.count > 0
            receipt = Receipt(body.data, RECEIVED_AT, form=form, content_type=body.content_type, verbatim=True)
            found = self.dialect.decode(receipt)
            faults = [item for item in found if isinstance(item, Rejected)]
            assert not faults, (faults, body.data)
            again.extend(plain(item) for item in found)
        return again

    def test_events_of_others_keep_type_recipient_message_and_time(self) -> None:
        types = sorted({type_ for type_ in self.dialect.columns.values() if type_ != OTHER})

        @QUICK
        @given(st.lists(events(types), min_size=1, max_size=4))
        def check(told: list[Event]) -> None:
            told = [event for event in told if self.dialect.word(event) is not None]
            for form in self.dialect.forms or ("",):
                again = self.spoken_and_heard(told, form)
                kept = [(item["type"], item["time"], item.get("recipient"), item.get("message_id")) for item in again]
                assert kept == [self.carried(event) for event in told]

        check()

    def carried(self, event: Event) -> tuple[str, str, str | None, str | None]:
        """What must survive; a dialect names in `unsaid` the types that have no place for a message's id."""
        nameless = "message_id" in getattr(self.dialect, "unsaid", {}).get(event.type, ())
        return event.type, format_time(event.time), event.recipient, None if nameless else event.message_id

    def test_an_event_without_a_word_is_not_told(self) -> None:
        stranger = Event("0", "nobody.knows_this", 0, Source("x", "x", "x"))
        assert self.dialect.name in ("canonical", "cloudevents") or self.dialect.word(stranger) is None

    def test_an_empty_list_is_told_as_nothing(self) -> None:
        assert self.dialect.encode([]) == []

    def test_any_bytes_are_read_without_an_exception(self) -> None:
        @QUICK
        @given(st.binary(max_size=300), st.sampled_from(("", *self.dialect.forms)))
        def check(body: bytes, form: str) -> None:
            assert all(isinstance(item, Event | Rejected) for item in self.dialect.decode(Receipt(body, 0, form=form)))

        check()

    def test_damaged_payloads_are_read_without_an_exception(self) -> None:
        chance = random.Random(20260201)  # noqa: S311
        for fixture in read_fixtures(self.folder):
            receipt = receipt_of(self.folder, fixture)
            for _ in range(40):
                found = self.dialect.decode(msgspec.structs.replace(receipt, body=_damaged(receipt.body, chance)))
                assert all(isinstance(item, Event | Rejected) for item in found), fixture.file


def _damaged(body: bytes, chance: random.Random) -> bytes:
    """The bytes with one thing wrong: cut, a byte changed, a piece doubled, a piece lost, or a number made huge."""
    if not body:
        return b"\x00"
    start, end = sorted(chance.choices(range(len(body) + 1), k=2))
    digits = body.translate(None, delete=bytes(set(range(256)) - set(b"0123456789")))
    kinds = (
        body[:start],
        body[:start] + bytes([chance.randrange(256)]) + body[start + 1 :],
        body[:end] + body[start:end] + body[end:],
        body[:start] + body[end:],
        body.replace(digits[:1] or b"x", b"99999999999999999999", 1),
        body.replace(b'"', chance.choice((b"", b"null", b"[", b"{", b"1e999", b"NaN")), chance.randrange(1, 4)),
    )
    return chance.choice(kinds)


if __name__ == "__main__":
    main(sys.argv[1:])

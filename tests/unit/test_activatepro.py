"""What is peculiar to ActivatePro: requests of one person, flat feeds, zips, numbers that stay numbers."""

from __future__ import annotations

import json
import re
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.archives import INFLATED_LIMIT, unzipped, zipped
from aftersend.core.event import Event, Receipt, Rejected, Source
from aftersend.dialects.activatepro import FEED_LIMIT, REQUEST_LIMIT, Dialect, request_fault
from aftersend.testing.dialects import QUICK, RECEIVED_AT, events, plain

ACTIVATEPRO = Dialect()
FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "activatepro"
SENT = {"event": "Message Sent", "timestamp": "2022-01-11T00:00:00Z", "properties": {"channel": "Email"}}

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.text(max_size=4)
    | st.sampled_from(["Email", "SMS", "mail", "whatsapp", "2022-01-11T00:00:00Z", "2022-01-11"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "event", "x"]), inner),
    max_leaves=4,
)
NAMES = (
    *("id", "User_id", "email", "businessUnit", "timestamp", "channel", "type", "url", "shoe"),
    *("campaignId", "campaign_id", "messageId", "message_id", "channelConfigId"),
)
words = st.sampled_from(["Message Sent", "Message Viewed", "mail.open", "whatsapp.read", "Viewed Page"]) | junk
properties = st.dictionaries(st.sampled_from([*NAMES, "event", "properties"]), junk, max_size=4)
tellings = st.fixed_dictionaries(
    {"event": words}, optional={**dict.fromkeys(NAMES, junk), "properties": properties | junk}
)
requests = st.fixed_dictionaries(
    {"events": st.lists(tellings | junk, max_size=3)}, optional={**dict.fromkeys(NAMES, junk), "properties": properties}
)


def read(told: Any, form: str = "") -> list[Any]:
    return ACTIVATEPRO.decode(Receipt(json.dumps(told).encode(), RECEIVED_AT, form=form))


def tell(heard: list[Event], form: str) -> list[Any]:
    return [json.loads(body.data) for body in ACTIVATEPRO.encode(heard, form)]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("api/Message_*.json")))
def test_a_request_is_said_again_to_the_letter(path: Path) -> None:
    request = json.loads(path.read_bytes())
    assert tell(read(request), "api") == [request]


@pytest.mark.parametrize(
    "name", ["outbound_feed_example.docs", "event_history_20220111001500", "order_history_20160418070100"]
)
def test_a_feed_is_said_again_to_the_letter(name: str) -> None:
    rows = json.loads((FOLDER / "feed" / f"{name}.json").read_bytes())
    assert tell(read(rows), "feed") == [rows]


def test_a_custom_event_object_is_said_again_with_its_time() -> None:
    told = json.loads((FOLDER / "api/webhook_custom_event.composed.json").read_bytes())
    assert tell(read(told), "api") == [told | {"timestamp": "2026-02-01T00:00:00Z"}]


def test_numbers_are_said_again_as_numbers() -> None:
    request = json.loads((FOLDER / "api/by_email_businessUnit_no_timestamp.json").read_bytes())
    (said,) = tell(read(request), "api")
    assert said["events"][0]["properties"] == request["events"][0]["properties"]


def test_an_event_without_a_time_is_told_with_the_receipts_so_that_a_repeat_is_the_same_fact() -> None:
    request = json.loads((FOLDER / "api/by_email_businessUnit_no_timestamp.json").read_bytes())
    (said,) = tell(read(request), "api")
    assert said["events"][0]["timestamp"] == "2026-02-01T00:00:00Z"
    assert read(said)[0].id == read(request)[0].id


def test_old_names_are_read_and_told_by_their_present_ones() -> None:
    rows = json.loads((FOLDER / "feed/legacy_crossengage_names.composed.json").read_bytes())
    ((row,),) = tell(read(rows), "feed")
    assert (row["id"], row["campaignId"], row["messageId"]) == ("ABC12345", "123456", "304405")


@pytest.mark.parametrize("form", ["api", "feed"])
def test_whatever_is_heard_is_said_again(form: str) -> None:
    @QUICK
    @given(st.lists(requests if form == "api" else tellings, min_size=1, max_size=3))
    def holds(told: list[Any]) -> None:
        heard = [item for item in read(told) if isinstance(item, Event)]
        again = [item for body in ACTIVATEPRO.encode(heard, form) for item in ACTIVATEPRO.decode(receipt(body.data))]
        assert [plain(item) for item in again] == [plain(item) for item in heard]

    holds()


def receipt(body: bytes) -> Receipt:
    return Receipt(body, RECEIVED_AT)


def test_api_and_feed_tell_the_same_facts() -> None:
    feed = read(json.loads((FOLDER / "feed/event_history_20220111001500.json").read_bytes()))
    assert [event.id for event in read(tell(feed, "api"))] == [event.id for event in feed]


def test_a_request_tells_one_person_and_at_most_fifty_events() -> None:
    jane = read({"id": "jane", "events": [SENT] * (REQUEST_LIMIT + 1)})
    john = read({"id": "john", "email": "john@example.com", "events": [SENT]})
    bodies = ACTIVATEPRO.encode([*jane, *john, *jane[:1]], "api")
    assert [body.count for body in bodies] == [50, 1, 1, 1]
    told = [json.loads(body.data) for body in bodies]
    assert [request["id"] for request in told] == ["jane", "jane", "john", "jane"]
    assert told[2]["email"] == "john@example.com"


def test_a_feed_file_holds_at_most_a_hundred_thousand_rows() -> None:
    (event,) = read({"id": "jane", "events": [SENT]})
    assert [body.count for body in ACTIVATEPRO.encode([event] * (FEED_LIMIT + 1), "feed")] == [FEED_LIMIT, 1]


def test_a_rejected_event_is_kept_as_a_request_of_its_own() -> None:
    (fault, event) = read({"id": "jane", "events": [{**SENT, "timestamp": "soon"}, SENT]})
    assert isinstance(event, Event)
    assert json.loads(fault.raw) == {"id": "jane", "events": [{**SENT, "timestamp": "soon"}]}


def test_a_large_head_does_not_multiply() -> None:
    (fault,) = read({"id": "jane", "note": "x" * 5000, "events": [SENT] * 3})
    assert isinstance(fault, Rejected)
    assert fault.reason == "too_large"


def test_what_others_told_holds_the_schemas_and_pleases_the_endpoint() -> None:
    schemas = ACTIVATEPRO.schemas()
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)

    @QUICK
    @given(st.lists(events(["email.sent", "sms.clicked", "push.hard_bounced"]), min_size=1, max_size=3))
    def holds(told: list[Event]) -> None:
        for body in ACTIVATEPRO.encode(told, "api"):
            jsonschema.validate(json.loads(body.data), schemas["events"])
            assert request_fault(body.data) is None
        for row in tell(told, "feed")[0]:
            jsonschema.validate(row, schemas["event_history"])
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["timestamp"])

    holds()


@pytest.mark.parametrize("profile", ["p-1", None])
@pytest.mark.parametrize("form", ["api", "feed"])
def test_a_number_is_told_as_a_property_and_read_back_as_the_recipient(form: str, profile: str | None) -> None:
    event = Event("0", "sms.sent", 0, Source("x", "x", "x"), recipient="4790000000", profile_id=profile)
    (told,) = tell([event], form)
    (again,) = read(told)
    assert (again.type, again.recipient, again.profile_id) == ("sms.sent", "4790000000", profile or "4790000000")


def test_nobodys_events_and_other_rows_have_no_word() -> None:
    somebody = Event("0", "email.sent", 0, Source("x", "x", "x"), recipient="jane@example.com")
    assert ACTIVATEPRO.word(somebody) == "Message Sent"
    assert ACTIVATEPRO.word(msgspec.structs.replace(somebody, recipient=None)) is None
    for type_ in ("email.blocked", "email.first_opened", "campaign.started", "other"):
        assert ACTIVATEPRO.word(msgspec.structs.replace(somebody, type=type_)) is None


def test_a_zip_by_the_rule_is_the_same_every_time_and_reads_back() -> None:
    data = (FOLDER / "feed/event_history_20220111001500.json").read_bytes()
    archive = zipped("/out/event_history_20220111001500.json.zip", data)
    assert archive == zipped("event_history_20220111001500.json.zip", data)
    assert zipfile.ZipFile(BytesIO(archive)).namelist() == ["event_history_20220111001500.json"]
    assert ACTIVATEPRO.decode(receipt(archive)) == ACTIVATEPRO.decode(receipt(data))


def test_a_zip_bomb_is_too_large() -> None:
    (fault,) = ACTIVATEPRO.decode(receipt(zipped("event_history_1.json.zip", b" " * (INFLATED_LIMIT + 1))))
    assert isinstance(fault, Rejected)
    assert fault.reason == "too_large"


def archive_of(*names: str, packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", packed) as archive:
        for name in names:
            archive.writestr(name, b"[]")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("archive", "detail"),
    [
        (archive_of("notes.txt"), "holds 0 files"),
        (archive_of(*(f"{number}.json" for number in range(17))), "holds 17 files"),
        (archive_of("a.json", packed=zipfile.ZIP_LZMA), "another way"),
        (archive_of("a.json")[:40], "not a zip"),
    ],
)
def test_other_zips_are_rejected_with_the_reason(archive: bytes, detail: str) -> None:
    (fault,) = unzipped(archive, ".json")
    assert isinstance(fault, Rejected)
    assert fault.reason == "invalid_zip"
    assert detail in fault.detail


@pytest.mark.parametrize(
    ("request_", "fault"),
    [
        ({"id": "jane", "events": [SENT]}, None),
        ({"id": 5, "events": [SENT] * 50}, None),
        ({"email": "jane@example.com", "businessUnit": "DE", "events": [{"event": "Message Sent"}]}, None),
        ({"events": [SENT]}, ("id", "NOT_NULL")),
        ({"id": "", "events": [SENT]}, ("id", "NOT_NULL")),
        ({"id": "jane"}, ("events", "NOT_NULL")),
        ({"id": "jane", "events": "Message Sent"}, ("events", "WRONG_FORMAT")),
        ({"id": "jane", "events": ["Message Sent"]}, ("events", "WRONG_FORMAT")),
        ({"id": "jane", "events": [SENT] * 51}, ("events", "WRONG_VALUE")),
        ({"id": "jane", "events": [SENT, {"properties": {}}]}, ("event", "NOT_NULL")),
        ({"id": "jane", "events": [{"event": 5}]}, ("event", "WRONG_FORMAT")),
        ({"id": "jane", "events": [{"event": "Message Sent", "timestamp": "soon"}]}, ("timestamp", "WRONG_FORMAT")),
        ({"id": "jane", "events": [{"event": "Message Sent", "properties": []}]}, ("properties", "WRONG_FORMAT")),
        ([], ("body", "WRONG_FORMAT")),
    ],
)
def test_a_request_is_answered_as_the_vendor_does(request_: Any, fault: tuple[str, str] | None) -> None:
    expected = fault and dict(zip(("field", "type"), fault, strict=True))
    assert request_fault(json.dumps(request_).encode()) == expected


def test_malformed_json_is_a_fault_and_so_is_an_event_that_the_account_has_not() -> None:
    printed = (FOLDER / "docs_malformed/outbound_api_example.asprinted.json").read_bytes()
    assert request_fault(printed) == {"field": "body", "type": "WRONG_FORMAT"}
    body = json.dumps({"id": "jane", "events": [SENT]}).encode()
    assert request_fault(body, known={"Message Sent"}) is None
    assert request_fault(body, known={"Message Clicked"}) == {"field": "event", "type": "UNKNOWN_VALUE"}

"""What is peculiar to Halon: three clocks, empty fields that are told all the same, logs kept whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Event, Receipt, Source
from aftersend.core.taxonomy import is_type
from aftersend.core.timestamps import parse_time
from aftersend.dialects.halon import TRACKING, Dialect
from aftersend.testing.dialects import QUICK, RECEIVED_AT, events, plain

HALON = Dialect()
FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "halon"
ORDER = ["type", "event_id", "timestamp", "recipient", "message_id", "ip", "user_agent", "url", "additional"]

junk = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**25), 10**25) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5) | st.sampled_from(["1649248573401", "1649248573", "5.1.1", "BOUNCE", "failed"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "code", "x"]), inner),
    max_leaves=4,
)  # fmt: skip
NAMES = (
    *("event_id", "timestamp", "recipient", "message_id", "ip", "user_agent", "url", "additional", "shoe"),
    *("time", "id", "jobid", "message", "attempt", "action", "retry", "dsn"),
    *("ts_attempt", "eventid", "status", "result_code", "result_enhanced", "recipient_localpart", "recipient_domain"),
)
words = st.sampled_from([*TRACKING, "queue", "delivery", "async", "arf", "SMTP", "view"])
members = st.fixed_dictionaries({"type": words}, optional=dict.fromkeys(NAMES, junk))


def read(*told: Any) -> list[Any]:
    return HALON.decode(Receipt(json.dumps(told).encode(), RECEIVED_AT))


def tell(event: Event) -> dict[str, Any]:
    (body,) = HALON.encode([event])
    (told,) = json.loads(body.data)
    return told


def check(told: dict[str, Any]) -> None:
    jsonschema.Draft7Validator(HALON.schemas()[f"submission-tracking-{told['type']}.schema.json"]).validate(told)


@pytest.mark.parametrize("word", TRACKING)
def test_the_documented_events_are_told_to_the_letter(word: str) -> None:
    payload = json.loads((FOLDER / f"{word}.json").read_bytes())
    (event,) = read(*payload)
    told = tell(event)
    assert told == payload[0]
    assert list(told) == [name for name in ORDER if name != "url" or word == "click"]
    check(told)


def test_the_schemas_are_valid_and_named_as_documented() -> None:
    schemas = HALON.schemas()
    assert sorted(schemas) == [f"submission-tracking-{word}.schema.json" for word in sorted(TRACKING)]
    for schema in schemas.values():
        jsonschema.Draft7Validator.check_schema(schema)
        assert schema["$comment"].startswith("Inferred")


def test_tracking_events_of_others_hold_the_schemas() -> None:
    @QUICK
    @given(events(sorted(TRACKING.values())))
    def holds(event: Event) -> None:
        check(tell(event))

    holds()
    check(tell(Event("019c167f-cc00-8201-ae69-da14033cef90", "email.opened", 0, Source("x", "x", "x"))))


def test_only_the_three_tracking_words_are_spoken_for_others() -> None:
    stranger = Source("x", "x", "x")
    words = {type_: HALON.word(Event("0", type_, 0, stranger)) for type_ in {*HALON.columns.values(), "sms.clicked"}}
    assert {word: type_ for type_, word in words.items() if word} == TRACKING


def test_every_column_is_a_canonical_type() -> None:
    assert all(is_type(type_) for type_ in HALON.columns.values())


def test_whatever_is_heard_is_said_again() -> None:
    @QUICK
    @given(st.lists(members, min_size=1, max_size=3))
    def holds(told: list[dict[str, Any]]) -> None:
        heard = [item for item in read(*told) if isinstance(item, Event)]
        again = [item for body in HALON.encode(heard) for item in HALON.decode(Receipt(body.data, RECEIVED_AT))]
        assert [plain(item) for item in again] == [plain(item) for item in heard]

    holds()


def test_a_log_line_is_said_again_whole() -> None:
    payload = json.loads((FOLDER / "bulk_delivery_log.json").read_bytes())
    assert [tell(event) for event in read(*payload)] == payload


def test_a_numeric_timestamp_is_read_and_said_as_a_number() -> None:
    payload = json.loads((FOLDER / "invalid_timestamp_number.json").read_bytes())
    (event,) = read(*payload)
    assert event.time == parse_time("2022-04-06T12:36:13.401Z")
    assert tell(event) == payload[0]


def test_open_and_unsubscribe_that_share_an_event_id_are_two_facts() -> None:
    opened, unsubscribed = (json.loads((FOLDER / f"{word}.json").read_bytes())[0] for word in ("open", "unsubscribe"))
    assert opened["event_id"] == unsubscribed["event_id"]
    assert len({event.id for event in read(opened, unsubscribed)}) == 2


def test_a_missing_event_id_is_told_as_empty() -> None:
    (event,) = read(*json.loads((FOLDER / "invalid_missing_event_id.json").read_bytes()))
    told = tell(event)
    assert told["event_id"] == ""
    check(told)


def test_attempts_of_one_ms_are_different_facts_and_a_repeat_is_not() -> None:
    payload = json.loads((FOLDER / "bulk_delivery_log.json").read_bytes())
    assert len({event.id for event in read(*payload)}) == len(payload)
    assert read(*payload) == read(*payload)


def test_a_receipts_time_is_kept_to_the_ms_that_halon_tells() -> None:
    body = b'{"type": "open", "recipient": "alice@example.org"}'
    (event,) = HALON.decode(Receipt(body, RECEIVED_AT + 7_654_321))
    assert event.time == RECEIVED_AT + 7_000_000

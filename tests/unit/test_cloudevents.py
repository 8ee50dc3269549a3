"""CloudEvents as its own library reads and writes them, and events that come back as they were."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_structured_event, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Event, Failure, Receipt, Rejected, Source
from aftersend.core.taxonomy import ROWS
from aftersend.core.timestamps import format_time
from aftersend.dialects.cloudevents import BATCHED, STRUCTURED, Dialect
from aftersend.testing.dialects import QUICK, RECEIVED_AT, events

CLOUDEVENTS = Dialect()
FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "cloudevents"
BOUNCED = Event(
    id="019bc0ab-2400-80ce-a6f6-475bf79c1a6f",
    type="email.hard_bounced",
    time=1_768_464_000_034_315_796,
    source=Source("shop / ü", "halon", "delivery", "17"),
    tenant="north & south",
    received_at=RECEIVED_AT,
    channel="email",
    recipient="alice@example.org",
    message_id="<42@shop.example>",
    failure=Failure(class_="hard", code=10, status="5.1.1", final=True),
    extra={"retry": 2, "nested": {"list": [1, None]}},
)
types = st.lists(events([row.type for row in ROWS]), min_size=1, max_size=3)


def read(body: bytes, **said: Any) -> list[Any]:
    return CLOUDEVENTS.decode(Receipt(body, RECEIVED_AT, **said))


def check(told: CloudEvent, event: Event) -> None:
    assert told.get_specversion() == "1.0"
    assert (told.get_id(), told.get_type()) == (event.id, f"aftersend.{event.type}")
    assert told.get_subject() == event.message_id
    assert told.get_datacontenttype() == "application/json"
    time = told.get_time()
    assert time is not None
    assert int(time.timestamp()) == event.time // 1_000_000_000
    data = told.get_data()
    assert isinstance(data, dict)
    assert data["time"] == format_time(event.time)
    assert data.get("recipient") == event.recipient


def test_the_library_reads_structured_events() -> None:
    @QUICK
    @given(types)
    def holds(told: list[Event]) -> None:
        for event, body in zip(told, CLOUDEVENTS.encode(told, "structured"), strict=True):
            message = HTTPMessage({"content-type": body.content_type}, body.data)
            check(from_structured_event(message, JSONFormat()), event)

    holds()


def test_the_library_reads_each_event_of_a_batch() -> None:
    @QUICK
    @given(types)
    def holds(told: list[Event]) -> None:
        (body,) = CLOUDEVENTS.encode(told, "batched")
        assert body.content_type == BATCHED
        for event, member in zip(told, json.loads(body.data), strict=True):
            check(JSONFormat().read(CloudEvent, json.dumps(member)), event)

    holds()


@pytest.mark.parametrize("data", [{"a": 1}, "text", b"\x00\xff", None])
def test_what_the_library_writes_is_kept_whole_and_said_again(data: Any) -> None:
    attributes = {
        "id": "1",
        "source": "/mailer/7",
        "type": "com.example.thing",
        "time": datetime(2026, 1, 15, 8, tzinfo=UTC),
        "region": "north",
    }
    message = to_structured(CloudEvent(attributes, data), JSONFormat())
    (event,) = read(message.body)
    assert (event.type, event.source.word, event.source.id) == ("other", "com.example.thing", "1")
    assert CLOUDEVENTS.word(event) == "com.example.thing"
    (body,) = CLOUDEVENTS.encode([event], "structured")
    assert json.loads(body.data) == json.loads(message.body)
    assert JSONFormat().read(CloudEvent, body.data).get_data() == data


@pytest.mark.parametrize("form", ["batched", "structured"])
def test_an_event_of_ours_comes_back_as_it_was(form: str) -> None:
    @QUICK
    @given(types)
    def holds(told: list[Event]) -> None:
        told = [*told, BOUNCED]
        bodies = CLOUDEVENTS.encode(told, form)
        assert [event for body in bodies for event in read(body.data, verbatim=True)] == told

    holds()


def test_an_event_of_ours_that_came_over_the_network_is_told_by_whom_it_came() -> None:
    (body,) = CLOUDEVENTS.encode([BOUNCED], "structured")
    (event,) = read(body.data, source="partner", tenant="mine")
    assert (event.type, event.tenant, event.recipient) == (BOUNCED.type, "mine", BOUNCED.recipient)
    assert event.source == Source("partner", "cloudevents", "aftersend.email.hard_bounced", BOUNCED.id)
    assert event.id != BOUNCED.id
    assert event.extra["source"]["name"] == "shop / ü"


def test_the_envelope_names_the_source_as_a_uri_and_no_person() -> None:
    (body,) = CLOUDEVENTS.encode([BOUNCED], "structured")
    told = json.loads(body.data)
    assert body.content_type == STRUCTURED
    assert told.pop("source") == "/aftersend/north%20%26%20south/shop%20%2F%20%C3%BC"
    told.pop("data")
    assert "alice" not in json.dumps(told)


def test_the_schema_holds_for_what_is_told() -> None:
    schema = CLOUDEVENTS.schemas()["event"]
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)

    @QUICK
    @given(types)
    def holds(told: list[Event]) -> None:
        for body in CLOUDEVENTS.encode([*told, BOUNCED], "structured"):
            validator.validate(json.loads(body.data))

    holds()


def test_extension_attributes_on_an_event_of_ours_are_kept() -> None:
    (body,) = CLOUDEVENTS.encode([BOUNCED], "structured")
    (event,) = read(json.dumps({**json.loads(body.data), "traceparent": "00-1-2-00"}).encode())
    assert event.extra["cloudevent"] == {"traceparent": "00-1-2-00"}


def test_a_type_of_ours_around_other_data_is_kept_whole() -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": "aftersend.email.sent", "data": {"type": "x"}}
    (event,) = read(json.dumps(envelope).encode())
    assert (event.type, event.extra) == ("other", envelope)


def test_the_same_id_of_two_sources_is_two_facts() -> None:
    envelope = {"specversion": "1.0", "id": "1", "source": "/x", "type": "a.b"}
    first, second, again = read(json.dumps([envelope, {**envelope, "source": "/y"}, envelope]).encode())
    assert first.id != second.id
    assert first.id == again.id


@pytest.mark.parametrize("version", ["0.3", "2.0"])
def test_other_versions_are_rejected(version: str) -> None:
    (fault,) = read(json.dumps({"specversion": version, "id": "1", "source": "/x", "type": "a.b"}).encode())
    assert isinstance(fault, Rejected)
    assert fault.reason == "unsupported_version"
    assert version in fault.detail

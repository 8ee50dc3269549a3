"""What a page tells, read within bounds and made into events."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.capture.page_events import DATA_LIMIT, MEMBERS_LIMIT, TYPES, Told, Visit, event_of, read_body
from aftersend.core.event import Rejected
from aftersend.core.registry import Site
from aftersend.core.taxonomy import is_type
from aftersend.core.timestamps import SECOND, parse_time

NOW = parse_time("2026-02-01T12:00:00Z")
VISIT = Visit(Site(name="shop", tenant="acme", key="k", origins=("https://shop.example",)), NOW, "192.0.2.1", "Agent")


def told(**fields: Any) -> Told:
    (item,) = read_body(json.dumps({"type": "popup_open", **fields}).encode())
    assert isinstance(item, Told), item
    return item


def test_every_word_has_a_canonical_type() -> None:
    assert len(TYPES) == 8
    assert all(is_type(type_) for type_ in TYPES.values())


def test_a_popup_event_says_what_the_page_said() -> None:
    item = told(url="https://shop.example/", name="spring", profile_id="p1", campaign_id="c1", data={"step": 2})
    event = event_of(item, VISIT, "0f")
    assert (event.type, event.channel, event.tenant) == ("popup.opened", "popup", "acme")
    assert (event.source.name, event.source.word, event.source.id) == ("shop", "popup_open", "0f")
    assert (event.url, event.url_name) == ("https://shop.example/", "spring")
    assert (event.profile_id, event.campaign_id, event.message_id) == ("p1", "c1", None)
    assert (event.ip, event.user_agent) == ("192.0.2.1", "Agent")
    assert event.extra == {"data": {"step": 2}}


@pytest.mark.parametrize("ahead", [-10 * 365 * 86_400, -3_600, 0, 3_600])
def test_an_event_has_the_time_of_its_arrival_whatever_the_browsers_clock_says(ahead: int) -> None:
    event = event_of(told(at=(NOW / SECOND + ahead) * 1_000), VISIT, "0f")
    assert event.time == event.received_at == NOW
    assert parse_time(event.extra["client_time"]) == NOW + ahead * SECOND


@pytest.mark.parametrize("at", [-1, 1e15, 0.5])
def test_an_absurd_browser_time_is_kept_as_it_was_told(at: float) -> None:
    assert event_of(told(at=at), VISIT, "0f").time == NOW


def test_two_events_of_one_moment_are_two() -> None:
    assert event_of(told(), VISIT, "0e").id != event_of(told(), VISIT, "0f").id


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"type": "popup_explode"}, "unknown_type"),
        ({"type": None}, "wrong_type"),
        ({"url": "u" * 2_049}, "wrong_type"),
        ({"name": "n" * 257}, "wrong_type"),
        ({"data": {"a": {"deep": 1}}}, "wrong_type"),
        ({"data": {str(number): 1 for number in range(33)}}, "wrong_type"),
        ({"data": {str(number): "x" * 200 for number in range(30)}}, "too_large"),
        ({"data": {"a": 10**30}}, "wrong_type"),
        ({"at": "yesterday"}, "wrong_type"),
    ],
)
def test_a_bad_event_loses_itself_alone(fields: dict[str, Any], reason: str) -> None:
    good = {"type": "page_view"}
    items = read_body(json.dumps([good, {"type": "popup_open", **fields}, good]).encode())
    assert [type(item) for item in items] == [Told, Rejected, Told]
    assert isinstance(items[1], Rejected)
    assert (items[1].reason, items[1].index) == (reason, 1)


def test_a_body_of_too_many_events_is_refused_whole() -> None:
    (item,) = read_body(json.dumps([{"type": "page_view"}] * (MEMBERS_LIMIT + 1)).encode())
    assert isinstance(item, Rejected)
    assert (item.reason, item.index) == ("too_many", None)


@given(st.binary(max_size=300))
def test_garbage_is_never_an_exception(body: bytes) -> None:
    assert all(isinstance(item, Told | Rejected) for item in read_body(body))


_values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=300))


@given(st.dictionaries(st.sampled_from(["type", "at", "url", "name", "data", "profile_id"]), _values, max_size=6))
def test_whatever_a_page_says_becomes_an_event_or_is_rejected(fields: dict[str, Any]) -> None:
    for item in read_body(json.dumps({"type": "popup_custom", **fields}).encode()):
        if isinstance(item, Told):
            assert event_of(item, VISIT, "0f").time == NOW
            assert len(json.dumps(item.data or {})) < 6 * DATA_LIMIT

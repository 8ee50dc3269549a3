"""Requests of Altcraft's clients, read without an exception whatever they say."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aftersend.capture.altcraft_requests import Call, fields_of, goal, mobile_event, pushes, sdk_push
from aftersend.capture.multipart import PARTS_LIMIT, read_parts
from aftersend.core.errors import UsageError
from aftersend.core.event import Event

NOW = 1_790_000_000_000_000_000
CALL = Call("acme", NOW, lambda fact: NOW, "r1")

_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8
)
_names = st.sampled_from(
    [
        "events",
        "uid",
        "launch_id",
        "pixel_id",
        "goal",
        "goals",
        "date",
        "pixel_data",
        "email",
        "time",
        "smid",
        "is_test",
    ]
)
_fields = st.dictionaries(_names, _values, max_size=8)


def assert_kept_or_refused(make: Any, *arguments: Any) -> None:
    """Events that can be written down, or a UsageError."""
    try:
        made = make(*arguments)
    except UsageError:
        return
    for event in [made] if isinstance(made, Event) else made:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(event), type=Event) == event


@given(_fields, st.sampled_from([1, 2, 3, "1"]))
def test_any_fields_are_events_or_refused(fields: dict[str, Any], kinds: object) -> None:
    for change in ({}, {"events": kinds, "uid": "u", "smid": "s", "pixel_id": 1, "goal": "g"}):
        body = json.dumps({**fields, **change}).encode()
        for make in (pushes, goal, lambda read, call: sdk_push("open", read, call)):
            assert_kept_or_refused(lambda make=make, body=body: make(fields_of(body), CALL))


@given(st.dictionaries(st.sampled_from(["wn", "t", "tz", "ma", "sn", "wd", "mi", "aci", "x"]), st.binary(max_size=40)))
def test_any_parts_are_an_event_or_refused(parts: dict[str, bytes]) -> None:
    assert_kept_or_refused(mobile_event, {"wn": b"purchase", **parts}, {}, CALL)


@given(st.binary(max_size=200))
def test_any_bytes_are_fields_or_refused(body: bytes) -> None:
    for text in (body, b"<xml>" + body + b"</xml>", b"{" + body):
        try:
            assert isinstance(fields_of(text), dict)
        except UsageError:
            continue


@pytest.mark.parametrize("time", ["1e308", "1" + "0" * 30, '"99999999999999999999"', "-5", "true", "[]"])
def test_a_time_that_is_none_is_that_of_the_arrival(time: str) -> None:
    event = sdk_push("open", fields_of(b'{"smid": "s", "time": %s}' % time.encode()), CALL)
    assert event.time == NOW
    assert msgspec.msgpack.encode(event)


def test_a_number_that_no_log_could_hold_is_refused() -> None:
    with pytest.raises(UsageError, match="64 bits"):
        sdk_push("open", fields_of(b'{"smid": "s", "x": 1%s}' % (b"0" * 30)), CALL)


def test_json_that_nests_too_deeply_is_refused() -> None:
    with pytest.raises(UsageError):
        fields_of(b'{"pixel_data":' * 70 + b"1" + b"}" * 70)
    parts = {"wn": b"purchase", "wd": b'{"a":' * 70 + b"1" + b"}" * 70}
    assert isinstance(mobile_event(parts, {}, CALL).extra["wd"], str)


def test_whom_a_token_names_the_body_cannot_rename() -> None:
    parts = {"wn": b"purchase", "ma": b'{"email": "b@example.org", "profile_id": 7}', "aci": b"phone"}
    told = mobile_event(parts, {}, CALL)
    assert (told.recipient, told.profile_id, told.device_id) == ("b@example.org", "7", "phone")
    proven = mobile_event(parts, {}, structs.replace(CALL, matching={"email": "a@example.org"}))
    assert (proven.recipient, proven.profile_id, proven.device_id) == ("a@example.org", None, "phone")


def form(*parts: bytes, boundary: bytes = b"b1") -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts) + b"--%s--\r\n" % boundary


def part(name: str, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), value)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.binary(max_size=50), max_size=5))
def test_parts_come_out_as_they_went_in(parts: dict[str, bytes]) -> None:
    body = form(*[part(name, value) for name, value in parts.items()], boundary=b"0f" * 16)
    assert read_parts("multipart/form-data; boundary=" + "0f" * 16, body) == parts


@given(st.binary(max_size=200))
def test_no_form_breaks_the_reader(body: bytes) -> None:
    for text in (body, b"--b1\r\n" + body + b"\r\n--b1--"):
        try:
            read_parts('multipart/form-data; charset=utf-8; boundary="b1"', text)
        except UsageError:
            continue


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", form(part("a", b"1"))),
        ("multipart/form-data", form(part("a", b"1"))),
        ("multipart/form-data; boundary=other", form(part("a", b"1"))),
        ("multipart/form-data; boundary=b1", form(part("a", b"1"))[:-4]),
        ("multipart/form-data; boundary=b1", form(*[part(str(n), b"") for n in range(PARTS_LIMIT + 2)])),
        ("multipart/form-data; boundary=b1", form(b"X: " + b"y" * 2_000 + b"\r\n\r\n1")),
    ],
)
def test_what_is_no_form_is_refused(content_type: str, body: bytes) -> None:
    with pytest.raises(UsageError):
        read_parts(content_type, body)

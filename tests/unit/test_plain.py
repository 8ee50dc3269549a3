"""Plain bodies are read in one go, and nothing about the events is different for it."""

import json
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Event, Receipt, Rejected
from aftersend.core.plain import read_plain
from aftersend.core.timestamps import format_time, parse_time
from aftersend.dialects import canonical

NOW = parse_time("2026-02-01T12:00:00Z")
OPENED = {"id": "a", "type": "email.opened", "time": "2026-01-31T08:00:00.25Z", "recipient": "ann@mail.example"}


def receipt(body: object, **told: Any) -> Receipt:
    return Receipt(body if isinstance(body, bytes) else json.dumps(body).encode(), NOW, **told)


def slowly(given: Receipt) -> list[Event | Rejected]:
    with patch.object(canonical, "read_plain", lambda receipt: None):
        return canonical.Dialect().decode(given)


texts = st.text(max_size=12) | st.sampled_from(["null", '"', "\\", "a/b", "é", ":", '":'])
odd = st.none() | st.integers(-2, 2**70) | st.booleans() | st.floats(allow_nan=False) | st.lists(texts, max_size=1)
times = st.integers(-(10**18), 4 * 10**18).map(format_time) | st.sampled_from(
    ["2026-01-31", "soon", "2026-01-31T08:00Z"]
)
geo = st.fixed_dictionaries({}, optional={"country": texts, "latitude": st.integers(-90, 90) | st.floats(-90, 90)})
failure = st.fixed_dictionaries(
    {}, optional={"class": texts, "code": st.integers(0, 200) | st.just(5.0), "final": st.booleans(), "own": texts}
)
plain = st.fixed_dictionaries(
    {"type": st.sampled_from(["email.opened", "sms.sent", "odd", "campaign.started"])},
    optional={
        "id": texts,
        "time": times,
        "channel": st.sampled_from(["", "sms", "No Channel"]),
        "recipient": texts,
        "user_agent": texts,
        "url": texts,
        "geo": geo,
        "failure": failure,
    },
)
members = plain | st.dictionaries(st.sampled_from(["type", "test", "url", "extra", "source", "own"]), texts | odd)


@given(st.lists(members, max_size=3) | members, st.booleans(), st.sampled_from(["", "shop"]))
def test_what_is_read_in_one_go_is_what_is_read_member_by_member(body: object, spaced: bool, source: str) -> None:
    data = json.dumps(body, separators=(" ,", " : ") if spaced else None, ensure_ascii=spaced).encode()
    given = receipt(data, source=source, tenant="acme")
    found = read_plain(given)
    assert found is None or found == slowly(given)


@given(
    st.lists(
        st.sampled_from(
            ['"url":"a"', '"url" :"\\""', '"id":null', '"url"\t:"x"', '"type":"email.sent"', '"u\\u0072l":"b"']
        )
    )
)
def test_a_key_that_stands_twice_is_not_read_in_one_go(parts: list[str]) -> None:
    body = "{" + ", ".join(['"type":"sms.sent"', *parts]) + "}"
    if read_plain(receipt(body.encode())) is not None:
        keys = [key for key, _ in json.loads(body, object_pairs_hook=list)]
        assert len(keys) == len(set(keys))


@pytest.mark.parametrize("body", [OPENED, [OPENED], [OPENED, {**OPENED, "id": "b", "geo": {"city": "Lyon"}}], []])
def test_ordinary_bodies_are_read_in_one_go(body: object) -> None:
    assert read_plain(receipt(body)) is not None


@pytest.mark.parametrize(
    "odd",
    [
        {"own": "x"},
        {"test": True},
        {"source": {"name": "x"}},
        {"url": None},
        {"url": 5},
        {"url": 'a"b'},
        {"time": "soon"},
        {"time": "1999-01-01T00:00:00Z"},
        {"time": "2026-03-01T00:00:00Z"},
        {"channel": "No Channel"},
        {"geo": {"planet": "Mars"}},
    ],
)
def test_a_body_with_anything_out_of_the_ordinary_is_not(odd: dict[str, object]) -> None:
    assert read_plain(receipt([OPENED, OPENED | odd])) is None


def test_what_keeps_its_own_names_is_not() -> None:
    assert read_plain(receipt([OPENED], verbatim=True)) is None

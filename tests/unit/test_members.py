"""JSON bodies come apart into objects, and no key that stands twice goes unseen."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core.event import Rejected
from aftersend.core.members import DEPTH_LIMIT, split_json

_texts = st.text(max_size=8) | st.sampled_from(['"', "\\", '\\"', '\\\\"', '":', '" :', "é\u2028", '{"a":1,"a":2}'])
_keys = st.sampled_from(["a", "b", 'c"', "d\\", "e:"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(_keys, inner), max_size=4).map(dict),
    max_leaves=6,
)
_blanks = st.sampled_from(["", " ", "\n", "\t ", "\r\n"])


@st.composite
def _objects(draw: st.DrawFn) -> tuple[str, bool]:
    """The text of an object, and whether one of its keys stands twice."""
    members = draw(st.lists(st.tuples(_keys, _values), min_size=1, max_size=4))
    blank, is_ascii = draw(_blanks), draw(st.booleans())
    told = [
        f"{blank}{json.dumps(key, ensure_ascii=is_ascii)}{blank}:{json.dumps(value, ensure_ascii=is_ascii)}"
        for key, value in members
    ]
    names = [key for key, _ in members]
    return "{" + ",".join(told) + "}", len(set(names)) < len(names)


def test_a_member_is_rejected_exactly_if_a_key_stands_in_it_twice() -> None:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(_objects(), min_size=1, max_size=4))
    def check(drawn: list[tuple[str, bool]]) -> None:
        body = ("[" + ",".join(text for text, _ in drawn) + "]").encode("utf-8", "surrogatepass")
        found = split_json(body)
        if found and isinstance(found[0], Rejected) and found[0].index is None:
            return
        assert [isinstance(item, Rejected) and item.reason == "duplicate_key" for item in found] == [
            is_repeated for _, is_repeated in drawn
        ]

    check()


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":2}',
        '{"a"\t:1,"a":2}',
        '{"a":1, "\\u0061" :2}',
        '{"x":{"a":"1","a":"2"}}',
        '{"x":[[{"a":"\\\\","a":"\\""}]]}',
        '{"x":"\\\\\\"\\\\","y":0,"y":[]}',
    ],
)
def test_a_key_that_stands_twice_is_seen_in_any_depth_and_spelling(text: str) -> None:
    (single,) = split_json(text.encode())
    first, second = split_json(f"[{text},{{}}]".encode())
    assert isinstance(single, Rejected)
    assert isinstance(first, Rejected)
    assert (single.reason, first.reason, second) == ("duplicate_key", "duplicate_key", {})


def test_one_that_is_no_object_or_nests_too_deeply_harms_no_other() -> None:
    deep = '{"a":' * DEPTH_LIMIT + '{"b":"c"}' + "}" * DEPTH_LIMIT
    arrays = '{"a":' + "[" * DEPTH_LIMIT + "]" * DEPTH_LIMIT + "}"
    found = split_json(f'["x",{{"a":"b"}},{deep},7,{arrays},{{"c":{{"d":["e"]}}}}]'.encode())
    assert [item.reason if isinstance(item, Rejected) else item for item in found] == [
        "not_an_object",
        {"a": "b"},
        "too_deep",
        "not_an_object",
        "too_deep",
        {"c": {"d": ["e"]}},
    ]


def test_the_deepest_that_is_read_is_as_deep_as_the_limit_says() -> None:
    deepest = '{"a":' * (DEPTH_LIMIT - 1) + "{}" + "}" * (DEPTH_LIMIT - 1)
    (member,) = split_json(deepest.encode())
    assert isinstance(member, dict)

"""Times are read the same whether their minute was read before or not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core import timestamps
from aftersend.core.timestamps import parse_time

KNOWN = "2026-02-02T02:40:00Z"

_tails = st.from_regex(r"[ :.,0-9٣Zz+-]{0,8}Z?", fullmatch=True)


def slowly(text: str) -> int | str:
    try:
        return timestamps._parse_slowly(text)
    except ValueError as error:
        return str(error)


def quickly(text: str) -> int | str:
    parse_time(KNOWN)
    try:
        return parse_time(text)
    except ValueError as error:
        return str(error)


def test_a_known_minute_changes_nothing() -> None:
    @settings(max_examples=200, deadline=None)
    @given(_tails)
    def check(tail: str) -> None:
        for head in ("2026-02-02T02:40", "2026-02-02T02:40:", "2026-02-02T02:40:07", "2026-02-02T02:40:59."):
            assert quickly(head + tail) == slowly(head + tail), head + tail

    check()


@pytest.mark.parametrize(
    ("tail", "nanoseconds"),
    [
        (":00Z", 0),
        (":07Z", 7_000_000_000),
        (":07.5Z", 7_500_000_000),
        (":07.123456789Z", 7_123_456_789),
        (":07.1234567899Z", 7_123_456_789),
        (":60Z", 60_000_000_000),
    ],
)
def test_every_digit_down_to_the_nanosecond_counts(tail: str, nanoseconds: int) -> None:
    assert parse_time("2026-02-02T02:40" + tail) - parse_time(KNOWN) == nanoseconds


@pytest.mark.parametrize("tail", [":07.Z", ":07", ":7Z", ":0٣Z", ":07Z5Z", ":61Z", ":07.5ZZ", ":+7Z"])
def test_what_is_no_time_is_none_in_a_known_minute_either(tail: str) -> None:
    assert quickly("2026-02-02T02:40" + tail) == slowly("2026-02-02T02:40" + tail)

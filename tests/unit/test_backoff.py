"""When it is tried again: the list's waits, spread a little, never sooner than the receiver asked for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.registry import RETRY_SECONDS
from aftersend.pipeline.backoff import JITTER, wait_before_try

waits = st.lists(st.floats(0, 172_800), max_size=12)
chances = st.floats(0, 1)


def wait(failures: int, waits: tuple[float, ...] = (5, 30, 120), retry_after: float | None = None) -> float:
    return wait_before_try(failures, waits, retry_after, lambda: 0.5)


def test_each_failure_takes_the_next_wait_and_the_last_repeats() -> None:
    assert [wait(failures) for failures in range(1, 7)] == pytest.approx([5, 30, 120, 120, 120, 120])


def test_an_empty_list_waits_a_second() -> None:
    assert [wait(failures, ()) for failures in (1, 100)] == [1, 1]


def test_what_the_receiver_asks_for_lengthens_a_wait_and_never_shortens_it() -> None:
    assert [wait(1, retry_after=seconds) for seconds in (None, 0, 3, 60)] == pytest.approx([5, 5, 5, 60])


def test_chance_spreads_a_wait_by_a_fifth_either_way() -> None:
    ends = [wait_before_try(1, (100,), None, lambda chance=chance: chance) for chance in (0.0, 1.0)]
    assert ends == pytest.approx([100 * (1 - JITTER), 100 * (1 + JITTER)])
    assert ends == pytest.approx([80, 120])


def test_the_default_list_reaches_the_third_day_in_fewer_than_twenty_tries() -> None:
    total, failures = 0.0, 0
    while total < 3 * 86_400:
        failures += 1
        total += wait(failures, RETRY_SECONDS)
    assert failures < 20


@given(st.integers(1, 10_000), waits, st.none() | st.floats(0, 1e9), chances)
def test_a_wait_stays_within_its_bounds(
    failures: int, waits: list[float], retry_after: float | None, chance: float
) -> None:
    seconds = wait_before_try(failures, waits, retry_after, lambda: chance)
    named = waits[min(failures, len(waits)) - 1] if waits else 1.0
    asked = retry_after or 0.0
    assert max(named * 0.799, asked) <= seconds <= max(named * 1.201, asked)

"""Rates: a bucket a key, in a table with a bound."""

from hypothesis import given
from hypothesis import strategies as st

from aftersend.capture.rates import Rates, network_of
from aftersend.core.timestamps import SECOND


def test_a_bucket_gives_its_burst_and_then_fills_steadily() -> None:
    rates = Rates(3, 1, 10)
    assert [rates.take("a", 1, 0) for _ in range(4)] == [True, True, True, False]
    assert rates.take("b", 3, 0), "another key has a bucket of its own"
    assert not rates.take("a", 1, SECOND // 2)
    assert rates.take("a", 1, SECOND)
    assert [rates.take("a", 1, 100 * SECOND) for _ in range(4)] == [True, True, True, False], "no more than the burst"


def test_what_is_too_much_at_once_takes_nothing() -> None:
    rates = Rates(3, 1, 10)
    assert not rates.take("a", 4, 0)
    assert rates.take("a", 3, 0)


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates = Rates(1, 1, 10)
    assert rates.take("a", 1, 10 * SECOND)
    assert not rates.take("a", 1, 0)
    assert not rates.take("a", 1, 10 * SECOND)


@given(st.lists(st.integers(0, 100), max_size=200))
def test_the_table_never_grows_past_its_bound(keys: list[int]) -> None:
    rates = Rates(1, 1, 8)
    for now, key in enumerate(keys):
        rates.take(key, 1, now)
    assert len(rates) <= 8


def test_who_was_heard_last_is_remembered_longest() -> None:
    rates = Rates(1, 0, 2)
    for key in ("a", "b", "a", "c"):
        rates.take(key, 1, 0)
    assert not rates.take("a", 1, 0), "still known, and empty"
    assert rates.take("b", 1, 0), "forgotten, so it begins anew"


def test_an_ipv6_customer_is_one_place() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:192.0.2.1") == network_of("192.0.2.1") != network_of("192.0.2.2")
    assert network_of("fe80::1%eth0") == network_of("fe80::2")
    assert network_of("x" * 1_000) == "x" * 64

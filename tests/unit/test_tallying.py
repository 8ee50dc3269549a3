"""Counting runs of events says the same as counting them all at once, and stays small."""

from hypothesis import given
from hypothesis import strategies as st

from aftersend.core import tallying
from aftersend.core.event import Event, Failure, Source
from aftersend.core.identity import make_id
from aftersend.core.outcome import HOURS_LIMIT, Tally
from aftersend.core.tallying import add, counted_together, tally_of
from aftersend.core.timestamps import SECOND, parse_time

NOW = parse_time("2026-08-01T14:20:00Z")
HOUR = 3_600 * SECOND


def event(number: int, type_: str = "email.opened", failure: Failure | None = None, at: int = NOW) -> Event:
    id_ = make_id(NOW + number, str(number).encode())
    return Event(id_, type_, at, Source("s", "canonical", type_), failure=failure)


kinds = st.sampled_from(("email.opened", "email.clicked", "sms.sent"))
failures = st.sampled_from((None, Failure(status="5.1.1", reply="no such user"), Failure(class_="soft")))
hours = st.integers(0, 5).map(lambda hour: NOW + hour * HOUR)
runs = st.lists(st.builds(event, st.integers(0, 999), kinds, failures, hours), max_size=20)


@given(st.lists(runs, max_size=5))
def test_runs_say_together_what_all_say_at_once(given_: list[list[Event]]) -> None:
    bit_by_bit = Tally()
    for run in given_:
        add(bit_by_bit, run)
    whole = tally_of([told for run in given_ for told in run])
    assert bit_by_bit == whole
    together = counted_together(tally_of(run) for run in given_)
    assert (together.count, together.types, together.ids_sum) == (whole.count, whole.types, whole.ids_sum)


def test_hours_and_failures_are_told_as_people_read_them() -> None:
    gone = Failure(status="5.1.1", reply="550 5.1.1 no such\r\n user", class_="hard")
    told = tally_of([event(1), event(2, "email.hard_bounced", gone), event(3, "email.soft_bounced", Failure("soft"))])
    assert told.hours == {
        "2026-08-01T14": dict.fromkeys(("email.opened", "email.hard_bounced", "email.soft_bounced"), 1)
    }
    assert told.failures == {"550 5.1.1 no such user": 1, "soft": 1}
    (text,) = tally_of([event(1, failure=Failure(status="4.2.2", reply="x" * 1_000))]).failures
    assert text == ("4.2.2 " + "x" * 1_000)[: tallying.TEXT_LIMIT]


def test_past_its_limits_only_what_is_certain_is_counted() -> None:
    told = [event(number, failure=Failure(reply=f"{number}"), at=NOW + number * HOUR) for number in range(2_000)]
    tally = tally_of(told)
    assert (tally.count, tally.types) == (2_000, {"email.opened": 2_000})
    assert len(tally.hours) == HOURS_LIMIT
    assert len(tally.failures) == 1_000
    add(tally, told[:1])
    assert tally.hours["2026-08-01T14"] == {"email.opened": 2}

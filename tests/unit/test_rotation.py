"""Periods follow each other without a gap, whatever the clocks do; names tell files apart."""

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.errors import ConfigurationError
from aftersend.core.rotation import DEFAULT_NAME, Rotation, check, file_name, next_stamp, period_of, tag_of
from aftersend.core.timestamps import SECOND, format_time, parse_time

HOUR = 3_600 * SECOND
ZONES = (
    *("UTC", "Europe/Amsterdam", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Havana"),
    *("America/Sao_Paulo", "Pacific/Apia", "Africa/Casablanca"),
)
EVERY = ("minute", "5 minutes", "15 minutes", "hour", "day", "week")

times = st.integers(parse_time("2005-01-01") // SECOND, parse_time("2035-01-01") // SECOND).map(lambda at: at * SECOND)
rotations = st.builds(Rotation, every=st.sampled_from(EVERY), zone=st.sampled_from(ZONES))


def shown(period: tuple[int, int]) -> tuple[str, str]:
    return format_time(period[0]), format_time(period[1])


def near_transitions(zone: str) -> list[int]:
    """Times around which the zone's clock is set."""
    found = []
    before = None
    start = int(datetime(2010, 1, 1, tzinfo=UTC).timestamp())
    for at in range(start, start + 3 * 365 * 86_400, 1_800):
        offset = datetime.fromtimestamp(at, ZoneInfo(zone)).utcoffset()
        if before not in (None, offset):
            found.append(at * SECOND)
        before = offset
    return found


@given(times, rotations)
def test_a_time_lies_in_its_period_and_periods_meet(at: int, rotation: Rotation) -> None:
    start, end = period_of(at, rotation)
    assert start <= at < end
    assert period_of(start, rotation) == period_of(end - 1, rotation) == (start, end)
    assert period_of(end, rotation)[0] == end


@pytest.mark.parametrize("zone", ZONES[1:])
@pytest.mark.parametrize("every", EVERY)
def test_periods_meet_where_clocks_are_set(zone: str, every: str) -> None:
    rotation = Rotation(every=every, zone=zone)  # type: ignore[arg-type]
    for around in near_transitions(zone):
        at = around - 3 * HOUR
        while at < around + 3 * HOUR:
            start, end = period_of(at, rotation)
            assert start <= at < end
            assert period_of(end - 1, rotation) == (start, end)
            assert period_of(end, rotation)[0] == end
            at += 17 * 60 * SECOND


@pytest.mark.parametrize(
    ("every", "zone", "at", "period"),
    [
        ("5 minutes", "UTC", "2026-08-01T14:24:59.9Z", ("2026-08-01T14:20:00Z", "2026-08-01T14:25:00Z")),
        ("hour", "Asia/Kathmandu", "2026-08-01T14:20:00Z", ("2026-08-01T14:15:00Z", "2026-08-01T15:15:00Z")),
        ("day", "America/New_York", "2026-08-01T14:20:00Z", ("2026-08-01T04:00:00Z", "2026-08-02T04:00:00Z")),
        ("day", "America/New_York", "2026-03-08T14:20:00Z", ("2026-03-08T05:00:00Z", "2026-03-09T04:00:00Z")),
        ("day", "America/New_York", "2026-11-01T14:20:00Z", ("2026-11-01T04:00:00Z", "2026-11-02T05:00:00Z")),
        ("hour", "America/New_York", "2026-11-01T05:30:00Z", ("2026-11-01T05:00:00Z", "2026-11-01T06:00:00Z")),
        ("hour", "America/New_York", "2026-11-01T06:30:00Z", ("2026-11-01T06:00:00Z", "2026-11-01T07:00:00Z")),
        ("week", "Europe/Amsterdam", "2026-08-02T21:59:59Z", ("2026-07-26T22:00:00Z", "2026-08-02T22:00:00Z")),
    ],
)
def test_periods_begin_as_the_clock_of_the_zone_shows(every: str, zone: str, at: str, period: tuple[str, str]) -> None:
    rotation = Rotation(every=every, zone=zone)  # type: ignore[arg-type]
    assert shown(period_of(parse_time(at), rotation)) == period


def name(**fields: object) -> str:
    usual = {"name": "news", "tag": "a1b2c3", "tenant": "default", "start": parse_time("2026-08-01T23:30:00Z")}
    usual |= {"zone": "Europe/Amsterdam", "epoch": 1, "sequence": 7, "stamp": 1_785_600_000, "pattern": DEFAULT_NAME}
    return file_name(**(usual | fields))  # type: ignore[arg-type]


def test_a_name_says_whose_file_it_is_of_when_and_from_where_on() -> None:
    assert name() == "news-a1b2c3-20260801T233000Z-1-0000000007"
    assert name(pattern="{tenant}.{date}.{stamp}.{type}", type_="OPENS") == "default.20260802.20260801160000.OPENS"


def test_names_stand_in_the_order_of_their_events() -> None:
    names = [name(sequence=sequence) for sequence in (1, 9, 10, 99_999, 1_000_000)]
    assert names == sorted(names)


def test_subscriptions_of_one_name_have_other_tags() -> None:
    tags = {tag_of(tenant, id_) for tenant in ("default", "other") for id_ in ("sub_1", "sub_2")}
    assert len(tags) == 4


@given(st.lists(times, min_size=2, max_size=20))
def test_stamps_rise_whatever_the_periods(starts: list[int]) -> None:
    stamps = [0]
    for start in starts:
        stamps.append(next_stamp(start, stamps[-1]))
    assert all(later > earlier for earlier, later in pairwise(stamps))
    assert stamps[1] == starts[0] // SECOND


@given(st.text(max_size=30))
def test_no_pattern_leads_out_of_a_folder(pattern: str) -> None:
    try:
        check(Rotation(name=pattern))
    except ConfigurationError:
        return
    made = name(pattern=pattern or DEFAULT_NAME)
    assert made
    assert made[0] != "."
    assert all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in made)

"""Hits seen beside others: each settled rule by the case that it is for, and what is held for how long."""

from collections.abc import Sequence

import pytest

from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.sightings import OF_ONE, Sightings
from aftersend.pipeline.verdict import read_rules

RULES = read_rules().book.settled
NOW = 1_770_000_000 * SECOND


def click(at: float, link: int, person: int = 1, type_: str = "email.clicked", **fields: object) -> Event:
    """A click so many seconds after the sending."""
    time = NOW + int(at * SECOND)
    fields = {
        "message_id": f"m{person}",
        "campaign_id": "c",
        "received_at": time,
        "ip": f"10.0.0.{person % 250}",
    } | fields
    id_ = make_id(time, f"{at} {link} {person} {type_}".encode())
    return Event(
        id_,
        type_,
        time,
        Source("s", "aftersend", "click"),
        recipient=f"p{person}@mail.example",
        url=f"https://x.example/{link}",
        user_agent="a",
        **fields,  # type: ignore[arg-type]
    )


def seen(hits: Sequence[Event], kind: str = "human", sightings: Sightings | None = None) -> dict[str, str]:
    """The suspicions that hits raise, by the hit's id."""
    sightings = sightings or Sightings(RULES)
    return {item.hit.id: item.reason for hit in hits for item in sightings.see(hit, kind)}


def test_three_links_within_two_seconds_are_a_burst_and_its_first_hits_are_suspected_too() -> None:
    hits = [click(33.0, 1), click(33.4, 2), click(34.9, 3), click(35.2, 4)]
    assert seen(hits) == {hit.id: "burst" for hit in hits}


@pytest.mark.parametrize(
    "hits",
    [
        [click(1, 1), click(1.1, 1), click(1.2, 1), click(1.3, 2)],  # one link again and again
        [click(1, 1), click(3, 2), click(5, 3)],  # a quick reader
        [click(1, 1, person=1), click(1, 2, person=2), click(1, 3, person=3)],  # three people
        [click(1, 1, type_="email.opened"), click(1, 2, type_="email.opened"), click(1, 3, type_="email.opened")],
        [click(1, 1), click(1, 2), click(1, 3, tenant="other")],
        [click(1, n, message_id=None, campaign_id=None) for n in range(3)],  # nothing says of which message
    ],
)
def test_what_people_do_is_no_burst(hits: list[Event]) -> None:
    assert seen(hits) == {}


def test_the_first_click_that_was_made_of_a_hit_is_suspected_with_it() -> None:
    hits = [click(33.0, 1), click(33.4, 2), click(33.5, 3)]
    first = click(33.0, 1, type_="email.first_clicked")
    assert first.id in seen([*hits, first])
    assert first.id in seen([hits[0], first, *hits[1:]])


def test_a_hit_that_is_a_machines_already_counts_and_is_not_told_again() -> None:
    sightings = Sightings(RULES)
    assert not sightings.see(click(1, 1), "machine")
    assert not sightings.see(click(1, 2), "human")
    assert [item.hit.id for item in sightings.see(click(1, 3), "human")] == [click(1, 2).id, click(1, 3).id]


def test_many_share_a_proxy_so_its_hits_prove_nothing() -> None:
    assert seen([click(1, n, person=n, ip="10.9.9.9") for n in range(50)], "proxy") == {}


def test_nearly_all_links_of_a_campaign_are_coverage_once_its_links_are_known() -> None:
    others = [click(person, person % 6, person=person) for person in range(10, 40)]
    sweep = [click(100 + 20 * link, link) for link in range(5)]
    assert seen([*others, *sweep]) == {hit.id: "coverage" for hit in sweep}
    assert seen(sweep) == {}, "of an unknown campaign all links are few"


def test_a_reader_of_some_of_many_links_is_a_reader() -> None:
    others = [click(person, person % 12, person=person) for person in range(10, 60)]
    assert seen([*others, *[click(100 + 20 * link, link) for link in range(6)]]) == {}


def test_one_visitor_on_the_links_of_twenty_people_in_a_minute_is_a_gateway() -> None:
    hits = [click(person * 2, 1, person=person, ip="10.9.9.9") for person in range(20)]
    assert seen(hits) == {hit.id: "fan_out" for hit in hits}
    assert seen(hits[:19]) == {}
    assert seen([click(person * 4, 1, person=person, ip="10.9.9.9") for person in range(30)]) == {}, "too slow for one"
    assert seen([click(person, 1, person=person, ip=None) for person in range(30)]) == {}, "of unknown addresses"


def test_every_settled_rule_has_its_case_here() -> None:
    assert [rule.name for rule in RULES] == ["burst", "coverage", "fan_out"]


def test_a_suspicion_holds_nothing_of_the_persons_machine() -> None:
    sightings = Sightings(RULES)
    (*_, last) = [item for link in range(3) for item in sightings.see(click(1, link), "human")]
    assert (last.hit.ip, last.hit.user_agent, last.hit.url, last.hit.extra) == (None, None, None, {})
    assert last.hit.recipient == "p1@mail.example"


def test_what_is_held_is_bounded_by_time() -> None:
    sightings = Sightings(RULES)
    for number in range(3_000):
        sightings.see(click(number, 1, person=number), "human")
    assert sightings.held <= 2 * 610


def test_what_is_held_is_bounded_by_number_and_the_quietest_go_first() -> None:
    sightings = Sightings(RULES, limit=100)
    steady = [click(0.001 * number, 1, person=number) for number in range(1_000)]
    assert seen(steady, sightings=sightings) == {}
    assert sightings.held <= 100
    assert len(seen([click(1.1, 2, person=999), click(1.2, 3, person=999)], sightings=sightings)) == 3


def test_one_busy_message_holds_its_last_hits_alone() -> None:
    sightings = Sightings(RULES)
    for number in range(2_000):
        sightings.see(click(0.1 * number, number % 2, ip=None), "human")
    assert sightings.held == OF_ONE


def test_hits_that_were_drained_late_are_seen_beside_each_other() -> None:
    late = [click(-3_000.0, 1), click(-2_999.5, 2), click(-2_999.0, 3)]
    assert len(seen([click(0, 1, person=9), *late])) == 3

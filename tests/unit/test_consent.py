"""Levels: what each leaves of an event, and where people's are kept."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from aftersend.core.consent import HOUR, LEVELS, Level, is_governed, lowered, person_key, person_keys
from aftersend.core.errors import StoreError
from aftersend.core.event import Actor, Event, Failure, Geo, Source
from aftersend.core.identity import make_id
from aftersend.core.taxonomy import CHANNELS, ROWS
from aftersend.stores.sqlite.people import Levels, SqlitePeople

KEY = b"k" * 32
NOW = 1_768_467_123_456_789_012


def event(type_: str = "email.clicked", **fields: object) -> Event:
    """An event with everything in it that can be told of a person."""
    full: dict[str, object] = {
        "tenant": "acme",
        "received_at": NOW + 5,
        "channel": "email",
        "recipient": "alice@example.org",
        "profile_id": "p1",
        "device_id": "d1",
        "message_id": "m1",
        "campaign_id": "spring",
        "job_id": "j1",
        "correlation_id": "c1",
        "template_id": "t1",
        "list_id": "l1",
        "category": "offers",
        "ip": "198.51.100.7",
        "user_agent": "Mozilla/5.0",
        "geo": Geo("DE"),
        "url": "https://example.com/",
        "url_name": "top",
        "actor": Actor("human"),
        "extra": {"place": 1},
    }
    return Event(make_id(NOW, b"1"), type_, NOW, Source("s", "ses", "Click", "v1"), **(full | fields))  # type: ignore[arg-type]


def test_levels_govern_engagement_alone() -> None:
    governed = {row.type for row in ROWS if is_governed(row.type.replace("*", "email"))}
    assert governed == {
        *("*.opened", "*.first_opened", "*.clicked", "*.first_clicked", "*.read", "*.skimmed", "*.glanced"),
        *("popup.submitted", "popup.closed", "popup.failed", "popup.custom", "web.pixel_opened"),
    }
    assert is_governed("popup.opened")
    assert not is_governed("web.unsubscribed")
    assert not is_governed("other")


TYPES = sorted(
    {row.type.replace("*", channel) for row in ROWS for channel in CHANNELS}
    | {f"popup.{what}" for what in ("opened", "clicked", "submitted", "closed", "failed", "bounced", "custom")}
)
ENGAGING = {"opened", "first_opened", "clicked", "first_clicked", "read", "skimmed", "glanced"}
CONSENTING = {"subscribed", "subscription_confirmed", "unsubscribed", "complained"}


@pytest.mark.parametrize("level", Level)
def test_what_is_no_engagement_is_told_in_full_at_every_level(level: Level) -> None:
    """Every type on every channel: deliveries, failures, complaints, consent, suppression, campaigns, profiles."""
    for type_ in TYPES:
        channel, _, what = type_.rpartition(".")
        is_engagement = what in ENGAGING or (channel in ("popup", "web") and what not in CONSENTING)
        assert is_governed(type_) is is_engagement, type_
        if not is_engagement:
            assert lowered(event(type_), level, KEY) == event(type_)


def test_all_engagement_is_left_out_at_none_and_no_first_is_told_at_anonymous() -> None:
    for type_ in filter(is_governed, TYPES):
        assert lowered(event(type_), Level.NONE, KEY) is None
        assert (lowered(event(type_), Level.ANONYMOUS, KEY) is None) is (".first_" in type_)


KEPT = ("type", "tenant", "channel", "campaign_id", "url", "url_name", "test")
"""Fields of which all is kept; of the times the hour, of the source everything but the vendor's id."""
_texts = st.none() | st.text(max_size=8)
_people = st.fixed_dictionaries(
    {
        name: _texts
        for name in Event.__struct_fields__
        if name not in (*KEPT, "id", "time", "received_at", "source", "geo", "failure", "actor", "suspect", "extra")
    }
    | {
        "geo": st.builds(Geo, _texts),
        "failure": st.none() | st.builds(Failure, detail=st.text(max_size=8)),
        "actor": st.none() | st.builds(Actor, st.text(max_size=8)),
        "suspect": st.lists(st.text(max_size=8), max_size=2),
        "extra": st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5), max_size=3),
        "time": st.integers(NOW // HOUR * HOUR, NOW // HOUR * HOUR + HOUR - 1),
        "received_at": st.integers(NOW // HOUR * HOUR, NOW // HOUR * HOUR + HOUR - 1),
        "id": st.binary(min_size=4, max_size=4).map(lambda chance: make_id(NOW, chance)),
        "source": st.text(max_size=8).map(lambda id_: Source("s", "ses", "Click", id_)),
    }
)


@given(_people, _people)
def test_two_hits_of_one_hour_campaign_and_link_are_the_same_but_for_their_ids(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    left, right = (lowered(structs.replace(event(), **fields), Level.ANONYMOUS, KEY) for fields in (one, other))
    assert left is not None
    assert right is not None
    assert structs.replace(left, id="") == structs.replace(right, id="")
    assert (left.id == right.id) is (one["id"] == other["id"]), "a fact that arrives twice still counts once"
    assert left.id[:13] == right.id[:13] == make_id(NOW // HOUR * HOUR, b"")[:13], "of the time the hour alone"
    assert {name for name in Event.__struct_fields__ if getattr(left, name) and name not in KEPT} == {
        *("id", "time", "received_at", "source")
    }


def test_full_leaves_all_and_none_leaves_nothing() -> None:
    assert lowered(event(), Level.FULL, KEY) == event()
    assert lowered(event(), Level.NONE, KEY) is None


def test_anonymous_leaves_type_hour_campaign_and_link() -> None:
    left = lowered(event(), Level.ANONYMOUS, KEY)
    assert left == Event(
        left.id if left else "",
        "email.clicked",
        NOW // HOUR * HOUR,
        Source("s", "ses", "Click"),
        "acme",
        NOW // HOUR * HOUR,
        "email",
        campaign_id="spring",
        url="https://example.com/",
        url_name="top",
    )


def test_an_anonymous_first_is_not_told() -> None:
    assert lowered(event("email.first_clicked"), Level.ANONYMOUS, KEY) is None


def test_an_anonymous_id_repeats_and_follows_from_the_old_one_by_the_key_alone() -> None:
    ids = {(left.id if (left := lowered(event(), Level.ANONYMOUS, key)) else "") for key in (KEY, KEY, b"o" * 32)}
    assert len(ids) == 2
    assert event().id not in ids


def test_a_person_is_known_by_address_profile_and_device_and_case_is_nothing() -> None:
    assert person_keys(event()) == [person_key("acme", name) for name in ("ALICE@example.org ", "p1", "d1")]
    assert person_key("acme", "alice@example.org") != person_key("other", "alice@example.org")


def test_the_words_for_levels() -> None:
    assert list(LEVELS) == ["none", "anonymous", "full"]


# --- where they are kept


@given(st.lists(st.tuples(st.binary(min_size=2, max_size=2), st.integers(0, 40), st.sampled_from(Level)), max_size=60))
def test_levels_in_memory_are_what_was_put_last(changes: list[tuple[bytes, int, Level]]) -> None:
    """Few heads and tails of few different bytes, so that neighbours look like keys."""
    levels, expected = Levels(), {}
    for head, number, level in changes:
        key = head[:1] * 2 + bytes((number % 3,)) * (number % 14) + bytes((1,)) * (14 - number % 14)
        levels.put(key, level)
        expected[key] = level
    assert all(levels.get(key) is level for key, level in expected.items())
    again = Levels((key, level) for key, level in expected.items() if level is not Level.FULL)
    assert all(again.get(key) is level for key, level in expected.items())


async def test_levels_outlive_the_process(tmp_path: Path) -> None:
    people = SqlitePeople.open(tmp_path, lambda: NOW)
    await people.load()
    await people.set_level("acme", "Alice@Example.org", Level.NONE, "api")
    await people.set_level("acme", "bob@example.org", Level.ANONYMOUS)
    await people.set_level("acme", "bob@example.org", Level.FULL)
    await people.close()
    assert b"lice@" not in (tmp_path / "people.db").read_bytes()
    people = SqlitePeople.open(tmp_path, lambda: NOW)
    with pytest.raises(StoreError):
        people.level("acme", person_key("acme", "alice@example.org"))
    await people.load()
    assert people.level("acme", person_key("acme", "alice@example.org")) is Level.NONE
    assert people.level("acme", person_key("acme", "bob@example.org")) is Level.FULL
    assert people.level("other", person_key("other", "alice@example.org")) is Level.FULL
    await people.close()

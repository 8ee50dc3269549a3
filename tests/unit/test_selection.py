"""Which events a subscription wants: the filter against a plain reading of it, and the router against the filter."""

import time
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core.event import Actor, Event, Source
from aftersend.core.registry import Subscription
from aftersend.pipeline import selection as module
from aftersend.pipeline.selection import Router, Selection

TYPES = ("email.opened", "email.hard_bounced", "email.soft_bounced", "sms.clicked", "campaign.started", "other")
PATTERNS = ("*", "email.*", "*.clicked", "email.*bounced", "e*l.*o*d", "other", "email", "email.opened", "", "*.*")
ACTORS = ("human", "proxy", "machine", "unknown")
NAMES = ("a", "b", "c")

some = st.none() | st.sampled_from(NAMES)
events = st.builds(
    Event,
    id=st.just("1"),
    type=st.sampled_from(TYPES),
    time=st.just(0),
    source=st.builds(Source, name=st.sampled_from(NAMES), dialect=st.just("d"), word=st.just("w")),
    channel=some,
    campaign_id=some,
    actor=st.none() | st.builds(Actor, kind=st.sampled_from(ACTORS)),
    test=st.booleans(),
)


def chosen(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(values), max_size=2).map(tuple)


subscriptions = st.builds(
    Subscription,
    name=st.just("s"),
    types=st.lists(st.sampled_from(PATTERNS), max_size=3).map(tuple),
    channels=chosen(NAMES),
    sources=chosen(NAMES),
    campaigns=chosen(NAMES),
    actors=chosen(ACTORS),
    test=st.none() | st.booleans(),
)


def event(type_: str, **fields: object) -> Event:
    return Event("1", type_, 0, Source("shop", "d", "w"), **fields)  # type: ignore[arg-type]


def wants(type_: str, *patterns: str) -> bool:
    return Selection(Subscription(name="s", types=patterns)).wants(event(type_))


def is_wanted(subscription: Subscription, event: Event) -> bool:
    """The filter as an operator reads it."""
    return (
        any(fnmatchcase(event.type, pattern) for pattern in subscription.types)
        and (not subscription.channels or event.channel in subscription.channels)
        and (not subscription.sources or event.source.name in subscription.sources)
        and (not subscription.campaigns or event.campaign_id in subscription.campaigns)
        and (not subscription.actors or (event.actor.kind if event.actor else "unknown") in subscription.actors)
        and (subscription.test is None or event.test is subscription.test)
    )


@given(subscriptions, st.lists(events, max_size=5))
def test_the_filter_is_what_it_reads_like(subscription: Subscription, told: list[Event]) -> None:
    selection = Selection(subscription)
    assert [selection.wants(event) for event in told] == [is_wanted(subscription, event) for event in told]


@settings(max_examples=150)
@given(st.lists(subscriptions, max_size=6), st.lists(st.lists(events, max_size=8), max_size=3))
def test_the_router_decides_as_each_filter_does(wishes: list[Subscription], batches: list[list[Event]]) -> None:
    router = Router((number, Selection(wish)) for number, wish in enumerate(wishes))
    for batch in batches:
        routed = {index: (event, targets) for index, event, targets in router.route(batch)}
        for index, told in enumerate(batch):
            wanting = tuple(number for number, wish in enumerate(wishes) if is_wanted(wish, told))
            assert routed.pop(index, (told, ())) == (told, wanting)
        assert not routed


@pytest.mark.parametrize(
    ("type_", "patterns", "expected"),
    [
        ("email.opened", ("*",), True),
        ("email.opened", ("email.*",), True),
        ("email.opened", ("sms.*", "*.opened"), True),
        ("email.first_opened", ("email.opened",), False),
        ("email.first_opened", ("email.*opened",), True),
        ("telegram_bot.opened", ("telegram*",), True),
        ("email.opened", (), False),
        ("email.opened", ("",), False),
        ("emailXopened", ("email.opened",), False),
        ("email.opened", ("EMAIL.*",), False),
        ("email.opened", ("email.(opened|clicked)",), False),
        ("email.opened", ("email.[o]pened",), False),
        ("email.opened", ("email.opene?",), False),
        ("email.opened\n", ("email.opened",), False),
    ],
)
def test_only_an_asterisk_is_a_wildcard(type_: str, patterns: tuple[str, ...], expected: bool) -> None:
    assert wants(type_, *patterns) is expected


def test_a_pattern_of_many_asterisks_holds_nobody_up() -> None:
    began = time.monotonic()
    assert not wants("a" * 40 + ".opened", "*a" * 20 + "b")
    assert wants("a" * 40 + ".opened", "*a" * 20 + "*d")
    assert time.monotonic() - began < 1


def test_an_actor_that_nobody_named_is_unknown() -> None:
    selection = Selection(Subscription(name="s", actors=("unknown",)))
    assert selection.wants(event("email.opened"))
    assert not selection.wants(event("email.opened", actor=Actor("machine")))


def test_the_routers_memory_is_bounded_and_goes_on_deciding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MEMORY_LIMIT", 10)
    router = Router([("odd", Selection(Subscription(name="s", campaigns=tuple(str(n) for n in range(1, 100, 2)))))])
    told = [event("email.opened", campaign_id=str(number)) for number in range(100)]
    assert [index for index, _, _ in router.route(told)] == list(range(1, 100, 2))
    assert len(router._memory) <= 10

"""Before events are kept: who did it is added, and what their person does not allow is taken away."""

from msgspec import structs

from aftersend.core.consent import Level, person_key
from aftersend.core.event import Actor, Event, Source
from aftersend.core.identity import make_id
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.derivation import Derivation

NOW = 1_770_000_123 * SECOND


class Levels:
    def __init__(self, **levels: Level) -> None:
        self._levels = {person_key("default", person): level for person, level in levels.items()}

    def level(self, tenant: str, key: bytes) -> Level:
        return self._levels.get(key, Level.FULL)

    def is_any_lowered(self) -> bool:
        return any(level is not Level.FULL for level in self._levels.values())

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        self._levels[person_key(tenant, person)] = level


def judged(event: Event) -> Event:
    return structs.replace(event, actor=Actor("human"))


def event(type_: str, person: str) -> Event:
    id_ = make_id(NOW, (type_ + person).encode())
    return Event(id_, type_, NOW, Source("s", "halon", "open", "v1"), recipient=person, campaign_id="c", ip="1.2.3.4")


def derive(*events: Event, **levels: Level) -> list[Event]:
    return Derivation(Levels(**levels), judged, lambda: bytes(16))(events)


def test_engagement_says_who_did_it_and_the_rest_passes_as_it_is() -> None:
    opened, delivered = event("email.opened", "ann"), event("email.delivered", "ann")
    assert derive(opened, delivered) == [judged(opened), delivered]


def test_of_a_person_who_allows_nothing_engagement_is_not_kept_but_complaints_are() -> None:
    complained = event("email.complained", "ann")
    assert derive(event("email.clicked", "ann"), complained, ann=Level.NONE) == [complained]


def test_of_a_person_who_wants_to_be_nobody_type_hour_campaign_and_link_are_kept() -> None:
    (kept,) = derive(event("email.clicked", "ann"), ann=Level.ANONYMOUS)
    assert (kept.type, kept.campaign_id, kept.recipient, kept.ip, kept.actor) == (
        "email.clicked",
        "c",
        None,
        None,
        None,
    )
    assert kept.time % (3_600 * SECOND) == 0
    assert "v1" not in repr(kept)


def test_the_levels_of_others_change_nothing() -> None:
    opened = event("email.opened", "bob")
    assert derive(opened, ann=Level.NONE) == [judged(opened)]

"""How much of an engagement may be kept: the ladder none, anonymous, full, and what each rung leaves of an event.

Levels govern engagement only: opens, clicks, reading, their firsts, pages and popups. Delivery, failure, complaint,
consent and suppression are always told in full.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from hashlib import blake2b

from aftersend.core.event import Event, Source
from aftersend.core.identity import make_id
from aftersend.core.timestamps import SECOND

HOUR = 3_600 * SECOND

GOVERNED = frozenset(("opened", "first_opened", "clicked", "first_clicked", "read", "skimmed", "glanced"))
"""What is engagement on any channel; on the channels `popup` and `web` all but consent is."""

_FIRSTS = frozenset(("first_opened", "first_clicked"))
_PAGES = frozenset(("popup", "web"))
_CONSENTING = frozenset(("subscribed", "subscription_confirmed", "unsubscribed", "complained"))


class Level(IntEnum):
    """A rung; of two levels the lower holds (`min`)."""

    NONE = 0
    """Neither stored nor counted."""
    ANONYMOUS = 1
    """Type, hour, campaign and link."""
    FULL = 2


LEVELS = {level.name.lower(): level for level in Level}
"""The levels by the words that people use."""


def is_governed(type: str) -> bool:  # noqa: A002
    """Whether a level says how much of such an event is kept."""
    channel, _, what = type.rpartition(".")
    return what in GOVERNED or (channel in _PAGES and what not in _CONSENTING)


def person_key(tenant: str, person: str) -> bytes:
    """16 bytes that stand for a person of a tenant: an address, a number, a profile or a device; case is nothing."""
    return blake2b(f"{tenant}\0{person.strip().casefold()}".encode("utf-8", "replace"), digest_size=16).digest()


def person_keys(event: Event) -> list[bytes]:
    """The keys under which the level of an event's person may be kept; of several levels the lowest holds."""
    people = (event.recipient, event.profile_id, event.device_id)
    return [person_key(event.tenant, person) for person in people if person]


def level_of(event: Event, look_up: Callable[[str, bytes], Level]) -> Level:
    """The level of an event's person, by what tells the level of a tenant's key (`contracts.People.level`)."""
    return min([look_up(event.tenant, key) for key in person_keys(event)], default=Level.FULL)


def lowered(event: Event, level: Level, key: bytes) -> Event | None:
    """What may be kept of an event at a level: all of it, type, hour, campaign and link alone, or (None) nothing.

    An anonymous event gets an id that follows from the old one by a secret `key` (16 to 64 bytes): who lacks the key
    cannot tell it from chance, and a fact that arrives twice still counts once. Its firsts are not told.
    """
    if level is Level.FULL or not is_governed(event.type):
        return event
    if level is Level.NONE or event.type.rpartition(".")[2] in _FIRSTS:
        return None
    hour = event.time - event.time % HOUR
    return Event(
        id=make_id(hour, blake2b(event.id.encode(), key=key, digest_size=16).digest()),
        type=event.type,
        time=hour,
        source=Source(event.source.name, event.source.dialect, event.source.word),
        tenant=event.tenant,
        received_at=event.received_at - event.received_at % HOUR,
        channel=event.channel,
        campaign_id=event.campaign_id,
        url=event.url,
        url_name=event.url_name,
        test=event.test,
    )

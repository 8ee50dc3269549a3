"""What survives when one vendor's events are told in another vendor's words: measured on the fixtures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from aftersend.contracts import Dialect
from aftersend.core.errors import EncodeError
from aftersend.core.event import Event, Receipt
from aftersend.core.timestamps import SECOND
from aftersend.testing.dialects import RECEIVED_AT, read_fixtures, receipt_of

FIELDS = tuple(
    name
    for name in Event.__struct_fields__
    if name not in ("id", "source", "tenant", "received_at", "suspect", "extra")
)
"""The fields that are compared; the others say where an event came from, not what happened."""


class Passage(Struct, frozen=True):
    """One vendor's events, told by another and read again."""

    heard: str
    """The dialect that the fixtures are in."""
    spoken: str
    """The dialect that they were told in, in the form that is its first."""
    events: int
    told: int
    kept: Mapping[str, tuple[int, int]]
    """For each field: how often it came back as it was, and how often it was there."""
    unspoken: Sequence[str]
    """Words of the first that the second has no counterpart for."""


def passages(dialects: Mapping[str, Dialect], fixtures: Path) -> list[Passage]:
    """Every vendor into every other, in the order of their names."""
    heard = {name: _heard(dialect, fixtures / name) for name, dialect in sorted(dialects.items())}
    return [
        _passage(name, events, dialects[other])
        for name, events in heard.items()
        for other in sorted(dialects)
        if other != name
    ]


def _heard(dialect: Dialect, folder: Path) -> list[Event]:
    """The different events of a fixture folder."""
    found = [item for fixture in read_fixtures(folder) for item in dialect.decode(receipt_of(folder, fixture))]
    return list({item.id: item for item in found if isinstance(item, Event)}.values())


def _passage(name: str, events: Sequence[Event], speaker: Dialect) -> Passage:
    pairs = [(event, again) for event in events if (again := _told_and_read(event, speaker)) is not None]
    told = {event.id for event, _ in pairs}
    unspoken = Counter(event.source.word for event in events if event.id not in told)
    spoken = {event.source.word for event, _ in pairs}
    return Passage(name, speaker.name, len(events), len(pairs), _kept(pairs), sorted(unspoken.keys() - spoken))


def _told_and_read(event: Event, speaker: Dialect) -> Event | None:
    """An event as it comes back, or None where it cannot be told."""
    if speaker.word(event) is None:
        return None
    form = speaker.forms[0] if speaker.forms else ""
    try:
        body = speaker.encode([event], form)[0]
    except EncodeError:
        return None
    found = speaker.decode(Receipt(body.data, RECEIVED_AT, form=form, content_type=body.content_type))
    return found[0] if found and isinstance(found[0], Event) else None


def _kept(pairs: Iterable[tuple[Event, Event]]) -> dict[str, tuple[int, int]]:
    kept: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for event, again in pairs:
        for name, value in _said(event).items():
            there[name] += 1
            kept[name] += _said(again).get(name) == value
    return {name: (kept[name], there[name]) for name in FIELDS if there[name]}


def _said(event: Event) -> dict[str, Any]:
    """The fields that say something; the time to the second, which is as fine as most vendors tell it."""
    fields = {name: value for name, value in structs.asdict(event).items() if name in FIELDS}
    fields["time"] = event.time // SECOND
    return {name: value for name, value in fields.items() if value not in (None, False)}

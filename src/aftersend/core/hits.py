"""A hit as it arrives: what is known of who did it, and what an operator's directory wants done with it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Flag, auto
from typing import Any

from msgspec import Struct, structs

from aftersend.core.event import Event

HITS = frozenset({"opened", "first_opened", "clicked", "first_clicked", "read", "skimmed", "glanced", "pixel_opened"})
"""What a person or a machine can do to a message or page: the last word of the types that have an actor."""

PREFETCH_HEADERS = ("sec-purpose", "purpose", "x-moz", "x-purpose")
"""Headers by which a browser says that it only looks ahead."""

_SIGNALS = "signals"


class Signals(Struct, frozen=True, gc=False):
    """What is known of a hit at the moment it arrives."""

    what: str
    """The last word of its type, e.g. `clicked`."""
    agent: str | None = None
    """The user agent; empty: it sent none; None: that is not known."""
    ip: str | None = None
    method: str = ""
    """The method of the request; empty: not known."""
    headers: Mapping[str, str] = {}
    """The prefetch headers among the request's, by their names in lower case."""
    since_sent: float | None = None
    """Seconds between the sending of the message and the hit, where that is known."""


class Treatment(Flag):
    """What is done with a hit that stands in the directory; several add up, and nothing is the rule."""

    NOTHING = 0
    WITHOUT_AGENT = auto()
    """Recorded without its user agent."""
    WITHOUT_ADDRESS = auto()
    """Recorded without its address and what was guessed from it."""
    IGNORE = auto()
    """Answered, and not recorded."""
    BLOCK = auto()
    """Answered with an error page, and not recorded."""


def what_of(event: Event) -> str:
    """What was done, where the event is a hit; else nothing."""
    _, _, what = event.type.rpartition(".")
    return what if what in HITS else ""


def noted(signals: Signals) -> dict[str, Any]:
    """What of the signals has no place in an event, for its `extra`: so a later judge sees what the first one saw."""
    note: dict[str, Any] = {}
    if signals.method and signals.method != "GET":
        note["method"] = signals.method
    headers = {name: signals.headers[name] for name in PREFETCH_HEADERS if name in signals.headers}
    if headers:
        note["headers"] = headers
    if signals.since_sent is not None:
        note["since_sent"] = signals.since_sent
    return {_SIGNALS: note} if note else {}


def note_of(event: Event) -> dict[str, Any]:
    """What was noted of a hit of our own."""
    if event.source.dialect != "aftersend" or _SIGNALS not in event.extra:
        return {}
    return {_SIGNALS: event.extra[_SIGNALS]}


def signals_of(event: Event) -> Signals:
    """What is known of a hit that was kept."""
    note = note_of(event).get(_SIGNALS, {})
    return Signals(
        what_of(event),
        event.user_agent,
        event.ip,
        note.get("method", ""),
        note.get("headers", {}),
        note.get("since_sent"),
    )


def treated(event: Event, treatment: Treatment) -> Event | None:
    """The event as the directory wants it kept; None: not at all."""
    if not treatment:
        return event
    if treatment & (Treatment.IGNORE | Treatment.BLOCK):
        return None
    if treatment & Treatment.WITHOUT_AGENT:
        event = structs.replace(event, user_agent=None)
    if treatment & Treatment.WITHOUT_ADDRESS:
        event = structs.replace(event, ip=None, geo=None)
    return event

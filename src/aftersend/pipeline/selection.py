"""Which events a subscription wants, decided once per kind of event rather than once per event."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

from msgspec import structs

from aftersend.core.event import Actor, Event
from aftersend.core.registry import Subscription
from aftersend.core.taxonomy import RECLASSIFIED

T = TypeVar("T", bound=Hashable)

_MEMORY_LIMIT = 50_000
"""Kinds of events remembered per route; past it the memory starts anew."""


class Selection:
    """A subscription's filter."""

    def __init__(self, subscription: Subscription) -> None:
        self._types = re.compile("|".join(map(_pattern, subscription.types)) or "(?!)")
        wanted: dict[str, Sequence[Any]] = {
            "channel": subscription.channels,
            "source.name": subscription.sources,
            "campaign_id": subscription.campaigns,
            "actor_kind": subscription.actors,
            "test": () if subscription.test is None else (subscription.test,),
        }
        self._fields = [(attrgetter(name), frozenset(values)) for name, values in wanted.items() if values]
        self._corrections = subscription.corrections
        names = {name for name, values in wanted.items() if values}
        self.attributes = frozenset(names | {"reclassifies", "actor_kind"} if subscription.corrections else names)
        """What the decision looks at, besides the type."""

    def wants(self, event: Event) -> bool:
        """Whether the event passes."""
        if event.type == RECLASSIFIED:
            return self._corrections and self._wants_correction(event)
        return self._passes(event)

    def _passes(self, event: Event) -> bool:
        return self._types.fullmatch(event.type) is not None and all(
            get(event) in wanted for get, wanted in self._fields
        )

    def _wants_correction(self, event: Event) -> bool:
        """Whether the hit that it is about passes, as it was thought of before or as it is now."""
        type_, was = event.reclassifies
        hit = structs.replace(event, type=type_)
        return self._passes(hit) or self._passes(structs.replace(hit, actor=Actor(was)))


def _pattern(text: str) -> str:
    """A pattern as a regular expression that never goes back behind a part it has found: many `*` take no longer."""
    first, *parts = [re.escape(part) for part in text.split("*")]
    if not parts:
        return first
    *middle, last = parts
    return first + "".join(f"(?>.*?{part})" for part in middle if part) + ".*" + last


class Router(Generic[T]):
    """Sorts events to those who want them; the cost does not grow with the number of selections.

    Events that look alike to every selection take the same way, so the decision is remembered per look.
    """

    def __init__(self, selections: Iterable[tuple[T, Selection]]) -> None:
        self._selections = list(selections)
        names = sorted({name for _, selection in self._selections for name in selection.attributes})
        self._look: Callable[[Event], Hashable] = attrgetter("type", *names)
        self._memory: dict[Hashable, tuple[T, ...]] = {}

    def route(self, events: Sequence[Event]) -> Iterable[tuple[int, Event, tuple[T, ...]]]:
        """Each event that anybody wants, with its index and who wants it, in order."""
        if not self._selections:
            return
        memory = self._memory
        for index, look in enumerate(map(self._look, events)):
            targets = memory.get(look)
            if targets is None:
                targets = self._decide(look, events[index])
            if targets:
                yield index, events[index], targets

    def _decide(self, look: Hashable, event: Event) -> tuple[T, ...]:
        if len(self._memory) >= _MEMORY_LIMIT:
            self._memory.clear()
        targets = tuple(target for target, selection in self._selections if selection.wants(event))
        self._memory[look] = targets
        return targets

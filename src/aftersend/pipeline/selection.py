"""Which events a subscription wants, decided once per kind of event rather than once per event."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

from aftersend.core.event import Event
from aftersend.core.registry import Subscription

T = TypeVar("T", bound=Hashable)

_MEMORY_LIMIT = 50_000
"""Kinds of events remembered per route; past it the memory starts anew."""


class Selection:
    """A subscription's filter."""

    def __init__(self, subscription: Subscription) -> None:
        patterns = [re.escape(pattern).replace(r"\*", ".*") for pattern in subscription.types]
        self._types = re.compile("|".join(patterns) or "(?!)")
        self._fields: list[tuple[Callable[[Any], Any], frozenset[Any]]] = []
        for name, wanted in (
            ("channel", subscription.channels),
            ("source.name", subscription.sources),
            ("campaign_id", subscription.campaigns),
        ):
            if wanted:
                self._fields.append((attrgetter(name), frozenset(wanted)))
        if subscription.actors:
            self._fields.append((_actor, frozenset(subscription.actors)))
        if subscription.test is not None:
            self._fields.append((attrgetter("test"), frozenset((subscription.test,))))
        self.attributes = frozenset(getter for getter, _ in self._fields)
        """What the decision looks at, besides the type."""

    def wants(self, event: Event) -> bool:
        """Whether the event passes."""
        return self._types.fullmatch(event.type) is not None and all(
            get(event) in wanted for get, wanted in self._fields
        )


def _actor(event: Event) -> str:
    return event.actor.kind if event.actor else "unknown"


class Router(Generic[T]):
    """Sorts events to those who want them; the cost does not grow with the number of selections.

    Events that look alike to every selection take the same way, so the decision is remembered per look.
    """

    def __init__(self, selections: Iterable[tuple[T, Selection]]) -> None:
        self._selections = list(selections)
        getters = {repr(getter): getter for _, selection in self._selections for getter in selection.attributes}
        self._getters = tuple(getters.values())
        self._memory: dict[Hashable, tuple[T, ...]] = {}

    def route(self, events: Sequence[Event]) -> Iterable[tuple[int, Event, tuple[T, ...]]]:
        """Each event that anybody wants, with its index and who wants it, in order."""
        memory, getters = self._memory, self._getters
        if not self._selections:
            return
        for index, event in enumerate(events):
            look: Hashable = (event.type, *[get(event) for get in getters]) if getters else event.type
            targets = memory.get(look)
            if targets is None:
                targets = self._decide(look, event)
            if targets:
                yield index, event, targets

    def _decide(self, look: Hashable, event: Event) -> tuple[T, ...]:
        if len(self._memory) >= _MEMORY_LIMIT:
            self._memory.clear()
        targets = tuple(target for target, selection in self._selections if selection.wants(event))
        self._memory[look] = targets
        return targets

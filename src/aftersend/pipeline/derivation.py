"""What is added to and taken from events before they are kept: who did it, and no more than their person allows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aftersend.contracts import People
from aftersend.core.consent import Level, is_governed, lowered, person_keys
from aftersend.core.event import Event

_MEMORY_LIMIT = 4_096


class Derivation:
    """Judges and lowers engagement that providers tell of; all else passes as it is."""

    def __init__(self, people: People, judge: Callable[[Event], Event], consent_key: Callable[[], bytes]) -> None:
        self._people = people
        self._judge = judge
        self._consent_key = consent_key
        self._governed: dict[str, bool] = {}

    def __call__(self, events: Sequence[Event]) -> list[Event]:
        """The events as they may be kept. Raises StoreError where a person's level cannot be read."""
        kept = []
        is_any_lowered = self._people.is_any_lowered()
        for event in events:
            if self._is_governed(event.type):
                derived = self._derived(event) if is_any_lowered else self._judge(event)
                if derived is not None:
                    kept.append(derived)
            else:
                kept.append(event)
        return kept

    def _is_governed(self, type_: str) -> bool:
        governed = self._governed.get(type_)
        if governed is None:
            governed = is_governed(type_)
            if len(self._governed) < _MEMORY_LIMIT:
                self._governed[type_] = governed
        return governed

    def _derived(self, event: Event) -> Event | None:
        level = min((self._people.level(event.tenant, key) for key in person_keys(event)), default=Level.FULL)
        event = self._judge(event)
        return event if level is Level.FULL else lowered(event, level, self._consent_key())

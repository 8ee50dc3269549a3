"""A vendor's column: its words, each with the row it stands for."""

from __future__ import annotations

from collections.abc import Mapping

from aftersend.core.event import Event
from aftersend.core.taxonomy import OTHER


class Vocabulary:
    """Words of one dialect to canonical types and back.

    Where several words mean one type, the first in the mapping is the one that is spoken.
    """

    def __init__(self, dialect: str, columns: Mapping[str, str]) -> None:
        self._dialect = dialect
        self._types = dict(columns)
        self._words: dict[str, str] = {}
        for word, type_ in columns.items():
            self._words.setdefault(type_, word)
        self._words.pop(OTHER, None)

    def type(self, word: str) -> str:
        """The canonical type of a vendor's word; `other` for an unknown one."""
        return self._types.get(word, OTHER)

    def word(self, event: Event) -> str | None:
        """The word for an event: its own where it came in this dialect, else the preferred one, else None."""
        source = event.source
        if source.dialect == self._dialect:
            return source.word
        return self._words.get(event.type)

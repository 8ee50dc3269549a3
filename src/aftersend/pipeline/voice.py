"""How one receiver is told: the dialect, its form, and whether bodies go out whole or event by event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aftersend.contracts import Dialect
from aftersend.core.event import Body, Event
from aftersend.core.outcome import Piece


@dataclass(frozen=True, slots=True)
class Voice:
    """Tells events to one kind of receiver."""

    dialect: Dialect
    form: str
    in_pieces: bool = False
    """Each event gets bytes of its own, and many of them travel together."""

    @property
    def is_single(self) -> bool:
        """Whether a body tells one event."""
        return not self.in_pieces and self.form in self.dialect.singles

    @property
    def tries(self) -> int | None:
        """How often the vendor tells an event that is not acknowledged; None: as the retry list says."""
        return self.dialect.acknowledgement.tries

    def word(self, event: Event) -> str | None:
        """The dialect's word for an event, or None: then it is not told."""
        return self.dialect.word(event)

    def encode(self, events: Sequence[Event]) -> list[Body]:
        """Events as bodies that tell consecutive runs of them."""
        if not self.in_pieces:
            return self.dialect.encode(events, self.form)
        if not events:
            return []
        pieces = tuple([self._piece(event) for event in events])
        return [Body(b"", pieces[0].content_type, len(pieces), pieces)]

    def _piece(self, event: Event) -> Piece:
        (body,) = self.dialect.encode([event], self.form)
        key = event.recipient or event.profile_id or event.device_id or event.id
        return Piece(event.id, key, event.type, body.data, body.content_type)

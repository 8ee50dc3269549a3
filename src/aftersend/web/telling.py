"""One answer's worth of events in a dialect: as many as fit, none left out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile

import msgspec

from aftersend.contracts import Dialect
from aftersend.core import canonical
from aftersend.core.errors import ConflictError
from aftersend.core.event import Body, Event

NDJSON = "application/x-ndjson"

_encode_lines = msgspec.json.Encoder().encode_lines


class Telling:
    """Encodes the events that are handed out; `data` are the bytes of those that were last found to fit."""

    def __init__(self, dialect: Dialect, form: str, most_bytes: int, *, in_lines: bool) -> None:
        """`in_lines`: canonical JSON, an event a line, rather than what the dialect says."""
        self.data = b""
        self.content_type = NDJSON
        self._dialect = dialect
        self._form = form
        self._most_bytes = most_bytes
        self._in_lines = in_lines

    def fit(self, events: Sequence[Event]) -> int:
        """How many events, from the first on, are told. Raises ConflictError where the first has no word."""
        known = len(list(takewhile(lambda event: self._dialect.word(event) is not None, events)))
        if not known:
            raise ConflictError(
                f"{self._dialect.name} has no word for the next event, {events[0].type}; ask for another dialect"
            )
        count = known
        while True:
            body = self._body(events[:count])
            if len(body.data) <= self._most_bytes or body.count == 1:
                break
            count = max(1, min(body.count - 1, body.count * self._most_bytes * 19 // (20 * len(body.data))))
        self.data, self.content_type = body.data, body.content_type
        return body.count

    def _body(self, events: Sequence[Event]) -> Body:
        if self._in_lines:
            return Body(_encode_lines([canonical.spoken(event) for event in events]), NDJSON, len(events))
        bodies = self._dialect.encode(events, self._form)
        one_by_one = all(body.count == 1 and b"\n" not in body.data for body in bodies)
        if len(bodies) == 1 or not one_by_one:
            return bodies[0]
        kind = NDJSON if "json" in bodies[0].content_type else "text/plain; charset=utf-8"
        return Body(b"".join([body.data + b"\n" for body in bodies]), kind, len(bodies))

"""The house's own JSON: every field of an event, nothing lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from aftersend.contracts import Dialect as Contract
from aftersend.core import canonical
from aftersend.core.event import Body, Event, Receipt, Rejected
from aftersend.core.members import split_json
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.core.plain import read_plain
from aftersend.core.taxonomy import ROWS

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Dialect:
    """Canonical JSON: an object, an array, or one object a line; told as an array, or as one object an event."""

    name: ClassVar[str] = "canonical"
    forms: ClassVar[tuple[str, ...]] = ("array", "object")
    columns: ClassVar[Mapping[str, str]] = {row.type: row.type for row in ROWS}
    identity_fields: ClassVar[str] = f"id; without one: {', '.join(canonical.IDENTITY_FIELDS)}"
    singles: ClassVar[frozenset[str]] = frozenset(("object",))
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200, "application/json", b"{}")
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of an object, an array or NDJSON."""
        plain = read_plain(receipt)
        if plain is not None:
            return plain  # type: ignore[return-value]
        found: list[Event | Rejected] = []
        for index, member in enumerate(split_json(receipt.body)):
            found.append(member if isinstance(member, Rejected) else canonical.read(member, index, receipt))
        return found

    def word(self, event: Event) -> str | None:
        """Everything can be told."""
        return event.type

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """One array, or each event as an object."""
        if not events:
            return []
        told = [canonical.spoken(event) for event in events]
        if form == "object":
            return [Body(_encode(one), "application/json", 1) for one in told]
        return [Body(_encode(told), "application/json", len(told))]

    def schemas(self) -> dict[str, dict[str, Any]]:
        """The schema of one event."""
        return {"event": canonical.schema()}


_proof: type[Contract] = Dialect

"""MessageGears: account activity as XML, from the queue feed and the daily files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from msgspec import structs

from aftersend.contracts import Dialect as Contract
from aftersend.core.errors import EncodeError
from aftersend.core.event import Body, Event, Receipt, Rejected
from aftersend.core.framing import Framing
from aftersend.core.options import option
from aftersend.core.outcome import Acknowledgement, Answer
from aftersend.dialects.messagegears.daily import FRAMING
from aftersend.dialects.messagegears.items import COLUMNS, ITEMS, NAME, NAMESPACE, PAGE_NAMES, SCHEMA
from aftersend.dialects.messagegears.reading import event_of, items_in, roots_of, says_stop, unsubscribed
from aftersend.dialects.messagegears.schema import json_schema
from aftersend.dialects.messagegears.speaking import is_told_by, told_as, word_of


@dataclass(frozen=True, slots=True)
class Dialect:
    """XML as the vendor's schema 3.1 has it; read in any order, with any namespace or none."""

    name: ClassVar[str] = NAME
    forms: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[Mapping[str, str]] = COLUMNS
    identity_fields: ClassVar[str] = (
        "the item's name in the schema, Timestamp, ActivityId; without an ActivityId: "
        "RequestId, CorrelationId, the recipient, RecipientId, DeviceId, Url"
    )
    singles: ClassVar[frozenset[str]] = frozenset()
    native_firsts: ClassVar[bool] = False
    answer: ClassVar[Answer] = Answer(200)
    acknowledgement: ClassVar[Acknowledgement] = Acknowledgement()
    unsaid: ClassVar[Mapping[str, frozenset[str]]] = {"sms.received": frozenset(("message_id",))}

    as_documented: bool = option(False, help="speak as the vendor's page does: its order and names, no namespace")
    sequence: Literal["events", "schema"] = option(
        "events",
        help="events: items in the order of the events; schema: a new body wherever the item types would leave the "
        "schema's sequence, which the vendor's Java SDK insists on",
    )
    body_bytes: int = option(65_536, help="largest body, unless one item is larger; the limit of the vendor's queues")

    def decode(self, receipt: Receipt) -> list[Event | Rejected]:
        """Events of ActivityItems, an AccountActivityResponse, a bare item, or the messages of an SQS answer.

        An inbound SMS that says STOP is two events: received, and unsubscribed under a word that ends in `STOP`.
        """
        found: list[Event | Rejected] = []
        index = 0
        roots = roots_of(receipt.body)
        for root in roots:
            items = root if isinstance(root, Rejected) else items_in(root)
            if isinstance(items, Rejected):
                found.append(items if len(roots) == 1 else structs.replace(items, index=index))
                index += 1
                continue
            for item in items:
                event = event_of(item, index, receipt)
                found.append(event)
                index += 1
                if type(event) is Event and event.type == "sms.received" and says_stop(event):
                    found.append(unsubscribed(event, receipt))
        return found

    def word(self, event: Event) -> str | None:
        """The item's name; an unsubscription by SMS keeps its mark."""
        word = word_of(event)
        return PAGE_NAMES.get(word, word) if word and self.as_documented and event.source.dialect != NAME else word

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]:
        """ActivityItems of at most `body_bytes`."""
        opening = b"<ActivityItems>" if self.as_documented else b'<ActivityItems xmlns="%s">' % NAMESPACE.encode()
        bodies: list[Body] = []
        parts: list[bytes] = []
        size = rank = 0
        before: Event | None = None
        for event in events:
            told, place = self.item(event, before), self._rank(event)
            if parts and told and (size + len(told) > self.body_bytes or place < rank):
                bodies.append(_body(opening, parts))
                parts, size = [], 0
            size += len(told) if parts else len(told) + len(opening) + 16
            rank, before = place, event
            parts.append(told)
        return [*bodies, _body(opening, parts)] if parts else bodies

    def item(self, event: Event, before: Event | None = None) -> bytes:
        """One event as an item, for writers of whole files; empty where `before` has told it already (STOP).

        Raises EncodeError for an event without a word.
        """
        word = self.word(event)
        if word is None:
            raise EncodeError
        if is_told_by(before, event):
            return b""
        return told_as(word, event, as_documented=self.as_documented)

    def framing(self, form: str) -> Framing:
        """Daily files, one for each type of activity, in the schema's form whatever the options say."""
        return FRAMING

    def _rank(self, event: Event) -> int:
        if self.sequence == "events":
            return 0
        item = ITEMS.get((self.word(event) or "").partition(" ")[0])
        return item.rank if item else len(SCHEMA)

    def schemas(self) -> dict[str, dict[str, Any]]:
        """One item each, its elements as an object."""
        return {name: json_schema(item) for name, item in ITEMS.items()}


def _body(opening: bytes, parts: list[bytes]) -> Body:
    return Body(opening + b"".join(parts) + b"</ActivityItems>", "application/xml", len(parts))


_proof: type[Contract] = Dialect

"""The nouns that travel: Receipt, then Event or Rejected, then Recorded."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from aftersend.core.outcome import Piece

DEFAULT_TENANT = "default"


class Source(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where an event came from."""

    name: str
    """The configured source, or the dialect where none is configured."""
    dialect: str
    word: str
    """The vendor's own word for what happened, to the letter."""
    id: str | None = None
    """The vendor's own id of the event."""


class Geo(Struct, frozen=True, gc=False, omit_defaults=True):
    """Where a person was, as the vendor guessed it from the address."""

    country: str | None = None
    region: str | None = None
    city: str | None = None
    postal_code: str | None = None
    latitude: float | None = None
    longitude: float | None = None
    timezone: str | None = None


class Failure(Struct, frozen=True, gc=False, omit_defaults=True):
    """Why a message failed: four separate answers (what, code, severity, finality), never folded into one."""

    class_: str | None = field(default=None, name="class")
    """hard, soft, block or undetermined."""
    code: int | None = None
    """MessageGears' bounce code, the common number for what went wrong."""
    category: str | None = None
    status: str | None = None
    """Enhanced status code, RFC 3463, e.g. 5.1.1."""
    reply: str | None = None
    """What the other server said."""
    final: bool | None = None
    detail: str | None = None


class Actor(Struct, frozen=True, gc=False, omit_defaults=True):
    """Who probably did it; a view that can be recomputed, not part of the fact."""

    kind: str = "unknown"
    """human, proxy, machine or unknown."""
    reasons: list[str] = []
    ruleset: str | None = None


class Event(Struct, frozen=True, gc=False, omit_defaults=True):
    """One thing that happened to a message, a person or a campaign."""

    id: str
    """UUID version 8: 48 bits of the time in ms, then a digest of the identity (`core.identity`)."""
    type: str
    """A row of the taxonomy, e.g. `email.clicked`."""
    time: int
    """When it happened: ns since 1970, UTC."""
    source: Source
    tenant: str = DEFAULT_TENANT
    received_at: int = 0
    """When it reached us: ns since 1970, UTC."""
    channel: str | None = None
    recipient: str | None = None
    """Address or number."""
    profile_id: str | None = None
    """The sender's own id of the person."""
    device_id: str | None = None
    message_id: str | None = None
    campaign_id: str | None = None
    job_id: str | None = None
    correlation_id: str | None = None
    template_id: str | None = None
    list_id: str | None = None
    category: str | None = None
    ip: str | None = None
    user_agent: str | None = None
    geo: Geo | None = None
    url: str | None = None
    url_name: str | None = None
    failure: Failure | None = None
    actor: Actor | None = None
    test: bool = False
    suspect: list[str] = []
    """Fields whose value is kept but hard to believe, e.g. `time` before the year 2000."""
    extra: dict[str, Any] = {}
    """Every vendor field without a place above, verbatim, under the vendor's name."""

    @property
    def actor_kind(self) -> str:
        """Who probably did it, in a word; `unknown` where nobody has judged."""
        return self.actor.kind if self.actor else "unknown"

    @property
    def reclassifies(self) -> tuple[str, str]:
        """Of an `event.reclassified`: the type of the hit that it is about, and who was thought to have done it."""
        return str(self.extra.get("type", "")), str(self.extra.get("was", "unknown"))


class Receipt(Struct, frozen=True):
    """Bytes that reached us, with what their credential and their way in say about them."""

    body: bytes
    received_at: int
    """ns since 1970, UTC; the first arrival's where a request repeats."""
    form: str = ""
    """The form of the dialect (`http`, `csv`, …); empty: find out."""
    tenant: str = DEFAULT_TENANT
    source: str = ""
    """Name of the configured source; empty: the dialect's name."""
    origin: str = ""
    """What makes two ways in one account; empty: the dialect's name."""
    content_type: str = ""
    file_name: str = ""
    quarantine_limit: int = 10_000
    """How many unreadable bodies of its source are kept."""
    verbatim: bool = False
    """Keep the id, tenant, source and receipt time that a canonical body names (`aftersend convert` only)."""


class Rejected(Struct, frozen=True):
    """A member of a receipt that could not be read, with the reason."""

    reason: str
    """A short code, e.g. `invalid_json`, `missing_field`, `time_out_of_range`."""
    detail: str = ""
    """One line for a person: what is wrong and where."""
    index: int | None = None
    """Which member of the receipt, from 0; None: the receipt could not be split into members at all."""
    raw: bytes = b""
    """The member's bytes."""


class Recorded(Struct, frozen=True):
    """Events of one tenant as the log holds them, at consecutive positions."""

    position: int
    """Position of the first event; the next one's is one higher."""
    tenant: str
    events: list[Event]

    @property
    def next_position(self) -> int:
        """The position after the last event."""
        return self.position + len(self.events)


class Body(Struct, frozen=True):
    """Bytes in a dialect that tell a run of consecutive events."""

    data: bytes
    content_type: str
    count: int
    """How many of the events that were given, in order, these bytes tell."""
    pieces: tuple[Piece, ...] = ()
    """For receivers that get events one by one: their bytes; then `data` is empty."""

    @property
    def size(self) -> int:
        """Bytes, of all pieces together."""
        return sum([len(piece.body) for piece in self.pieces]) if self.pieces else len(self.data)

"""What an operator registers: tenants, keys, sources, domains, sites and subscriptions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.rotation import Rotation
from aftersend.core.secret import Secret

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]
"""Lower-case letters, digits, `-`, `_` and `.`; at most 63."""

SCOPES = ("app", "ingest", "read", "deliver", "admin")
"""What a key may do: tell what an app's user did, hand events in, read, manage subscriptions, everything."""

APP_KEYS_LIMIT = 8
"""Keys of apps' tokens that a tenant can have: a token is tried on all of them."""

RETRY_SECONDS = (5, 30, 120, 300, 900, 1800, 3600, 7200, 14400, 28800, 43200)
"""Default waits between tries; the last one repeats until the subscription is disabled."""


class Tenant(Struct, frozen=True, kw_only=True):
    """One customer of this instance; nothing is ever shared between two."""

    name: Name
    number: int = 0
    """What links name it by; never given to another. 0 is the default tenant's."""
    removed_at: int = 0
    """ns since 1970, UTC; 0: it is there. A removed one keeps its number from being given away."""
    created_at: int = 0


class Key(Struct, frozen=True, kw_only=True):
    """A credential; only a hash of it is kept."""

    id: str
    tenant: Name = DEFAULT_TENANT
    name: str = ""
    scopes: tuple[str, ...] = ("ingest",)
    source: Name | None = None
    """The source that events handed in with it come from; None: one named like the key's dialect."""
    digest: str = ""
    """SHA-256 of the secret part, in hex."""
    created_at: int = 0
    revoked_at: int = 0
    """ns since 1970, UTC; 0: valid."""


class SourceRecord(Struct, frozen=True, kw_only=True):
    """A configured way in: `POST /in/{name}`."""

    name: Name
    tenant: Name = DEFAULT_TENANT
    dialect: str
    """With a form after a slash, or without: found out."""
    origin: str = ""
    """Sources of one vendor account share it, so that webhook, file and pull count once; empty: the dialect."""
    secret_digest: str = ""
    """SHA-256 of the secret that must be in the path, in a header or in Basic; empty: none is asked for."""
    secret_header: str = ""
    """Name of the header that carries the secret; empty: `X-API-Key` or `Authorization`."""
    signing_secret: Secret | None = None
    """Standard Webhooks secret (`whsec_…`) that bodies must be signed with."""
    app_key: Secret | None = None
    """What tokens (JWT) of its apps are signed with: a secret, or a public key in PEM (`core.web_tokens`)."""
    options: dict[str, Any] = {}
    """Options of the dialect."""
    quarantine_limit: int = 10_000
    """How many unreadable bodies are kept; past it the oldest goes."""
    created_at: int = 0
    enabled: bool = True


class Domain(Struct, frozen=True, kw_only=True):
    """A host that serves only the capture addresses of one tenant."""

    name: str
    tenant: Name = DEFAULT_TENANT
    number: int = 0
    """What links name it by; never given to another."""
    halon_keys: dict[str, Secret] = {}
    """Keys of Halon's links behind which this host stands, by their id (1 to 254)."""
    halon_short_keys: bool = False
    """Allow keys shorter than 16 bytes."""
    lists: dict[str, str] = {}
    """Lists that its preference page offers to end: names for people by the list's id."""
    channels: tuple[str, ...] = ("email",)
    """Channels that its preference page offers to end."""
    created_at: int = 0
    removed_at: int = 0
    """As of a tenant."""


class Stop(Struct, frozen=True, kw_only=True):
    """Links that lead nowhere any more."""

    name: Annotated[str, Meta(pattern=r"^(campaign|message|domain)/.{1,500}$")]
    """What is stopped and its name: `campaign/spring`, `message/<1@shop.example>`, `domain/old.example`."""
    tenant: Name = DEFAULT_TENANT
    created_at: int = 0


class Site(Struct, frozen=True, kw_only=True):
    """A web site whose pages tell what happens on them (`aftersend.js`)."""

    name: Name
    tenant: Name = DEFAULT_TENANT
    key: str = ""
    """Names the site in its pages; anybody can read it there, so it proves nothing."""
    origins: tuple[str, ...] = ()
    """Where its pages are, as `https://shop.example`; `https://*.shop.example` for all below (`core.origins`)."""
    created_at: int = 0
    enabled: bool = True


class Batch(Struct, frozen=True, kw_only=True):
    """How many events go out at once."""

    max_events: Annotated[int, Meta(ge=1, le=10_000)] = 500
    max_bytes: Annotated[int, Meta(ge=1_024, le=64_000_000)] = 1_000_000
    max_wait: Annotated[float, Meta(ge=0, le=3_600)] = 5.0
    """Seconds that an unfilled batch waits for more."""


class Subscription(Struct, frozen=True, kw_only=True):
    """Who gets which events, in which dialect, and how."""

    id: str = ""
    name: Name
    tenant: Name = DEFAULT_TENANT
    transport: str = "http"
    url: str = ""
    """Where to; of a transport that needs none, empty."""
    settings: dict[str, Any] = {}
    """Options of the transport, apart from the ones that stand here by name."""
    secrets: dict[str, Secret] = {}
    """Those of its options that nobody may see."""
    dialect: str = "canonical"
    types: tuple[str, ...] = ("*",)
    """Canonical types; `*` stands for any run of characters."""
    channels: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    campaigns: tuple[str, ...] = ()
    actors: tuple[str, ...] = ()
    """human, proxy, machine, unknown; empty: all."""
    verdict: Literal["at_once", "settled"] = "at_once"
    """Tell who did it as judged at once, or (that much later) as it stands when the settle window is over."""
    corrections: bool = False
    """Tell later verdicts on the wanted events too, as `event.reclassified`."""
    test: bool | None = None
    """Only test events, only real ones, or (None) both."""
    batch: Batch = Batch()
    file: Rotation = Rotation()
    """How events are put into files, where the transport carries files."""
    timeout: Annotated[float, Meta(gt=0, le=300)] = 15.0
    """Seconds for headers and body of the answer together."""
    retry: tuple[Annotated[float, Meta(ge=0, le=172_800)], ...] = RETRY_SECONDS
    disable_after: float = 259_200.0
    """Seconds of nothing but failure after which the subscription is disabled."""
    ordering: str = "log"
    """log, strict or none."""
    concurrency: Annotated[int, Meta(ge=1, le=32)] = 1
    """Requests at once, with ordering `none` only."""
    acknowledge_status: str = ""
    """`2xx` or one status; empty: as the dialect's vendor wants it."""
    acknowledge_body: str | None = None
    """A regular expression for the answer's body."""
    headers: dict[str, Secret] = {}
    """Sent along with every parcel; any of them may be a credential."""
    signing_secrets: tuple[Secret, ...] = ()
    """Standard Webhooks secrets, the newest first: `whsec_…` (HMAC) or `whsk_…` (ed25519)."""
    options: dict[str, Any] = {}
    """Options of the dialect."""
    start: str = "now"
    """now, beginning, or an RFC 3339 time: where a new subscription begins to read."""
    state: str = "active"
    """active, paused, disabled or gap."""
    reason: str = ""
    """Why it is not active, for a person."""
    failing_since: int = 0
    """When the failures began that it was last stopped amid (ns since 1970, UTC); 0: it was not failing."""
    epoch: int = 1
    created_at: int = 0


Registered = Tenant | Key | SourceRecord | Domain | Site | Stop | Subscription

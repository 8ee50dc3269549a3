"""What an address means and who follows it, whoever made the address; and the events that come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import unescape
from typing import Any

from msgspec import Struct

from aftersend.capture.clients import ClientAddresses
from aftersend.capture.exchange import Scope, peer_address
from aftersend.capture.halon_links import HalonLinks
from aftersend.capture.links import Link, Links
from aftersend.capture.tokens import Form, LinkError, Purpose, form_of, split_path
from aftersend.contracts import Clock
from aftersend.core.consent import Level
from aftersend.core.event import Event, Receipt, Source
from aftersend.core.hits import PREFETCH_HEADERS, Signals, noted
from aftersend.core.identity import event_id
from aftersend.core.taxonomy import channel_of

SOURCE = "tracking"
"""The source that hits of links come from."""
DIALECT = "aftersend"

_USER_AGENT_LIMIT = 1_000
_NONCE_BYTES = 8
_LEVELS = tuple(Level)
_SEALED = ("AAE", "AAF", "AAG", "AAH")
"""How our own sealed tokens begin: the mark's 16 bits and two of the key id."""
_NONCES_AT_ONCE = 128
_PREFETCH_HEADERS = [(name, name.encode()) for name in PREFETCH_HEADERS]


class Choices(Struct, frozen=True):
    """What a preference page offers to end."""

    lists: Mapping[str, str] = {}
    """Names for people, by the list's id."""
    channels: tuple[str, ...] = ("email",)


NO_CHOICES = Choices()


class TrackingDomain(Struct, frozen=True):
    """A tracking domain, as the endpoints need it."""

    name: str
    """The host, in lower case."""
    tenant: str
    halon: HalonLinks | None = None
    """What reads Halon's tokens there."""
    choices: Choices = Choices()


class Meaning(Struct, frozen=True, gc=False):
    """What an address means, whoever made it."""

    tenant: str
    level: Level = Level.FULL
    recipient: str = ""
    message_id: str = ""
    campaign_id: str = ""
    list_id: str = ""
    place: int = 0
    target: str = ""
    host: str = ""
    channel: str = "email"
    """Of the message that the address stands in."""
    additional: Mapping[str, Any] = {}
    """Halon's, beside its own fields."""


class Addresses:
    """Reads addresses of every form."""

    def __init__(
        self,
        links: Links,
        tenants: Mapping[int, str],
        domains: Mapping[str, TrackingDomain],
    ) -> None:
        """`tenants` by the number that links name them by, `domains` by host; both may change while they are used."""
        self._links = links
        self._tenants = tenants
        self._domains = domains

    def read(self, path: str, host: str, purpose: Purpose) -> Meaning:
        """What a path means on a host. Raises LinkError for anything that nobody here made for this purpose."""
        found, token = split_path(path)
        if found is not purpose:
            raise LinkError("malformed")
        if token.startswith(_SEALED):
            return self._meant(self._links.open(token, purpose), host)
        if form_of(token) is Form.HALON:
            return self._read_halon(token, host, purpose)
        return self._meant(self._links.open(token, purpose), host)

    def choices(self, host: str) -> Choices:
        """What the preference page of a host offers."""
        domain = self._domains.get(host)
        return domain.choices if domain is not None else NO_CHOICES

    def _meant(self, link: Link, host: str) -> Meaning:
        tenant = self._tenants.get(link.tenant)
        if tenant is None:
            raise LinkError("unknown_key")
        domain = self._domains.get(host)
        if domain is not None and domain.tenant != tenant:
            # Else a tenant could have another's name lead wherever it likes.
            raise LinkError("forged")
        return Meaning(
            tenant,
            _LEVELS[link.level],
            link.recipient,
            link.message_id,
            link.campaign_id,
            link.list_id,
            link.place,
            link.target,
            host,
        )

    def _read_halon(self, token: str, host: str, purpose: Purpose) -> Meaning:
        domain = self._domains.get(host)
        if domain is None or domain.halon is None:
            raise LinkError("unknown_key")
        if purpose not in (Purpose.CLICK, Purpose.OPEN, Purpose.UNSUBSCRIBE):
            raise LinkError("malformed")
        link = domain.halon.open(token, purpose)
        target = unescape(link.target or "")
        return Meaning(
            tenant=domain.tenant,
            recipient=link.recipient,
            message_id=link.message_id or "",
            target=target,
            host=host,
            additional=link.additional,
        )


class Visit(Struct, frozen=True, gc=False):
    """Who asks, and how."""

    method: str
    path: str
    host: str
    client: str
    headers: dict[bytes, bytes]

    @property
    def user_agent(self) -> str:
        """What the client calls itself, cut at 1,000 characters."""
        return self.headers.get(b"user-agent", b"")[:_USER_AGENT_LIMIT].decode("latin-1")

    @property
    def prefetch(self) -> dict[str, str]:
        """The headers by which a client says that nobody has asked for this yet."""
        headers = self.headers
        return {name: headers[key][:100].decode("latin-1") for name, key in _PREFETCH_HEADERS if key in headers}


def visit_of(scope: Scope, clients: ClientAddresses) -> Visit:
    """The visit of a request."""
    headers = dict(scope["headers"])
    host = headers.get(b"host", b"").decode("latin-1").lower()
    if host[-1:].isdigit() and not host.startswith("["):
        host = host.partition(":")[0]
    return Visit(scope["method"], scope["path"], host, clients.of(peer_address(scope), headers), headers)


class Witness:
    """Makes events of visits: each has a time and a nonce of its own, made on arrival."""

    def __init__(self, clock: Clock, chance: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._chance = chance
        self._receipts: dict[str, Receipt] = {}
        self._nonces: list[str] = []

    def _more_nonces(self) -> list[str]:
        """Chance is a call into the system, and cheaper by the hundred."""
        chance = self._chance(_NONCE_BYTES * _NONCES_AT_ONCE).hex()
        self._nonces = [chance[start : start + 16] for start in range(0, len(chance), 16)]
        return self._nonces

    def event(
        self,
        word: str,
        type: str,  # noqa: A002
        meaning: Meaning,
        visit: Visit,
        extra: dict[str, Any],
        *,
        list_id: str = "",
    ) -> Event:
        """What a visit to an address comes to."""
        now = self._clock()
        nonce = (self._nonces or self._more_nonces()).pop()
        prefetch = visit.prefetch
        receipt = self._receipts.get(meaning.tenant)
        if receipt is None:
            receipt = self._receipts[meaning.tenant] = Receipt(b"", 0, tenant=meaning.tenant, origin=DIALECT)
        if prefetch or visit.method != "GET":
            extra |= noted(Signals(word, method=visit.method, headers=prefetch))
        if meaning.additional:
            extra["additional"] = dict(meaning.additional)
        return Event(
            id=event_id(receipt, DIALECT, word, now, nonce),
            type=type,
            time=now,
            source=Source(SOURCE, DIALECT, word, nonce),
            tenant=meaning.tenant,
            received_at=now,
            channel=channel_of(type),
            recipient=meaning.recipient or None,
            message_id=meaning.message_id or None,
            campaign_id=meaning.campaign_id or None,
            list_id=list_id or meaning.list_id or None,
            ip=visit.client or None,
            user_agent=visit.user_agent,
            url=meaning.target or None,
            extra=extra,
        )

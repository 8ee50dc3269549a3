"""Puts the capture room of an instance together: what links mean, who is asked, where hits go."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from aftersend.capture.altcraft_api import AltcraftApi
from aftersend.capture.altcraft_callers import Callers
from aftersend.capture.beacon import Beacon
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Stop as StopKey
from aftersend.capture.endpoints import Tracking, endpoints
from aftersend.capture.halon_links import HalonLinks
from aftersend.capture.links import Links
from aftersend.capture.reading import ReadingTime
from aftersend.capture.recorder import Recorder
from aftersend.capture.relay import Relay
from aftersend.capture.rewriting import Answer, Way, answer_rewrite, domain_for, signer
from aftersend.capture.shortening import make_links
from aftersend.capture.spool import Spool
from aftersend.capture.visits import DIALECT, SOURCE, Addresses, Choices, TrackingDomain, Witness
from aftersend.config import Config
from aftersend.contracts import Clock, Entry, Log, People, References, Registry
from aftersend.core.consent import Level, person_key
from aftersend.core.errors import ConfigurationError
from aftersend.core.event import DEFAULT_TENANT, Event, Receipt, Source
from aftersend.core.hits import Treatment, treated
from aftersend.core.identity import event_id
from aftersend.core.registry import Domain, Site, SourceRecord, Stop, Tenant
from aftersend.core.taxonomy import OTHER
from aftersend.keyring import Keyring
from aftersend.telemetry import Telemetry

App = Callable[..., Any]


class Capture:
    """The capture room: its addresses by their first part, and what they work with."""

    def __init__(
        self,
        *,
        data: Path,
        config: Config,
        log: Log,
        people: People,
        references: References,
        keyring: Keyring,
        check: Callable[[str, str], str],
        judge: Callable[[Event], Event],
        treatment: Callable[[str | None, str | None], Treatment],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        """`check` gives the tenant of a key that has a scope, or raises AccessError; `judge` says who did it, and
        `treatment` what the operator wants done with hits of an agent or an address.
        """
        self.sites: dict[str, Site] = {}
        self.domains: dict[str, Domain] = {}
        self.apps: dict[str, App] = {}
        """By the first part of an address; empty until `begin`."""
        self.hits: Recorder | None = None
        self._tenants: dict[int, str] = {0: DEFAULT_TENANT}
        self._hosts: dict[str, TrackingDomain] = {}
        self._stops: set[StopKey] = set()
        self._data = data
        self._config = config
        self._log = log
        self._people = people
        self._references = references
        self._keyring = keyring
        self._check = check
        self._callers = Callers(check, clock)
        self._judge = judge
        self._treatment = treatment
        self._clock = clock
        self._telemetry = telemetry
        self._links = Links(keyring.link_key)
        self._spool: Spool | None = None
        self._relay: Relay | None = None

    def begin(self) -> Recorder:
        """Open the spool and the addresses; returns what drains the spool."""
        config, clock, telemetry = self._config, self._clock, self._telemetry
        self._spool = Spool(Path(config.spool_file or self._data / "spool"), config.spool_bytes)
        self.hits = hits = Recorder(
            log=self._log,
            spool=self._spool,
            people=self._people,
            telemetry=telemetry,
            judge=self._judge,
            treat=lambda event: treated(event, self._treatment(event.user_agent, event.ip)),
            consent_key=self.consent_key,
        )
        clients = ClientAddresses(config.trusted_proxies)
        addresses = Addresses(self._links, self._tenants, self._hosts)
        tracking = Tracking(
            addresses=addresses,
            hits=hits,
            people=self._people,
            clients=clients,
            throttle=Throttle(clock),
            witness=Witness(clock, os.urandom),
            telemetry=telemetry,
            references=self._references,
            stops=self._stops,
            is_blocked=lambda agent, client: Treatment.BLOCK in self._treatment(agent, client),
        )
        beacon = Beacon(
            sites=self.sites, hits=hits, clock=clock, chance=os.urandom, telemetry=telemetry, address_of=clients
        )
        altcraft = AltcraftApi(callers=self._callers, hits=hits, clock=clock, telemetry=telemetry, address_of=clients)
        self.apps |= {
            **endpoints(tracking),
            "r": ReadingTime(tracking, enabled=config.reading_time),
            "aftersend.js": beacon,
            "pixel.gif": beacon,
            "beacon": beacon,
            "api": altcraft,
            "event": altcraft,
        }
        return hits

    async def open_relay(self) -> None:
        """Take mail in, where that is configured. Raises ConfigurationError and UsageError."""
        settings = self._config.relay
        if not settings.listen:
            return
        self.way(settings.tenant, settings.domain)
        self._relay = Relay(
            settings,
            ways=self.way,
            login=lambda key: self._check(key, "ingest"),
            clock=self._clock,
            chance=os.urandom,
            telemetry=self._telemetry,
        )
        await self._relay.start()

    def fault(self) -> str:
        """Why a hit might be lost now, or nothing."""
        return self.hits.fault() if self.hits else ""

    def consent_key(self) -> bytes:
        """The secret that ids of anonymous events are made with."""
        return self._keyring.derive("consent", self._keyring.active_id)

    async def load(self, registry: Registry) -> None:
        """Read what is registered, anew; whoever holds the mappings sees the change."""
        self._tenants.clear()
        self._tenants.update({tenant.number: tenant.name for tenant in await registry.list(Tenant)})
        self._tenants[0] = DEFAULT_TENANT
        domains = [domain for domain in await registry.list(Domain) if not domain.removed_at]
        _refill(self.domains, {domain.name: domain for domain in domains})
        _refill(self._hosts, {domain.name: _tracking(domain) for domain in domains})
        _refill(self.sites, {site.key: site for site in await registry.list(Site)})
        self._callers.load(await registry.list(SourceRecord), self.domains)
        self._stops.clear()
        for stop in await registry.list(Stop):
            kind, _, name = stop.name.partition("/")
            self._stops.add((stop.tenant, kind, name))

    def way(self, tenant: str, domain: str = "") -> Way:
        """Whose mail is rewritten, and with whose addresses. Raises UsageError."""
        found = domain_for(self.domains.values(), tenant, domain)
        number = next(number for number, name in self._tenants.items() if name == tenant)
        sign = signer(self._links, self._keyring.active_id, f"https://{found.name}")
        return Way(number, found.number, frozenset(self.domains), sign, partial(self._level, tenant))

    def _level(self, tenant: str, person: str) -> Level:
        return self._people.level(tenant, person_key(tenant, person))

    def rewrite(self, message: bytes, query: Mapping[str, str], tenant: str) -> Answer:
        """A message with tracked links, and what was done to it. Raises UsageError and LinkError."""
        return answer_rewrite(message, query, tenant, self.way)

    async def make_links(self, asked: Any, tenant: str) -> list[str]:
        """Tracked addresses. Raises UsageError, LinkError and StoreError."""
        return await make_links(asked, lambda domain: self.way(tenant, domain), self._references, os.urandom)

    async def set_level(self, tenant: str, person: str, level: Level, before: Level) -> None:
        """Change how much a person lets us keep; the change is an event. Raises StoreError."""
        await self._people.set_level(tenant, person, level, "api")
        now, nonce = self._clock(), os.urandom(8).hex()
        event = Event(
            id=event_id(Receipt(b"", now, tenant=tenant, origin=DIALECT), DIALECT, "consent", now, nonce),
            type=OTHER,
            time=now,
            source=Source(SOURCE, DIALECT, "consent", nonce),
            tenant=tenant,
            received_at=now,
            recipient=person,
            extra={"method": "api", "level": level.name.lower(), "level_before": before.name.lower()},
        )
        await self._log.append(Entry(tenant, [event]))

    async def close(self) -> None:
        """Finish what is under way, close the relay and the spool."""
        if self._relay is not None:
            await self._relay.stop()
        if self.hits is not None:
            await self.hits.close()
        if self._spool is not None:
            await self._spool.close()


def _refill(mapping: dict[str, Any], content: dict[str, Any]) -> None:
    mapping.clear()
    mapping.update(content)


def _tracking(domain: Domain) -> TrackingDomain:
    halon = halon_of(domain) if domain.halon_keys else None
    return TrackingDomain(domain.name, domain.tenant, halon, Choices(domain.lists, domain.channels))


def halon_of(domain: Domain) -> HalonLinks:
    """What reads Halon's links on a domain. Raises ConfigurationError for a key that cannot be used."""
    try:
        keys = {int(id_): key.reveal().encode() for id_, key in domain.halon_keys.items()}
    except ValueError:
        raise ConfigurationError("halon_keys: an id is a number from 1 to 254") from None
    return HalonLinks(keys, allow_short_keys=domain.halon_short_keys)

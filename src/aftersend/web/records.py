"""What an operator registers besides subscriptions: tenants, sources, domains, sites, stops and keys."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_hex, token_urlsafe
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.core.consent import LEVELS
from aftersend.core.errors import ConflictError, NotFoundError, UsageError
from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.origins import read_origin
from aftersend.core.registry import (
    APP_KEYS_LIMIT,
    Domain,
    Key,
    Registered,
    Site,
    SourceRecord,
    Stop,
    Subscription,
    Tenant,
)
from aftersend.core.web_tokens import read_key
from aftersend.web.services import (
    Guard,
    Services,
    encode,
    reach_of,
    read_fields,
    reply,
    require_tenant,
    tenant_of,
    to_record,
)

T = TypeVar("T", Tenant, SourceRecord, Domain, Site)

_KINDS: dict[type[Any], str] = {Tenant: "tenant", SourceRecord: "source", Domain: "domain", Site: "site"}
_SITE_KEY_BYTES = 8
_SITE_FIELDS = frozenset({"tenant", "name", "origins", "enabled"})
_KEY_FIELDS = frozenset({"tenant", "name", "scopes", "source"})
_PERSON_LIMIT = 512


class Records:
    """The handlers for admins; an admin of one tenant sees and changes that tenant's records alone."""

    def __init__(self, services: Services) -> None:
        self._on = services

    def routes(self, guard: Guard) -> list[Route]:
        """Where they are served."""
        return [
            guard.route("/v1/tenants", "GET", "admin", self.list_tenants),
            guard.route("/v1/tenants", "POST", "admin", self.add_tenant),
            guard.route("/v1/tenants/{name}", "DELETE", "admin", self.remove_tenant),
            guard.route("/v1/sources", "GET", "admin", self.list_sources),
            guard.route("/v1/sources", "POST", "admin", self.add_source),
            guard.route("/v1/sources/{name}", "GET", "admin", self.show_source),
            guard.route("/v1/sources/{name}", "DELETE", "admin", self.remove_source),
            guard.route("/v1/domains", "GET", "admin", self.list_domains),
            guard.route("/v1/domains", "POST", "admin", self.add_domain),
            guard.route("/v1/domains/{name}", "DELETE", "admin", self.remove_domain),
            guard.route("/v1/sites", "GET", "admin", self.list_sites),
            guard.route("/v1/sites", "POST", "admin", self.add_site),
            guard.route("/v1/sites/{name}", "DELETE", "admin", self.remove_site),
            guard.route("/v1/stops", "GET", "deliver", self.list_stops),
            guard.route("/v1/stops", "POST", "deliver", self.add_stop),
            guard.route("/v1/stops/{name:path}", "DELETE", "deliver", self.remove_stop),
            guard.route("/v1/people", "GET", "read", self.show_level),
            guard.route("/v1/people", "PUT", "deliver", self.set_level),
            guard.route("/v1/keys", "GET", "admin", self.list_keys),
            guard.route("/v1/keys", "POST", "admin", self.add_key),
            guard.route("/v1/keys/{name}", "DELETE", "admin", self.revoke_key),
        ]

    async def _find(self, kind: type[T], request: Request, key: Key) -> T:
        name = request.path_params["name"]
        for record in await self._there(kind):
            owner = record.name if isinstance(record, Tenant) else record.tenant
            if record.name == name:
                require_tenant(key, owner)
                found: T = record
                return found
        raise NotFoundError(f"there is no {_KINDS[kind]} {name!r}")

    async def _keep_new(self, record: Tenant | SourceRecord | Domain | Site) -> None:
        """Names are taken once in the whole instance: addresses and hosts do not name a tenant."""
        kind = type(record)
        if any(item.name == record.name for item in await self._there(kind)):
            raise ConflictError(f"there is a {_KINDS[kind]} {record.name!r} already")
        await self._on.registry.put(record)

    async def _there(self, kind: type[Any], tenant: str | None = None) -> list[Any]:
        """The records of a kind that were not removed."""
        found = await self._on.registry.list(kind, tenant)
        return [record for record in found if not getattr(record, "removed_at", 0)]

    async def _next_number(self, kind: type[Tenant] | type[Domain]) -> int:
        """A number that no link of anybody else names: those of removed records count too."""
        return 1 + max((record.number for record in await self._on.registry.list(kind)), default=0)

    async def _require_known(self, tenant: str, key: Key) -> None:
        require_tenant(key, tenant)
        known = {item.name for item in await self._there(Tenant)} | {DEFAULT_TENANT}
        if tenant not in known:
            raise NotFoundError(f"there is no tenant {tenant!r}")

    # --- tenants

    async def list_tenants(self, request: Request, key: Key) -> Response:
        """The tenants; `default` is always there."""
        reach = reach_of(request, key)
        found = {tenant.name: tenant for tenant in await self._there(Tenant)}
        found.setdefault(DEFAULT_TENANT, Tenant(name=DEFAULT_TENANT))
        return reply([tenant for name, tenant in sorted(found.items()) if reach in (None, name)])

    async def add_tenant(self, request: Request, key: Key) -> Response:
        """A new tenant."""
        fields = {"name": (await read_fields(request)).get("name"), "number": await self._next_number(Tenant)}
        tenant = to_record({**fields, "created_at": self._on.clock()}, Tenant)
        require_tenant(key, tenant.name)
        await self._keep_new(tenant)
        await self._on.changed()
        return reply(tenant, 201)

    async def remove_tenant(self, request: Request, key: Key) -> Response:
        """Forget a tenant that has neither valid keys nor sources, domains, sites or subscriptions."""
        tenant = await self._find(Tenant, request, key)
        kinds: tuple[type[Any], ...] = (Subscription, SourceRecord, Domain, Site)
        holds: list[Registered] = [item for kind in kinds for item in await self._there(kind, tenant.name)]
        holds += [item for item in await self._on.registry.list(Key, tenant.name) if not item.revoked_at]
        if holds:
            raise ConflictError(f"the tenant {tenant.name} still has keys, sources, domains, sites or subscriptions")
        await self._on.registry.put(structs.replace(tenant, removed_at=self._on.clock()))
        await self._on.changed()
        return Response(status_code=204)

    # --- sources

    async def list_sources(self, request: Request, key: Key) -> Response:
        """The sources."""
        found = await self._on.registry.list(SourceRecord, reach_of(request, key))
        return reply([_without_digest(source) for source in found])

    async def show_source(self, request: Request, key: Key) -> Response:
        """One source."""
        return reply(_without_digest(await self._find(SourceRecord, request, key)))

    async def add_source(self, request: Request, key: Key) -> Response:
        """A new source; its secret is made here and shown this once. `"secret": false` makes an open one."""
        fields = await read_fields(request)
        wanted = fields.pop("secret", True)
        secret = wanted if isinstance(wanted, str) else token_urlsafe(24) if wanted else ""
        fields.setdefault("tenant", reach_of(request, key) or DEFAULT_TENANT)
        digest = sha256(secret.encode()).hexdigest() if secret else ""
        source = to_record({**fields, "secret_digest": digest, "created_at": self._on.clock()}, SourceRecord)
        dialect, _ = self._on.find_dialect(source.dialect)
        _check_options(dialect, source.options)
        await self._require_known(source.tenant, key)
        await self._check_app_key(source)
        await self._keep_new(source)
        await self._on.doors.load()
        await self._on.changed()
        path = f"/in/{source.name}" + (f"/{secret}" if secret else "")
        return reply({**_without_digest(source), "secret": secret, "path": path}, 201)

    async def remove_source(self, request: Request, key: Key) -> Response:
        """Close a source; its events stay."""
        await self._on.registry.remove(await self._find(SourceRecord, request, key))
        await self._on.doors.load()
        await self._on.changed()
        return Response(status_code=204)

    async def _check_app_key(self, source: SourceRecord) -> None:
        """Raises UsageError for a key that cannot be used, or is one too many for its tenant."""
        if source.app_key is None:
            return
        read_key(source.name, source.app_key.reveal())
        others = await self._on.registry.list(SourceRecord, source.tenant)
        if sum(other.app_key is not None for other in others) >= APP_KEYS_LIMIT:
            raise ConflictError(f"the tenant {source.tenant} has {APP_KEYS_LIMIT} sources with an app_key; remove one")

    # --- domains

    async def list_domains(self, request: Request, key: Key) -> Response:
        """The tracking domains."""
        return reply(await self._there(Domain, reach_of(request, key)))

    async def add_domain(self, request: Request, key: Key) -> Response:
        """A host that serves only links."""
        fields = {"tenant": reach_of(request, key) or DEFAULT_TENANT, **await read_fields(request)}
        fields |= {"number": await self._next_number(Domain), "created_at": self._on.clock(), "removed_at": 0}
        asked = to_record(fields, Domain)
        self._on.check_domain(asked)
        domain = structs.replace(asked, name=_host_of(asked.name))
        await self._require_known(domain.tenant, key)
        await self._keep_new(domain)
        await self._on.changed()
        return reply(domain, 201)

    async def remove_domain(self, request: Request, key: Key) -> Response:
        """Let a host go."""
        domain = await self._find(Domain, request, key)
        await self._on.registry.put(structs.replace(domain, removed_at=self._on.clock(), halon_keys={}))
        await self._on.changed()
        return Response(status_code=204)

    # --- sites

    async def list_sites(self, request: Request, key: Key) -> Response:
        """The web sites, with their keys, which are no secrets."""
        return reply(await self._on.registry.list(Site, reach_of(request, key)))

    async def add_site(self, request: Request, key: Key) -> Response:
        """A web site; its key is made here."""
        fields = {"tenant": reach_of(request, key) or DEFAULT_TENANT, **await read_fields(request)}
        if not fields.keys() <= _SITE_FIELDS:
            raise UsageError(f"a site has {', '.join(sorted(_SITE_FIELDS))}; not {min(fields.keys() - _SITE_FIELDS)}")
        asked = to_record({**fields, "key": token_hex(_SITE_KEY_BYTES), "created_at": self._on.clock()}, Site)
        if not asked.origins:
            raise UsageError("say where the site's pages are: origins, as https://shop.example")
        site = structs.replace(asked, origins=tuple(read_origin(origin) for origin in asked.origins))
        await self._require_known(site.tenant, key)
        await self._keep_new(site)
        await self._on.changed()
        return reply(site, 201)

    async def remove_site(self, request: Request, key: Key) -> Response:
        """Hear a web site no more; its events stay."""
        site = await self._find(Site, request, key)
        await self._on.registry.remove(site)
        await self._on.changed()
        return Response(status_code=204)

    # --- stops

    async def list_stops(self, request: Request, key: Key) -> Response:
        """The campaigns, messages and domains whose links lead nowhere any more."""
        return reply(await self._on.registry.list(Stop, tenant_of(request, key)))

    async def add_stop(self, request: Request, key: Key) -> Response:
        """Stop links: `{"name": "campaign/spring"}`, `message/…` or `domain/…`."""
        fields = {"name": (await read_fields(request)).get("name"), "tenant": tenant_of(request, key)}
        asked = to_record({**fields, "created_at": self._on.clock()}, Stop)
        stop = structs.replace(asked, name=_stop_name(asked.name))
        await self._on.registry.put(stop)
        await self._on.changed()
        return reply(stop, 201)

    async def remove_stop(self, request: Request, key: Key) -> Response:
        """Let links lead on again."""
        stop = Stop(name=_stop_name(request.path_params["name"]), tenant=tenant_of(request, key))
        if not await self._on.registry.remove(stop):
            raise NotFoundError(f"nothing of the name {stop.name!r} is stopped")
        await self._on.changed()
        return Response(status_code=204)

    # --- people

    async def show_level(self, request: Request, key: Key) -> Response:
        """How much a person lets us keep: `person` in the query."""
        person, tenant = request.query_params.get("person", ""), tenant_of(request, key)
        if not person:
            raise UsageError("say who: ?person=alice@example.org")
        return reply({"person": person, "level": self._on.level(tenant, person).name.lower()})

    async def set_level(self, request: Request, key: Key) -> Response:
        """Change how much a person lets us keep: `{"person": "alice@example.org", "level": "anonymous"}`."""
        fields = await read_fields(request)
        person, level = fields.get("person"), LEVELS.get(str(fields.get("level")))
        if not isinstance(person, str) or not 0 < len(person.strip()) <= _PERSON_LIMIT or level is None:
            raise UsageError(f"say who, and how much: person, and level ({', '.join(LEVELS)})")
        await self._on.set_level(tenant_of(request, key), person, level)
        return reply({"person": person, "level": level.name.lower()})

    # --- keys

    async def list_keys(self, request: Request, key: Key) -> Response:
        """The keys, without anything to guess them by."""
        reach = reach_of(request, key)
        return reply([_without_digest(item) for item in self._on.access.all_keys() if reach in (None, item.tenant)])

    async def add_key(self, request: Request, key: Key) -> Response:
        """A new key; its token is shown this once."""
        fields = {"tenant": reach_of(request, key) or DEFAULT_TENANT, **await read_fields(request)}
        if not fields.keys() <= _KEY_FIELDS:
            raise UsageError(f"a key has {', '.join(sorted(_KEY_FIELDS))}; not {min(fields.keys() - _KEY_FIELDS)}")
        asked = to_record({"id": "", **fields}, Key)
        await self._require_known(asked.tenant, key)
        made, token = await self._on.access.create(asked.tenant, asked.name, asked.scopes, asked.source)
        return reply({**_without_digest(made), "key": token}, 201)

    async def revoke_key(self, request: Request, key: Key) -> Response:
        """Make a key worthless; it stays in the list."""
        id_ = request.path_params["name"]
        require_tenant(key, self._on.access.find(id_).tenant)
        return reply(_without_digest(await self._on.access.revoke(id_)))


def _host_of(text: str) -> str:
    """A host as requests and links name it: in ASCII and lower case. Raises UsageError."""
    name = text.strip().lower().rstrip(".")
    if not name or len(name) > 253 or not name.isascii() or any(mark in name for mark in "/:@ \t\n"):
        raise UsageError(f"{text!r} is not a host name; write it in ASCII (xn--…), as shop.example")
    return name


def _stop_name(name: str) -> str:
    """What is stopped; hosts are compared in lower case."""
    kind, _, what = name.partition("/")
    return f"domain/{_host_of(what)}" if kind == "domain" else name


def _check_options(dialect: Any, options: dict[str, Any]) -> None:
    try:
        msgspec.convert(options, type(dialect))
    except msgspec.ValidationError as error:
        raise UsageError(f"options of {dialect.name}: {error}") from None


def _without_digest(record: Struct) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(encode(record))
    fields.pop("digest", None)
    fields.pop("secret_digest", None)
    return fields

"""What an operator registers besides subscriptions: tenants, sources, domains and keys."""

from __future__ import annotations

from hashlib import sha256
from secrets import token_urlsafe
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.core.errors import ConflictError, NotFoundError, UsageError
from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.registry import Domain, Key, Registered, SourceRecord, Subscription, Tenant
from aftersend.web.services import Guard, Services, encode, reach_of, read_fields, reply, require_tenant, to_record

T = TypeVar("T", Tenant, SourceRecord, Domain)

_KINDS: dict[type[Any], str] = {Tenant: "tenant", SourceRecord: "source", Domain: "domain"}
_KEY_FIELDS = frozenset({"tenant", "name", "scopes", "source"})


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
            guard.route("/v1/keys", "GET", "admin", self.list_keys),
            guard.route("/v1/keys", "POST", "admin", self.add_key),
            guard.route("/v1/keys/{name}", "DELETE", "admin", self.revoke_key),
        ]

    async def _find(self, kind: type[T], request: Request, key: Key) -> T:
        name = request.path_params["name"]
        for record in await self._on.registry.list(kind, None):
            owner = record.name if isinstance(record, Tenant) else record.tenant
            if record.name == name:
                require_tenant(key, owner)
                return record
        raise NotFoundError(f"there is no {_KINDS[kind]} {name!r}")

    async def _keep_new(self, record: Tenant | SourceRecord | Domain) -> None:
        """Names are taken once in the whole instance: addresses and hosts do not name a tenant."""
        kind = type(record)
        if any(item.name == record.name for item in await self._on.registry.list(kind)):
            raise ConflictError(f"there is a {_KINDS[kind]} {record.name!r} already")
        await self._on.registry.put(record)

    async def _require_known(self, tenant: str, key: Key) -> None:
        require_tenant(key, tenant)
        known = {item.name for item in await self._on.registry.list(Tenant)} | {DEFAULT_TENANT}
        if tenant not in known:
            raise NotFoundError(f"there is no tenant {tenant!r}")

    # --- tenants

    async def list_tenants(self, request: Request, key: Key) -> Response:
        """The tenants; `default` is always there."""
        reach = reach_of(request, key)
        found = {tenant.name: tenant for tenant in await self._on.registry.list(Tenant)}
        found.setdefault(DEFAULT_TENANT, Tenant(name=DEFAULT_TENANT))
        return reply([tenant for name, tenant in sorted(found.items()) if reach in (None, name)])

    async def add_tenant(self, request: Request, key: Key) -> Response:
        """A new tenant."""
        tenant = to_record({**await read_fields(request), "created_at": self._on.clock()}, Tenant)
        require_tenant(key, tenant.name)
        await self._keep_new(tenant)
        return reply(tenant, 201)

    async def remove_tenant(self, request: Request, key: Key) -> Response:
        """Forget a tenant that has neither valid keys nor sources, domains or subscriptions."""
        tenant = await self._find(Tenant, request, key)
        kinds: tuple[type[Any], ...] = (Subscription, SourceRecord, Domain)
        holds: list[Registered] = [item for kind in kinds for item in await self._on.registry.list(kind, tenant.name)]
        holds += [item for item in await self._on.registry.list(Key, tenant.name) if not item.revoked_at]
        if holds:
            raise ConflictError(f"the tenant {tenant.name} still has keys, sources, domains or subscriptions")
        await self._on.registry.remove(tenant)
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
        await self._keep_new(source)
        await self._on.doors.load()
        path = f"/in/{source.name}" + (f"/{secret}" if secret else "")
        return reply({**_without_digest(source), "secret": secret, "path": path}, 201)

    async def remove_source(self, request: Request, key: Key) -> Response:
        """Close a source; its events stay."""
        await self._on.registry.remove(await self._find(SourceRecord, request, key))
        await self._on.doors.load()
        return Response(status_code=204)

    # --- domains

    async def list_domains(self, request: Request, key: Key) -> Response:
        """The tracking domains."""
        return reply(await self._on.registry.list(Domain, reach_of(request, key)))

    async def add_domain(self, request: Request, key: Key) -> Response:
        """A host that serves only links."""
        fields = {"tenant": reach_of(request, key) or DEFAULT_TENANT, **await read_fields(request)}
        asked = to_record({**fields, "created_at": self._on.clock()}, Domain)
        name = asked.name.strip().lower().rstrip(".")
        if not name or len(name) > 253 or any(mark in name for mark in "/:@ \t\n"):
            raise UsageError(f"{asked.name!r} is not a host name")
        domain = structs.replace(asked, name=name)
        await self._require_known(domain.tenant, key)
        await self._keep_new(domain)
        self._on.domains[name] = domain
        return reply(domain, 201)

    async def remove_domain(self, request: Request, key: Key) -> Response:
        """Let a host go."""
        domain = await self._find(Domain, request, key)
        await self._on.registry.remove(domain)
        self._on.domains.pop(domain.name, None)
        return Response(status_code=204)

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

"""The API under `/v1`: what an operator registers and what the log holds."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from secrets import token_bytes, token_hex, token_urlsafe
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aftersend import __version__
from aftersend.contracts import Clock, Cursors, Deliveries, Log, Quarantine, Registry, Replay
from aftersend.core.errors import AftersendError, ConflictError, NotFoundError, ScopeError, UsageError
from aftersend.core.event import DEFAULT_TENANT, Event
from aftersend.core.registry import Domain, Key, Registered, SourceRecord, Subscription, Tenant
from aftersend.core.secret import Secret, mask, read_secret
from aftersend.telemetry import Telemetry
from aftersend.web.access import LOCAL, Access
from aftersend.web.bodies import read_body
from aftersend.web.doors import DialectFinder, Doors, fault_of

PAGE = 500
"""Most entries of one page of a list."""

STREAMS = 64
"""Most event streams at once; one more is answered 503."""

T = TypeVar("T", bound=Registered)
S = TypeVar("S", bound=Struct)
Handler = Callable[[Request], Awaitable[Response]]

_encode = msgspec.json.Encoder(enc_hook=mask).encode


class Services(Struct, frozen=True):
    """What the API works on."""

    log: Log
    registry: Registry
    cursors: Cursors
    quarantine: Quarantine
    deliveries: Deliveries
    access: Access
    doors: Doors
    domains: dict[str, Domain]
    find_dialect: DialectFinder
    check_subscription: Callable[[Subscription], Awaitable[None]]
    """Raises UsageError or EgressError for a subscription that cannot work."""
    replay_quarantined: Callable[[str | None, int], Awaitable[dict[str, int]]]
    clock: Clock
    telemetry: Telemetry
    ready: Callable[[], str]
    """Why this instance is not ready, or nothing."""


class Api:
    """The handlers; each checks the key's scope and keeps to its tenant."""

    def __init__(self, services: Services) -> None:
        self._on = services
        self._streams = 0

    def app(self) -> Starlette:
        """The Starlette application."""
        routes = [
            Route("/healthz", self._plain(self.get_health), methods=["GET"]),
            Route("/readyz", self._plain(self.get_ready), methods=["GET"]),
            Route("/metrics", self._for("read", self.get_metrics), methods=["GET"]),
            Route("/v1/events", self._for("read", self.get_events), methods=["GET"]),
            Route("/v1/stream", self._for("read", self.get_stream), methods=["GET"]),
            Route("/v1/subscriptions", self._for("deliver", self.get_subscriptions), methods=["GET"]),
            Route("/v1/subscriptions", self._for("deliver", self.post_subscription), methods=["POST"]),
            Route("/v1/subscriptions/{name}", self._for("deliver", self.get_subscription), methods=["GET"]),
            Route("/v1/subscriptions/{name}", self._for("deliver", self.patch_subscription), methods=["PATCH"]),
            Route("/v1/subscriptions/{name}", self._for("deliver", self.delete_subscription), methods=["DELETE"]),
            Route("/v1/subscriptions/{name}/aside", self._for("deliver", self.get_aside), methods=["GET"]),
            Route("/v1/subscriptions/{name}/aside/retry", self._for("deliver", self.retry_aside), methods=["POST"]),
            Route("/v1/subscriptions/{name}/retry", self._for("deliver", self.retry_now), methods=["POST"]),
            Route("/v1/subscriptions/{name}/replay", self._for("deliver", self.post_replay), methods=["POST"]),
            Route("/v1/subscriptions/{name}/replay", self._for("deliver", self.get_replays), methods=["GET"]),
            Route("/v1/subscriptions/{name}/manifest", self._for("deliver", self.get_manifest), methods=["GET"]),
            Route("/v1/tenants", self._for("admin", self.get_tenants), methods=["GET"]),
            Route("/v1/tenants", self._for("admin", self.post_tenant), methods=["POST"]),
            Route("/v1/tenants/{name}", self._for("admin", self.delete_tenant), methods=["DELETE"]),
            Route("/v1/sources", self._for("admin", self.get_sources), methods=["GET"]),
            Route("/v1/sources", self._for("admin", self.post_source), methods=["POST"]),
            Route("/v1/sources/{name}", self._for("admin", self.get_source), methods=["GET"]),
            Route("/v1/sources/{name}", self._for("admin", self.delete_source), methods=["DELETE"]),
            Route("/v1/domains", self._for("admin", self.get_domains), methods=["GET"]),
            Route("/v1/domains", self._for("admin", self.post_domain), methods=["POST"]),
            Route("/v1/domains/{name}", self._for("admin", self.delete_domain), methods=["DELETE"]),
            Route("/v1/keys", self._for("admin", self.get_keys), methods=["GET"]),
            Route("/v1/keys", self._for("admin", self.post_key), methods=["POST"]),
            Route("/v1/keys/{name}", self._for("admin", self.delete_key), methods=["DELETE"]),
            Route("/v1/quarantine", self._for("read", self.get_quarantine), methods=["GET"]),
            Route("/v1/quarantine/replay", self._for("admin", self.replay_quarantine), methods=["POST"]),
            Route("/v1/quarantine/discard", self._for("admin", self.discard_quarantined), methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _http_fault})

    # --- who asks

    def _plain(self, handler: Handler) -> Handler:
        return handler

    def _for(self, scope: str, handler: Callable[[Request, Key], Awaitable[Response]]) -> Handler:
        async def guarded(request: Request) -> Response:
            try:
                return await handler(request, self._key(request, scope))
            except AftersendError as error:
                answer = fault_of(error)
                status = 409 if isinstance(error, ConflictError) else answer.status
                return Response(answer.body, status, media_type=answer.content_type)

        return guarded

    def _key(self, request: Request, scope: str) -> Key:
        if "aftersend.local" in request.scope:
            return LOCAL
        header = request.headers.get("authorization")
        return self._on.access.of_header(header.encode("latin-1") if header else None, scope)

    def _tenant(self, request: Request, key: Key) -> str:
        """The tenant a request is about: the key's own; another one only with an admin key."""
        asked = request.query_params.get("tenant") or request.headers.get("aftersend-tenant")
        if asked is None or asked == key.tenant:
            return key.tenant
        if "admin" not in key.scopes or key.tenant != DEFAULT_TENANT:
            raise ScopeError(f"the key {key.id} belongs to the tenant {key.tenant}")
        return asked

    async def _json(self, request: Request, type_: type[S]) -> S:
        headers = dict(request.scope["headers"])
        body = await read_body(request.receive, headers)
        try:
            return msgspec.json.decode(body or b"{}", type=type_, dec_hook=read_secret)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UsageError(f"the body cannot be read: {error}") from None

    # --- the process

    async def get_health(self, request: Request) -> Response:
        """Alive."""
        return _reply({"status": "ok", "version": __version__})

    async def get_ready(self, request: Request) -> Response:
        """Ready to keep events, or why not."""
        reason = self._on.ready()
        return _reply({"status": "not ready" if reason else "ready", "reason": reason}, 503 if reason else 200)

    async def get_metrics(self, request: Request, key: Key) -> Response:
        """Figures for Prometheus."""
        return Response(self._on.telemetry.text(), media_type="text/plain; version=0.0.4")

    # --- events

    async def get_events(self, request: Request, key: Key) -> Response:
        """Events of the tenant from a position on (`after`), at most `limit`; with `wait`, waits so many seconds."""
        after = _number(request, "after", self._on.log.tail())
        limit = min(_number(request, "limit", 100), PAGE)
        seconds = min(_number(request, "wait", 0), 60)
        if seconds and after >= self._on.log.head():
            try:
                await asyncio.wait_for(self._on.log.wait(after), seconds)
            except TimeoutError:
                pass
        events, position = await self._read(after, limit, self._tenant(request, key))
        dialect, form = self._on.find_dialect(request.query_params.get("dialect", "canonical"))
        if dialect.name == "canonical":
            data = b"".join(body.data for body in dialect.encode(events, form)) or b"[]"
            return Response(b'{"next":%d,"events":%s}' % (position, data), media_type="application/json")
        told = [event for event in events if dialect.word(event) is not None]
        bodies = dialect.encode(told, form)
        return Response(
            b"\n".join(body.data for body in bodies),
            media_type=bodies[0].content_type if bodies else "text/plain",
            headers={"aftersend-next": str(position)},
        )

    async def _read(self, position: int, limit: int, tenant: str) -> tuple[list[Event], int]:
        events: list[Event] = []
        while len(events) < limit:
            chunks = await self._on.log.read(position, limit)
            if not chunks:
                break
            for chunk in chunks:
                if chunk.tenant != tenant:
                    position = chunk.next_position
                    continue
                room = limit - len(events)
                events.extend(chunk.events[:room])
                position = min(chunk.next_position, chunk.position + room)
                if len(events) >= limit:
                    break
        return events, position

    async def get_stream(self, request: Request, key: Key) -> Response:
        """Events as they arrive, as server-sent events; `Last-Event-ID` goes on from a position."""
        if self._streams >= STREAMS:
            return _reply({"error": "busy", "detail": f"{STREAMS} streams are open already"}, 503)
        last = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        position = int(last) if last.isdecimal() else self._on.log.head()
        stream = self._stream(position, self._tenant(request, key))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _stream(self, position: int, tenant: str) -> AsyncIterator[bytes]:
        self._streams += 1
        canonical, form = self._on.find_dialect("canonical")
        try:
            while True:
                try:
                    await asyncio.wait_for(self._on.log.wait(position), 15)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                events, position = await self._read(position, PAGE, tenant)
                for event in events:
                    (body,) = canonical.encode([event], form)
                    yield b"id: %d\nevent: %s\ndata: %s\n\n" % (position, event.type.encode(), body.data[1:-1])
        finally:
            self._streams -= 1

    # --- subscriptions

    async def _subscription(self, request: Request, key: Key) -> Subscription:
        name = request.path_params["name"]
        for subscription in await self._on.registry.list(Subscription, self._tenant(request, key)):
            if name in (subscription.id, subscription.name):
                return subscription
        raise NotFoundError(f"there is no subscription {name!r}")

    def _shown(self, subscription: Subscription) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.json.decode(_encode(subscription))
        return {**shown, "standing": self._on.deliveries.standing(subscription)}

    async def get_subscriptions(self, request: Request, key: Key) -> Response:
        """All subscriptions of the tenant, each with how it does."""
        found = await self._on.registry.list(Subscription, self._tenant(request, key))
        return _reply([self._shown(subscription) for subscription in found])

    async def post_subscription(self, request: Request, key: Key) -> Response:
        """A new subscription; with HTTP, a signing secret is made and shown this once unless one was given."""
        asked = await self._json(request, Subscription)
        tenant = self._tenant(request, key)
        if any(item.name == asked.name for item in await self._on.registry.list(Subscription, tenant)):
            raise ConflictError(f"there is a subscription {asked.name!r} already")
        given = bool(asked.signing_secrets)
        secrets = asked.signing_secrets or (_signing_secret(),)
        now = self._on.clock()
        subscription = structs.replace(
            asked,
            id="sub_" + token_hex(8),
            tenant=tenant,
            created_at=now,
            signing_secrets=secrets,
            epoch=1,
            state=asked.state if asked.state in ("active", "paused") else "active",
            reason="",
        )
        await self._on.check_subscription(subscription)
        kept = await self._on.deliveries.apply(subscription)
        shown = self._shown(kept)
        if not given:
            shown["signing_secrets"] = [secret.reveal() for secret in secrets]
        return _reply(shown, 201)

    async def get_subscription(self, request: Request, key: Key) -> Response:
        """One subscription."""
        return _reply(self._shown(await self._subscription(request, key)))

    async def patch_subscription(self, request: Request, key: Key) -> Response:
        """Change fields; a new filter or dialect begins a new epoch. `state`: active or paused."""
        before = await self._subscription(request, key)
        changes = await self._fields(request)
        fixed = {"id", "tenant", "created_at", "epoch", "reason"} & changes.keys()
        if fixed:
            raise UsageError(f"{min(fixed)} cannot be changed")
        after = _changed(before, changes)
        if after.state not in ("active", "paused"):
            raise UsageError("state is active or paused")
        await self._on.check_subscription(after)
        return _reply(self._shown(await self._on.deliveries.apply(after)))

    async def _fields(self, request: Request) -> dict[str, Any]:
        body = await read_body(request.receive, dict(request.scope["headers"]))
        try:
            fields = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UsageError(f"the body cannot be read: {error}") from None
        if not isinstance(fields, dict):
            raise UsageError("the body is not a JSON object")
        return fields

    async def delete_subscription(self, request: Request, key: Key) -> Response:
        """End a subscription for good."""
        await self._on.deliveries.drop(await self._subscription(request, key))
        return Response(status_code=204)

    async def get_aside(self, request: Request, key: Key) -> Response:
        """Events that left the line, with their tries and the receiver's last word."""
        subscription = await self._subscription(request, key)
        found = await self._on.cursors.list_set_aside(subscription.id, PAGE)
        canonical, _ = self._on.find_dialect("canonical")
        shown = []
        for item in found:
            (body,) = canonical.encode([item.event])
            fields: dict[str, Any] = msgspec.to_builtins(item)
            fields["event"] = msgspec.json.decode(body.data)[0]
            shown.append(fields)
        return _reply(shown)

    async def retry_aside(self, request: Request, key: Key) -> Response:
        """Try all events set aside again, the failed ones too."""
        subscription = await self._subscription(request, key)
        found = await self._on.cursors.list_set_aside(subscription.id, 10_000)
        now = self._on.clock()
        again = [structs.replace(item, next_at=now, attempts=0, state="late") for item in found]
        await self._on.cursors.settle(subscription.id, [], again)
        await self._on.deliveries.apply(subscription)
        return _reply({"again": len(again)})

    async def retry_now(self, request: Request, key: Key) -> Response:
        """Do not wait for the next try."""
        self._on.deliveries.retry_now(await self._subscription(request, key))
        return Response(status_code=202)

    async def post_replay(self, request: Request, key: Key) -> Response:
        """Tell events again: `since`, `until`, `types`, `rate`, `dry_run`."""
        subscription = await self._subscription(request, key)
        order = await self._json(request, Replay)
        replay = await self._on.deliveries.replay(subscription, order)
        return _reply(replay, 200 if order.dry_run else 202)

    async def get_replays(self, request: Request, key: Key) -> Response:
        """Replays of this subscription since the process began."""
        return _reply(self._on.deliveries.replays(await self._subscription(request, key)))

    async def get_manifest(self, request: Request, key: Key) -> Response:
        """What was told on a day (`day=YYYY-MM-DD`), or on every day."""
        subscription = await self._subscription(request, key)
        return _reply(await self._on.cursors.manifests(subscription.id, request.query_params.get("day", "")))

    # --- tenants, sources, domains, keys

    async def _named(self, kind: type[T], name: str) -> T:
        for record in await self._on.registry.list(kind):
            if getattr(record, "name", None) == name:
                return record
        raise NotFoundError(f"there is no {_KINDS[kind]} {name!r}")

    async def _new(self, record: Registered, kind: type[Any], name: str) -> None:
        if any(item.name == name for item in await self._on.registry.list(kind)):
            raise ConflictError(f"there is a {_KINDS[kind]} {name!r} already")
        await self._on.registry.put(record)

    async def _require_tenant(self, tenant: str) -> None:
        if tenant != DEFAULT_TENANT:
            await self._named(Tenant, tenant)

    async def get_tenants(self, request: Request, key: Key) -> Response:
        """All tenants; `default` is always there."""
        found = await self._on.registry.list(Tenant)
        names = {tenant.name for tenant in found}
        return _reply([*([] if DEFAULT_TENANT in names else [Tenant(name=DEFAULT_TENANT)]), *found])

    async def post_tenant(self, request: Request, key: Key) -> Response:
        """A new tenant."""
        asked = await self._json(request, Tenant)
        tenant = structs.replace(asked, created_at=self._on.clock())
        await self._new(tenant, Tenant, tenant.name)
        return _reply(tenant, 201)

    async def delete_tenant(self, request: Request, key: Key) -> Response:
        """Forget a tenant that has neither keys nor sources nor subscriptions."""
        tenant = await self._named(Tenant, request.path_params["name"])
        holds: list[Registered] = [*await self._on.registry.list(Subscription, tenant.name)]
        holds += await self._on.registry.list(SourceRecord, tenant.name)
        holds += [item for item in await self._on.registry.list(Key, tenant.name) if not item.revoked_at]
        if holds:
            raise ConflictError(f"the tenant {tenant.name} still has keys, sources or subscriptions; remove them first")
        await self._on.registry.remove(tenant)
        return Response(status_code=204)

    async def get_sources(self, request: Request, key: Key) -> Response:
        """All sources."""
        return _reply([_without_digest(source) for source in await self._on.registry.list(SourceRecord)])

    async def get_source(self, request: Request, key: Key) -> Response:
        """One source."""
        return _reply(_without_digest(await self._named(SourceRecord, request.path_params["name"])))

    async def post_source(self, request: Request, key: Key) -> Response:
        """A new source; its secret is made here and shown this once (`"secret": false` makes an open one)."""
        fields = await self._fields(request)
        wants_secret = fields.pop("secret", True)
        secret = wants_secret if isinstance(wants_secret, str) else token_urlsafe(24) if wants_secret else ""
        digest = sha256(secret.encode()).hexdigest() if secret else ""
        fields |= {"secret_digest": digest, "created_at": self._on.clock()}
        fields.setdefault("tenant", self._tenant(request, key))
        try:
            source = msgspec.convert(fields, SourceRecord, dec_hook=read_secret)
        except msgspec.ValidationError as error:
            raise UsageError(f"the source cannot be kept: {error}") from None
        self._on.find_dialect(source.dialect)
        await self._require_tenant(source.tenant)
        await self._new(source, SourceRecord, source.name)
        await self._on.doors.load()
        path = f"/in/{source.name}" + (f"/{secret}" if secret else "")
        return _reply({**_without_digest(source), "secret": secret, "path": path}, 201)

    async def delete_source(self, request: Request, key: Key) -> Response:
        """Close a source; its events stay."""
        await self._on.registry.remove(await self._named(SourceRecord, request.path_params["name"]))
        await self._on.doors.load()
        return Response(status_code=204)

    async def get_domains(self, request: Request, key: Key) -> Response:
        """All tracking domains."""
        return _reply(await self._on.registry.list(Domain))

    async def post_domain(self, request: Request, key: Key) -> Response:
        """A host that serves only links."""
        asked = await self._json(request, Domain)
        name = asked.name.strip().lower().rstrip(".")
        if not name or any(mark in name for mark in "/:@ "):
            raise UsageError(f"{asked.name!r} is not a host name")
        domain = structs.replace(asked, name=name, created_at=self._on.clock())
        await self._require_tenant(domain.tenant)
        await self._new(domain, Domain, name)
        self._on.domains[name] = domain
        return _reply(domain, 201)

    async def delete_domain(self, request: Request, key: Key) -> Response:
        """Let a host go."""
        domain = await self._named(Domain, request.path_params["name"])
        await self._on.registry.remove(domain)
        self._on.domains.pop(domain.name, None)
        return Response(status_code=204)

    async def get_keys(self, request: Request, key: Key) -> Response:
        """All keys, without anything to guess them by."""
        return _reply([_without_digest(item) for item in self._on.access.everything()])

    async def post_key(self, request: Request, key: Key) -> Response:
        """A new key; its token is shown this once."""
        fields = await self._fields(request)
        asked = msgspec.convert({"id": "", **fields}, Key) if _is_key(fields) else None
        if asked is None:
            raise UsageError("a key has tenant, name, scopes and source, all texts (scopes: a list)")
        await self._require_tenant(asked.tenant)
        if key.tenant not in (DEFAULT_TENANT, asked.tenant):
            raise ScopeError(f"the key {key.id} belongs to the tenant {key.tenant}")
        made, token = await self._on.access.create(asked.tenant, asked.name, asked.scopes, asked.source)
        return _reply({**_without_digest(made), "key": token}, 201)

    async def delete_key(self, request: Request, key: Key) -> Response:
        """Revoke a key; it stays in the list."""
        return _reply(_without_digest(await self._on.access.revoke(request.path_params["name"])))

    # --- quarantine

    async def get_quarantine(self, request: Request, key: Key) -> Response:
        """Bytes that could not be read, with the reason; `body` is text where it is UTF-8, else base64."""
        after = _number(request, "after", 0)
        limit = min(_number(request, "limit", 100), PAGE)
        found = await self._on.quarantine.list_quarantined(self._tenant(request, key), limit, after)
        return _reply([{"number": number, **_printable(entry)} for number, entry in found])

    async def replay_quarantine(self, request: Request, key: Key) -> Response:
        """Read everything in quarantine again, after a fix."""
        return _reply(await self._on.replay_quarantined(request.query_params.get("tenant"), 100_000))

    async def discard_quarantined(self, request: Request, key: Key) -> Response:
        """Forget entries by number."""
        fields = await self._fields(request)
        numbers = fields.get("numbers")
        if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
            raise UsageError('say which: {"numbers": [1, 2]}')
        await self._on.quarantine.discard(numbers)
        return Response(status_code=204)


_KINDS: dict[type[Any], str] = {
    Tenant: "tenant",
    SourceRecord: "source",
    Domain: "domain",
}


def _reply(value: Any, status: int = 200) -> Response:
    return Response(_encode(value), status, media_type="application/json")


async def _http_fault(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    reason = {404: "not_found", 405: "method_not_allowed"}.get(status, "error")
    return _reply({"error": reason, "detail": f"{request.method} {request.url.path} is not served here"}, status)


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isdecimal() or len(text) > 18:
        raise UsageError(f"{name} is not a number: {text!r}")
    return int(text)


def _signing_secret() -> Secret:
    return Secret("whsec_" + b64encode(token_bytes(32)).decode())


def _changed(before: Subscription, changes: dict[str, Any]) -> Subscription:
    """The record with some fields anew."""
    fields = {name: getattr(before, name) for name in before.__struct_fields__}
    reveal = msgspec.to_builtins(fields, enc_hook=lambda secret: secret.reveal())
    unknown = sorted(changes.keys() - fields.keys())
    if unknown:
        raise UsageError(f"a subscription has no field {unknown[0]!r}")
    try:
        return msgspec.convert({**reveal, **changes}, Subscription, dec_hook=read_secret)
    except msgspec.ValidationError as error:
        raise UsageError(f"the subscription cannot be kept: {error}") from None


def _without_digest(record: Struct) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.json.decode(_encode(record))
    fields.pop("digest", None)
    fields.pop("secret_digest", None)
    return fields


def _is_key(fields: dict[str, Any]) -> bool:
    try:
        msgspec.convert({"id": "", **fields}, Key)
    except msgspec.ValidationError:
        return False
    return not {"id", "digest", "created_at", "revoked_at"} & fields.keys()


def _printable(entry: Struct) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(entry, name) for name in entry.__struct_fields__}
    try:
        fields["body"] = fields["body"].decode()
    except UnicodeDecodeError:
        pass
    return fields

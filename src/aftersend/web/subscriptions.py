"""Subscriptions: who gets which events, how they do, and what left the line."""

from __future__ import annotations

from secrets import token_bytes, token_hex
from typing import Any

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.contracts import Replay, SetAside
from aftersend.core.errors import ConflictError, NotFoundError, UsageError
from aftersend.core.registry import Key, Subscription
from aftersend.core.secret import Secret
from aftersend.core.signing import SECRET_BYTES, format_secret
from aftersend.web.services import PAGE, Guard, Services, encode, read_fields, read_json, reply, tenant_of, to_record

_FIXED = frozenset({"id", "tenant", "created_at", "epoch", "reason", "failing_since"})
_ASIDE_LIMIT = 10_000


class Subscriptions:
    """The handlers for those who deliver."""

    def __init__(self, services: Services) -> None:
        self._on = services

    def routes(self, guard: Guard) -> list[Route]:
        """Where they are served."""
        one = "/v1/subscriptions/{name}"
        return [
            guard.route("/v1/subscriptions", "GET", "deliver", self.list),
            guard.route("/v1/subscriptions", "POST", "deliver", self.add),
            guard.route(one, "GET", "deliver", self.show),
            guard.route(one, "PATCH", "deliver", self.change),
            guard.route(one, "DELETE", "deliver", self.remove),
            guard.route(f"{one}/retry", "POST", "deliver", self.retry),
            guard.route(f"{one}/aside", "GET", "deliver", self.list_aside),
            guard.route(f"{one}/aside/retry", "POST", "deliver", self.retry_aside),
            guard.route(f"{one}/replay", "GET", "deliver", self.list_replays),
            guard.route(f"{one}/replay", "POST", "deliver", self.replay),
            guard.route(f"{one}/manifest", "GET", "deliver", self.manifest),
        ]

    async def _find(self, request: Request, key: Key) -> Subscription:
        name = request.path_params["name"]
        for subscription in await self._on.registry.list(Subscription, tenant_of(request, key)):
            if name in (subscription.id, subscription.name):
                return subscription
        raise NotFoundError(f"there is no subscription {name!r}")

    def _shown(self, subscription: Subscription) -> dict[str, Any]:
        shown: dict[str, Any] = msgspec.json.decode(encode(subscription))
        return {**shown, "standing": self._on.deliveries.standing(subscription)}

    async def list(self, request: Request, key: Key) -> Response:
        """All subscriptions of the tenant, each with how it does."""
        found = await self._on.registry.list(Subscription, tenant_of(request, key))
        return reply([self._shown(subscription) for subscription in found])

    async def add(self, request: Request, key: Key) -> Response:
        """A new subscription; a signing secret is made and shown this once unless one was given."""
        asked = to_record(await read_fields(request), Subscription)
        tenant = tenant_of(request, key)
        if any(item.name == asked.name for item in await self._on.registry.list(Subscription, tenant)):
            raise ConflictError(f"there is a subscription {asked.name!r} already")
        made = () if asked.signing_secrets else (Secret(format_secret(token_bytes(SECRET_BYTES))),)
        subscription = structs.replace(
            asked,
            id="sub_" + token_hex(8),
            tenant=tenant,
            created_at=self._on.clock(),
            signing_secrets=asked.signing_secrets or made,
            state="paused" if asked.state == "paused" else "active",
            epoch=1,
            failing_since=0,
            reason="",
        )
        await self._on.check_subscription(subscription)
        shown = self._shown(await self._on.deliveries.apply(subscription))
        if made:
            shown["signing_secrets"] = [secret.reveal() for secret in made]
        return reply(shown, 201)

    async def show(self, request: Request, key: Key) -> Response:
        """One subscription."""
        return reply(self._shown(await self._find(request, key)))

    async def change(self, request: Request, key: Key) -> Response:
        """Change fields; a new filter or dialect begins a new epoch. `state`: active or paused."""
        before = await self._find(request, key)
        changes = await read_fields(request)
        fixed = _FIXED & changes.keys()
        if fixed:
            raise UsageError(f"{min(fixed)} cannot be changed")
        after = structs.replace(_changed(before, changes), failing_since=0, reason="")
        if after.state not in ("active", "paused"):
            raise UsageError(f"the subscription is {before.state}; set state to active or paused")
        await self._on.check_subscription(after)
        return reply(self._shown(await self._on.deliveries.apply(after)))

    async def remove(self, request: Request, key: Key) -> Response:
        """End a subscription for good."""
        await self._on.deliveries.drop(await self._find(request, key))
        return Response(status_code=204)

    async def retry(self, request: Request, key: Key) -> Response:
        """Do not wait for the next try."""
        self._on.deliveries.retry_now(await self._find(request, key))
        return Response(status_code=202)

    async def list_aside(self, request: Request, key: Key) -> Response:
        """Events that left the line, with their tries and the receiver's last word."""
        subscription = await self._find(request, key)
        found = await self._on.cursors.list_set_aside(subscription.id, PAGE)
        return reply([self._shown_aside(item) for item in found])

    def _shown_aside(self, item: SetAside) -> dict[str, Any]:
        canonical, form = self._on.find_dialect("canonical")
        (body,) = canonical.encode([item.event], form)
        fields: dict[str, Any] = structs.asdict(item)
        return {**fields, "event": msgspec.json.decode(body.data)[0]}

    async def retry_aside(self, request: Request, key: Key) -> Response:
        """Try all events set aside again now, those that failed too."""
        subscription = await self._find(request, key)
        found = await self._on.cursors.list_set_aside(subscription.id, _ASIDE_LIMIT)
        now = self._on.clock()
        again = [structs.replace(item, next_at=now, attempts=0, state="late") for item in found]
        await self._on.cursors.settle(subscription.id, [], again)
        await self._on.deliveries.apply(subscription)
        return reply({"again": len(again)})

    async def replay(self, request: Request, key: Key) -> Response:
        """Tell events again: `since`, `until`, `types`, `rate` (a second), `dry_run`."""
        subscription = await self._find(request, key)
        order: Replay = await read_json(request, Replay)
        replay = await self._on.deliveries.replay(subscription, order)
        return reply(replay, 200 if order.dry_run else 202)

    async def list_replays(self, request: Request, key: Key) -> Response:
        """Replays of this subscription since the process began."""
        return reply(self._on.deliveries.replays(await self._find(request, key)))

    async def manifest(self, request: Request, key: Key) -> Response:
        """What was told on a day (`day=YYYY-MM-DD`), or on every day."""
        subscription = await self._find(request, key)
        return reply(await self._on.cursors.manifests(subscription.id, request.query_params.get("day", "")))


def _changed(before: Subscription, changes: dict[str, Any]) -> Subscription:
    """The record with some fields anew."""
    fields = msgspec.to_builtins(structs.asdict(before), enc_hook=lambda secret: secret.reveal())
    return to_record({**fields, **changes}, Subscription)

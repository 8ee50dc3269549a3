"""Subscriptions: who gets which events, how they do, and what left the line."""

from __future__ import annotations

from secrets import token_bytes, token_hex
from typing import Any

import msgspec
from msgspec import structs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.contracts import Replay, SetAside, Transport
from aftersend.core.errors import ConflictError, NotFoundError, ScopeError, UsageError
from aftersend.core.options import describe, options_of, sort_settings
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Key, Subscription
from aftersend.core.secret import MASK, Secret
from aftersend.core.signing import SECRET_BYTES, format_secret
from aftersend.web.services import PAGE, Guard, Services, encode, read_fields, read_json, reply, tenant_of, to_record

_FIXED = frozenset({"id", "tenant", "created_at", "epoch", "reason", "failing_since"})
_ASIDE_LIMIT = 10_000
_OWN_FIELDS = ("url", "timeout", "headers", "signing_secrets", "acknowledgement")
"""Options of transports that are fields of the subscription itself, not settings."""


class Subscriptions:
    """The handlers for those who deliver."""

    def __init__(self, services: Services) -> None:
        self._on = services

    def routes(self, guard: Guard) -> list[Route]:
        """Where they are served."""
        transports = "/v1/transports"
        one = "/v1/subscriptions/{name}"
        return [
            guard.route(transports, "GET", "deliver", self.list_transports),
            guard.route("/v1/subscriptions", "GET", "deliver", self.list),
            guard.route("/v1/subscriptions", "POST", "deliver", self.add),
            guard.route(one, "GET", "deliver", self.show),
            guard.route(one, "PATCH", "deliver", self.change),
            guard.route(one, "DELETE", "deliver", self.remove),
            guard.route(f"{one}/probe", "POST", "deliver", self.probe),
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
        shown["settings"] |= shown.pop("secrets")
        return {**shown, "standing": self._on.deliveries.standing(subscription)}

    async def list(self, request: Request, key: Key) -> Response:
        """All subscriptions of the tenant, each with how it does."""
        found = await self._on.registry.list(Subscription, tenant_of(request, key))
        return reply([self._shown(subscription) for subscription in found])

    async def add(self, request: Request, key: Key) -> Response:
        """A new subscription; a signing secret is made and shown this once unless one was given."""
        fields = await read_fields(request)
        asked = to_record(self._sorted(fields, self._transport_of(fields)), Subscription)
        tenant = tenant_of(request, key)
        if any(item.name == asked.name for item in await self._on.registry.list(Subscription, tenant)):
            raise ConflictError(f"there is a subscription {asked.name!r} already")
        made = self._new_secrets(asked)
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
        probed = await self._checked(subscription, request, key)
        shown = self._shown(await self._on.deliveries.apply(subscription)) | probed
        return reply(shown | _revealed(made), 201)

    def _new_secrets(self, subscription: Subscription) -> tuple[Secret, ...]:
        """A secret to sign with, where parcels are signed and none was given."""
        is_signed = any(item.name == "signing_secrets" for item in options_of(self._plugin(subscription.transport)))
        if not is_signed or subscription.signing_secrets:
            return ()
        return (Secret(format_secret(token_bytes(SECRET_BYTES))),)

    def _plugin(self, transport: str) -> type[Transport]:
        return self._on.find_transport(transport)

    def _transport_of(self, fields: dict[str, Any]) -> str:
        """The transport that is named, else the one that the URL is for."""
        named, url = fields.get("transport"), fields.get("url")
        if named is not None or not isinstance(url, str) or url.startswith(("http://", "https://")):
            return named if isinstance(named, str) else "http"
        return self._on.transport_for(url) if "://" in url else "http"

    def _sorted(self, fields: dict[str, Any], transport: str) -> dict[str, Any]:
        """Fields with the transport's name, its settings by their types, and the secret ones apart."""
        settings = fields.get("settings", {})
        if not isinstance(settings, dict):
            raise UsageError('settings are an object: {"settings": {"user": "…"}}')
        if "secrets" in fields:
            raise UsageError("secrets stand among the settings")
        if fields.get("types") == []:
            raise UsageError("types: name at least one; * stands for all")
        plugin = self._plugin(transport)
        if fields.get("url") and not plugin.schemes:
            raise UsageError(f"url: {transport} takes none; leave it out, or name the transport that it is for")
        plain, secrets = sort_settings(plugin, settings, f"transport {transport}", _OWN_FIELDS)
        revealed = {name: secret.reveal() for name, secret in secrets.items()}
        return {**fields, "transport": transport, "settings": plain, "secrets": revealed}

    async def _checked(self, subscription: Subscription, request: Request, key: Key, usual: str = "") -> dict[str, Any]:
        """What the probe found, where the answer shall say so.

        `probe`: require (nothing is saved unless the receiver would take events), tell, or skip. Without it a receiver
        of POST requests may come up later, and any other must be there. Raises UsageError and ScopeError.
        """
        if self._plugin(subscription.transport).brokered and "admin" not in key.scopes:
            raise ScopeError(f"the transport {subscription.transport} may be used with an admin key only")
        await self._on.check_subscription(subscription)
        usual = usual or ("skip" if subscription.transport == "http" else "require")
        wanted = request.query_params.get("probe", usual)
        if wanted not in ("require", "tell", "skip"):
            raise UsageError(f"probe is require, tell or skip; not {wanted!r}")
        if wanted == "skip":
            return {}
        outcome = await self._on.probe(subscription)
        if wanted == "require" and outcome.verdict is not Verdict.TAKEN:
            raise UsageError(f"not saved, the probe failed: {outcome.detail}")
        return {"probe": _told(outcome)}

    async def probe(self, request: Request, key: Key) -> Response:
        """Whether the receiver can be reached and would take something; it is told nothing."""
        return reply(_told(await self._on.probe(await self._find(request, key))))

    async def list_transports(self, request: Request, key: Key) -> Response:
        """Every transport with its options, for forms."""
        return reply([_described(self._plugin(name)) for name in self._on.transport_names()])

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
        after = structs.replace(self._changed(before, changes), failing_since=0, reason="")
        if after.state not in ("active", "paused"):
            raise UsageError(
                f"{before.name} is {before.state}; enable it first (state active), or set its state to paused"
            )
        made = self._new_secrets(after) if after.transport != before.transport else ()
        after = structs.replace(after, signing_secrets=made or after.signing_secrets)
        is_moved = bool({"transport", "url", "settings"} & changes.keys())
        probed = await self._checked(after, request, key, "" if is_moved else "skip")
        return reply(self._shown(await self._on.deliveries.apply(after)) | probed | _revealed(made))

    def _changed(self, before: Subscription, changes: dict[str, Any]) -> Subscription:
        """The record with some fields anew; of the settings, those that are named: null takes one away."""
        fields = msgspec.to_builtins(structs.asdict(before), enc_hook=lambda secret: secret.reveal())
        settings = {**fields["settings"], **fields.pop("secrets")}
        if "transport" in changes and changes["transport"] != before.transport:
            settings = {}
            fields["url"] = fields["url"] if self._plugin(str(changes["transport"])).schemes else ""
        given = changes.get("settings", {})
        settings |= {name: value for name, value in given.items() if value != MASK} if isinstance(given, dict) else {}
        settings = {name: value for name, value in settings.items() if value is not None}
        merged = {**fields, **changes, "settings": settings}
        return to_record(self._sorted(merged, str(merged["transport"])), Subscription)

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


def _revealed(made: tuple[Secret, ...]) -> dict[str, Any]:
    """Secrets that were made just now, shown this once."""
    return {"signing_secrets": [secret.reveal() for secret in made]} if made else {}


def _told(outcome: Outcome) -> dict[str, Any]:
    return {"reached": outcome.verdict is Verdict.TAKEN, "detail": outcome.detail}


def _described(plugin: type[Transport]) -> dict[str, Any]:
    return {
        "name": plugin.name,
        "help": (plugin.__doc__ or "").strip().split("\n")[0],
        "schemes": plugin.schemes,
        "needs_admin": plugin.brokered,
        "options": describe(plugin),
    }

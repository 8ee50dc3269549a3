"""What the API works on, who asks for it, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.contracts import Clock, Cursors, Deliveries, Log, Quarantine, Registry, Transport
from aftersend.core.consent import Level
from aftersend.core.errors import AftersendError, ConflictError, ScopeError, UsageError
from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.outcome import Outcome
from aftersend.core.registry import Domain, Key, Name, Subscription
from aftersend.core.secret import mask, read_secret
from aftersend.telemetry import Telemetry
from aftersend.web.access import LOCAL, Access
from aftersend.web.bodies import read_body
from aftersend.web.doors import DialectFinder, Doors, fault_of

PAGE = 500
"""Most entries of one page of a list."""

S = TypeVar("S", bound=Struct)

_NAME_RULE = f"Expected `str` matching regex {get_args(Name)[1].pattern!r}"
Handler = Callable[[Request, Key], Awaitable[Response]]

encode = msgspec.json.Encoder(enc_hook=mask).encode
"""JSON with secrets masked."""


class Services(Struct, frozen=True):
    """What the API works on."""

    log: Log
    registry: Registry
    cursors: Cursors
    quarantine: Quarantine
    deliveries: Deliveries
    access: Access
    doors: Doors
    find_dialect: DialectFinder
    check_subscription: Callable[[Subscription], Awaitable[None]]
    """Raises UsageError or EgressError for a subscription that cannot work."""
    find_transport: Callable[[str], type[Transport]]
    """A transport by its name. Raises UsageError."""
    transport_names: Callable[[], tuple[str, ...]]
    transport_for: Callable[[str], str]
    """The name of the transport that takes a URL. Raises UsageError."""
    probe: Callable[[Subscription], Awaitable[Outcome]]
    """Whether a subscription's receiver can be reached, and would take something."""
    reclassify: Callable[[str | None, int, int | None, bool], Awaitable[Struct]]
    """Judge the hits of a tenant (None: all) between two positions again; the last: whether to tell the difference."""
    replay_quarantined: Callable[[str | None, int], Awaitable[dict[str, int]]]
    clock: Clock
    telemetry: Telemetry
    check_domain: Callable[[Domain], object]
    """Raises ConfigurationError for a tracking domain that cannot work."""
    changed: Callable[[], Awaitable[None]]
    """Told when tenants, domains, sites or stops were changed."""
    level: Callable[[str, str], Level]
    """How much a person of a tenant lets us keep. Raises StoreError."""
    set_level: Callable[[str, str, Level], Awaitable[None]]
    ready: Callable[[], str]
    """Why this instance is not ready, or nothing."""


class Guard:
    """Lets a request through to its handler if its key reaches that far."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def route(self, path: str, method: str, scope: str, handler: Handler) -> Route:
        """A route for those whose key has a scope; errors of ours become one line of JSON."""

        async def guarded(request: Request) -> Response:
            try:
                return await handler(request, self._key(request, scope))
            except AftersendError as error:
                answer = fault_of(error)
                status = 409 if isinstance(error, ConflictError) else answer.status
                return Response(answer.body, status, media_type=answer.content_type)

        return Route(path, guarded, methods=[method])

    def _key(self, request: Request, scope: str) -> Key:
        if "aftersend.local" in request.scope:
            return LOCAL
        header = request.headers.get("authorization")
        return self._access.of_header(header.encode("latin-1") if header else None, scope)


def is_instance_admin(key: Key) -> bool:
    """Whether a key governs every tenant: an admin key of the default tenant."""
    return "admin" in key.scopes and key.tenant == DEFAULT_TENANT


def tenant_of(request: Request, key: Key) -> str:
    """The tenant a request is about: the key's own; another one only for an instance's admin."""
    asked = request.query_params.get("tenant") or request.headers.get("aftersend-tenant") or key.tenant
    require_tenant(key, asked)
    return asked


def reach_of(request: Request, key: Key) -> str | None:
    """The tenant whose records a request may see; None: all of them."""
    if is_instance_admin(key) and "tenant" not in request.query_params:
        return None
    return tenant_of(request, key)


def require_tenant(key: Key, tenant: str) -> None:
    """Raises ScopeError where a key does not govern a tenant."""
    if tenant != key.tenant and not is_instance_admin(key):
        raise ScopeError(f"the key {key.id} belongs to the tenant {key.tenant}")


async def read_fields(request: Request) -> dict[str, Any]:
    """The JSON object of a body. Raises UsageError."""
    fields: dict[str, Any] = await read_json(request, dict[str, Any])
    return fields


async def read_json(request: Request, type_: type[Any]) -> Any:
    """A body as a type. Raises UsageError, naming the field that is wrong."""
    body = await read_body(request.receive, dict(request.scope["headers"]))
    try:
        return msgspec.json.decode(body or b"{}", type=type_, dec_hook=read_secret)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UsageError(f"the body cannot be read: {error}") from None


def to_record(fields: dict[str, Any], type_: type[S]) -> S:
    """Fields as a record; an unknown field is refused rather than ignored. Raises UsageError."""
    unknown = sorted(fields.keys() - set(type_.__struct_fields__))
    if unknown:
        raise UsageError(f"unknown field {unknown[0]!r}; known are: {', '.join(type_.__struct_fields__)}")
    try:
        return msgspec.convert(fields, type_, dec_hook=read_secret)
    except msgspec.ValidationError as error:
        raise UsageError(_in_words(str(error))) from None


def _in_words(fault: str) -> str:
    """What the reader of fields says, with the field's name first: `timeout: Expected `float` <= 300.0`."""
    said, _, path = fault.removesuffix("`").rpartition(" - at `$")
    said = said.replace(_NAME_RULE, "lower-case letters, digits, `-`, `_` and `.`, at most 63, a letter or digit first")
    return f"{path.lstrip('.')}: {said}" if path and said else fault


def reply(value: Any, status: int = 200) -> Response:
    """An answer as JSON."""
    return Response(encode(value), status, media_type="application/json")


def number_of(request: Request, name: str, default: int) -> int:
    """A number of the query. Raises UsageError."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isdecimal() and text.isascii() and len(text) <= 18):
        raise UsageError(f"{name} is not a number: {text!r}")
    return int(text)


async def http_fault(request: Request, error: Exception) -> Response:
    """The answer for an address that is not served."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    reason = {404: "not_found", 405: "method_not_allowed"}.get(status, "error")
    return reply({"error": reason, "detail": f"{request.method} {request.url.path} is not served here"}, status)

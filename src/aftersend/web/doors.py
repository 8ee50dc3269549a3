"""The doors that events come in by: `/v1/events`, `/in/…` and ActivatePro's `/events`. Plain handlers, no framework."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from hashlib import sha256
from hmac import compare_digest
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct, structs

from aftersend.contracts import Clock, Dialect, Intake, Registry, Taken
from aftersend.core.errors import (
    AccessError,
    AftersendError,
    NotFoundError,
    ScopeError,
    StoreBusyError,
    StoreError,
    StoreFullError,
)
from aftersend.core.event import DEFAULT_TENANT, Receipt
from aftersend.core.registry import Key, SourceRecord
from aftersend.core.signing import Verifier
from aftersend.core.timestamps import SECOND
from aftersend.telemetry import Telemetry
from aftersend.web.access import LOCAL, Access
from aftersend.web.bodies import BodyTooLargeError, Receive, Scope, UnknownEncodingError, read_body

REJECTED_SHOWN = 1_000
"""How many rejected events an answer lists; the rest are counted."""

Headers = dict[bytes, bytes]
DialectFinder = Callable[[str], tuple[Dialect, str]]

_JSON = "application/json"
_REQUEST_NAMES = (b"idempotency-key", b"request-id", b"webhook-id", b"x-messagesystems-batch-id")
_encode = msgspec.json.Encoder().encode


class Response(Struct, frozen=True):
    """An answer, whole."""

    status: int
    body: bytes = b""
    content_type: str = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def fault(status: int, reason: str, detail: str) -> Response:
    """An error as JSON: a code for programs, a line for people."""
    return Response(status, _encode({"error": reason, "detail": detail}))


def fault_of(error: AftersendError) -> Response:
    """The answer for an error of ours."""
    for kind, status, reason in _FAULTS:
        if isinstance(error, kind):
            retry = ((b"retry-after", b"1"),) if status in (503, 507) else ()
            return Response(status, _encode({"error": reason, "detail": str(error)}), _JSON, retry)
    return fault(400, "bad_request", str(error))


_FAULTS: tuple[tuple[type[AftersendError], int, str], ...] = (
    (BodyTooLargeError, 413, "too_large"),
    (UnknownEncodingError, 415, "unknown_encoding"),
    (ScopeError, 403, "forbidden"),
    (AccessError, 401, "unauthorized"),
    (NotFoundError, 404, "not_found"),
    (StoreFullError, 507, "disk_full"),
    (StoreBusyError, 503, "busy"),
    (StoreError, 503, "store_unavailable"),
)


class Doors:
    """Takes requests with events in them to the intake."""

    def __init__(
        self,
        *,
        intake: Intake,
        access: Access,
        registry: Registry,
        find_dialect: DialectFinder,
        activatepro_fault: Callable[[bytes], dict[str, Any] | None],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._intake = intake
        self._access = access
        self._registry = registry
        self._find_dialect = find_dialect
        self._activatepro_fault = activatepro_fault
        self._clock = clock
        self._telemetry = telemetry
        self._sources: dict[str, SourceRecord] = {}

    async def load(self) -> None:
        """Read the sources anew."""
        self._sources = {source.name: source for source in await self._registry.list(SourceRecord)}

    # --- POST /v1/events[/{dialect}]

    async def post_events(self, scope: Scope, receive: Receive) -> Response:
        """Events of a sender that holds a key."""
        headers: Headers = dict(scope["headers"])
        key = _acting(self._key(scope, headers), headers)
        dialect, form = self._find_dialect(scope["path"][len("/v1/events/") :] or "canonical")
        body = await read_body(receive, headers)
        source = self._sources.get(key.source) if key.source else None
        receipt = Receipt(
            body,
            self._clock(),
            form,
            key.tenant,
            key.source or dialect.name,
            source.origin if source else "",
            headers.get(b"content-type", b"").decode("latin-1"),
            headers.get(b"aftersend-file", b"").decode("latin-1") if "admin" in key.scopes else "",
        )
        taken = await self._intake.take(dialect, receipt, _request_name(headers), keep_unreadable=False)
        self._count(taken, dialect.name)
        if taken.unreadable is not None:
            return fault(400, taken.unreadable.reason, taken.unreadable.detail)
        return Response(200, _answer(taken))

    def _key(self, scope: Scope, headers: Headers) -> Key:
        if "aftersend.local" in scope:
            return LOCAL
        return self._access.of_header(headers.get(b"authorization"), "ingest")

    def _count(self, taken: Taken, dialect: str) -> None:
        count = self._telemetry.count
        count("events_accepted_total", taken.accepted, dialect=dialect)
        if taken.duplicates:
            count("events_duplicate_total", taken.duplicates, dialect=dialect)
        if taken.rejected:
            count("events_rejected_total", len(taken.rejected), dialect=dialect)

    # --- POST /in/{source}[/{secret}]

    async def post_source(self, scope: Scope, receive: Receive) -> Response:
        """Events of a vendor that was given an address: proven, kept, and answered as the vendor wants it."""
        headers: Headers = dict(scope["headers"])
        name, _, secret = scope["path"][len("/in/") :].partition("/")
        source = self._sources.get(name)
        if source is None or not source.enabled:
            raise NotFoundError("there is no such source")
        self._prove_secret(source, headers, secret)
        body = await read_body(receive, headers)
        self._prove_signature(source, headers, body)
        dialect, form = self._find_dialect(source.dialect)
        if source.options:
            dialect = self._with_options(dialect, source)
        receipt = Receipt(
            body,
            self._clock(),
            form,
            source.tenant,
            source.name,
            source.origin,
            headers.get(b"content-type", b"").decode("latin-1"),
            quarantine_limit=source.quarantine_limit,
        )
        taken = await self._intake.take(dialect, receipt, _request_name(headers), keep_unreadable=True)
        self._count(taken, dialect.name)
        answer = dialect.answer
        return Response(answer.status, answer.body, answer.content_type)

    def _with_options(self, dialect: Dialect, source: SourceRecord) -> Dialect:
        return msgspec.convert(source.options, type(dialect))

    def _prove_secret(self, source: SourceRecord, headers: Headers, in_path: str) -> None:
        if not source.secret_digest:
            return
        for candidate in (_header_secret(source, headers), _basic_password(headers), in_path):
            digest = sha256(candidate.encode("utf-8", "surrogateescape")).hexdigest()
            if candidate and compare_digest(digest, source.secret_digest):
                return
        raise AccessError("the secret of the source is missing or wrong")

    def _prove_signature(self, source: SourceRecord, headers: Headers, body: bytes) -> None:
        if source.signing_secret is None:
            return
        named = {name: headers.get(name.encode(), b"").decode("latin-1") for name in _SIGNATURE_HEADERS}
        Verifier([source.signing_secret.reveal()]).verify(named, body, self._clock() // SECOND)

    # --- POST /events (ActivatePro)

    async def post_activatepro(self, scope: Scope, receive: Receive) -> Response:
        """ActivatePro's own call: 202 with an empty body, its 400s and its 401 (Outbound events API page)."""
        headers: Headers = dict(scope["headers"])
        request_id = (b"x-request-id", str(uuid4()).encode())
        try:
            key = self._access.check(headers.get(b"x-xng-authtoken", b"").decode("latin-1"), "ingest")
        except AccessError:
            return Response(401, b"", _JSON, (request_id,))
        body = await read_body(receive, headers)
        wrong = self._activatepro_fault(body)
        if wrong is not None:
            return Response(400, _encode(wrong), _JSON, (request_id,))
        dialect, _ = self._find_dialect("activatepro/api")
        receipt = Receipt(body, self._clock(), "api", key.tenant, key.source or dialect.name)
        taken = await self._intake.take(dialect, receipt, _request_name(headers), keep_unreadable=False)
        self._count(taken, dialect.name)
        answer = dialect.answer
        return Response(answer.status, answer.body, answer.content_type, (request_id,))


_SIGNATURE_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def _answer(taken: Taken) -> bytes:
    shown = [
        {"index": item.index, "reason": item.reason, "detail": item.detail} for item in taken.rejected[:REJECTED_SHOWN]
    ]
    return _encode({"accepted": taken.accepted, "duplicates": taken.duplicates, "rejected": shown})


def _acting(key: Key, headers: Headers) -> Key:
    """The key; for an instance's admin (`aftersend ingest`) as one of the tenant and source that the headers name."""
    tenant = headers.get(b"aftersend-tenant", key.tenant.encode()).decode("latin-1")
    source = headers.get(b"aftersend-source", (key.source or "").encode()).decode("latin-1") or None
    if (tenant, source) == (key.tenant, key.source):
        return key
    if "admin" not in key.scopes or key.tenant not in (tenant, DEFAULT_TENANT):
        raise ScopeError(f"the key {key.id} cannot hand events in for another tenant or source")
    return structs.replace(key, tenant=tenant, source=source)


def _request_name(headers: Headers) -> str:
    for name in _REQUEST_NAMES:
        if name in headers:
            return headers[name].decode("latin-1")
    return ""


def _header_secret(source: SourceRecord, headers: Headers) -> str:
    if source.secret_header:
        return headers.get(source.secret_header.lower().encode("latin-1"), b"").decode("latin-1")
    value = headers.get(b"x-api-key") or headers.get(b"authorization", b"")
    kind, _, token = value.decode("latin-1").partition(" ")
    return token.strip() if kind.lower() == "bearer" else value.decode("latin-1")


def _basic_password(headers: Headers) -> str:
    kind, _, coded = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if kind.lower() != "basic":
        return ""
    try:
        return b64decode(coded, validate=True).decode("utf-8", "surrogateescape").partition(":")[2]
    except (Base64Error, ValueError):
        return ""

"""The capture APIs that clients of Altcraft call: `/api/v1.1/pushes/post_events`, `/api/v1.1/goals/register`, and the
mobile SDKs' `/event/push/{delivery|open}` and `/event/post`.

The SDKs try again after 5xx and after an answer that is not JSON, and drop for good what was answered with any other
status. So what cannot be kept now is answered 503, never 429, and every answer is JSON.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from hashlib import blake2b

from msgspec import structs

from aftersend.capture.altcraft_callers import Caller, Callers
from aftersend.capture.altcraft_requests import Call, fields_of, goal, mobile_event, pushes, sdk_push
from aftersend.capture.exchange import (
    AddressOf,
    Answer,
    BodyTooLargeError,
    BrokenBodyError,
    Headers,
    Receive,
    Scope,
    Send,
    json_answer,
    peer_address,
    query_of,
    read_body,
    respond,
    text_of,
)
from aftersend.capture.multipart import read_parts
from aftersend.capture.rates import Rates, network_of
from aftersend.contracts import Clock, Hits
from aftersend.core.errors import AccessError, StoreBusyError, StoreError, UsageError
from aftersend.core.event import Event
from aftersend.core.web_tokens import TOKEN_LIMIT
from aftersend.core.xml import escaped
from aftersend.telemetry import Telemetry

BODY_LIMIT = 262_144
"""Bytes of a request."""
ARRIVALS_LIMIT = 50_000
"""Facts without a time of their own whose first arrival is remembered, the last ones; about 10 MB. A repeat that comes
after that, or after a restart, is a second event."""
ADDRESS_BURST, ADDRESS_RATE = 1_000.0, 50.0
"""Requests of apps from one address at once, and a second after that: thousands of phones share a carrier's."""
TENANT_BURST, TENANT_RATE = 20_000.0, 1_000.0
"""The same of all apps of a tenant. Servers, whose keys are in nobody's hands, have no rate."""

_ADDRESSES_LIMIT = 20_000
_TENANTS_LIMIT = 10_000
_API = "/api/v1.1/"
_DONE = "Successful operation"


class AltcraftApi:
    """Takes in what clients of Altcraft tell."""

    def __init__(
        self,
        *,
        callers: Callers,
        hits: Hits,
        clock: Clock,
        telemetry: Telemetry,
        address_of: AddressOf = peer_address,
    ) -> None:
        self._callers = callers
        self._hits = hits
        self._clock = clock
        self._count = telemetry.count
        self._address_of = address_of
        self._arrivals: OrderedDict[bytes, int] = OrderedDict()
        self._addresses = Rates(ADDRESS_BURST, ADDRESS_RATE, _ADDRESSES_LIMIT)
        self._totals = Rates(TENANT_BURST, TENANT_RATE, _TENANTS_LIMIT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: Headers = dict(scope["headers"])
        path = scope["path"].rstrip("/")
        if path not in _PATHS:
            await respond(send, json_answer(404, _said(404, f"{path} is not served here")))
        elif scope["method"] != "POST":
            await respond(send, json_answer(405, _said(405, "only POST is served here")))
        else:
            await respond(send, await self._answer(scope, receive, headers, path))

    async def _answer(self, scope: Scope, receive: Receive, headers: Headers, path: str) -> Answer:
        """The server's API tells errors in an answer of status 200; the SDKs look at the status alone."""
        is_xml, status, text = False, 0, _DONE
        try:
            body = await read_body(receive, headers, BODY_LIMIT)
            is_xml = path.startswith(_API) and body.lstrip()[:1] == b"<"
            events = self._events(scope, headers, path, body)
            if not all(await asyncio.gather(*[self._hits.record(event) for event in events])):
                status, text = 503, "it cannot be kept now; try again"
            self._count("altcraft_events_total", len(events) if not status else 0, path=path)
        except BodyTooLargeError:
            status, text = 413, f"the body is larger than {BODY_LIMIT} bytes"
        except BrokenBodyError as error:
            status, text = 400, str(error)
        except AccessError:
            status, text = 401, "the token is missing, wrong or revoked"
        except StoreError as error:
            status, text = 503, str(error)
        except UsageError as error:
            status, text = 400, str(error)
        if status:
            self._count("altcraft_refused_total", path=path, status=str(status))
        return _answered(path, status, text, is_xml)

    def _events(self, scope: Scope, headers: Headers, path: str, body: bytes) -> Sequence[Event]:
        bearer = _bearer(headers)
        if path.startswith(_API):
            fields = fields_of(body)
            # A server calls: neither its address nor its program is the person's.
            call = self._call(headers, self._callers.server(bearer or str(fields.get("token", ""))))
            return [goal(fields, call)] if path.endswith("register") else pushes(fields, call)
        caller, address = self._callers.app(bearer, text_of(headers, b"host")), self._address_of(scope)
        self._check_rates(caller, address)
        call = structs.replace(self._call(headers, caller), ip=address, user_agent=text_of(headers, b"user-agent"))
        if path == "/event/post":
            return [mobile_event(read_parts(text_of(headers, b"content-type"), body), query_of(scope), call)]
        return [sdk_push(path.rpartition("/")[2], fields_of(body), call)]

    def _check_rates(self, caller: Caller, address: str) -> None:
        """Raises StoreBusyError, which has the SDKs come again."""
        now = self._clock()
        if caller.is_app and not (
            self._addresses.take((caller.tenant, network_of(address)), 1, now)
            and self._totals.take(caller.tenant, 1, now)
        ):
            raise StoreBusyError("too much at once; try again in a moment")

    def _call(self, headers: Headers, caller: Caller) -> Call:
        tenant, now = caller.tenant, self._clock()
        first = partial(self._first, tenant, now)
        return Call(
            tenant, now, first, text_of(headers, b"request-id", 200), matching=caller.matching, source=caller.source
        )

    def _first(self, tenant: str, now: int, fact: str) -> int:
        name = blake2b(f"{tenant} {fact}".encode("utf-8", "replace"), digest_size=16).digest()
        arrived = self._arrivals.setdefault(name, now)
        if len(self._arrivals) > ARRIVALS_LIMIT:
            self._arrivals.popitem(last=False)
        return arrived


_PATHS = frozenset(
    (_API + "pushes/post_events", _API + "goals/register", "/event/push/delivery", "/event/push/open", "/event/post")
)


def _bearer(headers: Headers) -> str:
    """The token of `Authorization: Bearer …`; one that is too long for any is cut, and so wrong."""
    kind, _, token = text_of(headers, b"authorization", TOKEN_LIMIT).partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _said(status: int, text: str) -> dict[str, object]:
    return {"error": status, "error_text": text}


def _answered(path: str, status: int, text: str, is_xml: bool) -> Answer:
    in_band = path.startswith(_API) and status != 503
    retry = ((b"retry-after", b"10"),) if status == 503 else ()
    if is_xml:
        body = f"<xml><error>{status}</error><error_text>{escaped(text)}</error_text></xml>".encode()
        return Answer(200 if in_band else status or 200, body, b"application/xml", retry)
    return json_answer(200 if in_band else status or 200, _said(status, text), *retry)

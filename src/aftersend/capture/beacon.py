"""What pages tell: `GET /aftersend.js`, `POST /beacon` and `GET /pixel.gif`, by the key of a registered site.

A site's key stands in its pages, so it proves nothing. Two things keep the log clean: pages are heard only from the
origins that the site lists, and each site and each address has a rate. No cookie is set or read.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Mapping
from hashlib import sha256
from importlib.resources import files

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
    pixel_answer,
    query_of,
    read_body,
    respond,
    text_of,
)
from aftersend.capture.page_events import PAGE_VIEW, Told, Visit, event_of
from aftersend.capture.page_events import read_body as read_events
from aftersend.capture.rates import Rates, network_of
from aftersend.contracts import Clock, Hits
from aftersend.core.event import Rejected
from aftersend.core.origins import OPAQUE, is_listed, origin_of
from aftersend.core.registry import Site
from aftersend.telemetry import Telemetry

BODY_LIMIT = 65_536
"""Bytes of a body: what browsers allow a beacon."""
SCRIPT_SECONDS = 3_600
"""How long a browser may keep the script."""
PREFLIGHT_SECONDS = 7_200
ADDRESSES_LIMIT = 20_000
"""Addresses whose rate is remembered, the last heard of; about 5 MB."""
ADDRESS_BURST, ADDRESS_RATE = 120.0, 2.0
"""Events of one address to one site at once, and a second after that."""
SITE_BURST, SITE_RATE = 20_000.0, 1_000.0
"""The same of a site as a whole."""

_SITES_LIMIT = 10_000
_FROM_ANYWHERE = ((b"access-control-allow-origin", b"*"), (b"cross-origin-resource-policy", b"cross-origin"))


class Beacon:
    """Serves the script, and takes in what it tells; `sites` by key may change at any time."""

    def __init__(
        self,
        *,
        sites: Mapping[str, Site],
        hits: Hits,
        clock: Clock,
        chance: Callable[[int], bytes],
        telemetry: Telemetry,
        address_of: AddressOf = peer_address,
    ) -> None:
        self._sites = sites
        self._hits = hits
        self._clock = clock
        self._chance = chance
        self._telemetry = telemetry
        self._address_of = address_of
        self._script = _Script()
        self._addresses = Rates(ADDRESS_BURST, ADDRESS_RATE, ADDRESSES_LIMIT)
        self._totals = Rates(SITE_BURST, SITE_RATE, _SITES_LIMIT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers: Headers = dict(scope["headers"])
        path, method = scope["path"].strip("/"), scope["method"]
        if path == "aftersend.js" and method in ("GET", "HEAD"):
            answer = self._script.answer(headers)
        elif path == "pixel.gif" and method in ("GET", "HEAD"):
            answer = await self._pixel(scope, headers)
        elif path == "beacon" and method == "OPTIONS":
            answer = self._preflight(scope, headers)
        elif path == "beacon" and method == "POST":
            answer = await self._post(scope, receive, headers)
        else:
            answer = json_answer(405 if path in _PATHS else 404, {"error": "not_served"})
        await respond(send, answer)

    # --- POST /beacon

    def _preflight(self, scope: Scope, headers: Headers) -> Answer:
        site = self._site(query_of(scope))
        if site is None or not is_listed(_origin(headers), site.origins):
            return json_answer(403, {"error": "origin_not_listed"}, (b"vary", b"origin"))
        allowed = (
            (b"access-control-allow-methods", b"POST"),
            (b"access-control-allow-headers", b"content-type"),
            (b"access-control-max-age", b"%d" % PREFLIGHT_SECONDS),
        )
        return Answer(204, headers=(*_readable_by(headers), *allowed))

    async def _post(self, scope: Scope, receive: Receive, headers: Headers) -> Answer:
        site = self._site(query_of(scope))
        if site is None:
            return self._refused(404, "unknown_site")
        if not is_listed(_origin(headers), site.origins):
            return self._refused(403, "origin_not_listed", (b"vary", b"origin"))
        readable = _readable_by(headers)
        try:
            body = await read_body(receive, headers, BODY_LIMIT)
        except BodyTooLargeError:
            return self._refused(413, "too_large", *readable)
        except BrokenBodyError:
            return self._refused(400, "broken_body", *readable)
        items = read_events(body)
        if items and all(isinstance(item, Rejected) and item.index is None for item in items):
            return self._refused(400, items[0].reason if isinstance(items[0], Rejected) else "", *readable)
        return await self._take(items, self._visit(site, scope, headers), readable)

    async def _take(
        self, items: list[Told | Rejected], visit: Visit, readable: tuple[tuple[bytes, bytes], ...]
    ) -> Answer:
        told = [item for item in items if isinstance(item, Told)]
        if not self._may(visit, len(told)):
            return self._refused(429, "too_many", (b"retry-after", b"10"), *readable)
        if not await self._record(told, visit):
            return self._refused(503, "not_kept", (b"retry-after", b"5"), *readable)
        rejected = [
            {"index": index, "reason": item.reason, "detail": item.detail}
            for index, item in enumerate(items)
            if isinstance(item, Rejected)
        ]
        if rejected:
            self._telemetry.count("page_events_rejected_total", len(rejected))
        return json_answer(200, {"accepted": len(told), "rejected": rejected}, *readable)

    # --- GET /pixel.gif

    async def _pixel(self, scope: Scope, headers: Headers) -> Answer:
        """The dot, whatever else: a picture that is missing is all that a person would see."""
        query = query_of(scope)
        site = self._site(query)
        if scope["method"] == "GET" and site is not None and is_listed(_origin(headers), site.origins):
            await self._hear_pixel(query, self._visit(site, scope, headers), headers)
        return pixel_answer(_FROM_ANYWHERE[1])

    async def _hear_pixel(self, query: dict[str, str], visit: Visit, headers: Headers) -> None:
        if "b" in query:
            items = read_events(query["b"].encode("utf-8", "replace"))
        else:
            referrer = text_of(headers, b"referer", 2_048)
            items = [Told(PAGE_VIEW, url=referrer, name=query.get("n", "")[:256])]
        told = [item for item in items if isinstance(item, Told)]
        if told and self._may(visit, len(told)):
            await self._record(told, visit)

    # --- both

    def _site(self, query: dict[str, str]) -> Site | None:
        site = self._sites.get(query.get("k", ""))
        return site if site is not None and site.enabled else None

    def _visit(self, site: Site, scope: Scope, headers: Headers) -> Visit:
        return Visit(site, self._clock(), self._address_of(scope), text_of(headers, b"user-agent"))

    def _may(self, visit: Visit, amount: int) -> bool:
        place = (visit.site.key, network_of(visit.ip))
        may = self._addresses.take(place, amount, visit.received_at) and self._totals.take(
            visit.site.key, amount, visit.received_at
        )
        if not may:
            self._telemetry.count("page_events_limited_total", amount, site=visit.site.name)
        return may

    async def _record(self, told: list[Told], visit: Visit) -> bool:
        """Whether all of them are kept; at most 100, written together."""
        events = [event_of(item, visit, self._chance(8).hex()) for item in told]
        kept = await asyncio.gather(*[self._hits.record(event) for event in events])
        self._telemetry.count("page_events_total", sum(kept), site=visit.site.name)
        return all(kept)

    def _refused(self, status: int, reason: str, *headers: tuple[bytes, bytes]) -> Answer:
        self._telemetry.count("beacons_refused_total", reason=reason)
        return json_answer(status, {"error": reason}, *headers)


_PATHS = ("aftersend.js", "pixel.gif", "beacon")


class _Script:
    """The script, packed once."""

    def __init__(self) -> None:
        self._plain = files("aftersend.capture").joinpath("static", "aftersend.js").read_bytes()
        self._packed = gzip.compress(self._plain, 9, mtime=0)
        self._tag = b'"%s"' % sha256(self._plain).hexdigest()[:20].encode()

    def answer(self, headers: Headers) -> Answer:
        """The script, packed where that is understood; nothing where the browser has it."""
        shared = (
            *_FROM_ANYWHERE,
            (b"etag", self._tag),
            (b"cache-control", b"public, max-age=%d" % SCRIPT_SECONDS),
            (b"vary", b"accept-encoding"),
        )
        if headers.get(b"if-none-match", b"").removeprefix(b"W/") == self._tag:
            return Answer(304, headers=shared)
        kind = b"text/javascript; charset=utf-8"
        if b"gzip" in headers.get(b"accept-encoding", b"").lower():
            return Answer(200, self._packed, kind, (*shared, (b"content-encoding", b"gzip")))
        return Answer(200, self._plain, kind, shared)


def _origin(headers: Headers) -> str:
    """Where a page says it is: Origin, or else (pictures, old browsers) what Referer begins with."""
    said = text_of(headers, b"origin", 300)
    return said or (origin_of(text_of(headers, b"referer", 2_048)) if b"referer" in headers else OPAQUE)


def _readable_by(headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
    """What lets the page read the answer. A beacon is sent as if with cookies, so a browser wants that allowed too."""
    vary = (b"vary", b"origin")
    if b"origin" not in headers:
        return (vary,)
    origin = (b"access-control-allow-origin", headers[b"origin"])
    return origin, (b"access-control-allow-credentials", b"true"), vary

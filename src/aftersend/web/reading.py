"""Reading what the log holds, live or from a position, and what is in quarantine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aftersend.core.errors import UsageError
from aftersend.core.event import Event
from aftersend.core.registry import Key
from aftersend.web.services import (
    PAGE,
    Guard,
    Services,
    is_instance_admin,
    number_of,
    reach_of,
    read_fields,
    reply,
    tenant_of,
)
from aftersend.web.waits import Waits

STREAMS = 64
"""Most event streams at once; one more is answered 503."""

WAIT_LIMIT = 60
"""Seconds that a reader may wait for the next event in one request."""

STREAM_PULSE = 15
"""Seconds between two signs of life on a quiet stream."""


class Reading:
    """The handlers for readers."""

    def __init__(self, services: Services, waits: Waits | None = None) -> None:
        self._on = services
        self._waits = waits or Waits()
        self._streams = 0

    def routes(self, guard: Guard) -> list[Route]:
        """Where they are served."""
        return [
            guard.route("/v1/events", "GET", "read", self.get_events),
            guard.route("/v1/stream", "GET", "read", self.get_stream),
            guard.route("/v1/quarantine", "GET", "read", self.get_quarantine),
            guard.route("/v1/quarantine/replay", "POST", "admin", self.replay_quarantine),
            guard.route("/v1/quarantine/discard", "POST", "admin", self.discard_quarantined),
        ]

    async def get_events(self, request: Request, key: Key) -> Response:
        """Events of the tenant from a position on (`after`), at most `limit`; with `wait`, waits so many seconds."""
        after = number_of(request, "after", self._on.log.tail())
        limit = max(1, min(number_of(request, "limit", 100), PAGE))
        if wait := min(number_of(request, "wait", 0), WAIT_LIMIT):
            async with self._waits.at_most(wait):
                await self._on.log.wait(after)
        events, position = await self._read(after, limit, tenant_of(request, key))
        dialect, form = self._on.find_dialect(request.query_params.get("dialect", "canonical"))
        if dialect.name == "canonical":
            data = b"".join(body.data for body in dialect.encode(events, form)) or b"[]"
            return Response(b'{"next":%d,"events":%s}' % (position, data), media_type="application/json")
        bodies = dialect.encode([event for event in events if dialect.word(event) is not None], form)
        told = b"\n".join(body.data for body in bodies)
        kind = bodies[0].content_type if bodies else "text/plain"
        return Response(told, media_type=kind, headers={"aftersend-next": str(position)})

    async def _read(self, position: int, limit: int, tenant: str) -> tuple[list[Event], int]:
        events: list[Event] = []
        while len(events) < limit:
            chunks = await self._on.log.read(position, limit)
            if not chunks:
                break
            for chunk in chunks:
                room = limit - len(events)
                taken = chunk.events[:room] if chunk.tenant == tenant else []
                events.extend(taken)
                if chunk.tenant == tenant and len(taken) < len(chunk.events):
                    return events, chunk.position + len(taken)
                position = chunk.next_position
        return events, position

    async def get_stream(self, request: Request, key: Key) -> Response:
        """Events as they arrive, as server-sent events; `Last-Event-ID` goes on from a position."""
        if self._streams >= STREAMS:
            return reply({"error": "busy", "detail": f"{STREAMS} streams are open already"}, 503)
        last = request.headers.get("last-event-id") or request.query_params.get("after") or ""
        position = int(last) if last.isdecimal() and len(last) <= 18 else self._on.log.head()
        stream = self._stream(position, tenant_of(request, key))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})

    async def _stream(self, position: int, tenant: str) -> AsyncIterator[bytes]:
        self._streams += 1
        try:
            while not self._waits.is_over:
                before = position
                async with self._waits.at_most(STREAM_PULSE):
                    await self._on.log.wait(position)
                events, position = await self._read(position, PAGE, tenant)
                if events:
                    yield self._as_stream(events, position)
                elif position == before:
                    yield b": still here\n\n"
        finally:
            self._streams -= 1

    def _as_stream(self, events: list[Event], position: int) -> bytes:
        """Events in the form of server-sent events; only the last carries the position to go on from."""
        canonical, form = self._on.find_dialect("canonical")
        lines = []
        for event in events:
            (body,) = canonical.encode([event], form)
            lines.append(b"event: %s\ndata: %s\n" % (event.type.encode(), body.data[1:-1]))
        return b"\n".join([*lines[:-1], b"id: %d\n" % position + lines[-1]]) + b"\n"

    async def get_quarantine(self, request: Request, key: Key) -> Response:
        """Bytes that could not be read, with the reason; `body` is text where it is UTF-8, else base64."""
        limit = max(1, min(number_of(request, "limit", 100), PAGE))
        found = await self._on.quarantine.list_quarantined(
            reach_of(request, key), limit, number_of(request, "after", 0)
        )
        return reply([{"number": number, **_printable(entry)} for number, entry in found])

    async def replay_quarantine(self, request: Request, key: Key) -> Response:
        """Read everything in quarantine again, after a fix."""
        return reply(await self._on.replay_quarantined(reach_of(request, key), 100_000))

    async def discard_quarantined(self, request: Request, key: Key) -> Response:
        """Forget entries by number; those of another tenant are left alone."""
        numbers = (await read_fields(request)).get("numbers")
        if not isinstance(numbers, list) or not all(isinstance(number, int) for number in numbers):
            raise UsageError('say which: {"numbers": [1, 2]}')
        if not is_instance_admin(key):
            own = {number for number, _ in await self._on.quarantine.list_quarantined(key.tenant, 100_000)}
            numbers = [number for number in numbers if number in own]
        await self._on.quarantine.discard(numbers)
        return Response(status_code=204)


def _printable(entry: Struct) -> dict[str, Any]:
    fields: dict[str, Any] = {name: getattr(entry, name) for name in entry.__struct_fields__}
    try:
        fields["body"] = fields["body"].decode()
    except UnicodeDecodeError:
        fields["body_is_base64"] = True
    return fields

"""The ASGI entry: the doors for events are plain handlers, the rest is Starlette."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from aftersend.core.errors import AftersendError
from aftersend.core.registry import Domain
from aftersend.web.bodies import Receive, Scope
from aftersend.web.doors import Doors, Response, fault, fault_of

Send = Callable[[dict[str, Any]], Awaitable[None]]
Door = Callable[[Scope, Receive], Awaitable[Response]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = ("/healthz", "/readyz")
"""What is answered besides the doors where the API has an address of its own."""

log = logging.getLogger("aftersend.web")


class Entry:
    """Every request's first stop."""

    def __init__(
        self,
        doors: Doors,
        api: Any,
        domains: Mapping[str, Domain],
        *,
        local: bool = False,
        doors_only: bool = False,
        captures: Mapping[str, App] = MappingProxyType({}),
        vendor_app: Callable[[str], App | None] = lambda path: None,
    ) -> None:
        """`captures` are applications by the first part of their paths; `vendor_app` finds others, for most hosts."""
        self._doors = doors
        self._captures = captures
        self._vendor_app = vendor_app
        self._doors_only = doors_only
        self._api = api
        self._domains = domains
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        if self._local:
            scope["aftersend.local"] = True
        path = scope["path"]
        capture = self._captures.get(path.lstrip("/").partition("/")[0])
        if capture is not None:
            await capture(scope, receive, send)
            return
        door = self._door(path) if scope["method"] == "POST" else None
        if self._domains and self._is_tracking_host(scope):
            await _respond(send, fault(404, "not_found", "this host serves links only"))
        elif (vendors := self._vendor_app(path)) is not None:
            await vendors(scope, receive, send)
        elif door is None and self._doors_only and path not in OPEN_PATHS:
            await _respond(send, fault(404, "not_found", "the API is served on another address"))
        elif door is None:
            await self._api(scope, receive, send)
        else:
            await _respond(send, await self._through(door, scope, receive))

    def _door(self, path: str) -> Door | None:
        if path == "/v1/events" or path.startswith("/v1/events/"):
            return self._doors.post_events
        if path.startswith("/in/"):
            return self._doors.post_source
        if path == "/events":
            return self._doors.post_activatepro
        return None

    async def _through(self, door: Door, scope: Scope, receive: Receive) -> Response:
        try:
            return await door(scope, receive)
        except AftersendError as error:
            return fault_of(error)
        except Exception:
            log.exception("a request failed")
            return fault(500, "internal_error", "a fault of ours; it is in the log")

    def _is_tracking_host(self, scope: Scope) -> bool:
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1").partition(":")[0]
        return host.lower() in self._domains

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and end of the server are nothing to us; a websocket is refused."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})


async def _respond(send: Send, response: Response) -> None:
    headers = [(b"content-length", str(len(response.body)).encode()), *response.headers]
    if response.content_type:
        headers.append((b"content-type", response.content_type.encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})

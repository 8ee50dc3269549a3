"""`POST /v1/links`: tracked addresses for senders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.core.registry import Key
from aftersend.web.services import Guard, read_json, reply, tenant_of

MakeLinks = Callable[[Any, str], Awaitable[list[str]]]
"""From what is asked for and the tenant to addresses. Raises an AftersendError."""


class LinkMaking:
    """The handler for senders that write their own messages."""

    def __init__(self, make: MakeLinks) -> None:
        self._make = make

    def routes(self, guard: Guard) -> list[Route]:
        """Where it is served."""
        return [guard.route("/v1/links", "POST", "ingest", self.post_links)]

    async def post_links(self, request: Request, key: Key) -> Response:
        """Addresses for one object, or for each of an array."""
        asked = await read_json(request, Any)
        made = await self._make(asked if isinstance(asked, list) else [asked], tenant_of(request, key))
        urls = [{"url": url} for url in made]
        return reply(urls if isinstance(asked, list) else urls[0], 201)

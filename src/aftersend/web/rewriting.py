"""`POST /v1/rewrite`: a message in, the rewritten one out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend.core.errors import UsageError
from aftersend.core.registry import Key
from aftersend.web.bodies import read_body
from aftersend.web.services import Guard, tenant_of

THREAD_PAST = 256 << 10
"""Bytes of a message that is rewritten beside the event loop."""


class Answer(Protocol):
    """What a rewriting answers."""

    @property
    def headers(self) -> Mapping[str, str]:
        """With the content type and the report."""
        ...

    @property
    def body(self) -> bytes:
        """The message."""
        ...


Rewrite = Callable[[bytes, Mapping[str, str], str], Answer]
"""From a message, the query and the tenant to the answer. Raises an AftersendError."""


class Rewriting:
    """The handler for senders that rewrite their mail over the API."""

    def __init__(self, rewrite: Rewrite) -> None:
        self._rewrite = rewrite

    def routes(self, guard: Guard) -> list[Route]:
        """Where it is served."""
        return [guard.route("/v1/rewrite", "POST", "ingest", self.post_rewrite)]

    async def post_rewrite(self, request: Request, key: Key) -> Response:
        """The message in the body, rewritten; how, says the query."""
        tenant = tenant_of(request, key)
        query = {name: text for name, text in request.query_params.items() if name != "tenant"}
        message = await read_body(request.receive, dict(request.scope["headers"]))
        if not message:
            raise UsageError("the body must be a message (message/rfc822)")
        if len(message) > THREAD_PAST:
            answer = await asyncio.to_thread(self._rewrite, message, query, tenant)
        else:
            answer = self._rewrite(message, query, tenant)
        return Response(answer.body, headers=dict(answer.headers))

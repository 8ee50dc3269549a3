"""`POST /v1/reclassify`: hits that are kept, judged by the rules as they are now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aftersend.core.errors import AftersendError, UsageError
from aftersend.core.registry import Key
from aftersend.core.timestamps import parse_time
from aftersend.web.services import Guard, Services, encode, reach_of, read_json

PULSE = 10.0
"""Seconds between two signs of life (a blank before the JSON) while the log is read."""


class _Asked(Struct, forbid_unknown_fields=True):
    since: str
    """RFC 3339: hits received from here on."""
    until: int | None = None
    """The position before which reading ends, as it was shown; without it, the head."""
    apply: bool = False


class Verdicts:
    """The handler for those who changed the rules."""

    def __init__(self, services: Services) -> None:
        self._on = services

    def routes(self, guard: Guard) -> list[Route]:
        """Where it is served."""
        return [guard.route("/v1/reclassify", "POST", "admin", self.reclassify)]

    async def reclassify(self, request: Request, key: Key) -> Response:
        """How many hits pass from which kind of actor to which; with `apply`, later verdicts tell so."""
        asked: _Asked = await read_json(request, _Asked)
        try:
            since = await self._on.log.position_at(parse_time(asked.since))
        except ValueError:
            raise UsageError(f"since is an RFC 3339 time; not {asked.since!r}") from None
        work = self._on.reclassify(reach_of(request, key), since, asked.until, asked.apply)
        return StreamingResponse(_told(work), media_type="application/json")


async def _told(work: Awaitable[Any]) -> AsyncIterator[bytes]:
    """The JSON of what comes of long work, with blanks before it so that nobody takes the silence for an end."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([task], timeout=PULSE))[0]:
            yield b" "
        yield encode(task.result())
    except AftersendError as error:
        yield encode({"error": "failed", "detail": str(error)})
    finally:
        task.cancel()

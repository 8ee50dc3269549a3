"""The API under `/v1`, the process's health and its figures."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aftersend import __version__
from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.registry import Key
from aftersend.web.links import LinkMaking, MakeLinks
from aftersend.web.pull import Pulling
from aftersend.web.reading import Reading
from aftersend.web.records import Records
from aftersend.web.rewriting import Rewrite, Rewriting
from aftersend.web.services import Guard, Services, http_fault, reply, require_tenant
from aftersend.web.subscriptions import Subscriptions
from aftersend.web.verdicts import Verdicts


def build_api(services: Services, rewrite: Rewrite, make_links: MakeLinks, pulling: Pulling) -> Starlette:
    """The Starlette application behind the doors; `rewrite` makes tracked messages of plain ones."""
    guard = Guard(services.access)
    reading, records, subscriptions = Reading(services, pulling.waits), Records(services), Subscriptions(services)

    async def get_health(request: Request) -> Response:
        return reply({"status": "ok", "version": __version__})

    async def get_ready(request: Request) -> Response:
        reason = services.ready()
        return reply({"status": "not ready" if reason else "ready", "reason": reason}, 503 if reason else 200)

    async def get_metrics(request: Request, key: Key) -> Response:
        """The figures of the whole process, which name the subscriptions of every tenant."""
        require_tenant(key, DEFAULT_TENANT)
        return Response(services.telemetry.text(), media_type="text/plain; version=0.0.4")

    routes = [
        Route("/healthz", get_health, methods=["GET"]),
        Route("/readyz", get_ready, methods=["GET"]),
        guard.route("/metrics", "GET", "read", get_metrics),
        *reading.routes(guard),
        *subscriptions.routes(guard),
        *pulling.routes(guard),
        *records.routes(guard),
        *Verdicts(services).routes(guard),
        *Rewriting(rewrite).routes(guard),
        *LinkMaking(make_links).routes(guard),
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: http_fault})

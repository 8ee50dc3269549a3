"""The handler of `/3.1/WebService`: a plain ASGI application."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol
from urllib.parse import parse_qsl
from uuid import uuid4

from aftersend.contracts import Clock, Log
from aftersend.core.errors import AccessError, AftersendError, StoreBusyError, UsageError
from aftersend.core.event import Event
from aftersend.core.registry import Subscription
from aftersend.telemetry import Telemetry
from aftersend.transports.messagegears_rest import Transport
from aftersend.transports.messagegears_rest.accounts import Accounts
from aftersend.transports.messagegears_rest.answering import (
    AbandonedError,
    Answer,
    Headers,
    Plain,
    Send,
    Zipper,
    respond,
)
from aftersend.transports.messagegears_rest.reading import DayReader

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]

PATH = "/3.1/WebService"
BODY_LIMIT = 16_384
BODY_SECONDS = 30.0
FIELDS_LIMIT = 32
READERS_LIMIT = 4
"""Answers for which the log is read at the same time."""
QUEUE_LIMIT = 32
"""Answers that may wait for that …"""
QUEUE_SECONDS = 60.0
"""… and how long."""
RUN_EVENTS = 250
"""Events that are told between two looks at what else is to be done: 3 ms."""

log = logging.getLogger("aftersend.messagegears")


class Order(Protocol):
    """What a request asks for."""

    @property
    def since(self) -> int:
        """It is about events from here on (ns since 1970, UTC) …"""
        ...

    @property
    def until(self) -> int:
        """… and before here; the same: about none."""
        ...

    @property
    def file_name(self) -> str:
        """What the answer is saved as; empty: it is read at once."""
        ...

    @property
    def compressed(self) -> bool:
        """Whether it shall be a zip."""
        ...

    def head(self) -> bytes:
        """What comes before the events."""
        ...

    def tell(self, events: Sequence[Event]) -> bytes:
        """The next events."""
        ...

    def foot(self) -> bytes:
        """What comes after them."""
        ...


class Vendor(Protocol):
    """The calls as the vendor has them."""

    def order(self, fields: Mapping[str, str], now: int, request_id: str) -> Order:
        """What a request asks for. Raises UsageError, naming the parameter that is wrong."""
        ...

    def refusal(self, action: str, request_id: str, code: str, message: str) -> bytes:
        """The answer to a request that failed."""
        ...


class WebService:
    """Answers the clients of all accounts."""

    def __init__(
        self,
        *,
        log: Log,
        subscriptions: Callable[[], Iterable[Subscription]],
        open_transport: Callable[[Subscription], object],
        select: Callable[[Subscription], Callable[[Event], bool]],
        vendor: Vendor,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        """`subscriptions` gives the registered ones as they now are, `select` the filter of one of them."""
        self._log = log
        self._accounts = Accounts(subscriptions, open_transport)
        self._select = select
        self._vendor = vendor
        self._clock = clock
        self._count = telemetry.count
        self._readers = asyncio.Semaphore(READERS_LIMIT)
        self._queued = 0

    def check(self, subscription: Subscription, transport: Transport) -> None:
        """Raises UsageError for an account that another subscription has already."""
        self._accounts.check(subscription, transport)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["path"].rstrip("/") != PATH:
            await respond(send, 404, b"text/plain", b"only /3.1/WebService is served here\n")
        elif scope["method"] not in ("POST", "GET"):
            await respond(send, 405, b"text/plain", b"only POST and GET are served here\n", (b"allow", b"POST, GET"))
        else:
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id, fields = str(uuid4()), dict[str, str]()
        result = "answered"
        try:
            fields = await _fields(scope, receive)
            await self._answer(fields, request_id, receive, send)
        except AbandonedError as end:
            # The server closes the connection of an answer without an end, so that nobody takes it for whole.
            log.warning("the file for %s broke off: %s", fields.get("AccountId", "")[:64], end)
            result = "abandoned"
        except Exception as error:
            result = await self._refuse(send, fields.get("Action", ""), request_id, error)
        self._count("messagegears_requests_total", result=result)

    async def _answer(self, fields: Mapping[str, str], request_id: str, receive: Receive, send: Send) -> None:
        if fields.get("Action") == "XSD":
            order = self._vendor.order(fields, self._clock(), request_id)
            await Answer(send, _headers(order), Plain()).whole(order.head())
            return
        subscription = await self._accounts.admit(fields)
        order = self._vendor.order(fields, self._clock(), request_id)
        reader = DayReader(self._log, subscription.tenant, self._select(subscription), order.since, order.until)
        async with self._turn(), _watched(receive) as is_gone:
            await reader.begin()
            answer = Answer(send, _headers(order), Zipper(order.file_name) if order.compressed else Plain())
            await _tell(order, reader, answer, is_gone)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait until few enough others read the log. Raises StoreBusyError after a minute."""
        if self._queued >= QUEUE_LIMIT:
            raise StoreBusyError
        self._queued += 1
        try:
            async with asyncio.timeout(QUEUE_SECONDS):
                await self._readers.acquire()
        except TimeoutError:
            raise StoreBusyError from None
        finally:
            self._queued -= 1
        try:
            yield
        finally:
            self._readers.release()

    async def _refuse(self, send: Send, action: str, request_id: str, error: Exception) -> str:
        """Tell what is wrong in the vendor's form; a fault of ours with a status that no SDK saves as a file."""
        status, code, message = 503, "SERVICE_UNAVAILABLE", _told(error)
        if isinstance(error, AccessError):
            status, code = 200, "INVALID_CREDENTIALS"
        elif isinstance(error, UsageError):
            status, code = 200, "INVALID_PARAMETER"
        await respond(send, status, b"application/xml", self._vendor.refusal(action, request_id, code, message))
        return code.lower()


def _told(error: Exception) -> str:
    if isinstance(error, AftersendError):
        return str(error)
    log.error("a request failed", exc_info=error)
    return "a fault of ours; it is in the log"


async def _tell(order: Order, reader: DayReader, answer: Answer, is_gone: Callable[[], bool]) -> None:
    """Raises AbandonedError where an answer cannot be ended that has begun."""
    try:
        await answer.add(order.head())
        async for run in reader.runs():
            for start in range(0, len(run), RUN_EVENTS):
                await answer.add(order.tell(run[start : start + RUN_EVENTS]))
                await asyncio.sleep(0)
            if is_gone():
                raise AbandonedError("the client hung up")
        await answer.add(order.foot())
        await answer.end()
    except AbandonedError:
        raise
    except Exception as error:
        if not answer.is_begun:
            raise
        raise AbandonedError(_told(error)) from None


@asynccontextmanager
async def _watched(receive: Receive) -> AsyncIterator[Callable[[], bool]]:
    """Tells whether the client has hung up."""
    # The request was read whole: what comes next is its end.
    task = asyncio.ensure_future(receive())
    try:
        yield task.done
    finally:
        task.cancel()


def _headers(order: Order) -> Headers:
    name = order.file_name
    if not name:
        return [(b"content-type", b"application/xml")]
    kind = b"application/octet-stream"
    if order.compressed:
        name, kind = name.removesuffix(".xml") + ".zip", b"application/zip"
    return [(b"content-type", kind), (b"content-disposition", f"attachment; filename={name}".encode())]


async def _fields(scope: Scope, receive: Receive) -> dict[str, str]:
    """The fields of the form, or of the query where the method is GET; the first of a name. Raises UsageError."""
    body = await _body(receive)
    data = scope.get("query_string", b"") if scope["method"] == "GET" else body
    if len(data) > BODY_LIMIT:
        raise UsageError(f"The request is larger than {BODY_LIMIT} bytes.")
    try:
        pairs = parse_qsl(data.decode("latin-1"), keep_blank_values=True, max_num_fields=FIELDS_LIMIT, errors="replace")
    except ValueError:
        raise UsageError(f"The request has more than {FIELDS_LIMIT} parameters.") from None
    # Keys come out of files, with a line break at their end.
    return {name: value.strip() for name, value in reversed(pairs)}


async def _body(receive: Receive) -> bytes:
    body, more = b"", True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more and len(body) <= BODY_LIMIT:
                message = await receive()
                if message["type"] != "http.request":
                    raise UsageError("The request ended too early.")
                body += message.get("body", b"")
                more = message.get("more_body", False)
    except TimeoutError:
        raise UsageError("The request came too slowly.") from None
    return body

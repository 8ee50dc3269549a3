"""Subscriptions that are pulled: batches with a lease, what became of them, and a stream."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from secrets import token_hex
from types import MappingProxyType
from typing import Annotated, Any, Protocol

from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from aftersend.contracts import Dialect
from aftersend.core.errors import AftersendError, NotFoundError, StoreBusyError, UsageError
from aftersend.core.pulling import LEASE_LEAST, LEASE_MOST, LEASE_SECONDS, MOST_EVENTS, Ask, Handout, Told
from aftersend.core.registry import Key, Subscription
from aftersend.core.timestamps import format_time
from aftersend.web.services import Guard, Services, encode, number_of, read_json, reply, tenant_of
from aftersend.web.telling import Telling
from aftersend.web.waits import Waits, watched

WAIT_LIMIT = 60
"""Seconds that a consumer may wait for the first event."""

WAITING_LIMIT = 64
"""Consumers that may wait, or stream, on one subscription at once …"""

WAITING_LIMIT_IN_ALL = 1_000
"""… and on all of them."""

STREAM_PULSE = 15
"""Seconds between two signs of life on a quiet stream."""

STREAM_EVENTS = 1_000
"""After so many events, or …"""

STREAM_SECONDS = 30
"""… so long after an event, a stream ends: its client comes back with Last-Event-ID, and that acknowledges."""

NDJSON = "ndjson"
"""The dialect's name for canonical JSON, an event a line."""

_RETRY_MILLISECONDS = 200
_NOTHING: Mapping[str, str] = MappingProxyType({"aftersend-detail": "nothing came within the wait; ask again"})
_Text = Annotated[str, Meta(max_length=500)]


class Puller(Protocol):
    """One subscription's leases."""

    async def take(self, ask: Ask) -> Handout | None:
        """The next events, in the consumer's hands from now on; None: there are none now. Raises ConflictError."""
        ...

    async def acknowledge(self, lease: str, ids: Sequence[str] | None) -> Told:
        """Events of a lease were taken: all that are left, or those named. Raises NotFoundError, ConflictError."""
        ...

    async def refuse(self, lease: str, ids: Sequence[str] | None, reason: str) -> Told:
        """They were not taken, and come again late. Raises NotFoundError, ConflictError."""
        ...

    async def extend(self, lease: str, seconds: float) -> Told:
        """Keep what is left so many seconds from now. Raises NotFoundError, ConflictError."""
        ...

    async def confirm(self, consumer: str, sequence: int) -> None:
        """A consumer took everything up to a number, and wants the rest of what it has in hand anew."""
        ...

    async def more(self, *, late: bool = True) -> None:
        """Returns when it is worth to ask again; without `late` for events of the line alone."""
        ...


class Pulls(Protocol):
    """The pullers of all subscriptions."""

    def of(self, subscription: str) -> Puller:
        """The puller of a subscription's id."""
        ...


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """What a consumer says of a lease."""

    lease: str
    ids: Annotated[list[str], Meta(max_length=MOST_EVENTS)] | None = None
    """Which of its events; without them all that are left."""


class Refusal(Answer, frozen=True, forbid_unknown_fields=True):
    """What a consumer says of events that it did not take."""

    reason: _Text = ""
    """For a person who looks at what was set aside."""


class Extension(Struct, frozen=True, forbid_unknown_fields=True):
    """What a consumer that needs longer says."""

    lease: str
    seconds: Annotated[float, Meta(ge=LEASE_LEAST, le=LEASE_MOST)] = LEASE_SECONDS


class Pulling:
    """The handlers for consumers."""

    def __init__(
        self,
        services: Services,
        pulls: Pulls,
        waits: Waits,
        dialect_of: Callable[[Subscription], tuple[Dialect, str]],
    ) -> None:
        self._on = services
        self._pulls = pulls
        self.waits = waits
        self._dialect_of = dialect_of
        self._waiting: Counter[str] = Counter()

    def routes(self, guard: Guard) -> list[Route]:
        """Where they are served."""
        one = "/v1/subscriptions/{name}"
        return [
            guard.route(f"{one}/batch", "GET", "deliver", self.get_batch),
            guard.route(f"{one}/ack", "POST", "deliver", self.acknowledge),
            guard.route(f"{one}/nack", "POST", "deliver", self.refuse),
            guard.route(f"{one}/extend", "POST", "deliver", self.extend),
            guard.route(f"{one}/stream", "GET", "deliver", self.get_stream),
        ]

    async def _find(self, request: Request, key: Key) -> tuple[Subscription, Puller]:
        name = request.path_params["name"]
        for subscription in await self._on.registry.list(Subscription, tenant_of(request, key)):
            if name in (subscription.id, subscription.name):
                return subscription, self._pulls.of(subscription.id)
        raise NotFoundError(f"there is no subscription {name!r}")

    # --- batches

    async def get_batch(self, request: Request, key: Key) -> Response:
        """The next events and a lease: `max`, `wait`, `lease` (seconds), `consumer`, `dialect`; 204: there are none."""
        subscription, puller = await self._find(request, key)
        telling = self._telling(request, subscription)
        most = _number(request, "max", subscription.batch.max_events, 1, MOST_EVENTS)
        wait = _number(request, "wait", 0, 0, WAIT_LIMIT)
        ask = Ask(most, _lease_seconds(request, subscription), _consumer(request), telling.fit)
        handout = await puller.take(ask)
        if handout is None and wait:
            with self._place(subscription):
                handout = await self._wait_for(request, puller, ask, wait)
        if handout is None:
            return Response(status_code=204, headers=_NOTHING)
        return Response(telling.data, headers=_headers(handout) | {"content-type": telling.content_type})

    def _telling(self, request: Request, subscription: Subscription) -> Telling:
        asked = request.query_params.get("dialect", "")
        if not asked:
            dialect, form = self._dialect_of(subscription)
        else:
            dialect, form = self._on.find_dialect("canonical" if asked == NDJSON else asked)
            form = form or (dialect.forms[0] if dialect.forms else "")
        in_lines = asked == NDJSON or (not asked and dialect.name == "canonical")
        return Telling(dialect, form, subscription.batch.max_bytes, in_lines=in_lines)

    async def _wait_for(self, request: Request, puller: Puller, ask: Ask, seconds: float) -> Handout | None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        async with watched(request) as client:
            while not client.is_gone() and not self.waits.is_over and loop.time() < deadline:
                async with self.waits.at_most(deadline - loop.time()) as client.limit:
                    await puller.more()
                if client.is_gone():
                    break
                handout = await puller.take(ask)
                if handout is not None:
                    return handout
        return None

    @contextmanager
    def _place(self, subscription: Subscription) -> Iterator[None]:
        """One of the places for those who wait. Raises StoreBusyError where all are taken."""
        if self._waiting[subscription.id] >= WAITING_LIMIT or self._waiting.total() >= WAITING_LIMIT_IN_ALL:
            raise StoreBusyError(f"{WAITING_LIMIT} consumers wait on {subscription.name} already; try again later")
        self._waiting[subscription.id] += 1
        try:
            yield
        finally:
            self._waiting[subscription.id] -= 1
            self._waiting += Counter()

    # --- answers

    async def acknowledge(self, request: Request, key: Key) -> Response:
        """Events were taken: `{"lease": …, "ids": […]}`; without ids all that are left of the lease."""
        answer: Answer = await read_json(request, Answer)
        return await self._answered(request, key, lambda puller: puller.acknowledge(answer.lease, answer.ids))

    async def refuse(self, request: Request, key: Key) -> Response:
        """Events were not taken: `{"lease": …, "ids": […], "reason": …}`; they come again, marked late."""
        answer: Refusal = await read_json(request, Refusal)
        reason = "".join(letter if letter.isprintable() else " " for letter in answer.reason)
        return await self._answered(request, key, lambda puller: puller.refuse(answer.lease, answer.ids, reason))

    async def extend(self, request: Request, key: Key) -> Response:
        """Keep a lease longer: `{"lease": …, "seconds": …}`, from now on."""
        answer: Extension = await read_json(request, Extension)
        return await self._answered(request, key, lambda puller: puller.extend(answer.lease, answer.seconds))

    async def _answered(self, request: Request, key: Key, work: Callable[[Puller], Awaitable[Told]]) -> Response:
        _, puller = await self._find(request, key)
        return reply(await work(puller))

    # --- streams

    async def get_stream(self, request: Request, key: Key) -> Response:
        """Events as they arrive, as server-sent events; coming back with `Last-Event-ID` acknowledges up to there.

        Nothing else does: a stream ends after 1,000 events, or 30 seconds after one, so that its client comes back.
        """
        subscription, puller = await self._find(request, key)
        last = request.headers.get("last-event-id") or request.query_params.get("last") or ""
        if last:
            await puller.confirm(*_read_id(last))
        stream = _Stream(puller, self.waits, *self._dialect_of(subscription), _lease_seconds(request, subscription))
        first = await puller.take(stream.ask())
        headers = {"cache-control": "no-store", "content-type": "text/event-stream"}
        return StreamingResponse(self._run(stream, subscription, first), headers=headers)

    async def _run(self, stream: _Stream, subscription: Subscription, first: Handout | None) -> AsyncIterator[bytes]:
        try:
            with self._place(subscription):
                async for data in stream.run(first):
                    yield data
        except AftersendError as error:
            yield b"event: aftersend.end\ndata: %s\n\n" % encode({"detail": str(error)})


class _Stream:
    """One client's stream."""

    def __init__(self, puller: Puller, waits: Waits, dialect: Dialect, form: str, seconds: float) -> None:
        self._consumer = f"stream_{token_hex(8)}"
        self._puller = puller
        self._waits = waits
        self._dialect = dialect
        self._form = form
        self._seconds = seconds
        self._told = 0
        self._since = 0.0

    def ask(self) -> Ask:
        """What is asked for next; events set aside only where nothing else is unconfirmed."""
        most = max(1, STREAM_EVENTS - self._told)
        return Ask(most, self._seconds, self._consumer, len, late=not self._told)

    async def run(self, handout: Handout | None) -> AsyncIterator[bytes]:
        """Tell until there is enough to be confirmed."""
        yield b"retry: %d\n\n" % _RETRY_MILLISECONDS
        loop = asyncio.get_running_loop()
        while not self._waits.is_over:
            if handout is not None:
                self._since = self._since or loop.time()
                self._told += len(handout.events)
                yield self._frames(handout)
                if handout.late or self._told >= STREAM_EVENTS:
                    return
            wait = self._since + min(STREAM_SECONDS, self._seconds / 2) - loop.time() if self._told else STREAM_PULSE
            if wait <= 0:
                return
            async with self._waits.at_most(min(wait, STREAM_PULSE)) as limit:
                await self._puller.more(late=not self._told)
            if limit.expired():
                yield b": still here\n\n"
            handout = await self._puller.take(self.ask())

    def _frames(self, handout: Handout) -> bytes:
        numbered = zip(handout.sequences, handout.events, strict=True)
        return (b": late\n" if handout.late else b"") + b"".join(
            [self._frame(sequence, event) for sequence, event in numbered]
        )

    def _frame(self, sequence: int, event: Any) -> bytes:
        (body,) = self._dialect.encode([event], self._form)
        data = body.data[1:-1] if self._dialect.name == "canonical" else body.data
        lines = b"".join([b"data: %s\n" % line for line in data.splitlines()])
        id_ = f"{self._consumer}.{sequence}".encode()
        return b"id: %s\nevent: %s\n%s\n" % (id_, event.type.encode(), lines)


# --- what was asked for


def _number(request: Request, name: str, usual: int, least: int, most: int) -> int:
    value = number_of(request, name, usual)
    if not least <= value <= most:
        raise UsageError(f"{name} is {least} to {most}, not {value}")
    return value


def _lease_seconds(request: Request, subscription: Subscription) -> int:
    usual = int(subscription.settings.get("lease", LEASE_SECONDS))
    return _number(request, "lease", usual, LEASE_LEAST, LEASE_MOST)


def _consumer(request: Request) -> str:
    name = request.query_params.get("consumer", "")
    if len(name) > 100 or not (name.isprintable() or not name) or name.startswith("stream_"):
        raise UsageError("consumer is a name of at most 100 printable characters that does not begin with stream_")
    return name


def _read_id(text: str) -> tuple[str, int]:
    consumer, _, sequence = text.rpartition(".")
    if not consumer.startswith("stream_") or not sequence.isdecimal() or len(sequence) > 18:
        raise UsageError(f"Last-Event-ID is none of this stream's: {text[:100]!r}; leave it out to begin anew")
    return consumer, int(sequence)


def _headers(handout: Handout) -> dict[str, str]:
    late = {"aftersend-late": "true"} if handout.late else {}
    return {
        "aftersend-lease": handout.lease,
        "aftersend-until": format_time(handout.until),
        "aftersend-epoch": str(handout.epoch),
        "aftersend-sequence": handout.numbers,
        "aftersend-previous": str(handout.sequences[0] - 1),
        "aftersend-count": str(len(handout.events)),
        **late,
    }

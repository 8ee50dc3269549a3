"""All running deliveries: one dispatcher a subscription, started, changed and stopped as its record says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from secrets import token_hex
from typing import Any, Protocol

from msgspec import structs

from aftersend.contracts import Clock, Cursor, Cursors, Dialect, Leases, Log, Registry, Replay, Transport
from aftersend.core.errors import AftersendError, ConflictError, NotFoundError, StoreBusyError, UsageError
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import format_time, parse_time
from aftersend.pipeline.dispatch import Dispatcher
from aftersend.pipeline.feed import Feed
from aftersend.pipeline.filing import LAG, Filer
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.outbox import discard, discard_replays, tidy
from aftersend.pipeline.pull import House
from aftersend.pipeline.pullers import Pulls
from aftersend.pipeline.replay import Replayer
from aftersend.pipeline.shipment import Standing
from aftersend.pipeline.speaker import Speaker
from aftersend.pipeline.voice import Voice

RESTART_SECONDS = (1, 5, 30, 60)
"""Waits before a dispatcher that broke for a fault of ours begins again."""

SEND_SECONDS = 5
"""How long a request under way may take before it is cut off when its subscription is changed or stopped."""

_EPOCH_FIELDS = (
    "dialect",
    "options",
    "types",
    "channels",
    "sources",
    "campaigns",
    "actors",
    "test",
    "verdict",
    "corrections",
)

log = logging.getLogger("aftersend.deliveries")


class Elsewhere(Protocol):
    """Whoever tells the events of subscriptions that are told nothing here: their clients come and ask."""

    async def place(self, subscription: Subscription) -> None:
        """A subscription (any) is as its record now says."""
        ...

    def drop(self, id_: str) -> None:
        """A subscription is gone."""
        ...

    def standing(self, subscription: Subscription) -> dict[str, Any]:
        """How a subscription does."""
        ...

    def holding(self, own: Mapping[str, int]) -> dict[str, int]:
        """The positions that retention must not pass, where `own` are those of all cursors here."""
        ...

    async def flush(self) -> None:
        """Write down where everything stands."""
        ...


class Deliveries:
    """Runs the dispatchers; see `contracts.Deliveries`."""

    def __init__(
        self,
        *,
        log: Log,
        settled: Log | None = None,
        registry: Registry,
        cursors: Cursors,
        leases: Leases,
        find_dialect: Callable[[Subscription], tuple[Dialect, str]],
        open_transport: Callable[[Subscription], Transport],
        clock: Clock,
        chance: Callable[[], float],
        elsewhere: Elsewhere | None = None,
        data: Path = Path(),
        settle: int = 0,
    ) -> None:
        """`data` is the folder in which files are made before they go out; `settle` (ns) is how long verdicts take."""
        self._data = data
        self._settle = settle
        self._elsewhere = elsewhere
        self.feed = Feed(log)
        self.settled_feed = Feed(settled or log)
        self.ledger = Ledger(cursors)
        self._log = log
        self._registry = registry
        self._cursors = cursors
        self._find_dialect = find_dialect
        self._open_transport = open_transport
        self._clock = clock
        self._chance = chance
        # What is told of an event differs with the verdict, so bodies are not shared between the two.
        self._speakers = {"at_once": Speaker(), "settled": Speaker()}
        self._replayer = Replayer(log, clock, data)
        self._dispatchers: dict[str, Dispatcher | Filer] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._records: dict[str, Subscription] = {}
        self._pushing: set[str] = set()
        self._lock = asyncio.Lock()
        self._started = False
        self.pulls = Pulls(
            House(
                leases=leases,
                cursors=cursors,
                ledger=self.ledger,
                record_of=self._record,
                feed_of=self._feed,
                find_dialect=find_dialect,
                check_turn=self._check_turn,
                take_turn=self._take_turn,
                clock=clock,
                chance=chance,
                make_id=lambda: token_hex(8),
            )
        )

    async def load(self) -> None:
        """Read the subscriptions and where each stands; nothing is delivered yet."""
        await asyncio.to_thread(discard_replays, self._data)
        for subscription in await self._registry.list(Subscription):
            await self._place(subscription)

    async def start(self) -> None:
        """Begin every subscription that is active."""
        self._started = True
        for subscription in await self._registry.list(Subscription):
            await self._begin(subscription)

    async def stop(self) -> None:
        """End all dispatchers and write down where they stand."""
        self._replayer.stop()
        names = list(self._tasks)
        await asyncio.gather(*(self._end(id_) for id_ in names))
        await self.pulls.close()
        for id_ in names:
            await self._remember_failing(id_)
        await self.ledger.flush()
        if self._elsewhere is not None:
            await self._elsewhere.flush()

    async def _remember_failing(self, id_: str) -> None:
        """A receiver that fails now goes on failing at the next start: the days until it is disabled add up."""
        since = self._dispatchers[id_].standing.failing_since if id_ in self._dispatchers else 0
        record = self._records[id_]
        if since and record.state != "disabled":
            await self._registry.put(structs.replace(record, failing_since=since))

    def holding(self) -> dict[str, int]:
        """The positions that retention must not pass: of subscriptions that are delivered or paused."""
        cursors = self.ledger.cursors()
        kept = [record for record in self._records.values() if record.state in ("active", "gap", "paused")]
        own = {record.id: cursors[record.id].position for record in kept if record.id in cursors}
        return own if self._elsewhere is None else self._elsewhere.holding(own)

    async def apply(self, subscription: Subscription) -> Subscription:
        """Start, change or stop a delivery as its record now says."""
        async with self._lock:
            before = self._records.get(subscription.id)
            if before is not None and any(
                getattr(before, name) != getattr(subscription, name) for name in _EPOCH_FIELDS
            ):
                subscription = structs.replace(subscription, epoch=before.epoch + 1)
            await self._end(subscription.id)
            await self._registry.put(subscription)
            await self._begin(subscription)
            return subscription

    async def drop(self, subscription: Subscription) -> None:
        """End a subscription for good."""
        async with self._lock:
            await self._end(subscription.id)
            await self._registry.remove(subscription)
            self._records.pop(subscription.id, None)
            await self.pulls.drop(subscription.id)
            await asyncio.to_thread(discard, self._data, subscription.id)
            self.ledger.close(subscription.id)
            if self._elsewhere is not None:
                self._elsewhere.drop(subscription.id)

    async def mark_gap(self, id_: str, since: int, until: int, count: int) -> None:
        """The log's size limit overtook a subscription: say so, and go on after the gap unless it is paused."""
        if id_ not in self._records:
            # What a client could only have had again is no loss: it has read it.
            return
        record = self._records[id_]
        reason = f"{count} events (positions {since} to {until}) were dropped by the log's size limit before delivery"
        state = "paused" if record.state == "paused" else "gap"
        await self.apply(structs.replace(record, state=state, reason=reason))

    def standing(self, subscription: Subscription) -> dict[str, Any]:
        """How a subscription does."""
        cursor = self.ledger.cursors().get(subscription.id, Cursor())
        dispatcher = self._dispatchers.get(subscription.id)
        # A line that wants nothing of what arrives is written down as passed once a minute only.
        passed = dispatcher.inbox.passed if dispatcher and dispatcher.inbox else 0
        position = max(cursor.position, passed)
        shown: dict[str, Any] = {
            "position": position,
            "epoch": cursor.epoch,
            "sequence": cursor.sequence,
            "behind": max(0, self._log.head() - position),
            **self.pulls.standing(subscription.id),
        }
        if dispatcher is None:
            return shown | (self._elsewhere.standing(subscription) if self._elsewhere else {})
        standing = dispatcher.standing
        shown |= structs.asdict(standing) | {"breaker": standing.breaker}
        shown["untold"] = dispatcher.inbox.untold if dispatcher.inbox else 0
        for name in ("failing_since", "next_try_at"):
            shown[name] = format_time(shown[name]) if shown[name] else None
        return shown

    def figures(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Samples for `/metrics`."""
        for record in self._records.values():
            labels = {"subscription": record.name, "tenant": record.tenant}
            standing = self.standing(record)
            yield "subscription_behind", labels, standing["behind"]
            yield "subscription_delivered_total", labels, standing.get("delivered", 0)
            yield "subscription_failures", labels, standing.get("failures", 0)
            yield "subscription_late", labels, standing.get("late", 0)

    def retry_now(self, subscription: Subscription) -> None:
        """Do not wait for the next try."""
        dispatcher = self._dispatchers.get(subscription.id)
        if dispatcher is not None:
            dispatcher.nudge()

    async def replay(self, subscription: Subscription, order: Replay) -> Replay:
        """Begin to tell events again, or count them."""
        transport = self._open_transport(subscription)
        if transport.carries == "nothing":
            await transport.close()
            name = subscription.transport
            raise UsageError(f"{name} tells nothing again; add a subscription that starts at that time")
        log_ = self._feed(subscription).log
        return await self._replayer.begin(subscription, order, self._voice(subscription, transport), transport, log_)

    def replays(self, subscription: Subscription) -> list[Replay]:
        """Replays of a subscription since the process began."""
        return self._replayer.of(subscription.id)

    # --- one delivery

    async def _place(self, subscription: Subscription) -> None:
        id_ = subscription.id
        self._records[id_] = subscription
        cursor = await self.ledger.open(id_, Cursor(await self._start(subscription), subscription.epoch, 0))
        if cursor.epoch != subscription.epoch:
            await self.pulls.of(id_).forget()
            await self.ledger.restart(id_, subscription.epoch, cursor.position)
        self.pulls.look_anew(id_)
        if self._elsewhere is not None:
            await self._elsewhere.place(subscription)

    async def _begin(self, subscription: Subscription) -> None:
        await self._place(subscription)
        if not self._started:
            return
        id_ = subscription.id
        if subscription.failing_since:
            self._records[id_] = structs.replace(subscription, failing_since=0)
            await self._registry.put(self._records[id_])
        if subscription.state in ("active", "gap"):
            self._tasks[id_] = asyncio.create_task(self._supervise(subscription), name=f"deliver {subscription.name}")

    async def _start(self, subscription: Subscription) -> int:
        if subscription.start == "now":
            return self._log.head()
        if subscription.start == "beginning":
            return self._log.tail()
        return await self._log.position_at(parse_time(subscription.start))

    async def _end(self, id_: str) -> None:
        task = self._tasks.pop(id_, None)
        if task is None or task is asyncio.current_task():
            return
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._dispatchers[id_].sending.acquire()
        except (TimeoutError, KeyError):
            log.debug("a request of %s is cut off; what it told will be told again", id_)
        task.cancel()
        await asyncio.wait([task])

    async def _supervise(self, subscription: Subscription, standing: Standing | None = None) -> None:
        """Run a dispatcher; one that breaks for a fault of ours begins again from its cursor."""
        faults = 0
        while True:
            try:
                transport = self._open_transport(subscription)
            except AftersendError as error:
                await self._disable(subscription, str(error))
                return
            if transport.carries != "volumes":
                await asyncio.to_thread(tidy, self._data, subscription.id)
            if transport.carries == "nothing":
                self._dispatchers.pop(subscription.id, None)
                await transport.close()
                return
            dispatcher = self._dispatcher(subscription, transport, standing)
            self._dispatchers[subscription.id] = dispatcher
            try:
                await dispatcher.rest()
                await self.pulls.of(subscription.id).idle()
                self._pushing.add(subscription.id)
                await dispatcher.run()
                return
            except Exception:
                log.exception("the delivery of %s broke and begins again", subscription.name)
                dispatcher.standing.detail = "a fault of ours; it is in the log"
            finally:
                self._pushing.discard(subscription.id)
                await dispatcher.close()
            await asyncio.sleep(RESTART_SECONDS[min(faults, len(RESTART_SECONDS) - 1)])
            faults += 1

    def _feed(self, subscription: Subscription) -> Feed:
        return self.settled_feed if subscription.verdict == "settled" else self.feed

    def _voice(self, subscription: Subscription, transport: Transport) -> Voice:
        dialect, form = self._find_dialect(subscription)
        if transport.carries != "pieces":
            return Voice(dialect, form)
        single = next((one for one in dialect.forms if one in dialect.singles), form)
        return Voice(dialect, form if "/" in subscription.dialect else single, in_pieces=True)

    def _dispatcher(
        self, subscription: Subscription, transport: Transport, standing: Standing | None = None
    ) -> Dispatcher | Filer:
        voice = self._voice(subscription, transport)
        if transport.carries == "volumes":
            return Filer(
                subscription,
                voice,
                transport,
                rotation=subscription.file,
                data=self._data,
                feed=self._feed(subscription),
                ledger=self.ledger,
                cursors=self._cursors,
                clock=self._clock,
                chance=self._chance,
                disable=self._disable,
                lag=LAG + (self._settle if subscription.verdict == "settled" else 0),
                standing=standing,
            )
        return Dispatcher(
            subscription,
            voice,
            transport,
            feed=self._feed(subscription),
            ledger=self.ledger,
            cursors=self._cursors,
            speaker=self._speakers[subscription.verdict],
            clock=self._clock,
            chance=self._chance,
            disable=self._disable,
            standing=standing,
        )

    async def _disable(self, subscription: Subscription, reason: str) -> None:
        log.warning("subscription %s is disabled: %s", subscription.name, reason)
        disabled = structs.replace(subscription, state="disabled", reason=reason)
        self._records[subscription.id] = disabled
        await self._registry.put(disabled)

    # --- push and pull in turns

    def _record(self, id_: str) -> Subscription:
        if id_ not in self._records:
            raise NotFoundError("the subscription was removed")
        return self._records[id_]

    def _check_turn(self, id_: str) -> None:
        """Raises ConflictError where a subscription cannot be pulled now."""
        record = self._record(id_)
        if record.transport == "rest_pull":
            if record.state == "paused":
                raise ConflictError(f"{record.name} is paused; set its state to active to pull")
            return
        if self._open_transport(record).carries not in ("parcels", "pieces"):
            raise ConflictError(f"{record.name} is told by {record.transport}, and cannot be pulled beside it")
        if record.state in ("paused", "disabled"):
            return
        dispatcher = self._dispatchers.get(id_)
        if dispatcher is None or dispatcher.standing.breaker != "open":
            raise ConflictError(
                f"{record.name} is pushed by {record.transport}; to pull it, pause it, "
                "or add a subscription with the transport rest_pull"
            )

    async def _take_turn(self, id_: str) -> None:
        """End a push that is failing: it goes on from the cursor once no lease is live.

        Raises ConflictError where it works after all.
        """
        if id_ not in self._pushing:
            return
        if self._lock.locked():
            # Who changes a subscription may be waiting for this one's leases.
            raise StoreBusyError(f"{self._record(id_).name} is being changed; try again in a moment")
        async with self._lock:
            standing = self._dispatchers[id_].standing
            await self._end(id_)
            record = self._record(id_)
            if record.state in ("active", "gap"):
                self._tasks[id_] = asyncio.create_task(self._supervise(record, standing), name=f"deliver {record.name}")
            self._check_turn(id_)

"""Puts the rooms together: finds the plugins, opens the store, starts the readers, serves."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import uvicorn

from aftersend.assembly import Capture, halon_of
from aftersend.capture.shortening import LIFE_DAYS
from aftersend.config import Config, parse_address
from aftersend.contracts import Transport
from aftersend.core.consent import Level, person_key
from aftersend.core.errors import ConfigurationError, StoreError, UsageError
from aftersend.core.event import Receipt
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import DAY, SECOND, parse_time
from aftersend.dialects.activatepro import request_fault
from aftersend.egress import Egress
from aftersend.keyring import Keyring
from aftersend.pipeline.deliveries import Deliveries
from aftersend.pipeline.derivation import Derivation
from aftersend.pipeline.directory import Directory, read_directory
from aftersend.pipeline.draft import framing_for
from aftersend.pipeline.firsts import KEPT, FirstsFollower
from aftersend.pipeline.intake import Intake
from aftersend.pipeline.networks import read_lists
from aftersend.pipeline.reclassification import Difference, reclassify
from aftersend.pipeline.settling import KEPT as VERDICTS_KEPT
from aftersend.pipeline.settling import SettledLog, Settling
from aftersend.pipeline.verdict import Rules, read_rules
from aftersend.pulled import Pulled
from aftersend.rack import (
    dialect_of,
    dialects,
    find_dialect,
    find_transport,
    open_transport,
    transport_for,
    transport_names,
)
from aftersend.stores.sqlite import SqliteStore
from aftersend.stores.sqlite.followers import SqliteFirsts, SqliteVerdicts
from aftersend.stores.sqlite.people import SqlitePeople
from aftersend.stores.sqlite.references import SqliteReferences
from aftersend.telemetry import Telemetry
from aftersend.transports.http import HttpClient
from aftersend.web.access import Access
from aftersend.web.api import build_api
from aftersend.web.app import App, Entry
from aftersend.web.doors import Doors
from aftersend.web.pull import Pulling
from aftersend.web.services import Services
from aftersend.web.waits import Waits

SOCKET = "aftersend.sock"
"""The socket in the data folder that commands reach a running instance by."""

RETENTION_INTERVAL = 300.0
"""Seconds between two looks at what may be dropped."""

GARBAGE_THRESHOLDS = (50_000, 20, 50)
"""How rarely the collector looks for cycles; Python's own is (700, 10, 10)."""

PROBE_SECONDS = 20.0
"""How long a look at a receiver may take."""

STOP_SECONDS = 10
"""Seconds that open requests get when the process is asked to stop."""

log = logging.getLogger("aftersend")

R = TypeVar("R")


# --- one instance


class Instance:
    """A store with everything that works on it, in this process."""

    def __init__(
        self,
        *,
        data: Path,
        store: SqliteStore,
        firsts: SqliteFirsts,
        people: SqlitePeople,
        references: SqliteReferences,
        settling: Settling,
        verdicts: SqliteVerdicts,
        rules: Rules,
        directory: Directory,
        keyring: Keyring,
        config: Config,
        clock: Callable[[], int],
    ) -> None:
        self._data = data
        self.store = store
        self.config = config
        self.clock = clock
        self.telemetry = Telemetry()
        self.egress = Egress.read(config.egress_allow, config.egress_allow_metadata, config.egress_brokers)
        self.client = HttpClient(self.egress)
        self.access = Access(store, clock)
        self.capture = Capture(
            data=data,
            config=config,
            log=store,
            people=people,
            references=references,
            keyring=keyring,
            check=lambda token, scope: self.access.check(token, scope).tenant,
            judge=rules.judged,
            treatment=directory.treatment,
            clock=clock,
            telemetry=self.telemetry,
        )
        self.intake = Intake(store, store, Derivation(people, rules.judged, self.capture.consent_key))
        self.doors = Doors(
            intake=self.intake,
            access=self.access,
            registry=store,
            find_dialect=find_dialect,
            activatepro_fault=request_fault,
            clock=clock,
            telemetry=self.telemetry,
        )
        settled = SettledLog(store, settling, verdicts)
        self.pulled = Pulled(
            store=store,
            log_of=lambda subscription: settled if subscription.verdict == "settled" else store,
            cursors=store,
            leases=store,
            open_transport=self.open_transport,
            config=config,
            clock=clock,
            telemetry=self.telemetry,
        )
        self.deliveries = Deliveries(
            log=store,
            settled=settled,
            elsewhere=self.pulled,
            data=data,
            settle=int(rules.book.settle_seconds * SECOND),
            registry=store,
            cursors=store,
            leases=store,
            find_dialect=dialect_of,
            open_transport=self.open_transport,
            clock=clock,
            chance=random.random,
        )
        self._firsts = firsts
        self._people = people
        self._references = references
        self._settling = settling
        self._verdicts = verdicts
        self._rules = rules
        native = frozenset(name for name, dialect in dialects().items() if dialect.native_firsts)
        self.follower = FirstsFollower(store, firsts, native)
        self.waits = Waits()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_settling = False

    def open_transport(self, subscription: Subscription) -> Transport:
        """The way out of a subscription. Raises UsageError and EgressError."""
        return open_transport(
            subscription,
            {
                "egress": self.egress,
                "clock": self.clock,
                "client": self.client,
                "subscription": subscription.name,
                "folders": tuple(Path(folder) for folder in self.config.folders),
                "rotation": subscription.file,
            },
        )

    async def check_subscription(self, subscription: Subscription) -> None:
        """Raises UsageError or EgressError for a subscription that cannot work."""
        dialect_of(subscription)
        if subscription.ordering not in ("log", "strict", "none"):
            raise UsageError(f"ordering is log, strict or none; not {subscription.ordering!r}")
        if subscription.concurrency > 1 and subscription.ordering != "none":
            raise UsageError("concurrency above 1 needs ordering none: several requests at once keep no order")
        if subscription.start not in ("now", "beginning"):
            try:
                parse_time(subscription.start)
            except ValueError:
                raise UsageError(f"start is now, beginning or an RFC 3339 time; not {subscription.start!r}") from None
        transport = self.open_transport(subscription)
        self.pulled.check(subscription, transport)
        if transport.carries == "volumes":
            framing_for(*dialect_of(subscription), subscription.file)
        if subscription.transport == "http":
            await self._check_name(subscription.url)
        if _waits_for_verdicts(subscription) and self._tasks and not self._is_settling:
            await self._settling.skip()
            self._begin_settling()

    async def _check_name(self, url: str) -> None:
        target = self.egress.check_url(url)
        try:
            await self.egress.resolve(target.host, target.port)
        except OSError as error:
            raise UsageError(f"{target.host} has no address: {error.strerror or error}") from None

    async def probe(self, subscription: Subscription) -> Outcome:
        """Whether a subscription's receiver can be reached and would take something."""
        transport = self.open_transport(subscription)
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return await transport.probe()
        except TimeoutError:
            return Outcome(Verdict.FAILED, f"no answer within {PROBE_SECONDS:g} s")
        finally:
            await transport.close()

    async def load(self) -> None:
        """Read what is registered."""
        await self.access.load()
        await self.doors.load()
        await self.deliveries.load()
        await self.changed()

    async def changed(self) -> None:
        """Read what the capture room knows of the registry, anew."""
        await self.capture.load(self.store)

    def level(self, tenant: str, person: str) -> Level:
        """How much a person lets us keep. Raises StoreError."""
        return self._people.level(tenant, person_key(tenant, person))

    async def set_level(self, tenant: str, person: str, level: Level) -> None:
        """Change it. Raises StoreError."""
        await self.capture.set_level(tenant, person, level, self.level(tenant, person))

    async def start(self) -> None:
        """Start reading and delivering."""
        await self.deliveries.start()
        self.telemetry.watch(self.deliveries.figures)
        self.telemetry.watch(self._figures)
        hits = self.capture.begin()
        await self.capture.open_relay()
        for name, work in (
            ("ledger", self.deliveries.ledger.run),
            ("feed", self.deliveries.feed.run),
            ("firsts", self.follower.run),
            ("retention", self._retain),
            ("spool", hits.run),
        ):
            self._begin(name, work)
        if self.config.settled_verdicts or any(map(_waits_for_verdicts, await self.store.list(Subscription))):
            self._begin_settling()

    def _begin(self, name: str, work: Callable[[], Any]) -> None:
        self._tasks.append(asyncio.create_task(_supervised(name, work), name=name))

    def _begin_settling(self) -> None:
        """Judge hits again when others are seen beside them, from now on; a second time this does nothing."""
        if not self._is_settling:
            self._is_settling = True
            self._begin("settled feed", self.deliveries.settled_feed.run)
            self._begin("settling", self._settling.run)

    async def stop(self) -> None:
        """Stop reading and delivering; where everything stands is on disk."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self.deliveries.stop()
        except StoreError as error:
            log.warning("where the deliveries stand could not be written down: %s", error)
        await self.client.close()
        await self.capture.close()
        await self._people.close()
        await self._references.close()
        await self._verdicts.close()
        await self._firsts.close()
        await self.store.close()

    def app(self, *, local: bool = False, doors_only: bool = False) -> App:
        """The ASGI application: `local` for those who hold the data folder, `doors_only` without the API."""
        services = Services(
            log=self.store,
            registry=self.store,
            cursors=self.store,
            quarantine=self.store,
            deliveries=self.deliveries,
            access=self.access,
            doors=self.doors,
            check_domain=halon_of,
            changed=self.changed,
            level=self.level,
            set_level=self.set_level,
            find_dialect=find_dialect,
            check_subscription=self.check_subscription,
            find_transport=find_transport,
            transport_names=transport_names,
            transport_for=transport_for,
            probe=self.probe,
            reclassify=self.reclassify,
            replay_quarantined=self.replay_quarantined,
            clock=self.clock,
            telemetry=self.telemetry,
            ready=self.ready,
        )
        return Entry(
            self.doors,
            build_api(
                services,
                self.capture.rewrite,
                self.capture.make_links,
                Pulling(services, self.deliveries.pulls, self.waits, dialect_of),
            ),
            self.capture.domains,
            local=local,
            doors_only=doors_only,
            captures=self.capture.apps,
            vendor_app=self.pulled.app_for,
        )

    def ready(self) -> str:
        """Why events cannot be kept now, or nothing."""
        return self.store.fault() or self.capture.fault()

    def _figures(self) -> Iterator[tuple[str, dict[str, str], float]]:
        yield "log_head", {}, self.store.head()
        yield "log_tail", {}, self.store.tail()
        yield "ready", {}, 0 if self.ready() else 1

    async def reclassify(self, tenant: str | None, since: int, until: int | None, apply: bool) -> Difference:
        """Judge hits that were kept by the rules as they are now. Raises StoreError."""
        return await reclassify(
            self.store, self._verdicts, self._rules, self.clock, since=since, until=until, tenant=tenant, apply=apply
        )

    async def replay_quarantined(self, tenant: str | None, limit: int) -> dict[str, int]:
        """Read what is in quarantine again; what is read now leaves it."""
        accepted = still = after = 0
        while accepted + still < limit:
            found = await self.store.list_quarantined(tenant, 100, after)
            if not found:
                break
            for number, entry in found:
                after = number
                dialect, _ = find_dialect(entry.dialect)
                receipt = Receipt(
                    entry.body, entry.received_at, entry.form, entry.tenant, entry.source, "", entry.content_type
                )
                items = dialect.decode(receipt)
                if items and not any(hasattr(item, "reason") for item in items):
                    await self.intake.take(dialect, receipt, keep_unreadable=False)
                    await self.store.discard([number])
                    accepted += 1
                else:
                    still += 1
        return {"read": accepted, "still_unreadable": still}

    async def _retain(self) -> None:
        """Drop what is old enough, again and again."""
        while True:
            await asyncio.sleep(RETENTION_INTERVAL)
            await self.retain()

    async def retain(self) -> None:
        """Drop log files that are old enough and passed by all, or past the size limit; tell who was overtaken."""
        config, now = self.config, self.clock()
        before = now - int(config.retention_days * DAY) if config.retention_days else 0
        gaps = await self.store.retain(before, config.max_log_bytes or None, self.deliveries.holding())
        for gap in gaps:
            await self.deliveries.mark_gap(gap.subscription, gap.since, gap.until, gap.count)
        await self._firsts.forget(now - KEPT)
        await self._verdicts.forget(now - VERDICTS_KEPT)
        await self._references.forget(now - LIFE_DAYS * DAY)


def _waits_for_verdicts(subscription: Subscription) -> bool:
    return subscription.verdict == "settled" or subscription.corrections


def _read(path: str, setting: str, reader: Callable[[bytes], R]) -> R:
    """What a file of the operator says; no file says nothing. Raises ConfigurationError."""
    try:
        return reader(Path(path).read_bytes() if path else b"")
    except OSError as error:
        raise ConfigurationError(f"{setting}: {path}: {(error.strerror or str(error)).lower()}") from None
    except ConfigurationError as error:
        raise ConfigurationError(f"{setting}: {path}: {error}") from None


async def _supervised(name: str, work: Callable[[], Any]) -> None:
    """Run a loop that should never end; one that breaks begins again after a while."""
    wait = 0.1
    while True:
        began = time.monotonic()
        try:
            await work()
        except Exception as error:
            if isinstance(error, StoreError):
                log.warning("%s: %s", name, error)
            else:
                log.exception("%s broke and begins again", name)
        wait = 0.1 if time.monotonic() - began > 60 else min(wait * 2, 30.0)
        await asyncio.sleep(wait)


@asynccontextmanager
async def opened(
    data: Path, config: Config, *, create: bool = False, without_old_keys: bool = False
) -> AsyncIterator[Instance]:
    """The instance in a data folder, held by this process alone. Raises StoreError in one line."""
    keyring = Keyring.open(Path(config.keyring_file) if config.keyring_file else data / "keyring.json", create=create)
    clock = time.time_ns
    rules = read_rules(networks=_read(config.networks_file, "networks_file", read_lists))
    directory = _read(config.bots_file, "bots_file", read_directory)
    store = await SqliteStore.open(
        data,
        clock=clock,
        keyring=keyring,
        create=create,
        without_old_keys=without_old_keys,
        max_file_bytes=config.max_file_bytes,
    )
    try:
        firsts = SqliteFirsts.open(data)
        people = SqlitePeople.open(data, clock)
        await people.load()
        references = SqliteReferences.open(data, clock)
        verdicts = SqliteVerdicts.open(data)
        settling = await Settling.open(store, verdicts, rules, clock)
    except BaseException:
        await store.close()
        raise
    instance = Instance(
        data=data,
        store=store,
        firsts=firsts,
        people=people,
        references=references,
        settling=settling,
        verdicts=verdicts,
        rules=rules,
        directory=directory,
        keyring=keyring,
        config=config,
        clock=clock,
    )
    try:
        await instance.load()
        yield instance
    finally:
        await instance.stop()


# --- serving


class _Server(uvicorn.Server):
    """A server among others in one process: signals are the process's matter."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _server(app: App, config: Config) -> _Server:
    return _Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="none",
            lifespan="off",
            proxy_headers=False,
            access_log=False,
            log_level=config.log_level,
            log_config=None,
            server_header=False,
            date_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="none",
            backlog=2048,
        )
    )


def listen(address: str, name: str) -> socket.socket:
    """A listening socket. Raises ConfigurationError in one line where the port is in use or not allowed."""
    host, port = parse_address(address, name)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{name}: cannot listen on {address}: {reason}; choose another address") from None
    return sock


def listen_locally(path: Path) -> socket.socket:
    """The socket in the data folder, for its owner alone."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(128)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise StoreError(f"{path}: {error.strerror or error}; a data folder with a shorter path may do") from None
    finally:
        os.umask(before)
    return sock


async def serve(data: Path, config: Config, *, ready: Callable[[str], None], without_old_keys: bool = False) -> None:
    """Everything in one process, until SIGTERM or SIGINT; `ready` is told one line when requests are answered."""
    # Events are made and dropped by the thousand and hold no cycles: looking for cycles less often saves a tenth.
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    public = listen(config.listen, "listen")
    sockets = [public]
    try:
        async with opened(data, config, without_old_keys=without_old_keys) as instance:
            sockets.append(listen_locally(data / SOCKET))
            if config.admin_listen:
                sockets.append(listen(config.admin_listen, "admin_listen"))
            await instance.start()
            apps = [instance.app(doors_only=bool(config.admin_listen)), instance.app(local=True), instance.app()]
            servers = [_server(app, config) for app, _ in zip(apps, sockets, strict=False)]
            try:
                await _serve_all(servers, sockets, lambda: ready(_ready_line(public, data)), instance.waits)
            finally:
                # Only who holds the folder may: it may be another process's socket.
                (data / SOCKET).unlink(missing_ok=True)
    finally:
        for sock in sockets:
            sock.close()


def _ready_line(sock: socket.socket, data: Path) -> str:
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"aftersend is ready at http://{shown}:{port} with the data in {data}"


async def _serve_all(
    servers: list[_Server], sockets: list[socket.socket], ready: Callable[[], None], waits: Waits
) -> None:
    def stop() -> None:
        waits.end()
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    tasks = [asyncio.create_task(server.serve(sockets=[sock])) for server, sock in zip(servers, sockets, strict=True)]
    try:
        while not all(server.started for server in servers):
            if any(task.done() for task in tasks):
                break
            await asyncio.sleep(0.01)
        ready()
        await asyncio.gather(*tasks)
    finally:
        stop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)

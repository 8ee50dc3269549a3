"""The demonstration itself: a throw-away store, the real server, six vendors that post, two receivers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from aftersend.core.errors import AftersendError
from aftersend.core.timestamps import SECOND
from aftersend.demo.picture import Receiving, Snapshot, read_figures
from aftersend.demo.receivers import Receiver, pair
from aftersend.demo.story import PER_CHUNK, Story, Way
from aftersend.simulation.processes import Child
from aftersend.simulation.receiver import Listening, listen
from aftersend.simulation.sender import Answer, Sender, bearer, request

MESSAGES_A_SECOND = 800
"""How fast the campaign happens."""
SECONDS = 180.0
"""How long all of it may take before it counts as failed; longer campaigns get their own length on top."""

_SEED = 973
_CONNECTIONS = 8
_LOOK_SECONDS = 0.25
_QUIET_SECONDS = 1.0
_SOURCES = ("altcraft", "messagegears", "pure360")
_RETRY = (0.5, 1.0, 1.0, 2.0)

Show = Callable[[Snapshot], None]


class Finding(Struct, frozen=True):
    """Something that must hold at the end."""

    what: str
    found: str
    holds: bool


class Result(Struct, frozen=True):
    """What came of a demonstration."""

    messages: int
    seconds: float
    log: int
    """Events in the log."""
    dialects: dict[str, dict[str, int]]
    receivers: dict[str, dict[str, int]]
    findings: list[Finding]

    @property
    def sound(self) -> bool:
        """Whether nothing was lost."""
        return all(finding.holds for finding in self.findings)


class Stage:
    """One demonstration against a running server."""

    def __init__(self, child: Child, token: str, messages: int, show: Show) -> None:
        self._child = child
        self._token = token
        self._show = show
        self._length = messages / MESSAGES_A_SECOND
        self._trouble = max(1.5, min(6.0, self._length / 4))
        # The events lie in the hours before, so that none is told ahead of its time.
        start = time.time_ns() // SECOND * SECOND - 6 * 3_600 * SECOND
        self._story = Story(messages, _SEED, start)
        self._receivers = pair(self._trouble)
        self._began = 0.0
        self._posted = False

    async def run(self) -> Result:
        """Play it all. Raises AftersendError where the server refuses what it should take."""
        api = await Sender.connect(self._child.port)
        vendors = await Sender.connect(self._child.port, _CONNECTIONS)
        heard = [await self._subscribe(api, receiver) for receiver in self._receivers]
        ways = await self._ways(api)
        self._began = time.monotonic()
        watching = asyncio.create_task(self._watch(api))
        try:
            async with asyncio.timeout(SECONDS + self._length):
                await self._post(vendors, ways)
                await watching
        except TimeoutError:
            pass  # The table tells what is missing.
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            for listening in heard:
                await listening.close()
            vendors.close()
        snapshot = await self._look(api)
        api.close()
        return self._result(snapshot)

    # --- setting up

    async def _subscribe(self, api: Sender, receiver: Receiver) -> Listening:
        listening = await listen(receiver.take)
        asked = {
            "name": receiver.name,
            "url": f"http://127.0.0.1:{listening.port}/{receiver.name}",
            "dialect": receiver.dialect,
            "retry": _RETRY,
            "batch": {"max_wait": 0.5},
            # Somebody may be quick with an event of their own.
            "start": "beginning",
        }
        answer = await self._call(api, "POST", "/v1/subscriptions", asked)
        receiver.trust(answer["signing_secrets"][0])
        return listening

    async def _ways(self, api: Sender) -> dict[str, Way]:
        """Sources with an address of their own for three vendors; the others hold the key."""
        ways = {name: Way(f"/v1/events/{name}", bearer(self._token)) for name in ("halon", "canonical")}
        ways["activatepro"] = Way("/events", {"X-XNG-AuthToken": self._token})
        for name in _SOURCES:
            made = await self._call(api, "POST", "/v1/sources", {"name": name, "dialect": name})
            ways[name] = Way(made["path"])
        return ways

    async def _call(self, api: Sender, method: str, path: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        body = msgspec.json.encode(asked)
        answer = await api.send(request(path, body, headers=bearer(self._token), method=method))
        if answer.status >= 300:
            raise AftersendError(f"{method} {path} was answered {answer.status}: {answer.body.decode()[:300]}")
        made: dict[str, Any] = msgspec.json.decode(answer.body)
        return made

    # --- playing

    async def _post(self, vendors: Sender, ways: Mapping[str, Way]) -> None:
        """Post chunk after chunk, no faster than the campaign happens."""
        for number, postings in enumerate(self._story.chunks(), 1):
            await vendors.post_all([posting.request(ways) for posting in postings])
            if number == 1:
                self._receivers[1].fail_for(self._trouble)
            happened = min(number * PER_CHUNK, self._story.messages) / MESSAGES_A_SECOND
            await asyncio.sleep(max(0.0, self._began + happened - time.monotonic()))
        self._posted = True

    async def _watch(self, api: Sender) -> None:
        """Show how everything stands, until all is delivered and the log has been quiet for a moment."""
        head, since = -1, time.monotonic()
        while True:
            snapshot = await self._look(api)
            self._show(snapshot)
            if snapshot.head != head:
                head, since = snapshot.head, time.monotonic()
            quiet = self._posted and time.monotonic() - since >= _QUIET_SECONDS
            if quiet and not any(item.behind for item in snapshot.receiving):
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, api: Sender) -> Snapshot:
        metrics = await self._get(api, "/metrics")
        listed = await self._get(api, "/v1/subscriptions")
        standings = {item["name"]: item["standing"] for item in msgspec.json.decode(listed.body)}
        receiving = [_receiving(receiver, standings[receiver.name]) for receiver in self._receivers]
        head = max(item["position"] + item["behind"] for item in standings.values())
        seconds = time.monotonic() - self._began
        return Snapshot(seconds, read_figures(metrics.body.decode()), receiving, head)

    async def _get(self, api: Sender, path: str) -> Answer:
        return await api.send(request(path, headers=bearer(self._token), method="GET"))

    # --- judging

    def _result(self, snapshot: Snapshot) -> Result:
        receivers = {item.name: {"delivered": item.events, "requests": item.requests} for item in self._receivers}
        findings = [*self._taken_in(snapshot), *self._given_out(snapshot)]
        return Result(self._story.messages, snapshot.seconds, snapshot.head, snapshot.figures, receivers, findings)

    def _taken_in(self, snapshot: Snapshot) -> Sequence[Finding]:
        """What was posted is in the log, once. Somebody may have added events of their own meanwhile."""
        story, accepted = self._story, snapshot.total("accepted")
        posted, repeated = sum(story.accepted.values()), sum(story.duplicates.values())
        damaged = sum(story.damaged.values())
        others = accepted - posted
        firsts = snapshot.head - accepted
        yours = f" and {others:,} of yours" if others > 0 else ""
        return [
            Finding(f"{posted:,} events posted{yours} are accepted", f"{accepted:,} accepted", others >= 0),
            _equal(
                f"{repeated:,} posted again are seen to be repeats", "duplicates", repeated, snapshot.total("duplicate")
            ),
            _equal(
                f"{damaged:,} that cannot be read are kept aside", "quarantined", damaged, snapshot.total("rejected")
            ),
            Finding(
                f"{story.firsts:,} first opens and clicks are added",
                f"{firsts:,} added; {snapshot.head:,} events in the log",
                firsts == story.firsts or (others > 0 and firsts > story.firsts),
            ),
        ]

    def _given_out(self, snapshot: Snapshot) -> Sequence[Finding]:
        """Each receiver has the whole log, in order, signed."""
        return [
            Finding(
                f"{item.name} ({item.trouble}) has all of them, numbered without a gap, signed",
                f"{item.events:,} delivered, the last is number {item.sequence:,}, "
                f"{item.gaps} gaps, {item.unsigned} unsigned, {item.refused} times refused",
                item.sound and item.events == snapshot.head,
            )
            for item in self._receivers
        ]


def _equal(what: str, unit: str, expected: int, found: int) -> Finding:
    return Finding(what, f"{found:,} {unit}", expected == found)


def _receiving(receiver: Receiver, standing: Mapping[str, Any]) -> Receiving:
    state = f"fails: {standing['detail']}" if standing["failures"] else "takes"
    return Receiving(receiver.name, receiver.dialect, receiver.trouble, receiver.events, standing["behind"], state)


def folder_lines(data: Path) -> list[str]:
    """What can be done with a store that is kept."""
    return [
        f"the store is kept in {data}",
        f"  aftersend serve --data {data}",
        f"  aftersend tail --data {data}",
        f"  aftersend quarantine list --data {data}",
    ]

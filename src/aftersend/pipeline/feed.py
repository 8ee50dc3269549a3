"""One reader follows the head of the log and offers each event to every subscription that wants it.

A subscription near the head takes what it is offered; one that falls behind stops taking, reads the log for itself from
where it stopped, and joins again when it has caught up. Either way it holds no more than its inbox's limit in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque

from aftersend.contracts import Log
from aftersend.core.event import Event, Recorded
from aftersend.core.own_mail import Teller, teller
from aftersend.core.registry import Subscription
from aftersend.pipeline.selection import Router, Selection

_READ_EVENTS = 4_000
"""Events asked of the log at once."""

_PAUSE_SECONDS = 0.05


class Inbox:
    """Events that wait for one subscription, each with its position, and how far the log has been looked through."""

    def __init__(self, feed: Feed, subscription: Subscription, word: Teller, position: int, limit: int) -> None:
        self.tenant = subscription.tenant
        self.selection = Selection(subscription)
        self.waiting: deque[tuple[int, Event]] = deque()
        self.untold = 0
        """Events that passed the filter but have no word in the dialect."""
        self.arrived = asyncio.Event()
        self.at_rest = False
        """Its line has nothing in hand, and waits for what arrives."""
        self._feed = feed
        self._word = teller(subscription, word)
        self._limit = limit
        self._asked = limit
        self._position = self._start = position
        self.following = False

    @property
    def position(self) -> int:
        """Everything before this position has been looked at (and waits here, or was not wanted)."""
        return self._feed.position if self.following else self._position

    @property
    def passed(self) -> int:
        """Where a line stands that waits here for what it wants; 0: it has something to do."""
        return self.position if self.at_rest and not self.waiting else 0

    def offer(self, position: int, event: Event) -> bool:
        """Take a wanted event; False: the inbox is full, and from here on it reads for itself.

        A feed of settled events comes after the head, where a subscription may have begun: what is before that is past.
        """
        if position < self._start:
            return True
        if len(self.waiting) >= self._limit:
            self._position = position
            self.following = False
            return False
        if self._word(event) is None:
            self.untold += 1
            return True
        self.waiting.append((position, event))
        return True

    async def fill(self) -> None:
        """Read on where the inbox fell behind; returns at once when it follows the head or is full."""
        while not self.following and len(self.waiting) < self._limit:
            if self._position >= self._feed.position:
                self._feed.join(self)
                return
            chunks = await self._feed.log.read(self._position, self._asked)
            # Where most events are wanted, what does not fit would be read again; where few are, read far.
            self._asked = min(2 * self._asked, _READ_EVENTS)
            if not chunks:
                self._position = max(self._position, self._feed.position)
                continue
            for recorded in chunks:
                # What the feed has not come to yet it will offer itself, once the inbox follows.
                if recorded.position >= self._feed.position or not self._take(recorded):
                    self._asked = self._limit
                    break

    def _take(self, recorded: Recorded) -> bool:
        """Take what is wanted of a block; False: the inbox is full."""
        if recorded.tenant == self.tenant:
            wants = self.selection.wants
            for position, event in enumerate(recorded.events, recorded.position):
                if wants(event) and not self.offer(position, event):
                    return False
        self._position = recorded.next_position
        return True

    def restart(self, position: int) -> None:
        """Forget what waits and look again from a position."""
        self._feed.leave(self)
        self.waiting.clear()
        self._position = position


class Feed:
    """The tail reader and the inboxes that follow it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.position = log.head()
        self._followers: dict[str, set[Inbox]] = {}
        self._routers: dict[str, Router[Inbox]] = {}

    def join(self, inbox: Inbox) -> None:
        """Let an inbox that has caught up follow the head."""
        inbox.following = True
        self._followers.setdefault(inbox.tenant, set()).add(inbox)
        self._routers.pop(inbox.tenant, None)

    def leave(self, inbox: Inbox) -> None:
        """Let an inbox go its own way from where it stands."""
        if inbox.following:
            inbox._position = self.position
            inbox.following = False
        self._followers.get(inbox.tenant, set()).discard(inbox)
        self._routers.pop(inbox.tenant, None)

    async def run(self) -> None:
        """Follow the head until cancelled."""
        while True:
            await self.log.wait(self.position)
            chunks = await self.log.read(self.position, _READ_EVENTS)
            if not chunks:
                # Retention took away what was to be read; there is something again at the tail or later.
                self.position = max(self.position, self.log.tail())
                await asyncio.sleep(_PAUSE_SECONDS)
            for recorded in chunks:
                is_wanted = self._offer(recorded)
                self.position = recorded.next_position
                if is_wanted:
                    # Under load a turn of the loop takes long: where nobody has work to do, waiting for it would
                    # leave the feed behind, and have it read from disk what was in memory a moment ago.
                    await asyncio.sleep(0)

    def _offer(self, recorded: Recorded) -> bool:
        """Offer what a block holds; whether anybody wanted any of it."""
        router = self._routers.get(recorded.tenant)
        if router is None:
            followers = sorted(self._followers.get(recorded.tenant, ()), key=id)
            router = Router((inbox, inbox.selection) for inbox in followers)
            self._routers[recorded.tenant] = router
        first = recorded.position
        reached = set()
        for index, event, targets in router.route(recorded.events):
            for inbox in targets:
                if inbox.following:
                    inbox.offer(first + index, event)
                    reached.add(inbox)
        for inbox in reached:
            inbox.arrived.set()
            if not inbox.following:
                self._followers[recorded.tenant].discard(inbox)
                self._routers.pop(recorded.tenant, None)
        return bool(reached)

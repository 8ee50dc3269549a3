"""Telling a subscription again in files, which have names of their own beside those that were told before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

from msgspec import structs

from aftersend.contracts import Clock, Cursor, Depot
from aftersend.core.errors import AftersendError
from aftersend.core.event import Event
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.rotation import period_of
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.draft import Draft, framing_for
from aftersend.pipeline.outbox import Names, Outbox, Plan, discard
from aftersend.pipeline.voice import Voice

RUN_EVENTS = 2_000
"""Events written at once."""


class FileReplay:
    """The files of one replay."""

    def __init__(
        self,
        id_: str,
        subscription: Subscription,
        voice: Voice,
        depot: Depot,
        *,
        data: Path,
        clock: Clock,
        until_taken: Callable[[Callable[[], Awaitable[Outcome]]], Awaitable[Outcome]],
        note: Callable[[int], Awaitable[None]],
    ) -> None:
        """`until_taken` hands over as often as it takes, or raises; `note` is told how many events have arrived."""
        self._id = id_
        # A name's tag follows from the id: these files replace none of those before.
        self._subscription = structs.replace(subscription, id=id_)
        self._framing = framing_for(voice.dialect, voice.form, subscription.file)
        self._depot = depot
        self._data = data
        self._clock = clock
        self._until_taken = until_taken
        self._note = note
        self._outbox = Outbox(data, id_)
        self._cursor = Cursor(0, subscription.epoch, 0)
        self._draft: Draft | None = None

    async def tell(self, chunks: AsyncIterator[list[Event]]) -> None:
        """Write and hand over all of it. Raises AftersendError where the disk does not take it."""
        try:
            await asyncio.to_thread(self._open)
            async for events in chunks:
                for start in range(0, len(events), RUN_EVENTS):
                    await self._write(events[start : start + RUN_EVENTS])
            await self._hand_over()
        except OSError as error:
            raise AftersendError(f"the file cannot be written: {(error.strerror or str(error)).lower()}") from None
        finally:
            await asyncio.to_thread(discard, self._data, self._id)

    def _open(self) -> None:
        self._outbox.open(self._cursor, self._subscription.file)
        # Vendors' names hold a time to the second: of now, which none of the files before have.
        self._outbox.names = Names(self._clock() // SECOND)

    async def _write(self, events: list[Event]) -> None:
        while events:
            draft = self._draft or self._begin(events[0])
            taken = await asyncio.to_thread(draft.add, [(0, event) for event in events])
            events = events[taken:]
            if events:
                await self._hand_over()

    def _begin(self, event: Event) -> Draft:
        rotation = self._subscription.file
        period = period_of(event.received_at, rotation)
        self._draft = Draft(self._subscription, rotation, self._framing, self._outbox, self._cursor, period)
        return self._draft

    async def _hand_over(self) -> None:
        """End the files that are open, and hand them over."""
        draft, self._draft = self._draft, None
        if draft is None:
            return
        plan: Plan = await asyncio.to_thread(draft.finish, 0, self._clock)
        for volume in plan.volumes:
            outcome = await self._until_taken(partial(self._depot.put, volume))
            if outcome.verdict is not Verdict.TAKEN:
                raise AftersendError(outcome.detail or f"{volume.name} was refused")
        await asyncio.to_thread(self._outbox.clear, plan)
        self._cursor = plan.cursor
        await self._note(plan.tally.count)

"""The follower that makes first opens and first clicks, for dialects that do not tell them."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

import msgspec
from msgspec import structs

from aftersend.contracts import Entry, Firsts, Log
from aftersend.core.event import Event, Recorded, Source
from aftersend.core.hits import note_of
from aftersend.core.identity import make_id
from aftersend.core.timestamps import DAY

KEPT = 400 * DAY
"""How long a first is remembered after it reached us; a hit after that is a first again."""

_READ_EVENTS = 20_000
_PAUSE_SECONDS = 0.05
_FIRSTS = {"opened": "first_opened", "clicked": "first_clicked"}
_ENDS = tuple(f".{what}" for what in _FIRSTS)
_HASH = blake2b(digest_size=16)
_encode = msgspec.json.Encoder().encode


class FirstsFollower:
    """Reads the log in order and appends the firsts; the first hit in log order wins.

    The firsts go to the log before the bookmark moves, and their ids follow from the hit, so a crash in between makes
    the same events again and the log drops them.
    """

    def __init__(self, log: Log, firsts: Firsts, native: frozenset[str]) -> None:
        self._log = log
        self._firsts = firsts
        self._native = native
        self.position = 0
        self._remembering: asyncio.Future[None] | None = None

    async def run(self) -> None:
        """Follow until cancelled."""
        self._remembering = None
        self.position = await self._firsts.bookmark()
        while True:
            await self._log.wait(self.position)
            chunks = await self._log.read(self.position, _READ_EVENTS)
            if chunks:
                await self._follow(chunks)
            else:
                # Retention took away what was to be read; there is something again at the tail or later.
                self.position = max(self.position, self._log.tail())
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self, chunks: list[Recorded]) -> None:
        hits = self._hits(chunks)
        known = await self._firsts.known(list(hits)) if hits else set()
        await self._remembered()
        new = {key: hit for key, hit in hits.items() if key not in known}
        await self._append(new)
        self.position = chunks[-1].next_position
        times = {key: max(hit.time, hit.received_at) for key, hit in new.items()}
        self._remembering = asyncio.ensure_future(self._firsts.remember(times, self.position))
        # Far behind the head, the next events are looked up meanwhile: what is written comes before what is asked.
        if sum([len(chunk.events) for chunk in chunks]) < _READ_EVENTS:
            await self._remembered()

    async def _remembered(self) -> None:
        remembering, self._remembering = self._remembering, None
        if remembering is not None:
            await remembering

    async def _append(self, new: dict[bytes, Event]) -> None:
        made: dict[str, list[Event]] = {}
        for key, hit in new.items():
            made.setdefault(hit.tenant, []).append(first_of(hit, key))
        for tenant, events in made.items():
            await self._log.append(Entry(tenant, events))

    def _hits(self, chunks: list[Recorded]) -> dict[bytes, Event]:
        """The first hit of each person on each message, by its key, in log order."""
        hits: dict[bytes, Event] = {}
        native = self._native
        for chunk in chunks:
            for event in chunk.events:
                if event.type.endswith(_ENDS) and event.source.dialect not in native:
                    key = _key(event)
                    if key is not None:
                        hits.setdefault(key, event)
        return hits


def _key(event: Event) -> bytes | None:
    """What makes two hits the same person's of the same message; None: it makes no first."""
    message = event.message_id or event.job_id or event.campaign_id
    person = event.recipient or event.profile_id or event.device_id
    if message is None or person is None:
        return None
    hashing = _HASH.copy()  # Half the price of a new one.
    hashing.update(_encode((event.tenant, event.type, message, person)))
    return hashing.digest()


def first_of(hit: Event, key: bytes) -> Event:
    """The first that a hit makes: its time, person and message, with an id that follows from them."""
    channel, _, what = hit.type.rpartition(".")
    word = _FIRSTS[what]
    return structs.replace(
        hit,
        id=make_id(hit.time, key + word.encode()),
        type=f"{channel}.{word}",
        source=Source(hit.source.name, "aftersend", word, hit.id),
        failure=None,
        extra=note_of(hit),
    )

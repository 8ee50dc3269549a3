"""The follower that makes first opens and first clicks, for dialects that do not tell them."""

from __future__ import annotations

import asyncio
from hashlib import blake2b

import msgspec

from aftersend.contracts import Entry, Firsts, Log
from aftersend.core.event import Event, Recorded, Source
from aftersend.core.hits import note_of
from aftersend.core.identity import make_id
from aftersend.core.timestamps import DAY

KEPT = 400 * DAY
"""How long a first is remembered after it reached us; a hit after that is a first again."""

_READ_EVENTS = 4_000
_PAUSE_SECONDS = 0.05
_FIRSTS = {"opened": "first_opened", "clicked": "first_clicked"}
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

    async def run(self) -> None:
        """Follow until cancelled."""
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
        made: dict[str, list[Event]] = {}
        hits: dict[bytes, Event] = {}
        for chunk in chunks:
            for event in chunk.events:
                key = self._key(event)
                if key is not None and key not in hits:
                    hits[key] = event
        known = await self._firsts.known(list(hits)) if hits else set()
        for key, event in hits.items():
            if key not in known:
                made.setdefault(event.tenant, []).append(first_of(event, key))
        for tenant, events in made.items():
            await self._log.append(Entry(tenant, events))
        self.position = chunks[-1].next_position
        new = {key: max(event.time, event.received_at) for key, event in hits.items() if key not in known}
        await self._firsts.remember(new, self.position)

    def _key(self, event: Event) -> bytes | None:
        """What makes two hits the same person's of the same message; None: it makes no first."""
        _, _, what = event.type.rpartition(".")
        if what not in _FIRSTS or event.source.dialect in self._native:
            return None
        message = event.message_id or event.job_id or event.campaign_id
        person = event.recipient or event.profile_id or event.device_id
        if message is None or person is None:
            return None
        return blake2b(_encode((event.tenant, event.type, message, person)), digest_size=16).digest()


def first_of(hit: Event, key: bytes) -> Event:
    """The first that a hit makes: its time, person and message, with an id that follows from them."""
    channel, _, what = hit.type.rpartition(".")
    word = _FIRSTS[what]
    return Event(
        id=make_id(hit.time, key + word.encode()),
        type=f"{channel}.{word}",
        time=hit.time,
        source=Source(hit.source.name, "aftersend", word, hit.id),
        tenant=hit.tenant,
        received_at=hit.received_at,
        channel=hit.channel,
        recipient=hit.recipient,
        profile_id=hit.profile_id,
        device_id=hit.device_id,
        message_id=hit.message_id,
        campaign_id=hit.campaign_id,
        job_id=hit.job_id,
        correlation_id=hit.correlation_id,
        template_id=hit.template_id,
        list_id=hit.list_id,
        category=hit.category,
        ip=hit.ip,
        user_agent=hit.user_agent,
        geo=hit.geo,
        url=hit.url,
        url_name=hit.url_name,
        actor=hit.actor,
        test=hit.test,
        suspect=hit.suspect,
        extra=note_of(hit),
    )

"""What the demonstration posts: a campaign's events in six dialects, with repeats and damaged bodies among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Struct

from aftersend.core.event import Body
from aftersend.simulation.campaign import Happening, campaign
from aftersend.simulation.sender import request
from aftersend.simulation.vendors import WORDS, tell, told

VENDORS = tuple(sorted(WORDS))
PER_CHUNK = 300
"""Messages whose events are posted together, a sixth of them by each vendor."""

_REPEAT_EVERY = 15
_DAMAGE_EVERY = 40
_DAMAGED = {
    "altcraft": Body(b'[{"event_type": "open", "event_date": "yesterday"}]', "application/json", 1),
    "pure360": Body(b"email=ada%40mail.example&clickUrl=", "application/x-www-form-urlencoded", 1),
    "messagegears": Body(b"<ActivityItems><OpenActivity><Timest", "application/xml", 1),
}


class Way(Struct, frozen=True):
    """How a vendor reaches the instance."""

    path: str
    headers: Mapping[str, str] = {}


class Posting(Struct, frozen=True):
    """One request of a vendor."""

    dialect: str
    body: Body

    def request(self, ways: Mapping[str, Way]) -> bytes:
        """Its bytes."""
        way = ways[self.dialect]
        return request(way.path, self.body.data, self.body.content_type, way.headers)


class Story:
    """The postings of a campaign, and what must have come of them in the end."""

    def __init__(self, messages: int, seed: int, start: int) -> None:
        self.messages = messages
        self.accepted: Counter[str] = Counter()
        self.duplicates: Counter[str] = Counter()
        self.damaged: Counter[str] = Counter()
        self._firsts: set[tuple[str, ...]] = set()
        self._stories = campaign(messages, seed, start)
        self._count = 0

    @property
    def firsts(self) -> int:
        """How many first opens and first clicks aftersend makes of what was told so far."""
        return len(self._firsts)

    def chunks(self) -> Iterator[list[Posting]]:
        """The postings of some hundred messages at a time."""
        while stories := list(islice(self._stories, PER_CHUNK)):
            postings: list[Posting] = []
            for number, dialect in enumerate(VENDORS):
                happenings = [item for story in stories[number :: len(VENDORS)] for item in told(dialect, story)]
                postings += self._told(dialect, happenings)
            yield postings

    def _told(self, dialect: str, happenings: Sequence[Happening]) -> Iterator[Posting]:
        self._note_firsts(dialect, happenings)
        for body in tell(dialect, happenings):
            self._count += 1
            self.accepted[dialect] += body.count
            yield Posting(dialect, body)
            if self._count % _REPEAT_EVERY == 0:
                self.duplicates[dialect] += body.count
                yield Posting(dialect, body)
            if self._count % _DAMAGE_EVERY == 0:
                yield self._damage(self._count // _DAMAGE_EVERY)

    def _damage(self, number: int) -> Posting:
        dialect = sorted(_DAMAGED)[number % len(_DAMAGED)]
        self.damaged[dialect] += 1
        return Posting(dialect, _DAMAGED[dialect])

    def _note_firsts(self, dialect: str, happenings: Sequence[Happening]) -> None:
        if dialect == "altcraft":
            return  # Altcraft tells first opens and clicks itself.
        for item in happenings:
            if item.what in ("opened", "clicked"):
                message = item.campaign if dialect == "pure360" else item.message
                self._firsts.add((dialect, item.what, message, item.person.address))

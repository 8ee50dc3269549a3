"""Hits seen beside others: what only shows after a while. Pure: events in, suspicions out.

What is held: each hit that a settled rule is about, for as long as the farthest-reaching rule looks back; at most
`LIMIT` hits in all, and of one message or visitor the last `OF_ONE`. Past the limit the message or visitor that was
quiet the longest is forgotten: its hits keep the verdict they have.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from msgspec import Struct

from aftersend.core.event import Event, Source
from aftersend.core.hits import what_of
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.verdict import SettledRule

LIMIT = 100_000
"""Hits held, one that is looked at in two ways counted twice: some 75 MB."""
OF_ONE = 512
CAMPAIGNS = 1_000
"""Campaigns whose links are remembered; past it the one that was quiet the longest is forgotten."""
LINKS = 256
"""Links of a campaign that are told apart."""
KNOWN_AFTER = 20
"""Clicks of a campaign after which its links are taken to be known."""


_Key = tuple[str, str, str | None, str | None]
"""How hits are looked at together (`message` or `visitor`), and which."""


class Suspicion(Struct, frozen=True):
    """A hit that a settled rule takes for a machine's."""

    hit: Event
    """Without address, agent, link and extra."""
    reason: str


class _Seen(Struct, gc=False):
    hit: Event
    arrived: int
    """The newest receipt when it was seen: what was drained late is near to what was drained with it."""
    link: int
    person: int
    suspected: bool


class _Campaign:
    """The links that a campaign is known to have."""

    __slots__ = ("clicks", "links")

    def __init__(self) -> None:
        self.clicks = 0
        self.links: set[int] = set()

    def see(self, link: int) -> None:
        self.clicks += 1
        if len(self.links) < LINKS:
            self.links.add(link)


class Sightings:
    """The hits of the last while, by message and by visitor."""

    def __init__(self, rules: Sequence[SettledRule], limit: int = LIMIT) -> None:
        self._rules: dict[str, list[SettledRule]] = {of: [rule for rule in rules if rule.of == of] for of in _KEYS}
        self._reach = {of: _reach(mine) for of, mine in self._rules.items()}
        self._what = frozenset(what for rule in rules for what in rule.what)
        self._groups: OrderedDict[_Key, list[_Seen]] = OrderedDict()
        self._campaigns: OrderedDict[tuple[str, str], _Campaign] = OrderedDict()
        self._limit = limit
        self._now = 0
        self.held = 0
        """Hits held, one that is looked at in two ways counted twice."""

    def see(self, event: Event, kind: str) -> list[Suspicion]:
        """Look at a hit, judged so far to be of a kind; returns the hits that are suspected from now on.

        Hits through a proxy are not looked at: many people share it.
        """
        what = what_of(event)
        if what not in self._what or kind == "proxy":
            return []
        self._now = max(self._now, event.received_at or event.time)
        seen = _Seen(slim(event), self._now, hash(event.url), hash(_person(event)), kind == "machine")
        campaign = self._campaign(event, seen.link)
        found: list[Suspicion] = []
        for of, rules in self._rules.items():
            key = _KEYS[of](event)
            if key is not None and rules:
                hits = self._group((of, *key), seen)
                for rule in rules:
                    if what in rule.what:
                        found += _suspected(rule, hits, seen, campaign)
        self._forget()
        return found

    def _group(self, key: _Key, seen: _Seen) -> list[_Seen]:
        hits = self._groups.get(key)
        if hits is None:
            hits = self._groups[key] = []
        else:
            self._groups.move_to_end(key)
        hits.append(seen)
        self.held += 1
        oldest = self._now - self._reach[key[0]]
        while len(hits) > OF_ONE or hits[0].arrived < oldest:
            hits.pop(0)
            self.held -= 1
        return hits

    def _forget(self) -> None:
        """Let go of what is too old, and of the quietest past the limit."""
        while self._groups:
            key, hits = next(iter(self._groups.items()))
            is_old = hits[-1].arrived < self._now - self._reach[key[0]]
            if not is_old and self.held <= self._limit:
                return
            del self._groups[key]
            self.held -= len(hits)

    def _campaign(self, event: Event, link: int) -> _Campaign | None:
        if event.campaign_id is None or event.url is None:
            return None
        key = (event.tenant, event.campaign_id)
        campaign = self._campaigns.setdefault(key, _Campaign())
        self._campaigns.move_to_end(key)
        campaign.see(link)
        if len(self._campaigns) > CAMPAIGNS:
            self._campaigns.popitem(last=False)
        return campaign


def _reach(rules: Sequence[SettledRule]) -> int:
    return int(max((rule.within_seconds for rule in rules), default=0.0) * SECOND)


def _suspected(rule: SettledRule, hits: list[_Seen], seen: _Seen, campaign: _Campaign | None) -> list[Suspicion]:
    """The hits that the rule holds for now that `seen` is among them."""
    if len(hits) < rule.at_least:
        return []
    reach = int(rule.within_seconds * SECOND)
    near = [one for one in hits if abs(one.hit.time - seen.hit.time) <= reach]
    different = len({one.link if rule.count == "links" else one.person for one in near})
    if different < rule.at_least or not _is_share(rule, different, campaign):
        return []
    found = [one for one in near if not one.suspected]
    for one in found:
        one.suspected = True
    return [Suspicion(one.hit, rule.name) for one in found]


def _is_share(rule: SettledRule, different: int, campaign: _Campaign | None) -> bool:
    """Whether so many links are enough of the campaign's; before its links are known, none are."""
    if not rule.share:
        return True
    return campaign is not None and campaign.clicks >= KNOWN_AFTER and different >= rule.share * len(campaign.links)


def _person(event: Event) -> str | None:
    return event.recipient or event.profile_id or event.device_id


def _by_message(event: Event) -> tuple[str, str | None, str | None] | None:
    message = event.message_id or event.job_id or event.campaign_id
    person = _person(event)
    return (event.tenant, message, person) if message and person else None


def _by_visitor(event: Event) -> tuple[str, str | None, str | None] | None:
    return (event.tenant, event.ip, event.user_agent) if event.ip else None


_KEYS: dict[str, Callable[[Event], tuple[str, str | None, str | None] | None]] = {
    "message": _by_message,
    "visitor": _by_visitor,
}


def slim(event: Event) -> Event:
    """What a verdict says of the hit that it is about."""
    return Event(
        event.id,
        event.type,
        event.time,
        Source(event.source.name, event.source.dialect, event.source.word),
        tenant=event.tenant,
        received_at=event.received_at,
        channel=event.channel,
        recipient=event.recipient,
        profile_id=event.profile_id,
        device_id=event.device_id,
        message_id=event.message_id,
        campaign_id=event.campaign_id,
        job_id=event.job_id,
        correlation_id=event.correlation_id,
        template_id=event.template_id,
        list_id=event.list_id,
        category=event.category,
        actor=event.actor,
        test=event.test,
    )

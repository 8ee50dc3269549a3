"""The tracking addresses: click, open, unsubscribe, confirm, preferences.

A click is answered with its redirect whatever happens to the hit; an image with the pixel whatever its token. What a
person asks for in a form is answered 200 only when it is durable in the log or the spool, else 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container
from dataclasses import dataclass
from html import escape
from typing import Any

from msgspec import structs

from aftersend.capture.answers import Page, send_page, send_pixel, send_redirect, send_refusal
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.exchange import Receive, Scope, Send
from aftersend.capture.forms import Form, is_one_click, read_form
from aftersend.capture.links import read_reference
from aftersend.capture.targets import safe_target, target_host
from aftersend.capture.tokens import LinkError, Purpose, address, split_path
from aftersend.capture.visits import Addresses, Choices, Meaning, Visit, Witness, visit_of
from aftersend.contracts import Hits, People, References
from aftersend.core.consent import LEVELS, Level, person_key
from aftersend.core.errors import StoreError
from aftersend.core.taxonomy import OTHER
from aftersend.telemetry import Telemetry

App = Callable[[Scope, Receive, Send], Awaitable[None]]
Stop = tuple[str, str, str]
"""Tenant, what is stopped (campaign, message or domain) and its name; a domain is the tracking one or the target's."""

RETRY_SECONDS = 30
"""When to come again after a 503 or 429."""

LOOK_UP_SECONDS = 2.0
"""How long a short link may be looked up; past it the visitor is asked to come again."""

_SHORT = ("AAI", "AAJ", "AAK", "AAL")
"""How a reference begins: the mark's 16 bits and two of chance."""

_PLACES = {1: "top", 2: "bottom"}


@dataclass(frozen=True, slots=True)
class Tracking:
    """What the endpoints work with."""

    addresses: Addresses
    hits: Hits
    people: People
    clients: ClientAddresses
    throttle: Throttle
    witness: Witness
    telemetry: Telemetry
    references: References | None = None
    """What short links stand for; None: there are none."""
    stops: Container[Stop] = frozenset()
    """Links that lead nowhere any more; may change while it is used."""
    is_blocked: Callable[[str, str], bool] = lambda agent, client: False
    """Whether a user agent, or an address, is one that the operator answers with an error."""


def endpoints(tracking: Tracking) -> dict[str, App]:
    """The endpoints by the first part of their address."""
    return {
        "c": Clicks(tracking),
        "o": Opens(tracking),
        "u": Unsubscribing(tracking),
        "s": Confirming(tracking),
        "p": Preferences(tracking),
    }


class Endpoint:
    """What the endpoints share: each opens addresses of one purpose."""

    purpose: Purpose

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking

    def visit(self, scope: Scope) -> Visit:
        """Who asks."""
        return visit_of(scope, self._tracking.clients)

    async def meaning(self, visit: Visit) -> Meaning:
        """What the address means. Raises LinkError, and StoreError where a short one cannot be looked up."""
        purpose, token = split_path(visit.path)
        if not token.startswith(_SHORT):
            return self._tracking.addresses.read(visit.path, visit.host, self.purpose)
        id_, references = read_reference(token), self._tracking.references
        async with asyncio.timeout(LOOK_UP_SECONDS):
            found = await references.find(id_) if references else None
        if found is None:
            raise LinkError("forged")
        meaning = self._tracking.addresses.read(address("", purpose, found.token), visit.host, self.purpose)
        return structs.replace(meaning, channel=found.channel)

    async def meaning_or_page(self, visit: Visit, send: Send) -> Meaning | None:
        """What the address means; None: it means nothing, or cannot be looked up now, and a page has said so."""
        try:
            return await self.meaning(visit)
        except LinkError as error:
            await self.refuse(send, visit, error)
        except (StoreError, TimeoutError):
            await tell(send, visit, "failed", 503)
        return None

    async def record(
        self,
        word: str,
        type: str,  # noqa: A002
        meaning: Meaning,
        visit: Visit,
        extra: dict[str, Any],
        *,
        list_id: str = "",
    ) -> bool:
        """Make an event of the visit and keep it."""
        event = self._tracking.witness.event(word, type, meaning, visit, extra, list_id=list_id)
        return await self._tracking.hits.record(event, meaning.level)

    async def miss(self, visit: Visit, error: LinkError) -> bool:
        """Count an address that means nothing, and slow down who tries many."""
        self._tracking.telemetry.count("links_refused_total", reason=error.reason, purpose=self.purpose.value)
        return await self._tracking.throttle.miss(visit.client)

    async def block(self, send: Send, visit: Visit) -> bool:
        """Answer with an error who is not wanted here; False: who asks may go on."""
        if not self._tracking.is_blocked(visit.user_agent, visit.client):
            return False
        self._tracking.telemetry.count("hits_blocked_total", purpose=self.purpose.value)
        await tell(send, visit, "blocked", 403)
        return True

    async def refuse(self, send: Send, visit: Visit, error: LinkError) -> None:
        """404 with a page that says what became of the link; 429 for a source that has tried too many."""
        if not await self.miss(visit, error):
            await tell(send, visit, "failed", 429)
        else:
            await tell(send, visit, _PAGES_OF.get(error.reason, "unknown"), 404)


_PAGES_OF = {"unknown_key": "lost", "unsafe_target": "unsafe"}


async def tell(send: Send, visit: Visit, name: str, status: int = 200) -> None:
    """A page that says one thing."""
    page = page_for(visit)
    later = RETRY_SECONDS if status in (429, 503) else 0
    await send_page(send, page.message(name), status, head=visit.method == "HEAD", later=later)


def page_for(visit: Visit) -> Page:
    """A page in the visitor's language."""
    return Page(visit.headers.get(b"accept-language", b""))


class Clicks(Endpoint):
    """`/c/`: counted, then on to the target."""

    purpose = Purpose.CLICK

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect, to an absolute http or https address only."""
        visit = self.visit(scope)
        if visit.method not in ("GET", "HEAD"):
            await send_refusal(send, b"GET, HEAD")
            return
        if await self.block(send, visit):
            return
        meaning = await self.meaning_or_page(visit, send)
        if meaning is None:
            return
        try:
            target = safe_target(meaning.target)
        except LinkError as error:
            await self.refuse(send, visit, error)
            return
        extra: dict[str, Any] = {"place": meaning.place} if meaning.place else {}
        stopped = self._stopped(meaning, target)
        if stopped:
            extra["stopped"] = stopped
        if meaning.level is not Level.NONE:
            await self.record("click", f"{meaning.channel}.clicked", meaning, visit, extra)
        if stopped:
            await tell(send, visit, "stopped", 410)
        else:
            await send_redirect(send, target)

    def _stopped(self, meaning: Meaning, target: str) -> str:
        """Which kind of stop holds for a link, or nothing."""
        stops, tenant = self._tracking.stops, meaning.tenant
        if not stops:
            return ""
        if (tenant, "campaign", meaning.campaign_id) in stops:
            return "campaign"
        if (tenant, "message", meaning.message_id) in stops:
            return "message"
        host = target_host(target)
        while host:
            if (tenant, "domain", host) in stops:
                return "domain"
            host = host.partition(".")[2]
        return "domain" if (tenant, "domain", meaning.host) in stops else ""


class Opens(Endpoint):
    """`/o/`: counted, and the pixel whatever the token."""

    purpose = Purpose.OPEN

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The pixel."""
        visit = self.visit(scope)
        if await self.block(send, visit):
            return
        try:
            meaning = await self.meaning(visit)
        except (StoreError, TimeoutError):
            self._tracking.telemetry.count("hits_lost_total")
        except LinkError as error:
            await self.miss(visit, error)
        else:
            if meaning.level is not Level.NONE and visit.method in ("GET", "HEAD"):
                place = _PLACES.get(meaning.place)
                await self.record("open", "email.opened", meaning, visit, {"place": place} if place else {})
        await send_pixel(send)


class Unsubscribing(Endpoint):
    """`/u/`: a form for people, one click for mail programs (RFC 8058); only the POST acts.

    Halon's tokens for opens and for unsubscribing are the same bytes, so whoever saw a pixel can post here: nothing but
    the one-click body counts as a wish.
    """

    purpose = Purpose.UNSUBSCRIBE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A page with a form; the unsubscription for a POST."""
        visit = self.visit(scope)
        if visit.method not in ("GET", "HEAD", "POST"):
            await send_refusal(send, b"GET, HEAD, POST")
            return
        meaning = await self.meaning_or_page(visit, send)
        if meaning is None:
            return
        if visit.method == "POST":
            await self._post(await read_form(receive, visit.headers), meaning, visit, send)
            return
        page = page_for(visit)
        fields = (("List-Unsubscribe", "One-Click"), ("by", "page"))
        html = page.form("unsubscribe", page.lead("unsubscribe", meaning.recipient), fields)
        await send_page(send, html, head=visit.method == "HEAD")

    async def _post(self, form: Form, meaning: Meaning, visit: Visit, send: Send) -> None:
        if not is_one_click(form):
            await tell(send, visit, "unread", 400)
            return
        extra = {"method": "page" if form.get("by") == ["page"] else "one_click"}
        kept = await self.record("unsubscribe", f"{meaning.channel}.unsubscribed", meaning, visit, extra)
        await tell(send, visit, "unsubscribed" if kept else "failed", 200 if kept else 503)


class Confirming(Endpoint):
    """`/s/`: a subscription or a wish is confirmed. A fetch ahead of the person gets a button instead."""

    purpose = Purpose.CONFIRM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The confirmation for a GET or a POST; HEAD changes nothing."""
        visit = self.visit(scope)
        if visit.method not in ("GET", "HEAD", "POST"):
            await send_refusal(send, b"GET, HEAD, POST")
            return
        meaning = await self.meaning_or_page(visit, send)
        if meaning is None:
            return
        if visit.method == "HEAD" or (visit.method == "GET" and visit.prefetch):
            page = page_for(visit)
            html = page.form("confirm", page.lead("confirm", ""), ())
            await send_page(send, html, head=visit.method == "HEAD")
            return
        word, type_ = ("confirmsub", "subscription_confirmed") if meaning.list_id else ("confirm", "confirmed")
        kept = await self.record(word, f"{meaning.channel}.{type_}", meaning, visit, {})
        await tell(send, visit, "confirmed" if kept else "failed", 200 if kept else 503)


class Preferences(Endpoint):
    """`/p/`: which lists and channels end, and how much of the person's engagement may be kept."""

    purpose = Purpose.PREFERENCES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page; for a POST of its form the change."""
        visit = self.visit(scope)
        if visit.method not in ("GET", "HEAD", "POST"):
            await send_refusal(send, b"GET, HEAD, POST")
            return
        meaning = await self.meaning_or_page(visit, send)
        if meaning is None:
            return
        if not meaning.recipient:
            await self.refuse(send, visit, LinkError("malformed"))
            return
        try:
            await self._answer(meaning, visit, receive, send)
        except StoreError:
            await tell(send, visit, "failed", 503)

    async def _answer(self, meaning: Meaning, visit: Visit, receive: Receive, send: Send) -> None:
        choices = self._choices(meaning)
        level = self._tracking.people.level(meaning.tenant, person_key(meaning.tenant, meaning.recipient))
        if visit.method != "POST":
            html = preference_form(page_for(visit), meaning, choices, level)
            await send_page(send, html, head=visit.method == "HEAD")
            return
        form = await read_form(receive, visit.headers)
        if form.get("preferences") != ["save"]:
            await tell(send, visit, "unread", 400)
            return
        kept = await self._end(form, choices, meaning, visit) and await self._set_level(form, level, meaning, visit)
        await tell(send, visit, "saved" if kept else "failed", 200 if kept else 503)

    def _choices(self, meaning: Meaning) -> Choices:
        """What the host offers, and the list of the message itself."""
        choices = self._tracking.addresses.choices(meaning.host)
        if not meaning.list_id or meaning.list_id in choices.lists:
            return choices
        return Choices({meaning.list_id: meaning.list_id, **choices.lists}, choices.channels)

    async def _end(self, form: Form, choices: Choices, meaning: Meaning, visit: Visit) -> bool:
        """An unsubscription for each list and channel that was ticked and is offered."""
        kept = True
        for list_id in dict.fromkeys(form.get("list", ())):
            if list_id in choices.lists:
                extra: dict[str, Any] = {"method": "preferences", "scope": "list"}
                kept &= await self.record("unsubscribe", "email.unsubscribed", meaning, visit, extra, list_id=list_id)
        of_no_list = structs.replace(meaning, list_id="")
        for channel in dict.fromkeys(form.get("channel", ())):
            if channel in choices.channels:
                extra = {"method": "preferences", "scope": "channel"}
                kept &= await self.record("unsubscribe", f"{channel}.unsubscribed", of_no_list, visit, extra)
        return kept

    async def _set_level(self, form: Form, before: Level, meaning: Meaning, visit: Visit) -> bool:
        """The new level takes effect before it is told. Raises StoreError."""
        level = LEVELS.get(form.get("level", [""])[0], before)
        if level is before:
            return True
        await self._tracking.people.set_level(meaning.tenant, meaning.recipient, level, "preferences")
        extra = {"method": "preferences", "level": level.name.lower(), "level_before": before.name.lower()}
        return await self.record("consent", OTHER, meaning, visit, extra)


def preference_form(page: Page, meaning: Meaning, choices: Choices, level: Level) -> str:
    """The preference page."""
    parts = [page.lead("preferences", meaning.recipient)]
    if choices.lists:
        hint = f'<p id="hint">{page.say("preferences.lists.hint")}</p>'
        boxes = [_box("checkbox", "list", id_, escape(name), described=True) for id_, name in choices.lists.items()]
        parts.append(_group(page.say("preferences.lists"), hint + "".join(boxes)))
    if choices.channels:
        boxes = [_box("checkbox", "channel", name, page.say(f"channel.{name}")) for name in choices.channels]
        parts.append(_group(page.say("preferences.channels"), "".join(boxes)))
    rungs = [
        _box("radio", "level", name, page.say(f"preferences.{name}"), checked=rung is level)
        for name, rung in reversed(LEVELS.items())
    ]
    parts.append(_group(page.say("preferences.level"), "".join(rungs)))
    return page.form("preferences", "\n".join(parts), (("preferences", "save"),))


def _group(legend: str, content: str) -> str:
    return f"<fieldset><legend>{legend}</legend>{content}</fieldset>"


def _box(kind: str, name: str, value: str, label: str, *, checked: bool = False, described: bool = False) -> str:
    marks = (" checked" if checked else "") + (' aria-describedby="hint"' if described else "")
    return f'<label><input type="{kind}" name="{name}" value="{escape(value)}"{marks}>{label}</label>'

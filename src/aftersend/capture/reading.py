"""Reading time: `GET /r/{token}`, a picture that comes slowly, for as long as somebody looks at the message.

The answer begins at once with a whole transparent dot; what follows is a comment of the GIF, a byte a second, for eight
seconds. A mail program that fetches pictures itself hangs up when the message is closed. Proxies of mailboxes fetch
a picture to its end whoever looks, so they are answered at once and marked: `supported` is false, and `type` suspect.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from msgspec import structs

from aftersend.capture.answers import send_pixel, send_refusal
from aftersend.capture.endpoints import Endpoint, Tracking
from aftersend.capture.exchange import PIXEL, Receive, Scope, Send
from aftersend.capture.tokens import LinkError, Purpose
from aftersend.capture.visits import Meaning, Visit
from aftersend.core.consent import Level
from aftersend.core.errors import StoreError

SKIMMED_MS = 4_000
READ_MS = 8_000
"""From here on; no message is held any longer."""
STEP_SECONDS = 1.0
HELD_LIMIT = 2_000
"""Pictures held open at once, some 13 kB each; past it they are answered at once, and counted."""
HELD_PER_LINK = 8
"""The same of one link."""

_FIRST = PIXEL[:-1] + b"!\xfe"
_MORE = b"\x01."
_LAST = b"\x00;"
_HEADERS = [
    (b"content-type", b"image/gif"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    # Asks nginx to pass each byte on as it comes.
    (b"x-accel-buffering", b"no"),
]

_PROXIES = (
    ("googleimageproxy", "gmail_proxy"),
    ("yahoomailproxy", "yahoo_proxy"),
    ("yandeximageresizer", "yandex_proxy"),
    ("mail.ru", "mail_ru_proxy"),
    ("imgproxy", "image_proxy"),
    ("imageproxy", "image_proxy"),
    ("bingpreview", "link_preview"),
    ("uripreview", "link_preview"),
    ("microsoftpreview", "link_preview"),
    ("python-requests", "program"),
    ("go-http-client", "program"),
    ("curl/", "program"),
    ("wget/", "program"),
)
_AHEAD = ("prefetch", "preview", "prerender")


def kind_of(duration_ms: int) -> str:
    """glanced below 4 s, skimmed from 4 s on, read from 8 s on."""
    if duration_ms >= READ_MS:
        return "read"
    return "skimmed" if duration_ms >= SKIMMED_MS else "glanced"


def unsupported(visit: Visit) -> str:
    """Why the time that a client holds a picture says nothing, in a word; or nothing."""
    agent = visit.user_agent.strip().lower()
    if not agent:
        return "no_user_agent"
    if agent == "mozilla/5.0":
        return "apple_mail_privacy"
    for mark, reason in _PROXIES:
        if mark in agent:
            return reason
    said = " ".join(visit.prefetch.values()).lower()
    return "fetched_ahead" if any(word in said for word in _AHEAD) else ""


class ReadingTime(Endpoint):
    """`/r/`: off unless `enabled`; then pictures come at once and nothing is kept."""

    purpose = Purpose.READ

    def __init__(self, tracking: Tracking, *, enabled: bool = False, limit: int = HELD_LIMIT) -> None:
        super().__init__(tracking)
        self._count = tracking.telemetry.count
        self._enabled = enabled
        self._limit = limit
        self._held: Counter[str] = Counter()
        self._held_total = 0
        tracking.telemetry.watch(lambda: [("reading_held", {}, self._held_total)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The pixel, slowly where that can measure anything."""
        visit = self.visit(scope)
        if visit.method not in ("GET", "HEAD"):
            await send_refusal(send, b"GET, HEAD")
            return
        meaning = await self._measured(visit) if self._enabled and visit.method == "GET" else None
        if meaning is None:
            await send_pixel(send)
        elif reason := unsupported(visit):
            await send_pixel(send)
            await self._record_unsupported(meaning, visit, reason)
        elif self._held_total >= self._limit or self._held[visit.path] >= HELD_PER_LINK:
            self._count("reading_refused_total")
            await send_pixel(send)
        else:
            duration_ms = await self._hold(visit.path, receive, send)
            kind = kind_of(duration_ms)
            extra = {"duration_ms": duration_ms, "supported": True}
            await self.record(kind, f"email.{kind}", meaning, visit, extra)

    async def _measured(self, visit: Visit) -> Meaning | None:
        """What is to be measured, or None; whatever is wrong with a token is no matter of who sees the picture."""
        try:
            meaning = await self.meaning(visit)
        except (StoreError, TimeoutError):
            return None
        except LinkError as error:
            await self.miss(visit, error)
            return None
        return meaning if meaning.level is not Level.NONE else None

    async def _hold(self, path: str, receive: Receive, send: Send) -> int:
        """Send the picture slowly; returns for how many ms it was wanted."""
        self._held[path] += 1
        self._held_total += 1
        try:
            return await _drip(receive, send)
        finally:
            self._held_total -= 1
            self._held[path] -= 1
            if not self._held[path]:
                del self._held[path]

    async def _record_unsupported(self, meaning: Meaning, visit: Visit, reason: str) -> None:
        """Told only where the marks that make it worthless as a measure may be told too."""
        self._count("reading_unsupported_total", reason=reason)
        if meaning.level is Level.FULL:
            extra = {"duration_ms": 0, "supported": False, "reason": reason}
            event = self._tracking.witness.event("glanced", "email.glanced", meaning, visit, extra)
            await self._tracking.hits.record(structs.replace(event, suspect=["type"]), meaning.level)


async def _drip(receive: Receive, send: Send) -> int:
    loop = asyncio.get_running_loop()
    began = loop.time()
    end = began + READ_MS / 1_000
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _FIRST, "more_body": True})
    step = began + STEP_SECONDS
    while step < end:
        if await _hangs_up(receive, step):
            return min(int((loop.time() - began) * 1_000), READ_MS)
        await send({"type": "http.response.body", "body": _MORE, "more_body": True})
        step += STEP_SECONDS
    if await _hangs_up(receive, end):
        return min(int((loop.time() - began) * 1_000), READ_MS)
    await send({"type": "http.response.body", "body": _LAST})
    return READ_MS


async def _hangs_up(receive: Receive, by: float) -> bool:
    """Whether the client goes away before a time of the loop."""
    try:
        async with asyncio.timeout_at(by):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True

"""A contract test for whoever receives our webhooks: the engine of `aftersend check URL`.

Sends what a receiver meets sooner or later (repeats, forgeries, old requests, new fields, large batches) and says for
each in one line what it got wrong. Whether a repeat was counted twice cannot be seen from outside.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import msgspec

from aftersend.contracts import Clock, Dialect
from aftersend.core.event import Body, Event, Receipt, Source
from aftersend.core.identity import event_id
from aftersend.core.outcome import Acknowledgement
from aftersend.core.patterns import TEXT_LIMIT, compile_pattern
from aftersend.core.signing import Signer, format_secret
from aftersend.core.timestamps import MILLISECOND, SECOND

SLOW = 5 * SECOND
"""An answer that takes longer than this is worth a warning; after 15 s we hang up."""
LARGE_EVENTS = 500
"""Events of the large request: as many as a batch may have by default."""
STALE = 3_600
"""Seconds that the old timestamp is old: far beyond the usual tolerance of 300."""

_UNKNOWN_FIELD = "added_by_aftersend_check"
_TOLD = 120


class Reply(Protocol):
    """What came back for a request."""

    @property
    def status(self) -> int:
        """0: nothing came back."""

    @property
    def body(self) -> bytes:
        """The answer's body, as far as it is read."""

    @property
    def fault(self) -> str:
        """What went wrong on the way, in one line."""


Headers = dict[str, str]
Post = Callable[[Headers, bytes], Awaitable[Reply]]
"""Posts headers and a body to the receiver; never raises."""


class Finding(msgspec.Struct, frozen=True):
    """What one request showed."""

    check: str
    """Short name, such as `repeated`."""
    level: str
    """ok, warning, error or skipped."""
    detail: str
    """One line for a person: what the receiver did, and what it should do."""


Judge = Callable[[Reply, bool], tuple[str, str]]
"""From a reply, and whether it counts as taken, to level and detail."""


class Check(msgspec.Struct, frozen=True):
    """One request and what a receiver should make of it."""

    name: str
    headers: Headers
    body: bytes
    judge: Judge


async def check(
    post: Post, dialect: Dialect, clock: Clock, secrets: Sequence[str] = (), form: str = ""
) -> list[Finding]:
    """Everything that a receiver at the other end of `post` gets wrong, in the order of the requests.

    Ends after the first request where even that finds nobody. `secrets`: what the receiver verifies with, the newest
    first; without any, the checks of signatures are skipped. Raises ConfigurationError for a secret of another form.
    """
    requests = _Requests(dialect, form, clock, secrets)
    taken = _acknowledged(dialect.acknowledgement)
    findings: list[Finding] = []
    for item in requests.checks():
        started = clock()
        reply = await post(item.headers, item.body)
        level, detail = item.judge(reply, taken(reply))
        findings.append(Finding(item.name, level, detail))
        if clock() - started > SLOW and reply.status:
            detail = f"answered after {(clock() - started) / SECOND:.1f} s; take in first and work afterwards"
            findings.append(Finding(f"{item.name}: time", "warning", detail))
        if not reply.status and len(findings) == 1:
            break
    if not secrets:
        detail = "no secret was given, so that forged and old requests were not tried"
        findings.append(Finding("signatures", "skipped", detail))
    return findings


class _Requests:
    """Makes the requests; each its own id, told by its name and the time."""

    def __init__(self, dialect: Dialect, form: str, clock: Clock, secrets: Sequence[str]) -> None:
        self._dialect = dialect
        self._form = form
        self._now = clock()
        self._signer = Signer(secrets) if secrets else None
        self._stranger = Signer([format_secret(hashlib.sha256(b"stranger" + str(self._now).encode()).digest())])

    def checks(self) -> Iterator[Check]:
        """All checks that apply, the plain one first."""
        plain = self._body(1)
        yield Check("valid", self._signed("valid", plain), plain.data, _should_take)
        yield Check("repeated", self._signed("valid", plain), plain.data, _should_take_again)
        batch = self._body(3)
        if batch.count > 1:
            yield Check("batch", self._signed("batch", batch), batch.data, _should_take)
        grown = _grown(plain)
        if grown is not None:
            yield Check("unknown field", self._signed("grown", grown), grown.data, _should_take_unknown)
        large = self._body(LARGE_EVENTS)
        if large.count > 1:
            yield Check("large", self._signed("large", large), large.data, _should_take_large)
        broken = Body(plain.data[: len(plain.data) // 2], plain.content_type, 1)
        yield Check("unreadable", self._signed("broken", broken), broken.data, _should_call_unreadable)
        if self._signer is not None:
            yield from self._signature_checks(plain, self._signer)

    def _signature_checks(self, plain: Body, signer: Signer) -> Iterator[Check]:
        good = self._signed("forged", plain)
        stamp = self._now // SECOND
        foreign = {**good, "webhook-signature": self._stranger.sign(good["webhook-id"], stamp, plain.data)}
        yield Check("wrongly signed", foreign, plain.data, _should_turn_away("a signature of another key"))
        yield Check("altered", good, plain.data + b" ", _should_turn_away("a body that was altered after signing"))
        renamed = {**good, "webhook-id": good["webhook-id"] + "-renamed"}
        yield Check("renamed", renamed, plain.data, _should_turn_away("an id that was altered after signing"))
        bare = {"Content-Type": plain.content_type}
        yield Check("unsigned", bare, plain.data, _should_turn_away("a request without a signature"))
        for name, seconds in (("old timestamp", -STALE), ("future timestamp", STALE)):
            headers = self._signed(name.replace(" ", "-"), plain, seconds)
            yield Check(name, headers, plain.data, _should_turn_away(f"a timestamp that is {STALE // 60} minutes off"))
        rotating = self._signed("rotating", plain)
        other = self._stranger.sign(rotating["webhook-id"], stamp, plain.data)
        rotating["webhook-signature"] = f"{other} v9,AAAA {rotating['webhook-signature']}"
        yield Check("several signatures", rotating, plain.data, _should_take_any_signature)

    def _signed(self, name: str, body: Body, seconds: int = 0) -> Headers:
        id_ = f"check-{self._now // MILLISECOND}-{name}"
        stamp = self._now // SECOND + seconds
        headers = {"Content-Type": body.content_type, "webhook-id": id_, "webhook-timestamp": str(stamp)}
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(id_, stamp, body.data)
        return headers

    def _body(self, count: int) -> Body:
        """The first body of so many test events; fewer where the dialect tells fewer at once."""
        events = [event for event in map(self._event, range(count)) if self._dialect.word(event) is not None]
        return self._dialect.encode(events, self._form)[0]

    def _event(self, number: int) -> Event:
        type_ = next((type_ for type_ in _TYPES if type_ in self._dialect.columns.values()), _TYPES[0])
        time = self._now - number * MILLISECOND
        return Event(
            id=event_id(Receipt(b"", self._now), "check", type_, time, str(number)),
            type=type_,
            time=time,
            source=Source("check", "check", type_),
            received_at=self._now,
            channel="email",
            recipient=f"check-{number}@aftersend.example",
            message_id=f"check-{number}",
            url="https://www.example.com/",
            test=True,
        )


_TYPES = ("email.clicked", "email.opened", "email.delivered", "email.hard_bounced")


def _grown(body: Body) -> Body | None:
    """The body with a field that nobody knows yet in each object; None where it is not JSON."""
    try:
        value: Any = msgspec.json.decode(body.data)
    except msgspec.DecodeError:
        return None
    objects = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in objects):
        return None
    for item in objects:
        item[_UNKNOWN_FIELD] = {"nested": [1, None, "é"]}
    return Body(msgspec.json.encode(value), body.content_type, body.count)


def _said(reply: Reply) -> str:
    if not reply.status:
        return reply.fault
    text = " ".join(reply.body[: _TOLD * 4].decode("utf-8", "replace").split())
    shown = "".join(character for character in text if character.isprintable())[:_TOLD]
    return f"answered {reply.status}" + (f" ({shown})" if shown else "")


def _acknowledged(wanted: Acknowledgement) -> Callable[[Reply], bool]:
    """Whether a reply is what the dialect's vendor calls taken."""
    status = None if wanted.statuses == "2xx" else int(wanted.statuses)
    pattern = None if wanted.body is None else compile_pattern(wanted.body)

    def taken(reply: Reply) -> bool:
        if reply.fault or not (reply.status == status or (status is None and 200 <= reply.status < 300)):
            return False
        return pattern is None or pattern.search(reply.body.decode("utf-8", "replace")[:TEXT_LIMIT]) is not None

    return taken


def _should(reply: Reply, taken: bool, advice: str) -> tuple[str, str]:
    if taken:
        return "ok", f"answered {reply.status}"
    if 300 <= reply.status < 400:
        advice = "redirects are never followed: give the final address"
    elif 200 <= reply.status < 300 and not reply.fault:
        advice = "that is not what senders of this dialect call taken: mind the exact status and body"
    return "error", f"{_said(reply)}; {advice}"


def _should_take(reply: Reply, taken: bool) -> tuple[str, str]:
    return _should(reply, taken, "a valid request must be answered 2xx")


def _should_take_again(reply: Reply, taken: bool) -> tuple[str, str]:
    return _should(reply, taken, "a repeat (same webhook-id) must be answered 2xx, or it is sent again and again")


def _should_take_unknown(reply: Reply, taken: bool) -> tuple[str, str]:
    return _should(reply, taken, "fields that you do not know must be ignored: new ones come without notice")


def _should_take_any_signature(reply: Reply, taken: bool) -> tuple[str, str]:
    return _should(reply, taken, "one signature that matches is enough: while keys change there are several")


def _should_take_large(reply: Reply, taken: bool) -> tuple[str, str]:
    if reply.status == 413:
        return "warning", "answered 413: batches will be made smaller; take at least 1 MB where you can"
    return _should(reply, taken, f"a batch of {LARGE_EVENTS} events must be answered 2xx, or 413 to get smaller ones")


def _should_call_unreadable(reply: Reply, taken: bool) -> tuple[str, str]:
    if 400 <= reply.status < 500:
        return "ok", f"answered {reply.status}"
    if taken:
        return "warning", f"answered {reply.status} to a body cut in half; 400 would tell that it was not understood"
    return "error", f"{_said(reply)} to a body cut in half; 400 or 422 ends the retries, anything else prolongs them"


def _should_turn_away(what: str) -> Judge:
    def judge(reply: Reply, taken: bool) -> tuple[str, str]:
        if reply.status in (401, 403):
            return "ok", f"answered {reply.status}"
        if taken:
            return "error", f"took {what}: anybody could send you events; answer 401"
        if 400 <= reply.status < 500:
            return "warning", f"answered {reply.status} to {what}; 401 would tell that it was not believed"
        return "error", f"{_said(reply)} to {what}; answer 401"

    return judge

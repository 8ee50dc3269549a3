"""`aftersend tail`: what happens, as it is written to the log."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from aftersend.cli.client import Client, check, connected
from aftersend.cli.output import NOTHING, cell, say
from aftersend.cli.parameters import HERE, AsJson, Target
from aftersend.core.errors import AftersendError, UsageError
from aftersend.core.event import Event, Receipt
from aftersend.rack import find_dialect

_PAGE = 500
_WAIT = 2
"""Seconds that one request waits for the next event: as long as a server that ends may have to wait for it."""
_WIDTHS = (24, 22, 12, 32)
_HEAD = re.compile(rb"^aftersend_log_head (\d+)", re.MULTILINE)


class _Page(msgspec.Struct):
    next: int
    events: list[msgspec.Raw]


_read_page = msgspec.json.Decoder(_Page).decode


def tail(
    *,
    lines: Annotated[int, Parameter(name=("--lines", "-n"), help="How many of the last events are shown.")] = 10,
    from_start: Annotated[bool, Parameter(show_default=False, help="Show everything that is kept.")] = False,
    types: Annotated[
        tuple[str, ...],
        Parameter(consume_multiple=True, show_default=False, help="Only these; `*` stands for anything."),
    ] = ("*",),
    follow: Annotated[
        bool, Parameter(name=("--follow", "-f"), show_default=False, help="Go on with what comes, until Ctrl-C.")
    ] = False,
    dialect: Annotated[str, Parameter(show_default=False, help="Tell the events in a dialect, as `halon`.")] = "",
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """The newest events of the log, as JSON (one a line) with --json."""
    if lines < 0:
        raise UsageError("--lines takes a number from 0 on")
    show = _shower(dialect, json)
    wanted = re.compile("|".join(re.escape(item).replace(r"\*", ".*") for item in types))
    with connected(target) as client:
        if follow and not client.running:
            raise AftersendError("--follow needs a running instance; start `aftersend serve` first")
        position = 0 if from_start else _head(client)
        if not from_start and lines:
            found, position = _last(client, position, lines, wanted)
            for raw in found:
                show(raw)
        if from_start or follow:
            for raw in _from(client, position, wanted, follow):
                show(raw)


def _head(client: Client) -> int:
    """The position that the next event will get."""
    if client.instance is not None:
        return client.instance.store.head()
    reply = client.send("GET", "/metrics")
    check(reply)
    match = _HEAD.search(reply.body)
    if match is None:
        raise AftersendError("the instance does not tell where its log ends; is it of another version?")
    return int(match[1])


def _page(client: Client, after: int, wait: int = 0, limit: int = _PAGE) -> _Page:
    reply = client.send("GET", "/v1/events", after=after, limit=limit, wait=wait)
    check(reply)
    return _read_page(reply.body)


def _type_of(raw: msgspec.Raw) -> str:
    return msgspec.json.decode(raw, type=_Typed).type


class _Typed(msgspec.Struct):
    type: str


def _from(client: Client, position: int, wanted: re.Pattern[str], follow: bool) -> Iterator[msgspec.Raw]:
    while True:
        page = _page(client, position, _WAIT if follow else 0)
        yield from (raw for raw in page.events if wanted.fullmatch(_type_of(raw)))
        if page.next == position and not follow:
            return
        if follow and not page.events:
            time.sleep(0.05)
        position = page.next


def _last(client: Client, head: int, lines: int, wanted: re.Pattern[str]) -> tuple[deque[msgspec.Raw], int]:
    """The last so many events that are wanted, looking further and further back; and the position after them."""
    span = max(lines, 100)
    while True:
        start, found, position = max(0, head - span), deque[msgspec.Raw](maxlen=lines), max(0, head - span)
        while position < head:
            page = _page(client, position)
            found.extend(raw for raw in page.events if wanted.fullmatch(_type_of(raw)))
            if page.next <= position:
                break
            position = page.next
        if len(found) >= lines or start == 0:
            return found, max(position, head)
        span *= 8


# Showing


def _shower(dialect: str, json: bool) -> Any:
    if dialect and json:
        raise UsageError("--json tells canonical JSON; take --dialect or --json")
    if dialect:
        return _teller(dialect)
    return _show_json if json else _show_line


def _show_json(raw: msgspec.Raw) -> None:
    sys.stdout.buffer.write(bytes(raw) + b"\n")
    sys.stdout.buffer.flush()


def _show_line(raw: msgspec.Raw) -> None:
    event = msgspec.json.decode(raw)
    cells = (event["time"], event["type"], event["source"]["name"], event.get("recipient") or event.get("profile_id"))
    texts = [cell(value).ljust(width) for value, width in zip(cells, _WIDTHS, strict=True)]
    rest = [cell(event[name]) for name in ("url", "message_id", "campaign_id") if event.get(name)]
    failure = event.get("failure") or {}
    rest += [cell(failure[name]) for name in ("class", "status", "reply") if failure.get(name)]
    say("  ".join([*texts, " ".join(rest) or NOTHING]))
    sys.stdout.flush()


def _teller(dialect: str) -> Any:
    speaker, form = find_dialect(dialect)
    canonical, _ = find_dialect("canonical")

    def show(raw: msgspec.Raw) -> None:
        (event,) = canonical.decode(Receipt(bytes(raw), time.time_ns(), verbatim=True))
        if isinstance(event, Event) and speaker.word(event) is not None:
            for body in speaker.encode([event], form):
                sys.stdout.buffer.write(body.data + (b"" if body.data.endswith(b"\n") else b"\n"))
        sys.stdout.buffer.flush()

    return show

"""`aftersend subscriptions pull`: what a consumer would get, on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from json import loads
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import Parameter

from aftersend.cli.client import Reply, check, connected
from aftersend.cli.output import hint, print_json
from aftersend.cli.parameters import HERE, AsJson, Target

LOOK_SECONDS = 1
"""The lease of events that are only looked at: they are offered again right after."""

_OURS = "aftersend-"


def _one(help_: str) -> Parameter:
    return Parameter(show_default=False, help=help_)


def pull(
    name: str,
    /,
    *,
    max: Annotated[int | None, _one("Events at most; without it as many as a batch holds.")] = None,  # noqa: A002
    wait: Annotated[int, _one("Seconds to wait for the first event, at most 60.")] = 0,
    dialect: Annotated[str, _one("The words to hear them in; without it the subscription's.")] = "",
    ack: Annotated[
        bool,
        Parameter(
            negative="--keep", show_default=False, help="Acknowledge what was printed; else it is offered again."
        ),
    ] = False,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Pull the next events and print them, an event a line; nothing is acknowledged without `--ack`."""
    with connected(target) as client:
        reply = client.send(
            "GET",
            _path(name, "/batch"),
            consumer="aftersend subscriptions pull",
            max="" if max is None else max,
            wait=wait,
            dialect=dialect,
            lease="" if ack else LOOK_SECONDS,
        )
        check(reply)
        if reply.status == 204:
            if json:
                print_json({"count": "0", "events": []})
            hint(_nothing(name, client.call("GET", _path(name, ""))["standing"].get("leased", 0), wait))
            return
        _print(reply, as_json=json)
        if ack:
            client.call("POST", _path(name, "/ack"), {"lease": reply.headers["aftersend-lease"]})
    hint(_summary(reply.headers, ack))


def _nothing(name: str, leased: int, wait: int) -> str:
    if leased:
        verb = "is" if leased == 1 else "are"
        return f"Nothing waits for {name}: {leased} {verb} in a consumer's hands; unanswered ones are offered again."
    return f"Nothing waits for {name}." + ("" if wait else " --wait 30 waits for what comes.")


def _path(name: str, rest: str) -> str:
    return f"/v1/subscriptions/{quote(name, safe='')}{rest}"


def _print(reply: Reply, *, as_json: bool) -> None:
    if as_json:
        print_json(_envelope(reply))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(reply.body if reply.body.endswith(b"\n") else reply.body + b"\n")
    sys.stdout.buffer.flush()


def _envelope(reply: Reply) -> dict[str, Any]:
    """Its headers of ours, and the events where they are JSON."""
    fields: dict[str, Any] = {
        key.removeprefix(_OURS): value for key, value in reply.headers.items() if key.startswith(_OURS)
    }
    if "ndjson" in reply.headers.get("content-type", ""):
        return {**fields, "events": [loads(line) for line in reply.body.splitlines()]}
    return {**fields, "body": reply.body.decode(errors="replace")}


def _summary(headers: Mapping[str, str], acknowledged: bool) -> str:
    count = headers[f"{_OURS}count"]
    what = f"{count} {'event' if count == '1' else 'events'} ({headers[f'{_OURS}sequence']})"
    if acknowledged:
        return f"{what}, acknowledged."
    return f"{what}, offered again in {LOOK_SECONDS} s; --ack acknowledges them."

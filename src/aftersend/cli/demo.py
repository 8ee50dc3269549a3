"""`aftersend demo`: see it work, within seconds and with nothing set up."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from rich.console import Console

from aftersend.cli import DONE, FAILED
from aftersend.cli.output import print_json
from aftersend.cli.parameters import AsJson
from aftersend.core.errors import UsageError
from aftersend.demo.picture import Picture, closing, incoming
from aftersend.demo.stage import Result, Stage, folder_lines
from aftersend.simulation.instance import set_up
from aftersend.simulation.processes import Child, server


def demo(
    *,
    messages: Annotated[int, Parameter(help="How many messages the campaign has.")] = 20_000,
    keep: Annotated[bool, Parameter(show_default=False, help="Keep the store, and say where it is.")] = False,
    json: AsJson = False,
) -> int:
    """Play a campaign through a real server: six vendors tell of it, two receivers with troubles hear of it.

    Needs nothing and leaves nothing: the store is a temporary folder, everything stays on this machine. Ends by itself
    when all is delivered, with a table that shows whether anything was lost.
    """
    if messages < 1:
        raise UsageError("--messages: at least 1")
    console = Console(stderr=json)
    data = Path(tempfile.mkdtemp(prefix="aftersend-demo-")) / "data"
    try:
        token = asyncio.run(set_up(data))
        with server(data) as child:
            _introduce(console, child, token)
            with Picture(console) as picture:
                result = asyncio.run(Stage(child, token, messages, picture.show).run())
    finally:
        if not keep:
            shutil.rmtree(data.parent, ignore_errors=True)
    _conclude(console, result)
    if keep:
        _say(console, *folder_lines(data), f"  its key: {token}")
    if json:
        print_json({**msgspec.to_builtins(result), "sound": result.sound, "data": str(data) if keep else None})
    return DONE if result.sound else FAILED


def _introduce(console: Console, child: Child, token: str) -> None:
    url = f"http://127.0.0.1:{child.port}"
    header = f"-H 'Authorization: Bearer {token}'"
    _say(
        console,
        f"aftersend is at {url} until all is delivered. Meanwhile, in another terminal, add an event of your own:",
        f'  curl {url}/v1/events {header} -d \'{{"type": "email.clicked", "recipient": "you@example.org"}}\'',
        "and read what others told, in the words of Halon:",
        f"  curl '{url}/v1/events?limit=100&dialect=halon' {header}",
        "",
    )


def _conclude(console: Console, result: Result) -> None:
    console.print(incoming(result.dialects))
    console.print(closing([(finding.what, finding.found, finding.holds) for finding in result.findings]))
    verdict = "Nothing was lost." if result.sound else "Something is missing: see above."
    _say(console, f"{verdict} {result.messages:,} messages, {result.log:,} events, {result.seconds:.0f} s.")


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

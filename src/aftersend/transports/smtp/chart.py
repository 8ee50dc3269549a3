"""The chart of a digest: stacked bars, described in Vega-Lite and drawn as PNG by a process of its own.

vl-convert carries a JavaScript engine. In our process it would hold the interpreter's lock for the 0.4 s of a drawing,
so that no click is answered meanwhile, keep some 70 MB, and could not be stopped.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

from aftersend.transports.smtp.digest import Digest
from aftersend.transports.smtp.wording import Wording

SECONDS = 15.0
"""How long a drawing may take."""
SIZE_LIMIT = 1_000_000
WIDTH, HEIGHT = 460, 150
INK = "#7d8592"
"""Of labels; a grey that can be read on white and on black, as the picture has no ground of its own."""
LABELS_LIMIT = 8

_PROGRAM = Path(__file__).with_name("drawing.py")


def can_draw() -> bool:
    """Whether the extra `charts` is installed."""
    return bool(sys.executable) and importlib.util.find_spec("vl_convert") is not None


async def draw(spec: dict[str, Any]) -> bytes | None:
    """A PNG; None where it cannot be drawn in time."""
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_PROGRAM)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    try:
        async with asyncio.timeout(SECONDS):
            picture, _ = await process.communicate(json.dumps(spec).encode())
    except (TimeoutError, OSError):
        return None
    finally:
        await _end(process)
    is_whole = process.returncode == 0 and picture.startswith(b"\x89PNG") and len(picture) <= SIZE_LIMIT
    return picture if is_whole else None


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()


def spec_of(digest: Digest, words: Wording) -> dict[str, Any]:
    """The chart in Vega-Lite."""
    names = [str(number) for number in range(len(digest.series))]
    values = [
        {"bar": place, "series": str(number), "count": count}
        for place, bar in enumerate(digest.bars)
        for number, count in enumerate(bar.counts)
        if count
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v5.json",
        "width": WIDTH,
        "height": HEIGHT,
        "background": "transparent",
        "padding": {"left": 0, "top": 8, "right": 6, "bottom": 0},
        "data": {"values": values},
        "mark": {"type": "bar", "cornerRadius": 1},
        "encoding": {
            "x": _x(digest),
            "y": _y(words),
            "color": {
                "field": "series",
                "type": "nominal",
                "scale": {"domain": names, "range": [row.colour for row in digest.series]},
                "legend": None,
            },
            "order": {"field": "series", "type": "quantitative"},
        },
        "config": {
            "view": {"stroke": None},
            "axis": {
                "labelColor": INK,
                "labelFontSize": 12,
                "labelFont": "Liberation Sans, Helvetica, Arial, DejaVu Sans, sans-serif",
                "domain": False,
                "ticks": False,
                "labelPadding": 8,
            },
        },
    }


def _x(digest: Digest) -> dict[str, Any]:
    places = labelled(digest)
    labels = json.dumps({str(place): digest.bars[place].label for place in places})
    return {
        "field": "bar",
        "type": "ordinal",
        "scale": {"domain": list(range(len(digest.bars))), "paddingInner": 0.28, "paddingOuter": 0.1},
        "axis": {
            "title": None,
            "values": places,
            "labelAngle": 0,
            "labelExpr": f"{labels}[datum.value]",
            "grid": False,
        },
    }


def _y(words: Wording) -> dict[str, Any]:
    grouped = f"replace(format(datum.value, ',d'), /,/g, {json.dumps(words.thousands)})"
    return {
        "field": "count",
        "type": "quantitative",
        "stack": "zero",
        "axis": {
            "title": None,
            "tickCount": 4,
            "tickMinStep": 1,
            "labelExpr": grouped,
            "grid": True,
            "gridColor": INK,
            "gridOpacity": 0.22,
            "labelLimit": 90,
        },
    }


def labelled(digest: Digest) -> list[int]:
    """The bars that get a label: at round hours, or every so many days."""
    count = len(digest.bars)
    if digest.hourly:
        step = next((step for step in (1, 2, 3, 4, 6, 12) if count / step <= LABELS_LIMIT), 12)
        return [place for place, bar in enumerate(digest.bars) if bar.hour % step == 0]
    step = -(-count // LABELS_LIMIT)
    return [place for place in range(count) if (count - 1 - place) % step == 0]

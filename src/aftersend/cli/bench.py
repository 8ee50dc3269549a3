"""`aftersend bench`: measure this machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from aftersend.bench.catalogue import MEASURES, run, summary
from aftersend.bench.readings import Scale
from aftersend.cli import DONE
from aftersend.cli.output import hint, print_json, print_table
from aftersend.cli.parameters import AsJson
from aftersend.core.errors import UsageError

QUICK = 0.1

_COLUMNS = ("", "median", "lowest to highest", "unit", "of bare loop", "floor", "reach", "")
_NAMES = ", ".join(MEASURES)


def bench(
    *names: Annotated[str, Parameter(help=f"What to measure: {_NAMES}. Without a name: everything.")],
    runs: Annotated[int, Parameter(help="How often; the table tells the median and the spread.")] = 3,
    quick: Annotated[bool, Parameter(show_default=False, help="A tenth of the work: a first look.")] = False,
    full: Annotated[bool, Parameter(show_default=False, help="Measure growth with 20 million events.")] = False,
    share: Annotated[float | None, Parameter(show=False)] = None,
    json: AsJson = False,
) -> int:
    """Measure this machine: figures per CPU-second, in temporary folders and on loopback alone.

    `of bare loop` is the rate beside that of msgspec alone on the same kind of events, taken at the same time: compare
    that one between machines, and where others use this one.
    """
    unknown = [name for name in names if name not in MEASURES]
    if unknown:
        raise UsageError(f"there is nothing named {unknown[0]!r} to measure; there are: {_NAMES}")
    if runs < 1:
        raise UsageError("--runs: at least 1")
    scale = Scale(share or (QUICK if quick else 1.0), full)
    readings = run(names or tuple(MEASURES), runs, scale, hint)
    found = [summary(row, taken) for row, taken in readings.items()]
    if json:
        print_json(found)
    else:
        print_table(_COLUMNS, [_cells(item) for item in found])
    return DONE


def _cells(item: Mapping[str, Any]) -> list[str]:
    ratio = item["of_bare_loop"]
    unit = item["unit"] + "/CPU-s" if ratio else item["unit"]
    spread = f"{_figure(item['lowest'])} to {_figure(item['highest'])}"
    bounds = [_figure(item["floor"]), _figure(item["reach"])]
    return [
        item["name"],
        _figure(item["median"]),
        spread,
        unit,
        f"{ratio:.3f}" if ratio else "",
        *bounds,
        item["verdict"],
    ]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"

"""What is seen of a running demonstration: tables that change on a terminal, else plain lines."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import Struct
from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

_SAMPLE = re.compile(r'^aftersend_events_(\w+)_total\{dialect="(\w+)"\} (\S+)$', re.MULTILINE)
_LINE_SECONDS = 2.0


class Receiving(Struct):
    """How a receiver stands."""

    name: str
    dialect: str
    trouble: str
    delivered: int = 0
    behind: int = 0
    state: str = "waits"


class Snapshot(Struct):
    """How everything stands at one moment."""

    seconds: float
    figures: dict[str, dict[str, int]]
    """By dialect: accepted, duplicate, rejected."""
    receiving: Sequence[Receiving]
    head: int

    def total(self, kind: str) -> int:
        """Of all dialects."""
        return sum(figures.get(kind, 0) for figures in self.figures.values())


def read_figures(metrics: str) -> dict[str, dict[str, int]]:
    """What the server counted, by dialect, from its own `/metrics`."""
    found: dict[str, dict[str, int]] = {}
    for kind, dialect, value in _SAMPLE.findall(metrics):
        found.setdefault(dialect, {})[kind] = int(float(value))
    return found


class Picture:
    """Shows snapshots."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._said = 0.0
        self._before: Snapshot | None = None

    def __enter__(self) -> Picture:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Show how everything stands."""
        rate = self._rate(snapshot)
        if self._live is not None:
            self._live.update(_drawn(snapshot, rate))
        elif snapshot.seconds - self._said >= _LINE_SECONDS:
            self._said = snapshot.seconds
            self._console.print(_line(snapshot, rate), soft_wrap=True, highlight=False)
        self._before = snapshot

    def _rate(self, snapshot: Snapshot) -> float:
        """Events a second since the last look."""
        before = self._before
        if before is None or snapshot.seconds <= before.seconds:
            return 0.0
        return (snapshot.total("accepted") - before.total("accepted")) / (snapshot.seconds - before.seconds)


def _line(snapshot: Snapshot, rate: float) -> str:
    parts = [f"{snapshot.seconds:5.1f} s  in: {snapshot.total('accepted'):,} accepted ({rate:,.0f}/s)"]
    parts.append(f"{snapshot.total('duplicate'):,} duplicates, {snapshot.total('rejected'):,} quarantined")
    parts += [f"{item.name}: {item.delivered:,} delivered, {item.behind:,} behind" for item in snapshot.receiving]
    return "; ".join(parts)


def _drawn(snapshot: Snapshot, rate: float) -> Group:
    title = f"{snapshot.seconds:.1f} s   {snapshot.total('accepted'):,} events accepted   {rate:,.0f} a second"
    return Group(Text(title, style="bold"), incoming(snapshot.figures), outgoing(snapshot.receiving))


def incoming(figures: Mapping[str, Mapping[str, int]]) -> Table:
    """What came in, by dialect."""
    table = _table("told in", "accepted", "duplicates", "quarantined")
    for dialect, counts in sorted(figures.items()):
        cells = [f"{counts.get(kind, 0):,}" for kind in ("accepted", "duplicate", "rejected")]
        table.add_row(dialect, *cells)
    return table


def outgoing(receiving: Sequence[Receiving]) -> Table:
    """What went out, by receiver."""
    table = _table("receiver", "delivered", "behind", "state", "hears", "trouble")
    for item in receiving:
        style = "red" if item.state.startswith("fail") else "green" if not item.behind else ""
        state = Text(item.state, style=style)
        table.add_row(item.name, f"{item.delivered:,}", f"{item.behind:,}", state, item.dialect, item.trouble)
    return table


def closing(rows: Sequence[tuple[str, str, bool]]) -> Table:
    """What must hold at the end, and whether it does."""
    table = Table("what must hold", "what is so", "", box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for what, found, holds in rows:
        table.add_row(what, found, Text("yes" if holds else "NO", style="green" if holds else "bold red"))
    return table


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in others:
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    return table


_NUMBERS = ("accepted", "duplicates", "quarantined", "delivered", "behind")

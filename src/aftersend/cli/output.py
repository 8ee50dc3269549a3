"""What commands print: tables, JSON and progress, for people and for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec

NOTHING = "-"
"""What stands in an empty cell."""


def say(text: str) -> None:
    """A line for people on standard output."""
    sys.stdout.write(text + "\n")


def hint(text: str) -> None:
    """A line for people on standard error, so that what is piped stays clean."""
    sys.stderr.write(text + "\n")


def print_json(value: Any) -> None:
    """A value as indented JSON."""
    data = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.write(data.decode() + "\n")


def cell(value: Any) -> str:
    """A value as it stands in a table."""
    if value is None or value == "" or value == []:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(cell, value))
    if isinstance(value, dict):
        return ", ".join(f"{name}={cell(item)}" for name, item in value.items()) or NOTHING
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows under columns: drawn on a terminal, else in plain aligned text."""
    texts = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, texts)
        return
    widths = [max(map(len, column)) for column in zip(columns, *texts, strict=True)]
    for row in (columns, *texts):
        padded = [text.ljust(width) for text, width in zip(row, widths, strict=True)]
        say("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*[Text(text, overflow="fold") for text in row])
    Console().print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """A record, a line for each field."""
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        say(f"{name.ljust(width)}  {cell(value)}")


class Progress(Protocol):
    """How far a long piece of work has come."""

    def __call__(self, done: int, note: str = "") -> None:
        """So much is done, of the total or of what cannot be known."""


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """A sign of life on standard error while work goes on elsewhere; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


@contextmanager
def progress(title: str, total: int | None) -> Iterator[Progress]:
    """A bar on standard error for bytes of work; nothing where that is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, note="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total, note="")
        yield lambda done, note="": bar.update(task, completed=done, note=note)

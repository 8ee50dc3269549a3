"""Parquet files of events, in row groups of bounded size. Needs pyarrow, which is only imported here."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from aftersend.core.errors import ConfigurationError, EncodeError
from aftersend.core.event import Event
from aftersend.core.framing import Framing, Pen, Sheet
from aftersend.core.tables import COLUMNS
from aftersend.pipeline.writers import create, finished

GROUP_ROWS = 10_000
"""Events of one row group: what is held in memory."""

_NUMBER_LIMIT = (1 << 63) - 1
_KINDS = {
    "text": ("string", ()),
    "json": ("string", ()),
    "time": ("timestamp", ("ns", "UTC")),
    "number": ("int64", ()),
    "fraction": ("float64", ()),
    "flag": ("bool_", ()),
}


def _no_pen(sheet: Sheet) -> Pen:
    raise ConfigurationError("parquet is written in columns, not event by event")


FRAMING = Framing(content_type="application/vnd.apache.parquet", ending=".parquet", pen=_no_pen, compressions=("none",))


def load() -> Any:
    """The library. Raises ConfigurationError where it is not installed."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError:
        raise ConfigurationError(
            "files in parquet need pyarrow; install it with: pip install 'aftersend[parquet]'"
        ) from None


def schema() -> Any:
    """The columns of a table of events as Arrow has them."""
    arrow = load()
    kinds = {kind: getattr(arrow, name)(*given) for kind, (name, given) in _KINDS.items()}
    return arrow.schema([(column.name, kinds[column.kind]) for column in COLUMNS])


class ParquetWriter:
    """A Parquet file being written; see `pipeline.writers.Writer`."""

    def __init__(self, path: Path) -> None:
        arrow = load()
        self._arrow = arrow
        self._schema = schema()
        create(path).close()
        self._path = path
        self._rows: list[Event] = []
        self._file = arrow.OSFile(str(path), "wb")
        self._parquet = arrow.parquet.ParquetWriter(self._file, self._schema, compression="zstd")
        self.size = 0

    def add(self, event: Event, room: int) -> int:
        """Take an event; the file grows when a row group is full."""
        if room <= 0:
            return -1
        if event.failure is not None and event.failure.code is not None and abs(event.failure.code) > _NUMBER_LIMIT:
            raise EncodeError(f"the failure's code {event.failure.code} has more than 64 bits")
        self._rows.append(event)
        return self._flush() if len(self._rows) >= GROUP_ROWS else 0

    def _flush(self) -> int:
        if not self._rows:
            return 0
        columns = [
            self._arrow.array([column.value(event) for event in self._rows], type=field.type)
            for column, field in zip(COLUMNS, self._schema, strict=True)
        ]
        self._rows = []
        self._parquet.write_table(
            self._arrow.Table.from_arrays(columns, schema=self._schema), row_group_size=GROUP_ROWS
        )
        grown: int = self._file.tell() - self.size
        self.size += grown
        return grown

    def finish(self) -> int:
        """Write the last row group and the directory; the file is on the disk when it returns."""
        self._flush()
        self._parquet.close()
        self._file.close()
        return finished(self._path.open("r+b"))

    def abandon(self) -> None:
        """Close the file as it is."""
        self._rows = []
        for close in (self._parquet.close, self._file.close):
            with suppress(Exception):
                close()

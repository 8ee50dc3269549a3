"""The files of the log: each holds a run of positions, and knows what else it holds."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from aftersend.core.timestamps import DAY
from aftersend.stores.sqlite import days
from aftersend.stores.sqlite.connections import connect, faults_of, migrate, transaction, version_of
from aftersend.stores.sqlite.days import Span
from aftersend.stores.sqlite.folder import make_file, publish, sync
from aftersend.stores.sqlite.statements import LOG, LOG_VERSIONS

_COMPANIONS = ("-wal", "-shm")
_TEMPORARY = ".new"


@dataclass(slots=True, eq=False)
class LogFile:
    """One file, with what must be known of it without opening it. Changed by the writer's thread alone."""

    path: Path
    first_position: int
    first_number: int
    """Numbers of its quarantine are higher than this."""
    created_at: int
    days: dict[int, Span] = field(default_factory=dict)
    quarantined: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many bodies it keeps, by tenant and source."""
    file_requests: bool = False
    """Whether it remembers files that were taken in."""

    @property
    def day(self) -> int:
        """The day (UTC) it was begun."""
        return self.created_at // DAY


def create_file(folder: Path, first_position: int, first_number: int, created_at: int) -> LogFile:
    """A new, empty file at the end of the log."""
    path = folder / f"{first_position:020d}.db"
    temporary = path.with_name(path.name + _TEMPORARY)
    with faults_of(path):
        _discard(temporary)
        make_file(temporary)
        connection = connect(temporary, writing=True)
        try:
            migrate(connection, LOG_VERSIONS, path)
            with transaction(connection):
                connection.execute(LOG["insert_meta"], (first_position, first_number, created_at))
                connection.execute(LOG["start_numbers"], (first_number,))
        finally:
            connection.close()
        publish(temporary, path)
    return LogFile(path, first_position, first_number, created_at)


def load_files(folder: Path, *, read_only: bool) -> list[LogFile]:
    """Every file of the log, in order; what a crash left half-made is removed."""
    if not read_only:
        _sweep(folder)
    return [_load(path, read_only=read_only) for path in sorted(folder.glob("*.db"))]


def _sweep(folder: Path) -> None:
    for path in folder.glob(f"*{_TEMPORARY}*"):
        path.unlink(missing_ok=True)
    for companion in _COMPANIONS:
        for path in folder.glob(f"*.db{companion}"):
            if not path.with_name(path.name.removesuffix(companion)).exists():
                path.unlink(missing_ok=True)


def _load(path: Path, *, read_only: bool) -> LogFile:
    with faults_of(path):
        connection = connect(path, writing=not read_only)
        try:
            if read_only:
                version_of(connection, len(LOG_VERSIONS), path)
            else:
                migrate(connection, LOG_VERSIONS, path)
            file = LogFile(path, *connection.execute(LOG["meta"]).get)
            describe(file, connection)
            return file
        finally:
            connection.close()


def describe(file: LogFile, connection: apsw.Connection) -> None:
    """Note what a file holds, as it is on disk."""
    file.days = {day: Span(lowest, highest) for day, lowest, highest in connection.execute(LOG["days"])}
    counted = connection.execute(LOG["count_quarantined"])
    file.quarantined = Counter({(tenant, source): count for tenant, source, count in counted})
    file.file_requests = bool(connection.execute(LOG["has_file_requests"]).get)


def remove_file(file: LogFile) -> None:
    """Take a file from the disk; a companion that a crash leaves behind is swept at the next start."""
    with faults_of(file.path):
        _discard(file.path)
        sync(file.path.parent)


def _discard(path: Path) -> None:
    for name in (path.name, *(path.name + companion for companion in _COMPANIONS)):
        path.with_name(name).unlink(missing_ok=True)


def size_of(file: LogFile) -> int:
    """Bytes that a file takes on disk."""
    paths = [file.path, file.path.with_name(file.path.name + "-wal")]
    return sum(path.stat().st_size for path in paths if path.exists())


class Catalogue:
    """The files in order, the head last. The writer's thread changes it, every thread may look things up."""

    def __init__(self, files: Sequence[LogFile]) -> None:
        self.files: tuple[LogFile, ...] = tuple(files)
        self._by_day: dict[int, list[LogFile]] = {}
        for file in self.files[:-1]:
            self._index(file)

    @property
    def head(self) -> LogFile:
        """The file that is written."""
        return self.files[-1]

    def add(self, file: LogFile) -> None:
        """A new head."""
        self._index(self.head)
        self.files = (*self.files, file)

    def remove(self, file: LogFile) -> None:
        """Forget a file that is not the head."""
        self.files = tuple(other for other in self.files if other is not file)
        for day in file.days:
            self._by_day[day].remove(file)
            if not self._by_day[day]:
                del self._by_day[day]

    def _index(self, file: LogFile) -> None:
        for day in file.days:
            self._by_day.setdefault(day, []).append(file)

    def holding(self, position: int) -> LogFile:
        """The file that a position belongs to; the first one for what lies before it."""
        return self.since(position)[0]

    def since(self, position: int) -> tuple[LogFile, ...]:
        """The files from the one that a position belongs to."""
        files = self.files
        index = bisect_right(files, position, key=lambda file: file.first_position) - 1
        return files[max(index, 0) :]

    def numbered(self, number: int) -> tuple[LogFile, ...]:
        """The files that can keep quarantined bodies from a number on."""
        files = self.files
        index = bisect_right(files, number - 1, key=lambda file: file.first_number) - 1
        return files[max(index, 0) :]

    def to_ask(self, ordered: Sequence[bytes]) -> Mapping[LogFile, list[bytes]]:
        """Which older files must be asked about which of these sorted ids; none at all for ids of just now."""
        found: dict[LogFile, list[bytes]] = {}
        for day, start, end in days.runs(ordered):
            for file in self._by_day.get(day, ()):
                asked = days.within(ordered, start, end, file.days[day])
                if asked:
                    found.setdefault(file, []).extend(asked)
        return found

"""The next file of a subscription, or one for each type: filled event by event until it is full, then planned."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

from msgspec import Struct, field

from aftersend.contracts import Clock, Cursor, Dialect, SetAside
from aftersend.core import tables
from aftersend.core.errors import ConfigurationError
from aftersend.core.event import Event
from aftersend.core.framing import Framing, Sheet, framing_of
from aftersend.core.outcome import Tally, Volume
from aftersend.core.registry import Subscription
from aftersend.core.rotation import DEFAULT_NAME, ENDINGS, Rotation, check, file_name, next_stamp, tag_of
from aftersend.core.tallying import add, counted_together
from aftersend.pipeline import parquet
from aftersend.pipeline.outbox import Outbox, Plan, sync_folder
from aftersend.pipeline.writers import PenWriter, Writer

ASIDE_LIMIT = 1_000
"""Events of one plan that cannot be told; at so many it is carried out as it is."""

log = logging.getLogger("aftersend.files")


def framing_for(dialect: Dialect, form: str, rotation: Rotation) -> Framing:
    """How a subscription's files are made. Raises ConfigurationError for what does not go together."""
    check(rotation)
    if rotation.format == "dialect":
        framing = framing_of(dialect, form)
    elif dialect.name != "canonical":
        raise ConfigurationError(f"file: {rotation.format} tells canonical events; set dialect to canonical")
    elif rotation.format == "parquet":
        parquet.load()
        framing = parquet.FRAMING
    else:
        framing = {"ndjson": tables.NDJSON, "csv": tables.CSV}[rotation.format]
    if rotation.compression not in framing.compressions:
        known = ", ".join(framing.compressions)
        raise ConfigurationError(f"file: {dialect.name} has no files in {rotation.compression}; it has: {known}")
    if framing.type_of is not None and rotation.name and "{type}" not in rotation.name:
        raise ConfigurationError(f"file: {dialect.name} has a file for each type; the name needs {{type}}")
    return framing


def pattern_of(framing: Framing, rotation: Rotation) -> str:
    """What files are called, without their ending."""
    if rotation.name:
        return rotation.name
    return f"{DEFAULT_NAME}-{{type}}" if framing.type_of is not None and framing.name == DEFAULT_NAME else framing.name


class _Chapter(Struct):
    """One file of a draft."""

    name: str
    path: Path
    writer: Writer
    first_sequence: int = 0
    last_sequence: int = 0
    since: int = 0
    until: int = 0
    tally: Tally = field(default_factory=Tally)


class Draft:
    """What is gathered for the next plan. Made and used in threads, by one at a time; raises OSError for the disk."""

    def __init__(
        self,
        subscription: Subscription,
        rotation: Rotation,
        framing: Framing,
        outbox: Outbox,
        cursor: Cursor,
        period: tuple[int, int],
    ) -> None:
        self.period = period
        self.is_full = False
        self._subscription = subscription
        self._rotation = rotation
        self._framing = framing
        self._outbox = outbox
        self._cursor = cursor
        self._sequence = cursor.sequence
        limits = (rotation.max_events, framing.max_events or rotation.max_events)
        self._last_sequence = cursor.sequence + min(limits)
        self._room = rotation.max_bytes
        self._stamp = next_stamp(period[0], outbox.names.stamp)
        self._type_of = framing.type_of or (lambda event: "")
        self._chapters: dict[str, _Chapter] = {}
        self._aside: list[SetAside] = []

    @property
    def is_empty(self) -> bool:
        """Whether no event was taken yet."""
        return self._sequence == self._cursor.sequence

    def add(self, line: Sequence[tuple[int, Event]]) -> int:
        """Take events, each with its position, until one belongs into the next file; how many were taken."""
        self._outbox.check_room()
        taken: dict[str, list[Event]] = {}
        count = len(line)
        for number, (position, event) in enumerate(line):
            if self._is_next(event) or not self._take(position, event, taken):
                self.is_full = True
                count = number
                break
        self.is_full = self.is_full or self._sequence >= self._last_sequence
        for type_, events in taken.items():
            self._count(self._chapters[type_], events)
        return count

    def _is_next(self, event: Event) -> bool:
        """Whether an event belongs into the next file by its time or number."""
        return (
            event.received_at >= self.period[1]
            or self._sequence >= self._last_sequence
            or len(self._aside) >= ASIDE_LIMIT
        )

    def _take(self, position: int, event: Event, taken: dict[str, list[Event]]) -> bool:
        """Write an event; False where it has more bytes than there is room for."""
        try:
            type_ = self._type_of(event)
            chapter = self._chapters.get(type_) or self._open(type_)
            grown = chapter.writer.add(event, sys.maxsize if self.is_empty else self._room)
        except OSError:
            raise
        except Exception as error:
            self._set_aside(position, event, error)
            return True
        if grown < 0:
            return False
        self._room -= grown
        self._sequence += 1
        chapter.first_sequence = chapter.first_sequence or self._sequence
        chapter.last_sequence = self._sequence
        taken.setdefault(type_, []).append(event)
        return True

    def _count(self, chapter: _Chapter, events: Sequence[Event]) -> None:
        times = [event.received_at for event in events]
        chapter.since = min(times) if not chapter.tally.count else min(chapter.since, *times)
        chapter.until = max(chapter.until, *times)
        add(chapter.tally, events)

    def _open(self, type_: str) -> _Chapter:
        """Begin a file."""
        rotation, framing = self._rotation, self._framing
        entry = self._name(type_) + framing.ending
        local = f"{self._cursor.epoch}-{self._cursor.sequence + 1}" + (f"-{type_}" if type_ else "")
        path = self._outbox.path(f"{local}.part")
        writer: Writer
        if rotation.format == "parquet":
            writer = parquet.ParquetWriter(path)
        else:
            pen = framing.pen(Sheet(*self.period, rotation.zone, type_))
            writer = PenWriter(path, pen, rotation.compression, entry, rotation.max_bytes)
        self._room -= writer.size
        chapter = _Chapter(entry + ENDINGS[rotation.compression], path, writer)
        self._chapters[type_] = chapter
        return chapter

    def _name(self, type_: str) -> str:
        subscription = self._subscription
        return file_name(
            pattern_of(self._framing, self._rotation),
            name=subscription.name,
            tag=tag_of(subscription.tenant, subscription.id),
            tenant=subscription.tenant,
            start=self.period[0],
            zone=self._rotation.zone,
            epoch=self._cursor.epoch,
            sequence=self._cursor.sequence + 1,
            stamp=self._stamp,
            type_=type_,
        )

    def _set_aside(self, position: int, event: Event, error: Exception) -> None:
        """An event that cannot be told leaves the line, so that the others go on."""
        self._sequence += 1
        detail = f"cannot be told in {self._subscription.dialect}: {error or type(error).__name__}"[:300]
        if not self._aside:
            log.warning("subscription %s: event %s %s", self._subscription.name, event.id, detail)
        epoch, id_ = self._cursor.epoch, self._subscription.id
        self._aside.append(SetAside(id_, position, event, 1, 0, detail, "failed", epoch, self._sequence))

    def finish(self, position: int, clock: Clock) -> Plan:
        """End the files and write the plan down; `position` is where the log is read on from."""
        if not self._chapters and self.is_empty:
            self._open("")
        volumes = []
        for type_, chapter in list(self._chapters.items()):
            if self._is_told(chapter):
                volumes.append(self._volume(chapter, clock()))
                del self._chapters[type_]
        self.abandon()
        plan = Plan(
            volumes=tuple(volumes),
            first_sequence=self._cursor.sequence + 1,
            cursor=Cursor(position, self._cursor.epoch, self._sequence),
            tally=counted_together(volume.tally for volume in volumes),
            aside=tuple(self._aside),
            rotation=self._rotation,
            stamp=self._stamp,
            until=self.period[1],
        )
        sync_folder(self._outbox.folder)
        self._outbox.commit(plan)
        return plan

    def _is_told(self, chapter: _Chapter) -> bool:
        """Whether a file goes out: one of which every event was set aside does not."""
        return chapter.tally.count > 0 or self.is_empty

    def _volume(self, chapter: _Chapter, now: int) -> Volume:
        size = chapter.writer.finish()
        path = chapter.path.with_suffix(".file")
        chapter.path.replace(path)
        about = f"{self._subscription.id}\n{chapter.name}\n{now}\n{size}"
        return Volume(
            id="vol_" + blake2b(about.encode(), digest_size=15).hexdigest(),
            name=chapter.name,
            path=str(path),
            size=size,
            content_type=self._content_type(),
            epoch=self._cursor.epoch,
            first_sequence=chapter.first_sequence or self._sequence + 1,
            last_sequence=chapter.last_sequence or self._sequence,
            since=chapter.since,
            until=chapter.until,
            tally=chapter.tally,
        )

    def _content_type(self) -> str:
        packed = {"gzip": "application/gzip", "zstd": "application/zstd", "zip": "application/zip"}
        return packed.get(self._rotation.compression, self._framing.content_type)

    def abandon(self) -> None:
        """Give up what was gathered and is not planned."""
        for chapter in self._chapters.values():
            chapter.writer.abandon()
        self._chapters = {}
        self._outbox.sweep()

"""Files on their way out, in the data folder: what is being written, and what is to be handed over as it is.

<data>/outbox/<subscription>/*.part      being written; worth nothing after a crash
                             *.file      whole and synced
                             plan.json   names them; from here on their names and bytes are fixed
                             names.json  what the last names were made of, so that none is given twice
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct, structs

from aftersend.contracts import Cursor, SetAside
from aftersend.core.outcome import Tally, Volume
from aftersend.core.rotation import Rotation
from aftersend.pipeline.writers import create

T = TypeVar("T")

PLAN, NAMES = "plan.json", "names.json"

LOG_BYTES, LOG_SHARE = 256_000_000, 0.05
"""What is left of the disk to the log: so many bytes, or this share of a small one. Files wait; events must not."""


class Plan(Struct, frozen=True, kw_only=True):
    """What is to be handed over, and where the subscription stands once it is."""

    volumes: tuple[Volume, ...]
    first_sequence: int
    cursor: Cursor
    """After all of it."""
    tally: Tally
    aside: tuple[SetAside, ...] = ()
    """Events among them that could not be told."""
    rotation: Rotation
    """The settings that it was made by."""
    stamp: int
    until: int
    """The end of its period (ns since 1970, UTC)."""


class Names(Struct, frozen=True):
    """What the last names were made of."""

    stamp: int = 0
    until: int = 0


class Outbox:
    """The folder of one subscription. Every method may wait for the disk, and raises OSError where it fails."""

    def __init__(self, data: Path, subscription: str) -> None:
        self.folder = data / "outbox" / subscription
        self.names = Names()

    def open(self, cursor: Cursor, rotation: Rotation) -> Plan | None:
        """What was planned and may not have been handed over; everything else is removed."""
        for folder in (self.folder.parent, self.folder):
            folder.mkdir(mode=0o700, exist_ok=True)
            sync_folder(folder.parent)
        self.names = _read(self.folder / NAMES, Names) or Names()
        found = _read(self.folder / PLAN, Plan)
        plan = None if found is None else self._placed(found)
        if plan is not None and _is_next(plan, cursor, rotation):
            self._remove_all_but(PLAN, *(Path(volume.path).name for volume in plan.volumes))
            return plan
        self._forget(found)
        return None

    def path(self, name: str) -> Path:
        """Where a file of this name stands."""
        return self.folder / name

    def check_room(self) -> None:
        """Raises OSError where what is left of the disk is the log's."""
        disk = shutil.disk_usage(self.folder)
        if disk.free < min(LOG_BYTES, LOG_SHARE * disk.total):
            raise OSError(ENOSPC, "the disk is nearly full, and what is left of it is for the log")

    def commit(self, plan: Plan) -> None:
        """Write a plan down, whose files are there; it is on the disk when this returns."""
        _write(self.folder / PLAN, msgspec.json.encode(plan))

    def clear(self, plan: Plan) -> None:
        """Forget a plan that was carried out, with its files."""
        self._forget(plan)

    def abandon(self) -> None:
        """Forget what was planned, with its files: its events are told in another way."""
        self.names = _read(self.folder / NAMES, Names) or Names()
        self._forget(_read(self.folder / PLAN, Plan))

    def sweep(self) -> None:
        """Remove what was being written."""
        for path in self.folder.glob("*.part"):
            path.unlink(missing_ok=True)

    def _forget(self, plan: Plan | None) -> None:
        """Remove the files first: where the disk is full, that makes room for what is remembered of the plan."""
        self._remove_all_but(PLAN)
        if plan is not None:
            names = Names(max(plan.stamp, self.names.stamp), max(plan.until, self.names.until))
            _write(self.folder / NAMES, msgspec.json.encode(names))
            self.names = names
        self.path(PLAN).unlink(missing_ok=True)

    def _remove_all_but(self, *kept: str) -> None:
        for path in self.folder.iterdir():
            if path.name not in (NAMES, *kept):
                path.unlink(missing_ok=True)

    def _placed(self, plan: Plan) -> Plan:
        """A plan with its files where they are now: the data folder may have been moved."""
        volumes = [structs.replace(volume, path=str(self.path(Path(volume.path).name))) for volume in plan.volumes]
        return structs.replace(plan, volumes=tuple(volumes))


def _is_next(plan: Plan, cursor: Cursor, rotation: Rotation) -> bool:
    """Whether a plan goes on where the cursor stands, as the settings are now, and its files are whole."""
    follows = plan.cursor.epoch == cursor.epoch and plan.first_sequence == cursor.sequence + 1
    return follows and plan.rotation == rotation and all(map(_is_whole, plan.volumes))


def _is_whole(volume: Volume) -> bool:
    try:
        return Path(volume.path).stat().st_size == volume.size
    except OSError:
        return False


def tidy(data: Path, subscription: str) -> None:
    """Remove the files of a subscription that is told in files no more; what names were given stays known."""
    outbox = Outbox(data, subscription)
    with suppress(OSError):
        if outbox.folder.is_dir():
            outbox.abandon()


def discard(data: Path, subscription: str) -> None:
    """Remove all that lies here for a subscription that is no more."""
    shutil.rmtree(data / "outbox" / subscription, ignore_errors=True)


def discard_replays(data: Path) -> None:
    """Remove what replays left that were broken off."""
    for folder in (data / "outbox").glob("rpl_*"):
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path, type_: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=type_)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _write(path: Path, data: bytes) -> None:
    """Replace a small file, durably."""
    new = path.with_suffix(".part")
    with create(new) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

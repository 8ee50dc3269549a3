"""Files into a folder of this machine: written beside their place under a hidden name, synced, then renamed.

A subscription names the folder, so it could name any: only folders in or below the listed ones are written to, and no
symbolic link leads out of them.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from aftersend.contracts import Depot as DepotContract
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.options import option
from aftersend.core.outcome import Outcome, Parcel, Verdict, Volume

CHUNK = 1 << 20
"""Bytes that are copied between two looks at whether the copy was called off."""
STALL_SECONDS = 60.0
"""A disk that takes nothing for so long (a network mount that hangs) has failed."""
GIVE_UP_SECONDS = 5.0
"""How long a copy that was called off is waited for."""

_THREADS = ThreadPoolExecutor(8, "folder")
"""Threads of their own: a mount that hangs holds up no other work."""
_OUR_ERRORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
_TAKEN = Outcome(Verdict.TAKEN)


class _FailedError(Exception):
    """Why a file is not there, in one line."""

    def __init__(self, detail: str, ours: bool = False) -> None:
        super().__init__(detail)
        self.ours = ours


class _Copy:
    """What the thread that copies and the one that waits for it know of each other."""

    def __init__(self) -> None:
        self.is_off = threading.Event()
        self.chunks = 0


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Files in a folder of this machine."""

    name: ClassVar[str] = "folder"
    schemes: ClassVar[tuple[str, ...]] = ("file",)
    brokered: ClassVar[bool] = True

    url: str = option(help="The folder, as file:///srv/events; in or below one that the setting `folders` lists.")
    mode: str = option("0640", help="Who may read the files, as octal digits: 0640 is the owner and the group.")

    folders: tuple[Path, ...] = field(default=(), repr=False)
    _path: Path = field(init=False, repr=False)
    _mode: int = field(init=False, repr=False)
    _under_way: asyncio.Future[None] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Raises ConfigurationError for a folder that is not listed, or a mode that is none."""
        self._path = _path_of(self.url)
        try:
            self._mode = int(self.mode, 8)
        except ValueError:
            self._mode = -1
        if not 0o400 <= self._mode <= 0o777 or not self._mode & stat.S_IRUSR:
            raise ConfigurationError(f"mode: {self.mode!r} is not octal digits from 0400 to 0777, such as 0640")
        self._allowed()

    @property
    def carries(self) -> Literal["volumes"]:
        """Files."""
        return "volumes"

    async def probe(self) -> Outcome:
        """Write an empty hidden file and remove it."""
        return await self._watched(lambda copy: self._probe())

    async def send(self, parcel: Parcel) -> Outcome:
        """Nothing: a folder takes files."""
        return Outcome(Verdict.FAILED, "a folder takes whole files, not single parcels", ours=True)

    async def put(self, volume: Volume) -> Outcome:
        """Copy a file; its name appears when all of it is on the disk."""
        return await self._watched(lambda copy: self._put(volume, copy))

    async def close(self) -> None:
        """Nothing is held open."""

    # --- waiting

    async def _watched(self, work: Callable[[_Copy], None]) -> Outcome:
        """Do it in a thread, as long as it gets on."""
        if self._under_way is not None and not self._under_way.done():
            return Outcome(Verdict.FAILED, f"{self._path}: the disk has not ended what it was given before")
        copy = _Copy()
        task = self._under_way = asyncio.get_running_loop().run_in_executor(_THREADS, work, copy)
        try:
            before = -1
            while not task.done() and copy.chunks != before:
                before = copy.chunks
                await asyncio.wait([task], timeout=STALL_SECONDS)
        except asyncio.CancelledError:
            copy.is_off.set()
            await asyncio.wait([task], timeout=GIVE_UP_SECONDS)
            task.add_done_callback(_look_at)
            raise
        if not task.done():
            copy.is_off.set()
            task.add_done_callback(_look_at)
            return Outcome(Verdict.FAILED, f"{self._path}: the disk took nothing for {STALL_SECONDS:g} s")
        try:
            task.result()
        except _FailedError as error:
            return Outcome(Verdict.FAILED, str(error)[:500], ours=error.ours)
        return _TAKEN

    # --- in a thread

    def _allowed(self) -> Path:
        """The folder without symbolic links. Raises ConfigurationError where it is in none of the listed ones."""
        if not self.folders:
            raise ConfigurationError("the transport folder needs the setting `folders`: where files may be written")
        resolved = self._path.resolve()
        if not any(resolved.is_relative_to(folder.resolve()) for folder in self.folders):
            listed = ", ".join(map(str, self.folders))
            raise ConfigurationError(
                f"{self._path} is in none of the folders that are listed: {listed} (the setting folders)"
            )
        return resolved

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """The folder, held open: whatever its path comes to mean meanwhile, files go here."""
        try:
            folder = _open_folder(self._allowed())
        except ConfigurationError as error:
            raise _FailedError(str(error), ours=True) from None
        except OSError as error:
            raise _fault(f"{self._path}: the folder cannot be opened", error) from None
        try:
            yield folder
        finally:
            os.close(folder)

    def _probe(self) -> None:
        with self._opened() as folder:
            name = f".aftersend-{os.urandom(6).hex()}.probe"
            try:
                os.close(self._create(name, folder))
                os.unlink(name, dir_fd=folder)
            except OSError as error:
                raise _fault(f"{self._path}: no file can be written", error) from None

    def _create(self, name: str, folder: int) -> int:
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, self._mode, dir_fd=folder)
        try:
            os.fchmod(file, self._mode)
        except OSError:
            os.close(file)
            raise
        return file

    def _put(self, volume: Volume, copy: _Copy) -> None:
        if "/" in volume.name or volume.name.startswith("."):
            raise _FailedError(f"{volume.name!r} cannot be the name of a file", ours=True)
        hidden = volume.hidden_name
        with self._opened() as folder, _source(volume) as source:
            try:
                with suppress(FileNotFoundError):
                    os.unlink(hidden, dir_fd=folder)
                self._fill(hidden, folder, source, volume, copy)
                os.rename(hidden, volume.name, src_dir_fd=folder, dst_dir_fd=folder)
                os.fsync(folder)
            except OSError as error:
                raise _fault(f"{self._path}: {volume.name} cannot be written", error) from None
            finally:
                with suppress(OSError):
                    os.unlink(hidden, dir_fd=folder)

    def _fill(self, name: str, folder: int, source: int, volume: Volume, copy: _Copy) -> None:
        file = self._create(name, folder)
        try:
            written = 0
            while not copy.is_off.is_set() and (count := os.sendfile(file, source, written, CHUNK)):
                written += count
                copy.chunks += 1
            if copy.is_off.is_set():
                raise _FailedError("it was called off")
            if written != volume.size:
                raise _FailedError(f"{volume.path} has {written} bytes, and should have {volume.size}", ours=True)
            os.fsync(file)
        finally:
            os.close(file)


def _path_of(url: str) -> Path:
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc or not path.startswith("/") or parts.query or parts.fragment:
        raise ConfigurationError(f"url: {url[:200]!r} is not a folder of this machine such as file:///srv/events")
    if "\0" in path or not path.isprintable() or ".." in path.split("/"):
        raise ConfigurationError(f"url: {url[:200]!r} has a part that a folder's path cannot have")
    return Path(path)


def _open_folder(resolved: Path) -> int:
    """Open a path that had no symbolic links, part by part, so that none that was put in since is followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    folder = os.open("/", flags)
    for part in resolved.parts[1:]:
        try:
            inner = os.open(part, flags, dir_fd=folder)
        finally:
            os.close(folder)
        folder = inner
    return folder


@contextmanager
def _source(volume: Volume) -> Iterator[int]:
    try:
        source = os.open(volume.path, os.O_RDONLY)
    except OSError as error:
        raise _FailedError(f"{volume.path} cannot be read: {error.strerror}", ours=True) from None
    try:
        yield source
    finally:
        os.close(source)


def _fault(step: str, error: OSError) -> _FailedError:
    return _FailedError(f"{step}: {(error.strerror or str(error)).lower()}", error.errno in _OUR_ERRORS)


def _look_at(task: asyncio.Future[None]) -> None:
    """Take the end of a task that nobody waits for any more, so that it is not told as forgotten."""
    if not task.cancelled():
        task.exception()


_proof: type[Contract] = Transport
_depot_proof: type[DepotContract] = Transport

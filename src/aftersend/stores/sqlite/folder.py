"""The data folder: its places, its lock, and files that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from aftersend.core.errors import StoreError, StoreLockedError


class Folder:
    """Where everything of one store lies; only its owner may look into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.control = path / "control.db"
        self.log = path / "log"
        self.followers = path / "followers"
        self.lock = path / "lock"

    def prepare(self, *, create: bool) -> None:
        """Make what is missing; the folder itself only with `create`."""
        try:
            if create:
                self.path.mkdir(mode=0o700, exist_ok=True)
            for place in (self.log, self.followers):
                place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise self._unusable(error) from error

    def require(self) -> None:
        """Raises StoreError where there is no store."""
        if not self.control.exists():
            raise self._unusable(FileNotFoundError())

    def take_lock(self) -> int:
        """An open file that holds the folder for this process. Raises StoreLockedError, naming the holder."""
        try:
            file = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unusable(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, str(os.getpid()).encode(), 0)
        except BlockingIOError:
            holder = os.pread(file, 20, 0).decode("ascii", "replace")
            os.close(file)
            who = f"process {holder}" if holder.isdecimal() else "another process"
            raise StoreLockedError(f"{self.path} is held by {who}; stop it first, or use its API") from None
        except OSError as error:
            os.close(file)
            raise self._unusable(error) from error
        return file

    def _unusable(self, error: OSError) -> StoreError:
        if isinstance(error, FileNotFoundError):
            return StoreError(f"there is no store in {self.path}; `aftersend init --data {self.path}` makes it")
        if isinstance(error, FileExistsError | NotADirectoryError):
            return StoreError(f"{self.path} is not a folder; name one that holds, or shall hold, the data")
        reason = (error.strerror or str(error)).lower()
        return StoreError(f"{self.path} cannot be used: {reason}; the data folder must be writable by this user")


def make_file(path: Path) -> None:
    """An empty file that only its owner may read; SQLite gives its companions the same mode."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def publish(temporary: Path, path: Path) -> None:
    """Give a finished file its name; it is there whole or not at all, whatever happens meanwhile."""
    sync(temporary)
    temporary.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's or folder's content on disk."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)

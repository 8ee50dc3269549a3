"""Files being written: a pen's bytes through a compressor onto the disk, in blocks."""

from __future__ import annotations

import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

import zstandard

from aftersend.core.event import Event
from aftersend.core.framing import Pen

BLOCK = 1 << 18
"""Bytes handed to the compressor at once; always as many, so that the same events make the same file."""

_ZIP64_FROM = 1 << 31
_GZIP = 31
"""What zlib calls a gzip stream with the largest window; its header holds no time."""


class Writer(Protocol):
    """One file being written. Its methods raise OSError where the disk does not take it."""

    size: int
    """Bytes that it has for now, before compression."""

    def add(self, event: Event, room: int) -> int:
        """Take an event; the bytes that it makes the file grow by.

        -1: it needs more than `room` and is not taken; then the file is to be finished, and takes no other.
        Raises whatever a pen raises for an event that cannot be told; then the file is as it was.
        """
        ...

    def finish(self) -> int:
        """End the file, synced; its bytes on the disk."""
        ...

    def abandon(self) -> None:
        """Let go of it, whole or not."""
        ...


class _Stream(Protocol):
    def write(self, data: bytes, /) -> object: ...

    def close(self) -> object: ...


class _Plain:
    """No compression."""

    def __init__(self, file: IO[bytes]) -> None:
        self.write = file.write

    def close(self) -> None:
        """Nothing stands behind."""


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Compressed:
    """One compressed stream."""

    def __init__(self, file: IO[bytes], compressor: _Compressor) -> None:
        self._file = file
        self._compressor = compressor

    def write(self, data: bytes) -> None:
        """Compress a block."""
        self._file.write(self._compressor.compress(data))

    def close(self) -> None:
        """What the compressor still holds."""
        self._file.write(self._compressor.flush())


class _Zip:
    """An archive of one entry."""

    def __init__(self, file: IO[bytes], entry: str, limit: int) -> None:
        self._archive = zipfile.ZipFile(file, "w")
        info = zipfile.ZipInfo(entry)
        info.compress_type = zipfile.ZIP_DEFLATED
        info.create_system = 3
        info.external_attr = 0o600 << 16
        self._entry = self._archive.open(info, "w", force_zip64=limit >= _ZIP64_FROM)
        self.write = self._entry.write

    def close(self) -> None:
        """Write the directory of the archive."""
        self._entry.close()
        self._archive.close()


def _stream(file: IO[bytes], compression: str, entry: str, limit: int) -> _Stream:
    if compression == "gzip":
        return _Compressed(file, zlib.compressobj(6, zlib.DEFLATED, _GZIP))
    if compression == "zstd":
        return _Compressed(file, zstandard.ZstdCompressor().compressobj())
    if compression == "zip":
        return _Zip(file, entry, limit)
    return _Plain(file)


class PenWriter:
    """What a pen writes."""

    def __init__(self, path: Path, pen: Pen, compression: str, entry: str, limit: int) -> None:
        """`entry` is the name within a zip, `limit` the most bytes that the file may have before compression."""
        self._pen = pen
        self._file = create(path)
        self._stream = _stream(self._file, compression, entry, limit)
        head = pen.head()
        self._parts, self._waiting = [head], len(head)
        self.size = len(head) + len(pen.foot())

    def add(self, event: Event, room: int) -> int:
        """Take an event; see `Writer`."""
        told = self._pen.tell(event)
        count = len(told)
        if count > room:
            return -1
        self._parts.append(told)
        self.size += count
        self._waiting += count
        if self._waiting >= BLOCK:
            self._flush(BLOCK)
        return count

    def _flush(self, least: int) -> None:
        data = b"".join(self._parts)
        start = 0
        while len(data) - start >= least > 0:
            self._stream.write(data[start : start + least])
            start += least
        self._parts, self._waiting = [data[start:]], len(data) - start

    def finish(self) -> int:
        """Write the foot; the file is on the disk when it returns."""
        self._parts.append(self._pen.foot())
        self._flush(BLOCK)
        self._stream.write(b"".join(self._parts))
        self._stream.close()
        return finished(self._file)

    def abandon(self) -> None:
        """Close the file as it is."""
        for close in (self._stream.close, self._file.close):
            with suppress(Exception):
                close()


def create(path: Path) -> IO[bytes]:
    """A new file that only its owner reads."""
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w+b")


def finished(file: IO[bytes]) -> int:
    """Sync and close a file; its bytes."""
    with file:
        file.flush()
        os.fsync(file.fileno())
        return os.fstat(file.fileno()).st_size

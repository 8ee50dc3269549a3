"""Files that are handed in: opened, unpacked (gzip, zstd, zip) by what they begin with, and read in pieces."""

from __future__ import annotations

import gzip
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Protocol, cast

import zstandard

from aftersend.core.errors import UsageError

STANDARD_INPUT = "-"

UNPACKING_FAULTS = (OSError, EOFError, zlib.error, zstandard.ZstdError, zipfile.BadZipFile, RuntimeError, ValueError)
"""What the libraries raise for archives that are damaged, cut off or encrypted."""

_GZIP, _ZSTD, _ZIP = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"
_WINDOW_LIMIT = 1 << 27
_SPOOLED = 1 << 24


class Readable(Protocol):
    """Bytes that come one after the other."""

    def read(self, size: int, /) -> bytes:
        """So many bytes; fewer at the end alone."""
        ...

    def read1(self, size: int, /) -> bytes:
        """What there is, at most so many bytes; nothing at the end alone."""
        ...


def check_files(names: tuple[str, ...]) -> None:
    """Raises UsageError, naming the first file that is missing or no file."""
    for name in names:
        path = Path(name)
        if name == STANDARD_INPUT:
            continue
        if not path.exists():
            raise UsageError(f"{name}: there is no such file")
        if path.is_dir():
            raise UsageError(f"{name} is a folder; name the files in it")


@contextmanager
def opened(name: str) -> Iterator[BufferedReader]:
    """A file, or standard input for `-`. Raises UsageError where it cannot be opened."""
    if name == STANDARD_INPUT:
        yield cast(BufferedReader, sys.stdin.buffer)
        return
    try:
        file = Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UsageError(f"{name}: {(error.strerror or str(error)).lower()}") from None
    with file:
        yield file


def unpacked(file: BufferedReader) -> Iterator[Readable]:
    """What a file holds: itself, what was compressed, or each file of an archive."""
    head = file.peek(4)[:4]
    if head.startswith(_GZIP):
        yield gzip.GzipFile(fileobj=file)
    elif head == _ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW_LIMIT)
        yield reader.stream_reader(file, read_across_frames=True)
    elif head == _ZIP:
        yield from _unzipped(file)
    else:
        yield file


def _unzipped(file: BufferedReader) -> Iterator[Readable]:
    with tempfile.SpooledTemporaryFile(_SPOOLED) as copy:
        if not file.seekable():
            for block in iter(lambda: file.read(1 << 20), b""):
                copy.write(block)
        with zipfile.ZipFile(cast(BinaryIO, file if file.seekable() else copy)) as archive:
            for entry in archive.infolist():
                if not entry.is_dir() and not entry.filename.startswith("__MACOSX/"):
                    with archive.open(entry) as content:
                        yield cast(Readable, content)

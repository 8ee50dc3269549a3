"""The file of the spool: room taken beforehand, records with a checksum, in two segments that take turns.

A segment begins with its generation; a record is `length (4) | CRC-32 of generation and payload (4) | payload`. Records
are appended until the segment is full. When all of one are drained it begins again with the next generation, and what
was in it is overwritten. A crash leaves whole records and at most one torn one, which nobody was told was kept.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Sequence
from pathlib import Path
from struct import Struct
from zlib import crc32

from aftersend.core.errors import StoreError, StoreLockedError

SIZE = 64_000_000
"""Bytes of the file, unless another size is asked for."""
SMALLEST = 64_000

_MARK = b"aftersend spool\n"
_HEAD = Struct("<16sQI")
_RECORD = Struct("<II")
_FIRST = 512
"""Where the records of a segment begin."""
_CHUNK = 1 << 20


class Segment:
    """One half of the file."""

    __slots__ = ("base", "drained", "end", "generation", "limit")

    def __init__(self, base: int, limit: int) -> None:
        self.base = base
        self.limit = limit
        self.generation = 0
        self.end = self.drained = base + _FIRST

    @property
    def backlog(self) -> int:
        """Bytes of records that are not drained."""
        return self.end - self.drained


class SpoolFile:
    """The open file; for one thread. Raises StoreError and StoreLockedError."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        """Open or make the file; one that holds records keeps its size."""
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._told(error) from error
        try:
            self._take(max(size, SMALLEST))
        except BaseException:
            os.close(self._file)
            raise

    def _take(self, size: int) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.fchmod(self._file, 0o600)
            found = os.fstat(self._file).st_size
            self._segments = self._scanned(found) if found >= SMALLEST else []
            if found != size and not self.backlog:
                self._allocate(size)
            for segment in self._segments:
                if segment.generation == 0:
                    self._begin(segment)
        except BlockingIOError:
            raise StoreLockedError(f"{self._path} is held by another process; name another spool file") from None
        except OSError as error:
            raise self._told(error) from error
        self._active = min(self._segments, key=lambda segment: segment.end - segment.base)

    def _allocate(self, size: int) -> None:
        os.ftruncate(self._file, 0)
        os.posix_fallocate(self._file, 0, size)
        self._segments = _halves(size)
        os.fsync(self._file)

    def _scanned(self, size: int) -> list[Segment]:
        segments = _halves(size)
        for segment in segments:
            mark, generation, check = _HEAD.unpack(os.pread(self._file, _HEAD.size, segment.base))
            if mark == _MARK and check == crc32(mark, generation & 0xFFFFFFFF):
                segment.generation = generation
                segment.end = self._read(segment, segment.end, segment.limit)[1]
        return segments

    @property
    def backlog(self) -> int:
        """Bytes of records that are not drained."""
        return sum(segment.backlog for segment in self._segments)

    def write(self, payloads: Sequence[bytes]) -> int:
        """Append records, synced; returns how many of them, the first ones, had room."""
        kept = 0
        ends: dict[Segment, int] = {}
        try:
            while kept < len(payloads):
                segment = self._with_room(_RECORD.size + len(payloads[kept]), ends)
                if segment is None:
                    break
                framed, kept = _framed(payloads, kept, segment)
                self._pwrite(framed, segment.end)
                ends[segment] = segment.end + len(framed)
            os.fdatasync(self._file)
        except OSError as error:
            raise self._told(error) from error
        for segment, end in ends.items():
            segment.end = end
        return kept

    def _with_room(self, size: int, used: Collection[Segment]) -> Segment | None:
        for segment in (self._active, *self._segments):
            if segment not in used and segment.end + size <= segment.limit:
                self._active = segment
                return segment
        return None

    def read(self, limit: int) -> tuple[Segment, list[bytes], int] | None:
        """About `limit` bytes of records that are not drained, with what `drained` wants; None: there are none."""
        waiting = [segment for segment in self._segments if segment.backlog]
        if not waiting:
            return None
        segment = min(waiting, key=lambda segment: segment.generation)
        try:
            payloads, end = self._read(segment, segment.drained, min(segment.drained + limit, segment.end))
        except OSError as error:
            raise self._told(error) from error
        # What was read when the file was opened may not be read again: then it is lost, and the rest goes on.
        return segment, payloads, end if payloads else segment.end

    def _read(self, segment: Segment, start: int, until: int) -> tuple[list[bytes], int]:
        """Whole records that begin before `until`, and where the last one ends."""
        payloads: list[bytes] = []
        seed = segment.generation & 0xFFFFFFFF
        at, origin, data = start, start, b""
        while at < until:
            if at - origin + _RECORD.size > len(data):
                origin, data = at, os.pread(self._file, min(_CHUNK, segment.limit - at), at)
            if len(data) < _RECORD.size:
                break
            length, check = _RECORD.unpack_from(data, at - origin)
            begin = at + _RECORD.size
            if not 0 < length <= segment.limit - begin:
                break
            if begin - origin + length > len(data):
                origin, data = at, os.pread(self._file, max(_CHUNK, length + _RECORD.size), at)
            payload = data[begin - origin : begin - origin + length]
            if len(payload) != length or crc32(payload, seed) != check:
                break
            payloads.append(payload)
            at = begin + length
        return payloads, at

    def drained(self, segment: Segment, end: int) -> None:
        """What stands before `end` is kept elsewhere; a segment of which all is begins again."""
        segment.drained = end
        if segment.backlog:
            return
        try:
            used = segment.end
            self._begin(segment)
            for start in range(segment.base + _FIRST, used, _CHUNK):
                self._pwrite(bytes(min(_CHUNK, used - start)), start)
        except OSError as error:
            raise self._told(error) from error

    def _begin(self, segment: Segment) -> None:
        generation = max(other.generation for other in self._segments) + 1
        self._pwrite(_HEAD.pack(_MARK, generation, crc32(_MARK, generation & 0xFFFFFFFF)), segment.base)
        os.fdatasync(self._file)
        segment.generation = generation
        segment.end = segment.drained = segment.base + _FIRST

    def _pwrite(self, data: bytes, offset: int) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._file, view, offset)
            view, offset = view[written:], offset + written

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _told(self, error: OSError) -> StoreError:
        return StoreError(f"the spool {self._path} cannot be used: {(error.strerror or str(error)).lower()}")


def _halves(size: int) -> list[Segment]:
    half = size // 2
    return [Segment(0, half), Segment(half, 2 * half)]


def _framed(payloads: Sequence[bytes], first: int, segment: Segment) -> tuple[bytes, int]:
    """The records, from the first on, that a segment has room for, and which payload comes next."""
    seed = segment.generation & 0xFFFFFFFF
    room = segment.limit - segment.end
    parts: list[bytes] = []
    for number in range(first, len(payloads)):
        payload = payloads[number]
        room -= _RECORD.size + len(payload)
        if room < 0:
            return b"".join(parts), number
        parts += _RECORD.pack(len(payload), crc32(payload, seed)), payload
    return b"".join(parts), len(payloads)

"""Zip archives of one text file, as vendors exchange them: opened within bounds, made the same every time."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO

from aftersend.core.event import Rejected

ZIP_MAGIC = b"PK\x03\x04"
INFLATED_LIMIT = 64 * 1024 * 1024
"""Bytes that the files of an archive may inflate to, together."""
ENTRY_LIMIT = 16
"""Files that an archive may hold."""

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, ValueError, EOFError, OSError, OverflowError)
"""What the standard library raises for archives that are damaged or encrypted."""


def unzipped(body: bytes, ending: str) -> Iterator[bytes | Rejected]:
    """The files of an archive whose names end so, in order; what macOS adds is left out.

    Rejected with `invalid_zip` where there are none or more than 16, `too_large` past 64 MiB inflated.
    """
    room = INFLATED_LIMIT
    try:
        with zipfile.ZipFile(BytesIO(body)) as archive:
            for entry in _wanted(archive, ending):
                with archive.open(entry) as file:
                    part = file.read(room + 1)
                room -= len(part)
                if room < 0:
                    yield Rejected("too_large", f"the zip inflates to more than {INFLATED_LIMIT} bytes", None, body)
                    return
                yield part
    except _DAMAGED as error:
        yield Rejected("invalid_zip", str(error)[:200], None, body)


def _wanted(archive: zipfile.ZipFile, ending: str) -> list[zipfile.ZipInfo]:
    entries = [
        entry
        for entry in archive.infolist()
        if entry.filename.endswith(ending) and not entry.filename.startswith("__MACOSX/")
    ]
    if not 0 < len(entries) <= ENTRY_LIMIT:
        raise zipfile.BadZipFile(f"the zip holds {len(entries)} files that end in {ending}, one is wanted")
    if any(entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for entry in entries):
        raise zipfile.BadZipFile("the zip is packed in another way than deflate")
    return entries


def zipped(file_name: str, data: bytes) -> bytes:
    """Data as the archive `file_name`, in one file of that name without `.zip`; the same bytes every time."""
    entry = zipfile.ZipInfo(file_name.rpartition("/")[2].removesuffix(".zip"))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3
    entry.external_attr = 0o600 << 16
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(entry, data)
    return stream.getvalue()

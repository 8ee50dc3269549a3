"""`aftersend convert`: from one dialect to another, without a store."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, BinaryIO, NamedTuple

import msgspec
from cyclopts import Parameter

from aftersend.cli import DONE, PARTLY
from aftersend.cli.files import STANDARD_INPUT, UNPACKING_FAULTS, check_files, opened, unpacked
from aftersend.cli.pieces import Piece, TooLargeError, decode, pieces
from aftersend.contracts import Dialect
from aftersend.core.errors import EncodeError, UsageError
from aftersend.core.event import Body, Event, Receipt, Rejected
from aftersend.core.timestamps import parse_time
from aftersend.rack import find_dialect

_encode = msgspec.json.Encoder().encode
_DOCUMENT = re.compile(
    rb"\s*(?P<opening>(?:<\?xml[^>]*\?>\s*)?<(?P<root>[\w:.-]+)[^>]*>)(?P<inner>.*)</(?P=root)>\s*", re.DOTALL
)


def convert(
    *files: str,
    from_: Annotated[str, Parameter(name="--from", help="The dialect that is read, as `halon` or `pure360/csv`.")],
    to: Annotated[str, Parameter(help="The dialect that is told; the bare name takes the vendor's first form.")],
    received_at: Annotated[
        str,
        Parameter(show_default=False, help="When it all arrived (RFC 3339), for output that repeats; without it: now."),
    ] = "",
) -> int:
    """Read events in one dialect and tell them in another.

    Reads files, or standard input without any (or for `-`), packed with gzip, zstd or zip or not; writes to standard
    output as it goes. What cannot be read or told comes as JSON lines on standard error, and the exit code is 3.
    """
    reader, speaker = find_dialect(from_), find_dialect(to)
    names = files or (STANDARD_INPUT,)
    check_files(names)
    work = _Conversion(reader, speaker, _time(received_at), sys.stdout.buffer)
    for name in names:
        work.file(name)
    work.out.close()
    return PARTLY if work.rejected else DONE


def _time(text: str) -> int:
    try:
        return parse_time(text) if text else time.time_ns()
    except ValueError:
        raise UsageError(f"--received-at takes an RFC 3339 time, not {text!r}") from None


class _Conversion:
    """One run, over all files."""

    def __init__(
        self, reader: tuple[Dialect, str], speaker: tuple[Dialect, str], received_at: int, out: BinaryIO
    ) -> None:
        self._reader, self._read_form = reader
        self._speaker, self._form = speaker
        self._received_at = received_at
        self.out = Joiner(out)
        self.rejected: Counter[str] = Counter()
        """How many were, of each file."""

    def file(self, name: str) -> None:
        """Convert one file."""
        offset = 0
        for piece in self._pieces(name):
            receipt = Receipt(piece.body, self._received_at, self._read_form, file_name=name, verbatim=True)
            found = decode(piece, self._reader, receipt)
            self._told(found, name, offset)
            offset += len(found)

    def _pieces(self, name: str) -> Iterator[Piece]:
        """The file in pieces, as far as it can be read."""
        with opened(name) as file:
            try:
                for content in unpacked(file):
                    yield from pieces(content, self._reader, self._read_form)
            except TooLargeError as error:
                self._reject(name, None, "too_large", str(error))
            except UNPACKING_FAULTS as error:
                self._reject(name, None, "unreadable_file", str(error))

    def _told(self, found: Sequence[Event | Rejected], name: str, offset: int) -> None:
        events = []
        for number, item in enumerate(found, offset):
            if isinstance(item, Rejected):
                index = None if item.index is None else offset + item.index
                self._reject(name, index, item.reason, item.detail)
            elif self._speaker.word(item) is None:
                self._reject(name, number, "no_word", f"{self._speaker.name} has no word for {item.type}")
            else:
                events.append((number, item))
        for body in self._encoded(events, name):
            self.out.write(body)
        self.out.flush()

    def _encoded(self, events: list[tuple[int, Event]], name: str) -> Iterator[Body]:
        try:
            yield from self._speaker.encode([event for _, event in events], self._form)
        except EncodeError as error:
            if len(events) == 1:
                self._reject(name, events[0][0], "cannot_be_told", str(error))
                return
            for event in events:
                yield from self._encoded([event], name)

    def _reject(self, name: str, index: int | None, reason: str, detail: str) -> None:
        self.rejected[name] += 1
        line = {"file": name, "index": index, "reason": reason, "detail": detail}
        sys.stderr.write(_encode(line).decode() + "\n")


class _Frame(NamedTuple):
    """What stands around and between the events of a body."""

    opening: bytes
    inner: bytes
    separator: bytes
    closing: bytes


class Joiner:
    """Writes bodies so that one document comes out: arrays, and documents of the same root, are told as one."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._open: _Frame | None = None

    def write(self, body: Body) -> None:
        """Write a body; a newline follows one that has no frame."""
        frame = _frame(body)
        if frame is not None and self._open is not None and frame.opening == self._open.opening:
            self._out.write(frame.separator + frame.inner)
            return
        self.close()
        if frame is not None:
            self._out.write(frame.opening + frame.inner)
            self._open = frame
            return
        head = b"From aftersend Thu Jan  1 00:00:00 1970\n" if body.content_type == "message/rfc822" else b""
        self._out.write(head + body.data + (b"" if body.data.endswith(b"\n") else b"\n"))

    def close(self) -> None:
        """End the document that is open."""
        if self._open is not None:
            self._out.write(self._open.closing + b"\n")
            self._open = None
        self._out.flush()

    def flush(self) -> None:
        """Hand on what is written."""
        self._out.flush()


def _frame(body: Body) -> _Frame | None:
    data = body.data
    if data[:1] == b"[" and data[-1:] == b"]":
        return _Frame(b"[", data[1:-1], b",\n", b"]")
    match = _DOCUMENT.fullmatch(data) if data[:1] == b"<" else None
    if match is None:
        return None
    return _Frame(match["opening"], match["inner"], b"", b"</" + match["root"] + b">")

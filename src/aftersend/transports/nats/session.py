"""One connection to NATS, and the messages on it that the stream has not acknowledged yet."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from aftersend.core.excerpts import one_line
from aftersend.core.handover import Fault
from aftersend.core.outcome import Piece

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

WINDOW = 512
"""Messages that may be unacknowledged before no further one is written."""
STRIDE = 128
"""Messages that are written between two looks at what came back."""

WAYS_LIMIT = 1_000
"""Types with their headers that are kept ready."""
SUBJECT = re.compile(r"[^\s.*>{}]+(?:\.[^\s.*>{}]+)*")
"""A subject to publish to."""

_TOO_LARGE = 10_054
"""JetStream's number for a message that the stream will never have."""
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Way(NamedTuple):
    """Where pieces of a type go."""

    subject: str
    headers: bytes


class Try:
    """The pieces of one try, and what the stream said of each."""

    def __init__(self, pieces: tuple[Piece, ...]) -> None:
        self.pieces = pieces
        self.faults: dict[str, Fault] = {}
        self.in_flight = 0
        self.is_stopped = False
        """The stream takes nothing now: no use in writing on, and order is kept better without."""
        self._waiting = {piece.id for piece in pieces}
        self._lost = ""
        self._moved = asyncio.Event()

    def settle(self, id_: str, fault: Fault | None) -> None:
        """The word on a piece; None: it was taken."""
        self._waiting.discard(id_)
        if fault is not None:
            self.faults[id_] = fault
            self.is_stopped = self.is_stopped or not fault.is_final

    def acknowledge(self, id_: str, fault: Fault | None) -> None:
        """The stream's word on a piece."""
        self.in_flight -= 1
        self.settle(id_, fault)
        self._moved.set()

    def lose(self, why: str) -> None:
        """The connection is gone."""
        self._lost = why
        self._moved.set()

    async def until(self, count: int) -> None:
        """Returns when at most so many pieces are unacknowledged. Raises ConnectionError where no more will come."""
        while self.in_flight > count:
            if self._lost:
                raise ConnectionError(self._lost)
            self._moved.clear()
            await self._moved.wait()

    def give_up(self, why: str) -> None:
        """What nobody spoke of was not taken, as far as is known."""
        self.faults |= {id_: Fault(why) for id_ in self._waiting}


class Session:
    """One connection, and the messages on it that are not acknowledged yet."""

    def __init__(self, client: Client, subject: str, stream: str) -> None:
        self.client = client
        self._subject = subject
        self._more = f"Nats-Expected-Stream: {stream}\r\n" if stream else ""
        self._ways: dict[tuple[str, str], _Way | None] = {}
        self._inbox = client.new_inbox()
        self._start = len(self._inbox) + 1
        self._number = 0
        self._waiting: dict[str, tuple[Try, str]] = {}

    async def listen(self) -> None:
        """Wait for acknowledgements from now on."""
        await self.client.subscribe(f"{self._inbox}.*", cb=self._on_acknowledgement)

    async def tell(self, attempt: Try) -> None:
        """Publish the pieces and wait for the stream's word on each. Raises what the library raises."""
        try:
            for start in range(0, len(attempt.pieces), STRIDE):
                await self._write([self._command(attempt, piece) for piece in attempt.pieces[start : start + STRIDE]])
                # Writing never waits: here the connection gets its turn.
                await asyncio.sleep(0)
                await attempt.until(WINDOW)
                if attempt.is_stopped:
                    break
            await attempt.until(0)
        finally:
            self._forget(attempt)

    def lose(self, why: str) -> None:
        """The connection is gone."""
        for attempt, _ in self._waiting.values():
            attempt.lose(why)

    async def _write(self, commands: list[bytes]) -> None:
        """Past the library's `publish`: it spends most of its time on headers, which are made once a type here."""
        if not self.client.is_connected:
            raise ConnectionError("the connection broke")
        await self.client._send_command(b"".join(commands))
        await self.client._flush_pending()

    def _command(self, attempt: Try, piece: Piece) -> bytes:
        """The bytes that publish a piece; none for one that cannot be."""
        way = self._way(piece)
        if way is None:
            attempt.settle(piece.id, Fault(f"the type {one_line(piece.type)!r} can be no part of a subject", True))
            return b""
        head = b"NATS/1.0\r\nNats-Msg-Id: %b\r\n%b" % (piece.id.encode(), way.headers)
        size = len(head) + len(piece.body)
        if size > self.client.max_payload:
            attempt.settle(piece.id, Fault(f"larger than a message may be ({self.client.max_payload} bytes)", True))
            return b""
        self._number += 1
        token = str(self._number)
        self._waiting[token] = attempt, piece.id
        attempt.in_flight += 1
        line = f"HPUB {way.subject} {self._inbox}.{token} {len(head)} {size}\r\n"
        return b"%b%b%b\r\n" % (line.encode(), head, piece.body)

    def _way(self, piece: Piece) -> _Way | None:
        """Where pieces of a type go and what stands in their headers; None where that cannot be written."""
        key = (piece.type, piece.content_type)
        if key not in self._ways:
            if len(self._ways) >= WAYS_LIMIT:
                self._ways.clear()
            self._ways[key] = self._new_way(*key)
        return self._ways[key]

    def _new_way(self, type_: str, content_type: str) -> _Way | None:
        subject = self._subject.replace("{type}", type_)
        if not SUBJECT.fullmatch(subject) or not (type_ + content_type).isprintable():
            return None
        headers = f"aftersend-type: {type_}\r\nContent-Type: {content_type}\r\n{self._more}\r\n"
        return _Way(subject, headers.encode())

    async def _on_acknowledgement(self, message: Msg) -> None:
        attempt, id_ = self._waiting.pop(message.subject[self._start :], (None, ""))
        if attempt is not None:
            attempt.acknowledge(id_, _fault_in(message))

    def _forget(self, attempt: Try) -> None:
        """What still comes for this try is nobody's."""
        if attempt.in_flight:
            self._waiting = {token: one for token, one in self._waiting.items() if one[0] is not attempt}


def _fault_in(message: Msg) -> Fault | None:
    """What an acknowledgement says against its message."""
    if not message.data:
        return Fault("no stream keeps this subject")
    if b'"error"' not in message.data:
        return None
    try:
        error = _decode(message.data)["error"]
        return Fault(one_line(error["description"]), error.get("err_code") == _TOO_LARGE)
    except (msgspec.DecodeError, KeyError, TypeError):
        return Fault(f"answered {one_line(message.data.decode('utf-8', 'replace'))}")

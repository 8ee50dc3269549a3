"""Bytes of an SMTP connection: however they arrive, the same lines and messages are read."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.capture.wire import LINE_LIMIT, BareError, GoneError, LongLineError, TooLargeError, Wire

Read = Callable[[Wire], Awaitable[object]]

lines = st.lists(
    st.one_of(st.sampled_from([b"", b".", b"..", b".x", b"x.", b" ."]), st.binary(max_size=30)).map(
        lambda line: line.replace(b"\r", b"").replace(b"\n", b"")
    ),
    max_size=20,
)


def read(pieces: list[bytes], reading: Read) -> object:
    """What is read from bytes that arrive in pieces over a real connection."""

    async def run() -> object:
        near, far = socket.socketpair()
        found: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        async def serve(wire: Wire) -> None:
            try:
                found.set_result(await reading(wire))
            except Exception as error:
                found.set_exception(error)
            wire.close()

        await asyncio.get_running_loop().connect_accepted_socket(lambda: Wire(serve, 5), near)
        far.setblocking(False)
        with suppress(OSError):
            for piece in pieces:
                await asyncio.get_running_loop().sock_sendall(far, piece)
                await asyncio.sleep(0)
            far.shutdown(socket.SHUT_WR)
        try:
            return await asyncio.wait_for(found, 5)
        finally:
            far.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def grows_to(limit: int) -> Callable[[int], bool]:
    left = [limit]

    def grows(count: int) -> bool:
        left[0] -= count
        return left[0] >= 0

    return grows


async def message_and_line(wire: Wire) -> object:
    return await wire.message(grows_to(1 << 20)), await wire.line()


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(lines, st.lists(st.integers(0, 1_000), max_size=6))
def test_a_message_is_read_whole_and_what_follows_is_left(content: list[bytes], places: list[int]) -> None:
    message = b"".join(line + b"\r\n" for line in content)
    stuffed = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in content)
    assert read(cut(stuffed + b".\r\nQUIT\r\n", places), message_and_line) == (message, b"QUIT")


def test_a_message_too_large_is_read_to_its_end() -> None:
    async def reading(wire: Wire) -> object:
        with pytest.raises(TooLargeError):
            await wire.message(grows_to(1_000))
        return await wire.line()

    assert read([b"x" * 600_000 + b"\r\n", b".\r\n", b"NOOP\r\n"], reading) == b"NOOP"


@pytest.mark.parametrize("line", [b"NOOP\n", b"\rNOOP\r\n", b"NO\rOP\r\n", b"\n\r\n"])
def test_a_line_ends_in_nothing_but_crlf(line: bytes) -> None:
    with pytest.raises(BareError):
        read([line], Wire.line)


@pytest.mark.parametrize("content", [b"a\nb\r\n", b"a\rb\r\n", b"\n.\n\r\n", b"\r\r\n", b"a\r\n\nb\r\n"])
def test_a_message_with_bare_line_breaks_is_refused(content: bytes) -> None:
    with pytest.raises(BareError):
        read([content + b".\r\n"], message_and_line)


def test_a_line_has_a_limit() -> None:
    with pytest.raises(LongLineError):
        read([b"x" * (LINE_LIMIT + 1)], Wire.line)


def test_a_message_that_breaks_off_is_none() -> None:
    with pytest.raises(GoneError):
        read([b"half a message\r\n."], message_and_line)

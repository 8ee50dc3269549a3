"""A bare SQS that takes everything at once and ends with its standard input.

`python -m aftersend.simulation.queue` prints its port. moto is no measure of speed: it looks through all that it holds
for each message.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

_HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n"


class _Entry(msgspec.Struct):
    Id: str


class _Request(msgspec.Struct):
    Entries: list[_Entry] = []


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


def _answer(body: bytes) -> bytes:
    taken = [{"Id": one.Id, "MessageId": "m", "MD5OfMessageBody": "m"} for one in _decode(body).Entries]
    answer = _encode({"Successful": taken})
    return _HEAD.format(len(answer)).encode() + answer


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            writer.write(_answer(await reader.readexactly(length)))
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def serve() -> None:
    """Take everything until standard input ends."""
    listening = await asyncio.start_server(_serve, "127.0.0.1", 0)
    sys.stdout.write(f"{listening.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(serve())

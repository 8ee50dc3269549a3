"""A loopback port before a server, so that the server can be away for one test and go on for the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Door:
    """A loopback port in front of a server that can be shut: what is under way is cut."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self.port = 0
        self.answers = 0
        """How often the server has said something."""
        self.tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Door:
        """Let through; after `shut`, at the same port again."""
        self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def shut(self) -> None:
        """Cut what is under way, and be gone."""
        self._server.close()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, other_writer, lambda: None))
                both.create_task(_copy(other_reader, writer, self._note))
        except asyncio.CancelledError:
            pass
        finally:
            for one in (writer, other_writer):
                one.transport.abort()

    def _note(self) -> None:
        self.answers += 1


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[], None]) -> None:
    try:
        while data := await reader.read(65_536):
            note()
            writer.write(data)
            await writer.drain()
        writer.close()
    except OSError:
        writer.close()

"""A real NATS server of a test's own: its streams in a folder of its own, on a loopback port, gone after the test."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.js.api import StreamConfig
from tests.integration.postfixes import free_port

from aftersend.testing.pieces import Arrived

PROGRAM = Path(sysconfig.get_path("scripts")) / "nats-server"
"""It comes as a wheel, so it is there whenever the tests' requirements are."""


class Server:
    """One server; what its streams keep outlives its process."""

    def __init__(self, folder: Path, more: str, **login: Any) -> None:
        self.port = free_port()
        self._settings = folder / "nats.conf"
        self._settings.write_text(
            f'listen: "127.0.0.1:{self.port}"\nserver_name: test\n'
            f'jetstream {{ store_dir: "{folder}/streams", sync_interval: always }}\n{more}'
        )
        self._login = login
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._process = subprocess.Popen(
            (str(PROGRAM), "-c", str(self._settings)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._listens():
                assert self._process.poll() is None, "the server ended"
                await asyncio.sleep(0.02)

    async def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            await asyncio.to_thread(process.wait, 10)

    async def add(self, name: str = "events", subjects: Sequence[str] = ("events.>",), **options: Any) -> None:
        async with self.client() as client:
            await client.jetstream().add_stream(StreamConfig(name=name, subjects=list(subjects), **options))

    async def purge(self, name: str = "events") -> None:
        async with self.client() as client:
            await client.jetstream().purge_stream(name)

    async def arrived(self, name: str = "events") -> list[Arrived]:
        """What the stream keeps, in its order."""
        async with self.client() as client:
            streams = client.jetstream()
            count = (await streams.stream_info(name)).state.messages
            if not count:
                return []
            reader = await streams.subscribe("", stream=name, ordered_consumer=True)
            return [_arrived(await reader.next_msg(timeout=5)) for _ in range(count)]

    @asynccontextmanager
    async def passed(self, count: int) -> AsyncIterator[None]:
        """Ends when so many messages have come by."""
        done = asyncio.Event()

        async def see(message: Any) -> None:
            nonlocal count
            count -= 1
            if count <= 0:
                done.set()

        async with self.client() as client:
            await client.subscribe("events.>", cb=see)
            await client.flush()
            yield
            await done.wait()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = await nats.connect(self.url, allow_reconnect=False, **self._login)
        try:
            yield client
        finally:
            await client.close()

    async def _listens(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


def _arrived(message: Any) -> Arrived:
    headers = message.headers
    return Arrived(headers["Nats-Msg-Id"], headers["aftersend-type"], message.data, headers["Content-Type"])


@asynccontextmanager
async def server(folder: Path, more: str = "", **login: Any) -> AsyncIterator[Server]:
    """A running server with JetStream; `login` is how the test itself connects."""
    made = Server(folder, more, **login)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()

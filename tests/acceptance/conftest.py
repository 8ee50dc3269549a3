"""A real server in a process of its own, and a real receiver beside it."""

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

COMMAND = (sys.executable, "-m", "aftersend")
START_SECONDS = 30


class Server:
    """`aftersend serve` on a data folder, and a client with its admin key."""

    def __init__(self, data: Path, *options: str) -> None:
        self.data = data
        self.options = options
        self.url = ""
        self.key = ""
        self.process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None

    async def init(self) -> None:
        out = await run("init", "--data", str(self.data), "--json")
        self.key = msgspec.json.decode(out)["admin_key"]

    async def start(self) -> None:
        address = self.url.removeprefix("http://") or "127.0.0.1:0"
        self.process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *("serve", "--data", str(self.data), "--listen", address, "--egress-allow", "127.0.0.0/8"),
            *("--spool-bytes", "1000000"),
            *self.options,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | {"PYTHONFAULTHANDLER": "1"},
        )
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), START_SECONDS)
        assert b"ready" in line, line
        self.url = line.decode().split()[4]
        self._session = self._session or aiohttp.ClientSession()

    async def stop(self) -> int:
        return await self.end(signal.SIGTERM)

    async def kill(self) -> None:
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self.process is not None and self.process.returncode is None:
            await self.kill()

    async def request(
        self, method: str, path: str, body: bytes | None = None, key: str | None = None, **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        assert self._session is not None
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if key != "":
            sent.setdefault("Authorization", f"Bearer {key or self.key}")
        data = io.BytesIO(body) if body and len(body) > 1_000_000 else body
        async with self._session.request(method, self.url + path, data=data, headers=sent) as answer:
            return answer.status, await answer.read(), {name.lower(): text for name, text in answer.headers.items()}

    async def json(self, method: str, path: str, value: object = None, status: int = 200) -> object:
        body = None if value is None else msgspec.json.encode(value)
        got, data, _ = await self.request(method, path, body)
        assert got == status, (got, data)
        return msgspec.json.decode(data) if data else None

    async def events(self) -> list[dict[str, object]]:
        """Everything in the log, in order."""
        found: list[dict[str, object]] = []
        position = 0
        while True:
            page = await self.json("GET", f"/v1/events?after={position}&limit=500")
            assert isinstance(page, dict)
            if not page["events"]:
                return found
            found.extend(page["events"])
            position = page["next"]


async def run(*arguments: str, status: int = 0) -> bytes:
    """What a command prints."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, (process.returncode, out, err)
    return out


class Inlet:
    """A receiver on loopback that keeps what it is sent and answers as it is told."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer: Callable[[dict[str, str], bytes], Awaitable[tuple[int, bytes]]] = self.take
        self.url = ""

    async def take(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        return 200, b""

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        status, answer = await self.answer(headers, body)
        if status < 300:
            self.requests.append((headers, body))
        return web.Response(status=status, body=answer)

    def events(self) -> list[dict[str, object]]:
        return [event for _, body in self.requests for event in msgspec.json.decode(body)]

    async def until(self, enough: Callable[[], bool], seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            while not enough():
                await asyncio.sleep(0.02)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "data")
    await made.init()
    await made.start()
    yield made
    await made.close()


@pytest.fixture
async def stopped_server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "data")
    await made.init()
    yield made
    await made.close()


@pytest.fixture
async def inlets() -> AsyncIterator[Callable[[], Awaitable[Inlet]]]:
    runners = []

    async def open_inlet() -> Inlet:
        inlet = Inlet()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/", inlet.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        runners.append(runner)
        inlet.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        return inlet

    yield open_inlet
    for runner in runners:
        await runner.cleanup()

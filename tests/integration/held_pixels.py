"""A server of reading-time pictures in a process of its own, which says how much memory it holds."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Tracking
from aftersend.capture.exchange import json_answer, respond
from aftersend.capture.links import Links
from aftersend.capture.reading import ReadingTime
from aftersend.capture.visits import Addresses, Witness
from aftersend.core.consent import Level
from aftersend.core.event import Event
from aftersend.telemetry import Telemetry


class Count:
    """Hits that are only counted, by type."""

    def __init__(self) -> None:
        self.types: dict[str, int] = {}

    async def record(self, event: Event, level: Level = Level.FULL) -> bool:
        self.types[event.type] = self.types.get(event.type, 0) + 1
        return True


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class Nobody:
    """No person has said how much of what they do may be kept."""

    def level(self, tenant: str, person_key: bytes) -> Level:
        return Level.FULL

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        raise AssertionError


def now() -> int:
    return 1_790_000_000_000_000_000


async def main() -> None:
    hits = Count()
    tracking = Tracking(
        addresses=Addresses(Links(lambda purpose, key_id: (purpose.encode() * 32)[:32]), {1: "acme"}, {}),
        hits=hits,
        people=Nobody(),
        clients=ClientAddresses(),
        throttle=Throttle(now),
        witness=Witness(now, os.urandom),
        telemetry=Telemetry(),
    )
    handler = ReadingTime(tracking, enabled=True)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/memory":
            await respond(send, json_answer(200, {"resident": resident(), "types": hits.types}))
        else:
            await handler(scope, receive, send)

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    sys.stdout.write(f"{sock.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(
        app, http="httptools", loop="uvloop", lifespan="off", log_config=None, server_header=False, date_header=False
    )
    await uvicorn.Server(config).serve(sockets=[sock])


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

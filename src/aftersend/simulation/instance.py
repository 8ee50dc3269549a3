"""A throw-away instance: its folder is set up and a key is made before anybody serves it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aftersend.config import Config
from aftersend.core.event import DEFAULT_TENANT
from aftersend.wiring import Instance, opened

LOOPBACK = "127.0.0.0/8"
CONFIG = Config(egress_allow=(LOOPBACK,))


async def set_up(data: Path) -> str:
    """Make a data folder; returns the token of a key that may do everything."""
    async with opened(data, CONFIG, create=True) as instance:
        _, token = await instance.access.create(DEFAULT_TENANT, "simulation", ("admin",))
    return token


@asynccontextmanager
async def delivering(data: Path) -> AsyncIterator[Instance]:
    """An instance in this process that delivers and does nothing else: no server, no followers."""
    async with opened(data, CONFIG, create=True) as instance:
        deliveries = instance.deliveries
        await deliveries.start()
        tasks = [asyncio.create_task(work()) for work in (deliveries.ledger.run, deliveries.feed.run)]
        try:
            yield instance
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

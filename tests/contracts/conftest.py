"""Tests of a class that says `is_on_uvloop = True` run on the loop of `aftersend serve`, all others on Python's own.

The two treat connections that end in different ways.
"""

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(item: pytest.Function) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that a test runs on."""
    if getattr(item.cls, "is_on_uvloop", False):
        return {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}

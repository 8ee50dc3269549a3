"""A queue's library that is not installed is named, with what to do, before anything is saved."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from aftersend.core.errors import ConfigurationError


@pytest.fixture(params=[("sqs", "aiobotocore"), ("kafka", "confluent_kafka"), ("amqp", "aio_pika"), ("nats", "nats")])
def without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, str]]:
    """A transport's module, its library gone."""
    name, library = request.param
    module = importlib.import_module(f"aftersend.transports.{name}")
    forget = getattr(module._library, "cache_clear", lambda: None)
    for loaded in [one for one in sys.modules if one == library or one.startswith(f"{library}.")]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, library, None)
    forget()
    yield module, name
    forget()


def test_a_missing_library_is_told_with_what_to_do(without: tuple[Any, str]) -> None:
    module, name = without
    with pytest.raises(ConfigurationError, match=rf"pip install 'aftersend\[{name}\]'"):
        module._library()

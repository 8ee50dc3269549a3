"""Options of plugins: fields of their dataclass, each with a help text and, where it must be masked, a secret mark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from aftersend.core.errors import ConfigurationError

T = TypeVar("T")


def option(default: Any = dataclasses.MISSING, *, help: str, secret: bool = False) -> Any:  # noqa: A002
    """A field of a plugin's dataclass that an operator may set."""
    return dataclasses.field(default=default, metadata={"help": help, "secret": secret})


def options_of(plugin: type[Any]) -> list[dataclasses.Field[Any]]:
    """The options of a plugin, in the order of its file."""
    return [item for item in dataclasses.fields(plugin) if "help" in item.metadata]


def build(plugin: type[T], settings: Mapping[str, Any], name: str) -> T:
    """The plugin with these settings. Raises ConfigurationError, naming the option that is wrong."""
    known = {item.name for item in options_of(plugin)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigurationError(
            f"{name}: unknown option {unknown[0]!r}; known are: {', '.join(sorted(known)) or 'none'}"
        )
    try:
        return msgspec.convert(dict(settings), plugin)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}") from None

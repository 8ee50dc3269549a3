"""Options of plugins: fields of their dataclass, each with a help text and, where it must be masked, a secret mark."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from aftersend.core.errors import ConfigurationError
from aftersend.core.secret import MASK, Secret, read_secret

T = TypeVar("T")

TIMEOUT_LIMIT = 300
"""Seconds."""


def option(default: Any = dataclasses.MISSING, *, help: str, secret: bool = False) -> Any:  # noqa: A002
    """A field of a plugin's dataclass that an operator may set."""
    return dataclasses.field(default=default, metadata={"help": help, "secret": secret})


def options_of(plugin: type[Any]) -> list[dataclasses.Field[Any]]:
    """The options of a plugin, in the order of its file."""
    return [item for item in dataclasses.fields(plugin) if "help" in item.metadata]


def check_timeout(seconds: float) -> None:
    """Raises ConfigurationError for an option `timeout` that would never end, or never begin."""
    if not 0 < seconds <= TIMEOUT_LIMIT:
        raise ConfigurationError(f"timeout: more than 0 and at most {TIMEOUT_LIMIT} seconds")


def build(plugin: type[T], settings: Mapping[str, Any], name: str, given: Mapping[str, Any] | None = None) -> T:
    """The plugin with these settings, and with those of `given` that it has fields for.

    Raises ConfigurationError, naming the option that is wrong.
    """
    every: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(plugin)  # type: ignore[arg-type]
    ready = {item.name: (given or {})[item.name] for item in every if item.init and item.name in (given or {})}
    values = _values(plugin, settings, name, frozenset(ready))
    missing = [item for item in options_of(plugin) if item.name not in values and item.name not in ready]
    for item in filter(_is_wanted, missing):
        raise ConfigurationError(f"{name}: {item.name} is missing: {item.metadata['help']}")
    return plugin(**ready, **values)


def sort_settings(
    plugin: type[Any], settings: Mapping[str, Any], name: str, given: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Secret]]:
    """Settings as they are kept: the plain ones, and the secret ones. Raises ConfigurationError as `build`.

    `given` are options that do not come from the settings.
    """
    values = _values(plugin, settings, name, frozenset(given))
    secrets = {key: value for key, value in values.items() if isinstance(value, Secret)}
    return {key: msgspec.to_builtins(value) for key, value in values.items() if key not in secrets}, secrets


def _values(plugin: type[Any], settings: Mapping[str, Any], name: str, given: frozenset[str]) -> dict[str, Any]:
    known = {item.name for item in options_of(plugin)} - given
    unknown = sorted(settings.keys() - known)
    if unknown:
        raise ConfigurationError(
            f"{name}: unknown option {unknown[0]!r}; known are: {', '.join(sorted(known)) or 'none'}"
        )
    types = get_type_hints(plugin)
    return {key: _converted(value, types[key], f"{name}: {key}") for key, value in settings.items()}


def _converted(value: Any, type_: Any, name: str) -> Any:
    """A value of JSON or of a command line, where numbers are text and lists stand between commas."""
    if isinstance(value, str) and get_origin(type_) is tuple:
        value = [item.strip() for item in value.split(",") if item.strip()]
    try:
        return msgspec.convert(value, type_, strict=False, dec_hook=_read)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{name}: {error}; it is: {_type_name(type_)}") from None


def _read(type_: type, value: Any) -> Any:
    """Secrets come as text, or were read from it before."""
    return value if isinstance(value, type_) else read_secret(type_, value)


def _is_wanted(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def describe(plugin: type[Any]) -> list[dict[str, Any]]:
    """The options of a plugin for documents and forms: name, type, default, help, whether secret and wanted."""
    types = get_type_hints(plugin)
    return [
        {
            "name": item.name,
            "type": _type_name(types[item.name]),
            "default": _shown_default(item),
            "help": item.metadata["help"],
            "secret": bool(item.metadata.get("secret")),
            "wanted": _is_wanted(item),
        }
        for item in options_of(plugin)
    ]


def _shown_default(item: dataclasses.Field[Any]) -> Any:
    default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    if default is dataclasses.MISSING:
        return None
    return msgspec.to_builtins(default, enc_hook=lambda secret: MASK)


def _type_name(type_: Any) -> str:
    """text, number, `true | false`, a list of one of them, or the words to choose from."""
    origin = get_origin(type_)
    if origin is Literal:
        return " | ".join(str(word) for word in get_args(type_))
    if origin is tuple:
        return f"list of {_type_name(get_args(type_)[0])}"
    if origin in (Union, UnionType):
        return _type_name(get_args(type_)[0])
    return _TYPE_NAMES.get(type_, "object")


_TYPE_NAMES = {str: "text", Secret: "text", int: "number", float: "number", bool: "true | false"}

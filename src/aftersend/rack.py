"""The racks of dialects and transports: finds each by its file, without opening anything else."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any

import aftersend.dialects
import aftersend.transports
from aftersend.contracts import Dialect, Transport
from aftersend.core.errors import UnknownDialectError, UsageError
from aftersend.core.options import build
from aftersend.core.outcome import Acknowledgement
from aftersend.core.registry import Subscription


@cache
def dialect_names() -> tuple[str, ...]:
    """The names of all dialects; none of them is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(aftersend.dialects.__path__)))


@cache
def _dialect(name: str) -> Dialect:
    dialect: Dialect = importlib.import_module(f"aftersend.dialects.{name}").Dialect()
    return dialect


@cache
def dialects() -> dict[str, Dialect]:
    """Every dialect in the rack, by name."""
    return {name: _dialect(name) for name in dialect_names()}


@cache
def find_dialect(text: str) -> tuple[Dialect, str]:
    """The dialect and form of `vendor` or `vendor/form`. Raises UnknownDialectError."""
    name, slash, form = text.partition("/")
    if name not in dialect_names():
        raise UnknownDialectError(f"there is no dialect {name!r}; there are: {', '.join(dialect_names())}")
    dialect = _dialect(name)
    if slash and form not in dialect.forms:
        raise UnknownDialectError(f"{name} has no form {form!r}; it has: {', '.join(dialect.forms) or 'one only'}")
    return dialect, form


def dialect_of(subscription: Subscription) -> tuple[Dialect, str]:
    """The dialect that a subscription is told in, with its options. Raises UsageError."""
    dialect, form = find_dialect(subscription.dialect)
    if subscription.options:
        dialect = build(type(dialect), subscription.options, f"dialect {dialect.name}")
    return dialect, form or (dialect.forms[0] if dialect.forms else "")


@cache
def transport_names() -> tuple[str, ...]:
    """The names of all transports; none of them is imported."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(aftersend.transports.__path__)))


@cache
def find_transport(name: str) -> type[Transport]:
    """The transport of a name. Raises UsageError."""
    if name not in transport_names():
        raise UsageError(f"there is no transport {name!r}; there are: {', '.join(transport_names())}")
    found: type[Transport] = importlib.import_module(f"aftersend.transports.{name}").Transport
    return found


def transport_for(url: str) -> str:
    """The transport that a URL is for, by what it begins with. Raises UsageError."""
    scheme = url.partition("://")[0].lower()
    for name in transport_names():
        if scheme in find_transport(name).schemes:
            return name
    raise UsageError(f"no transport takes a URL that begins with {scheme!r}; `aftersend transports` shows them all")


def open_transport(subscription: Subscription, given: Mapping[str, Any]) -> Transport:
    """The way out of a subscription; `given` is what transports want of the house.

    Raises UsageError and, for options that cannot work, ConfigurationError and EgressError.
    """
    own = {name: getattr(subscription, name) for name in ("url", "timeout", "headers", "signing_secrets")}
    settings = subscription.settings | subscription.secrets
    given = {**given, **own, "acknowledgement": _acknowledgement(subscription)}
    return build(find_transport(subscription.transport), settings, f"transport {subscription.transport}", given)


def _acknowledgement(subscription: Subscription) -> Acknowledgement:
    """What the receiver must answer: as the dialect's vendor wants it, unless the subscription says otherwise."""
    dialect, _ = dialect_of(subscription)
    wanted = dialect.acknowledgement
    if not subscription.acknowledge_status and subscription.acknowledge_body is None:
        return wanted
    status = subscription.acknowledge_status or wanted.statuses
    return Acknowledgement(status, subscription.acknowledge_body, wanted.tries)

"""The rack of dialects: finds each by its file, without opening anything else."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import aftersend.dialects
from aftersend.contracts import Dialect
from aftersend.core.errors import UnknownDialectError
from aftersend.core.options import build
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

"""Registered records as JSON rows; their secrets are sealed on the way in and opened on the way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from aftersend.core.errors import UsageError
from aftersend.core.registry import Key, Registered, Subscription, Tenant
from aftersend.core.secret import Secret

R = TypeVar("R", bound=Registered)

Seal = Callable[[str, str], str]
"""A text and its context (what it belongs to) to a sealed text, and with the same context back."""

_MARK = "$sealed"


def identity_of(record: Registered) -> tuple[str, str, str]:
    """Kind, tenant and name (or id) of a record: there is one of each."""
    tenant = record.name if isinstance(record, Tenant) else record.tenant
    name = record.id if isinstance(record, Key | Subscription) else record.name
    return type(record).__name__, tenant, name


def encode(record: Registered, seal: Seal) -> bytes:
    """The row's body. Raises UsageError for a record that says the mark of a sealed secret itself."""
    return _sealed(record, _context(*identity_of(record)), seal)[0]


def _sealed(value: object, context: str, seal: Seal) -> tuple[bytes, int]:
    """JSON with its secrets sealed, and how many there are."""
    sealed = 0

    def seal_secret(item: Any) -> Any:
        nonlocal sealed
        if not isinstance(item, Secret):
            raise UsageError(f"{context}: a {type(item).__name__} cannot be stored")
        sealed += 1
        return {_MARK: seal(item.reveal(), context)}

    body = msgspec.json.encode(value, enc_hook=seal_secret)
    if body.count(f'"{_MARK}":'.encode()) != sealed:
        raise UsageError(f"{context}: no option may be called {_MARK!r}")
    return body, sealed


def decode(kind: type[R], tenant: str, name: str, body: bytes, unseal: Seal) -> R:
    """The record of a row. Raises StoreError where a secret cannot be opened."""
    context = _context(kind.__name__, tenant, name)
    return msgspec.convert(_opened(msgspec.json.decode(body), context, unseal), kind, dec_hook=_accept)


def reseal(kind: str, tenant: str, name: str, body: bytes, seal: Seal, unseal: Seal) -> bytes | None:
    """The row's body with every secret sealed anew; None where it holds none."""
    context = _context(kind, tenant, name)
    fresh, count = _sealed(_opened(msgspec.json.decode(body), context, unseal), context, seal)
    return fresh if count else None


def _context(kind: str, tenant: str, name: str) -> str:
    return f"{kind}/{tenant}/{name}"


def _opened(value: Any, context: str, unseal: Seal) -> Any:
    if isinstance(value, list):
        return [_opened(item, context, unseal) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_MARK}:
        return Secret(unseal(value[_MARK], context))
    return {name: _opened(item, context, unseal) for name, item in value.items()}


def _accept(type_: type, value: Any) -> Any:
    """Secrets are opened before the record is made."""
    if isinstance(value, type_):
        return value
    raise TypeError(f"cannot read {type_.__name__}")

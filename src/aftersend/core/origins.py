"""Origins of web pages, as browsers name them: `https://shop.example`, and `https://*.shop.example` for all below."""

from __future__ import annotations

import re
from collections.abc import Iterable

from aftersend.core.errors import UsageError

OPAQUE = "null"
"""What a browser says for a page that must not say where it is (`Referrer-Policy: no-referrer`, a sandbox, a file)."""

_ORIGIN = re.compile(r"(https?)://((?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def read_origin(text: str) -> str:
    """An origin in the spelling of browsers. Raises UsageError."""
    plain = text.strip().lower().rstrip("/")
    match = _ORIGIN.fullmatch(plain) if len(plain) <= 300 else None
    if plain == OPAQUE:
        return plain
    if match is None:
        raise UsageError(f"{text!r} is not an origin; write it as https://shop.example or https://*.shop.example")
    port = match[3]
    return plain if port is None or port != _DEFAULT_PORTS[match[1]] else plain[: -len(port) - 1]


def origin_of(address: str) -> str:
    """The origin of a page's address; `null` where it has none."""
    scheme, separator, rest = address.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    try:
        return read_origin(f"{scheme}://{host.rpartition('@')[2]}") if separator and "*" not in host else OPAQUE
    except UsageError:
        return OPAQUE


def is_listed(origin: str, listed: Iterable[str]) -> bool:
    """Whether an origin is one of these, or below one of these with a `*.`."""
    origin = origin.lower()
    return any(origin == one or ("://*." in one and _is_below(origin, one)) for one in listed)


def _is_below(origin: str, pattern: str) -> bool:
    scheme, _, ending = pattern.partition("*")
    inner = origin[len(scheme) : -len(ending)]
    return origin.startswith(scheme) and origin.endswith(ending) and bool(inner) and "/" not in inner

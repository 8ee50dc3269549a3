"""Addresses as an operator writes them, checked so strictly that none can say anything but an address."""

from __future__ import annotations

import re

from aftersend.core.errors import ConfigurationError

_ATEXT = r"[^\x00-\x20\x7f-\xa0()<>@,;:\\\".\[\]]+"
_LOCAL = re.compile(rf"{_ATEXT}(?:\.{_ATEXT})*")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


def checked_address(text: str, option: str) -> str:
    """An address with its host in ASCII. Raises ConfigurationError; quoted names and `[1.2.3.4]` are not taken."""
    local, at, domain = text.strip().rpartition("@")
    try:
        host = domain.encode("idna").decode("ascii").lower()
    except UnicodeError:
        host = ""
    whole = len(local.encode()) <= 64 and len(host) <= 253 and all(map(_LABEL.fullmatch, host.split(".")))
    if not at or not whole or not _LOCAL.fullmatch(local) or not local.isprintable():
        raise ConfigurationError(f"{option}: {text[:100]!r} is not an address such as events@example.com")
    return f"{local}@{host}"


def domain_of(address: str) -> str:
    """What stands behind the `@`."""
    return address.rpartition("@")[2]

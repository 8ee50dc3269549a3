"""Who calls the capture APIs of Altcraft's clients: a server with a key, or an app with a key or a signed token.

What an app carries can be taken out of it. So apps have credentials of their own, which are good for their two calls
alone: a key with the scope `app`, or tokens (JWT) that the tenant's server signs for each of its users. A token is
checked by the keys of the one tenant whose tracking domain is called: a public key may be registered by anybody, so no
token is ever tried on the keys of another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from aftersend.contracts import Clock
from aftersend.core.errors import AccessError, ScopeError, UsageError
from aftersend.core.registry import APP_KEYS_LIMIT, Domain, SourceRecord
from aftersend.core.web_tokens import TokenKey, read_key, read_token

SOURCE = "altcraft"
"""The source of what comes with a key; a token's is the one that its key was registered with."""
ROLE_MARK = "rtoken@"
"""What the SDKs put before a token that is no JWT."""

Check = Callable[[str, str], str]
"""A key and a scope to its tenant. Raises AccessError, ScopeError where the key is right and falls short."""

log = logging.getLogger("aftersend.capture")


class Caller(Struct, frozen=True):
    """Whose events these are."""

    tenant: str
    source: str = SOURCE
    is_app: bool = False
    """Its credential is in many hands."""
    matching: Mapping[str, Any] = {}
    """Whom its token names, proven by the signature."""


class Callers:
    """Knows callers by what they show."""

    def __init__(self, check: Check, clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._keys: dict[str, list[TokenKey]] = {}
        self._tenants: dict[str, str] = {}

    def load(self, sources: Iterable[SourceRecord], domains: Mapping[str, Domain]) -> None:
        """The sources and tracking domains that there are now."""
        found: dict[str, list[TokenKey]] = {}
        for source in sorted(sources, key=lambda source: source.name):
            if source.app_key is not None and source.enabled:
                try:
                    found.setdefault(source.tenant, []).append(read_key(source.name, source.app_key.reveal()))
                except UsageError as error:
                    log.error("source %s: %s; tokens of its apps are refused", source.name, error)
        self._keys = {tenant: keys[:APP_KEYS_LIMIT] for tenant, keys in found.items()}
        self._tenants = {name: domain.tenant for name, domain in domains.items()}

    def server(self, token: str) -> Caller:
        """Whose server shows a key. Raises AccessError."""
        key = token.removeprefix(ROLE_MARK)
        if not key:
            raise AccessError
        return Caller(self._check(key, "ingest"))

    def app(self, token: str, host: str) -> Caller:
        """Whose app shows a key or a token at a host. Raises AccessError."""
        if token.count(".") == 2:
            return self._proven(token, host)
        try:
            return Caller(self._check(token.removeprefix(ROLE_MARK), "app"), is_app=True)
        except ScopeError:
            return self.server(token)

    def _proven(self, token: str, host: str) -> Caller:
        tenant = self._tenants.get(host.lower().partition(":")[0])
        if tenant is None:
            raise AccessError
        proven = read_token(token, self._keys.get(tenant, []), self._clock())
        return Caller(tenant, proven.key, is_app=True, matching=_matching(proven.claims.get("matching")))


def _matching(said: Any) -> Mapping[str, Any]:
    """An object, or a text that holds one."""
    if isinstance(said, str):
        try:
            said = msgspec.json.decode(said)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return {}
    return said if isinstance(said, dict) else {}

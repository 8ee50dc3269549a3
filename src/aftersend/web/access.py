"""Keys: who may do what, for which tenant."""

from __future__ import annotations

import secrets
from hashlib import sha256
from hmac import compare_digest

from msgspec import structs

from aftersend.contracts import Clock, Registry
from aftersend.core.errors import AccessError, NotFoundError, ScopeError, UsageError
from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.registry import SCOPES, Key

_PREFIX = "as_"
_ID_DIGITS = 12

LOCAL = Key(id="local", tenant=DEFAULT_TENANT, name="local", scopes=("admin",))
"""Whoever reaches the socket in the data folder."""


class Access:
    """The keys of this instance; only their digests are known."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._keys: dict[str, Key] = {}

    async def load(self) -> None:
        """Read the keys anew."""
        self._keys = {key.id: key for key in await self._registry.list(Key)}

    def check(self, token: str, scope: str) -> Key:
        """The key of a token. Raises AccessError for a wrong or revoked one, ScopeError where it falls short."""
        id_, secret = token[len(_PREFIX) :][:_ID_DIGITS], token[len(_PREFIX) + _ID_DIGITS + 1 :]
        key = self._keys.get(id_)
        known = key.digest if key else "0" * 64
        right = compare_digest(sha256(secret.encode()).hexdigest(), known)
        if key is None or not right or not token.startswith(_PREFIX) or key.revoked_at:
            raise AccessError
        if scope not in key.scopes and "admin" not in key.scopes:
            raise ScopeError(f"the key {key.id} has the scopes {', '.join(key.scopes)}, not {scope}")
        return key

    def of_header(self, authorization: bytes | None, scope: str) -> Key:
        """The key of an `Authorization: Bearer …` header."""
        kind, _, token = (authorization or b"").decode("latin-1").partition(" ")
        if kind.lower() != "bearer":
            raise AccessError("no key: send `Authorization: Bearer as_…`")
        return self.check(token.strip(), scope)

    async def create(
        self, tenant: str, name: str, scopes: tuple[str, ...], source: str | None = None
    ) -> tuple[Key, str]:
        """A new key and its token, which is shown this once."""
        unknown = [scope for scope in scopes if scope not in SCOPES]
        if unknown or not scopes:
            raise UsageError(f"scopes are {', '.join(SCOPES)}; not {', '.join(unknown) or 'none at all'}")
        id_, secret = secrets.token_hex(_ID_DIGITS // 2), secrets.token_urlsafe(32)
        digest = sha256(secret.encode()).hexdigest()
        key = Key(
            id=id_, tenant=tenant, name=name, scopes=scopes, source=source, digest=digest, created_at=self._clock()
        )
        await self._registry.put(key)
        self._keys[id_] = key
        return key, f"{_PREFIX}{id_}_{secret}"

    async def revoke(self, id_: str) -> Key:
        """Make a key worthless. Raises NotFoundError."""
        key = structs.replace(self.find(id_), revoked_at=self._clock())
        await self._registry.put(key)
        self._keys[id_] = key
        return key

    def find(self, id_: str) -> Key:
        """The key with an id. Raises NotFoundError."""
        if id_ not in self._keys:
            raise NotFoundError(f"there is no key {id_}; `aftersend keys list` shows them")
        return self._keys[id_]

    def all_keys(self) -> list[Key]:
        """All keys, the oldest first."""
        return sorted(self._keys.values(), key=lambda key: (key.created_at, key.id))

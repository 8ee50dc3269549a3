"""The keyring: the instance's keys, from which everything that is signed or sealed derives its own.

One file of JSON, for its owner alone. Keys are added and retired but never deleted: links in mail that was sent years
ago name the key that made them. Back it up apart from the data.
"""

from __future__ import annotations

import os
import stat
import time
from base64 import b64decode, b64encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from aftersend.contracts import Clock
from aftersend.core.errors import StoreError
from aftersend.core.timestamps import format_time

_FORMAT = "s1"
_KEY_BYTES = 32
_NONCE_BYTES = 12

Chance = Callable[[int], bytes]


class KeyringKey(msgspec.Struct, frozen=True):
    """One key as the file holds it."""

    id: str
    created_at: str
    """RFC 3339."""
    state: str
    """active (new links and seals use it) or retired (old ones are still read)."""
    material: str
    """32 bytes in base64."""

    def __repr__(self) -> str:
        return f"KeyringKey({self.id!r}, {self.created_at!r}, {self.state!r})"


class _Content(msgspec.Struct, frozen=True):
    keys: list[KeyringKey]


class Keyring:
    """The keys of one instance. Every method is pure but `rotate`."""

    def __init__(
        self, path: Path, keys: Sequence[KeyringKey], clock: Clock = time.time_ns, chance: Chance = os.urandom
    ) -> None:
        self._path = path
        self._keys = {key.id: key for key in keys}
        self._clock = clock
        self._chance = chance
        self.derive = cache(self._derive)
        """A key of 32 bytes for one label, of the active key or the one named; raises StoreError for an unknown one."""

    @classmethod
    def open(
        cls, path: Path, *, create: bool = False, clock: Clock = time.time_ns, chance: Chance = os.urandom
    ) -> Keyring:
        """The keyring of a file; with `create` it is made, with one key, where it is missing.

        Raises StoreError for a file that is missing, damaged or open to others.
        """
        try:
            keyring = cls(path, _read(path), clock, chance)
        except FileNotFoundError:
            if not create:
                raise StoreError(
                    f"there is no keyring {path}; put it back from the backup, or let `aftersend init` make one"
                ) from None
            keyring = cls(path, [], clock, chance)
            keyring.rotate()
        return keyring

    @property
    def keys(self) -> list[KeyringKey]:
        """All keys, the oldest first."""
        return list(self._keys.values())

    @property
    def active_id(self) -> str:
        """The key that new links and seals are made with."""
        return next(key.id for key in reversed(self._keys.values()) if key.state == "active")

    def rotate(self) -> str:
        """Add a key and retire the others; returns its id. What was sealed before should be sealed anew."""
        material = b64encode(self._chance(_KEY_BYTES)).decode()
        fresh = KeyringKey(self._chance(4).hex(), format_time(self._clock()), "active", material)
        keys = [msgspec.structs.replace(key, state="retired") for key in self._keys.values()] + [fresh]
        _write(self._path, keys)
        self._keys = {key.id: key for key in keys}
        return fresh.id

    def link_key(self, purpose: str, key_id: str = "") -> bytes:
        """The key for links of one purpose (click, open, …). Raises StoreError for an unknown id."""
        return self.derive(f"link/{purpose}", key_id or self.active_id)

    def _derive(self, label: str, key_id: str) -> bytes:
        key = self._keys.get(key_id)
        if key is None:
            raise StoreError(f"the keyring lacks key {key_id}; put it back from the backup")
        return HKDF(SHA256(), _KEY_BYTES, salt=None, info=label.encode()).derive(b64decode(key.material))

    def fingerprints(self) -> dict[str, str]:
        """What tells each key from any other without telling the key."""
        return {key_id: sha256(self.derive("fingerprint", key_id)).hexdigest()[:16] for key_id in self._keys}

    def seal(self, text: str, context: str) -> str:
        """A text that only this keyring opens, and only for the same context."""
        key_id = self.active_id
        nonce = self._chance(_NONCE_BYTES)
        sealed = nonce + AESGCM(self.derive("at-rest", key_id)).encrypt(nonce, text.encode(), context.encode())
        return f"{_FORMAT}.{key_id}.{urlsafe_b64encode(sealed).decode()}"

    def unseal(self, sealed: str, context: str) -> str:
        """The text that was sealed. Raises StoreError where the key is missing or a bit or the context differs."""
        format_, _, rest = sealed.partition(".")
        key_id, _, data = rest.partition(".")
        if format_ != _FORMAT:
            raise StoreError(f"{context}: a secret is sealed in a way that this aftersend does not know")
        key = self.derive("at-rest", key_id)
        try:
            raw = urlsafe_b64decode(data)
            return AESGCM(key).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], context.encode()).decode()
        except (InvalidTag, ValueError):
            raise StoreError(f"{context}: a sealed secret is damaged, or was moved from another record") from None


def _read(path: Path) -> list[KeyringKey]:
    """The keys of a file. Raises FileNotFoundError, and StoreError for a file that cannot be used."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"the keyring {path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if mode & 0o077:
        raise StoreError(f"the keyring {path} is open to others (mode {mode:04o}); `chmod 600 {path}`")
    try:
        keys = msgspec.json.decode(data, type=_Content).keys
        usable = all(len(b64decode(key.material, validate=True)) == _KEY_BYTES for key in keys)
    except (msgspec.MsgspecError, UnicodeDecodeError, Base64Error):
        usable, keys = False, []
    if not usable or not any(key.state == "active" for key in keys):
        raise StoreError(f"the keyring {path} is damaged; put it back from the backup")
    return keys


def _write(path: Path, keys: list[KeyringKey]) -> None:
    """Replace the file as a whole, synced: a crash leaves the old one or the new one."""
    data = msgspec.json.format(msgspec.json.encode(_Content(keys)), indent=2) + b"\n"
    temporary = path.with_name(path.name + ".new")
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
    except OSError as error:
        raise StoreError(f"the keyring {path} cannot be written: {(error.strerror or str(error)).lower()}") from None

"""Standard Webhooks: signing a body and verifying one, by HMAC (`v1`) and ed25519 (`v1a`).

What is signed are the bytes `<id>.<timestamp>.<body>`. While keys change a request carries one signature of each key,
and one that matches is enough. Source: the Standard Webhooks specification, https://www.standardwebhooks.com.
"""

from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from aftersend.core.errors import AccessError, ConfigurationError, UsageError

TOLERANCE = 300
"""Seconds that a timestamp may be off, in both directions."""
SECRET_BYTES = 32
"""How many random bytes make a secret; 24 to 64 are usual."""

_LIMIT = 16
"""How many signatures of one request are looked at."""

_Sign = Callable[[bytes], bytes]
_Verify = Callable[[bytes, bytes], bool]


def format_secret(key: bytes) -> str:
    """The text of an HMAC secret, from random bytes."""
    return "whsec_" + b64encode(key).decode()


def format_private_key(seed: bytes) -> str:
    """The text of an ed25519 key, from 32 random bytes: the seed, then the public key."""
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return "whsk_" + b64encode(seed + public).decode()


def public_key(secret: str) -> str:
    """What a receiver needs to verify signatures of a `whsk_` key. Raises ConfigurationError."""
    return "whpk_" + b64encode(_private_key(secret).public_key().public_bytes_raw()).decode()


class Signer:
    """Signs with every secret that is valid at this moment, the newest first.

    Takes `whsec_…` (HMAC) and `whsk_…` (ed25519). Raises ConfigurationError for anything else, without showing it.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys: list[tuple[str, _Sign]] = [_signing_key(secret) for secret in secrets]

    def sign(self, id_: str, timestamp: int, body: bytes) -> str:
        """The value of `webhook-signature`. Raises UsageError for an id with a dot, which would be ambiguous."""
        if "." in id_:
            raise UsageError(f"a signed id cannot hold a dot: {id_!r}")
        content = b"%s.%d.%s" % (id_.encode(), timestamp, body)
        return " ".join([scheme + b64encode(sign(content)).decode() for scheme, sign in self._keys])


class Verifier:
    """Verifies with every secret that is valid at this moment: `whsec_…`, `whpk_…` or `whsk_…`."""

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[str]) -> None:
        self._keys: list[tuple[str, _Verify]] = [_verifying_key(secret) for secret in secrets]

    def verify(self, headers: Mapping[str, str], body: bytes, now: int, tolerance: int = TOLERANCE) -> None:
        """Raises AccessError with what is wrong. `headers` by lower-case name; `now` in seconds since 1970.

        A request with the id of an earlier one passes: telling repeats apart is the receiver's part.
        """
        id_, timestamp, signatures = (headers.get(name, "") for name in _HEADERS)
        if not (id_ and timestamp and signatures):
            raise AccessError(f"the request is not signed: {', '.join(_HEADERS)} belong to it")
        if not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > 12:
            raise AccessError("webhook-timestamp is not a count of seconds")
        if abs(now - int(timestamp)) > tolerance:
            raise AccessError(f"webhook-timestamp is more than {tolerance} s off")
        content = b".".join((id_.encode(errors="surrogateescape"), timestamp.encode(), body))
        if not self._matches(content, signatures.split()[:_LIMIT]):
            raise AccessError("the signature does not match")

    def _matches(self, content: bytes, signatures: list[str]) -> bool:
        for text in signatures:
            scheme, _, encoded = text.partition(",")
            signature = _bytes_of(encoded)
            for known, verify in self._keys:
                if known == scheme and signature is not None and verify(signature, content):
                    return True
        return False


_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


def _bytes_of(encoded: str) -> bytes | None:
    """Base64 with or without padding, or None."""
    try:
        return b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return None


def _key(secret: str, prefix: str, lengths: Iterable[int]) -> bytes:
    key = _bytes_of(secret.removeprefix(prefix))
    if key is None or len(key) not in lengths:
        raise ConfigurationError(f"signing secret: what follows {prefix} is not base64 of a key of the right length")
    return key


def _hmac_key(secret: str) -> bytes:
    return _key(secret, "whsec_", range(16, 129))


def _private_key(secret: str) -> Ed25519PrivateKey:
    key = _key(secret, "whsk_", (32, 64))
    private = Ed25519PrivateKey.from_private_bytes(key[:32])
    if len(key) == 64 and private.public_key().public_bytes_raw() != key[32:]:
        raise ConfigurationError("signing secret: the two halves of the whsk_ key do not belong together")
    return private


def _signing_key(secret: str) -> tuple[str, _Sign]:
    if secret.startswith("whsec_"):
        key = _hmac_key(secret)
        return "v1,", lambda content: hmac.digest(key, content, "sha256")
    if secret.startswith("whsk_"):
        return "v1a,", _private_key(secret).sign
    raise ConfigurationError("signing secret: must begin with whsec_ (HMAC) or whsk_ (ed25519)")


def _verifying_key(secret: str) -> tuple[str, _Verify]:
    if secret.startswith("whsec_"):
        key = _hmac_key(secret)
        return "v1", lambda signature, content: hmac.compare_digest(signature, hmac.digest(key, content, "sha256"))
    if secret.startswith("whpk_"):
        return "v1a", _public_verify(Ed25519PublicKey.from_public_bytes(_key(secret, "whpk_", (32,))))
    if secret.startswith("whsk_"):
        return "v1a", _public_verify(_private_key(secret).public_key())
    raise ConfigurationError("signing secret: must begin with whsec_ (HMAC), whpk_ or whsk_ (ed25519)")


def _public_verify(key: Ed25519PublicKey) -> _Verify:
    def verify(signature: bytes, content: bytes) -> bool:
        try:
            key.verify(signature, content)
        except InvalidSignature:
            return False
        return True

    return verify

"""JSON Web Tokens (RFC 7519): what a server signs so that its apps prove themselves and their users.

The kind of a key fixes the algorithm, and what a token's head says must agree: so no public key is taken for a secret,
and `none` for nothing.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from msgspec import Struct

from aftersend.core.errors import AccessError, UsageError
from aftersend.core.timestamps import SECOND

TOKEN_LIMIT = 24_000
"""Characters of a token."""
LEEWAY_SECONDS = 60
"""How far the clocks of who signs and of ours may differ."""
SECRET_BYTES = 32
"""Least length of a secret (RFC 7518, 3.2)."""
RSA_BITS = range(2_048, 8_193)

_P256_BYTES = 32
_TOKEN = re.compile(r"([A-Za-z0-9_-]{2,1400})\.([A-Za-z0-9_-]{2,})\.([A-Za-z0-9_-]{2,2048})")


class TokenKey(Struct, frozen=True):
    """What tokens are signed with."""

    name: str
    algorithm: str
    """HS256, RS256 or ES256, by the kind of the key."""
    is_signature: Callable[[bytes, bytes], bool]
    """Whether this is the signature of that."""


class Proven(Struct, frozen=True):
    """What a token says, and the name of the key that proves it."""

    key: str
    claims: Mapping[str, Any]


def read_key(name: str, text: str) -> TokenKey:
    """A secret of at least 32 bytes, or a public key in PEM: RSA of at least 2,048 bits, or of the curve P-256.

    Raises UsageError.
    """
    if "-----BEGIN" not in text:
        secret = text.encode()
        if len(secret) < SECRET_BYTES:
            raise UsageError(f"a secret of tokens has at least {SECRET_BYTES} bytes; this one has {len(secret)}")
        return TokenKey(name, "HS256", lambda signature, signed: _is_hmac(secret, signature, signed))
    try:
        public = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise UsageError("a key of tokens is a public one in PEM (-----BEGIN PUBLIC KEY-----), or a secret") from None
    if isinstance(public, RSAPublicKey) and public.key_size in RSA_BITS:
        return TokenKey(name, "RS256", lambda signature, signed: _is_rsa(public, signature, signed))
    if isinstance(public, EllipticCurvePublicKey) and isinstance(public.curve, SECP256R1):
        return TokenKey(name, "ES256", lambda signature, signed: _is_ecdsa(public, signature, signed))
    raise UsageError("a public key of tokens is RSA of 2,048 to 8,192 bits (RS256), or of the curve P-256 (ES256)")


def read_token(token: str, keys: Sequence[TokenKey], now: int) -> Proven:
    """What a token says, if one of the keys signed it and it is valid now (ns since 1970). Raises AccessError.

    `exp` and `nbf` are kept to where they are there; `aud`, `iss` and `iat` are the reader's matter.
    """
    match = _TOKEN.fullmatch(token) if len(token) <= TOKEN_LIMIT else None
    if match is None:
        raise AccessError
    head = _object(match[1])
    if "crit" in head:
        # It names rules that a reader must know, and we know none.
        raise AccessError
    signature, signed = _decoded(match[3]), token.rpartition(".")[0].encode()
    for key in keys:
        if head.get("alg") == key.algorithm and key.is_signature(signature, signed):
            claims = _object(match[2])
            _check_times(claims, now / SECOND)
            return Proven(key.name, claims)
    raise AccessError


def _is_hmac(secret: bytes, signature: bytes, signed: bytes) -> bool:
    return hmac.compare_digest(hmac.digest(secret, signed, sha256), signature)


def _is_rsa(key: RSAPublicKey, signature: bytes, signed: bytes) -> bool:
    try:
        key.verify(signature, signed, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _is_ecdsa(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """The two numbers of a signature stand side by side (RFC 7518, 3.4)."""
    if len(signature) != 2 * _P256_BYTES:
        return False
    first, second = (int.from_bytes(half, "big") for half in (signature[:_P256_BYTES], signature[_P256_BYTES:]))
    try:
        key.verify(encode_dss_signature(first, second), signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    if "exp" in claims and now >= _seconds(claims["exp"]) + LEEWAY_SECONDS:
        raise AccessError
    if "nbf" in claims and now < _seconds(claims["nbf"]) - LEEWAY_SECONDS:
        raise AccessError


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AccessError
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(_decoded(text), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise AccessError from None


def _decoded(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise AccessError from None

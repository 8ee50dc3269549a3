"""Tokens of apps: what a tenant's server signed is believed, and nothing else."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.errors import AccessError, UsageError
from aftersend.core.timestamps import SECOND
from aftersend.core.web_tokens import TOKEN_LIMIT, read_key, read_token

SECRET = "a secret that is long enough, 32 b"
NOW = 1_790_000_000
RSA = rsa.generate_private_key(65_537, 2_048)
CURVE = ec.generate_private_key(ec.SECP256R1())
MATCHING = {"db_id": 1, "matching": "email_profile", "email": "john@example.com"}

Sign = Callable[[bytes], bytes]


def pem(private: Any) -> str:
    return str(private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def by_secret(content: bytes, secret: str = SECRET) -> bytes:
    return hmac.digest(secret.encode(), content, sha256)


def by_rsa(content: bytes) -> bytes:
    return RSA.sign(content, padding.PKCS1v15(), SHA256())


def by_curve(content: bytes) -> bytes:
    return b"".join(half.to_bytes(32, "big") for half in decode_dss_signature(CURVE.sign(content, ec.ECDSA(SHA256()))))


def token(sign: Sign = by_secret, alg: str = "HS256", claims: Any = None, **head: Any) -> str:
    said = {"matching": MATCHING} if claims is None else claims
    content = f"{base64(json.dumps({'alg': alg, **head}).encode())}.{base64(json.dumps(said).encode())}"
    return f"{content}.{base64(sign(content.encode()))}"


KEYS = {
    "HS256": (read_key("shop", SECRET), by_secret),
    "RS256": (read_key("shop", pem(RSA)), by_rsa),
    "ES256": (read_key("shop", pem(CURVE)), by_curve),
}


def is_refused(text: str, *keys: Any, now: int = NOW) -> bool:
    try:
        read_token(text, keys or [key for key, _ in KEYS.values()], now * SECOND)
    except AccessError:
        return True
    return False


@pytest.mark.parametrize("alg", KEYS)
def test_what_a_key_signed_is_believed(alg: str) -> None:
    key, sign = KEYS[alg]
    assert key.algorithm == alg
    proven = read_token(token(sign, alg, typ="JWT", kid="k"), [key], NOW * SECOND)
    assert (proven.key, proven.claims) == ("shop", {"matching": MATCHING})


@pytest.mark.parametrize("alg", KEYS)
def test_a_key_believes_nothing_that_is_said_to_be_signed_in_another_way(alg: str) -> None:
    key, sign = KEYS[alg]
    for other in ("none", "None", "HS512", "RS512", "PS256", "EdDSA", "", *(KEYS.keys() - {alg})):
        assert is_refused(token(sign, other), key)


def test_a_public_key_is_no_secret() -> None:
    for private in (RSA, CURVE):
        text = pem(private)
        for secret in (text, text.strip()):
            assert is_refused(token(lambda content, secret=secret: by_secret(content, secret)), read_key("shop", text))


def test_a_token_without_a_signature_is_refused() -> None:
    head, claims, _ = token(alg="none").split(".")
    assert is_refused(f"{head}.{claims}.")
    assert is_refused(f"{head}.{claims}")
    assert is_refused(f"{head}.{claims}.{base64(b'sig')}")


@given(st.data())
def test_a_changed_token_is_refused(data: st.DataObject) -> None:
    """The last character of a part may hold bits that say nothing, so it stays."""
    alg = data.draw(st.sampled_from(sorted(KEYS)))
    text = TOKENS[alg]
    places = [at for at in range(len(text)) if text[at : at + 2].count(".") == 0 and at + 1 < len(text)]
    at = data.draw(st.sampled_from(places))
    changed = text[:at] + data.draw(st.sampled_from([c for c in "Ab0-_" if c != text[at]])) + text[at + 1 :]
    assert is_refused(changed)


TOKENS = {alg: token(sign, alg) for alg, (_, sign) in KEYS.items()}


@given(st.text() | st.from_regex(r"[A-Za-z0-9_-]{0,40}(\.[A-Za-z0-9_-]{0,40}){0,4}", fullmatch=True))
def test_anything_else_is_refused_and_no_other_error(text: str) -> None:
    assert is_refused(text)


def test_times_are_kept_to_with_a_minute_of_leeway() -> None:
    for claims, is_good in (
        ({"exp": NOW + 1}, True),
        ({"exp": NOW - 59}, True),
        ({"exp": NOW - 60}, False),
        ({"nbf": NOW + 60}, True),
        ({"nbf": NOW + 61}, False),
        ({"nbf": NOW - 1, "exp": NOW + 0.5}, True),
        ({"exp": str(NOW + 100)}, False),
        ({"exp": True}, False),
        ({"exp": None}, False),
        ({"nbf": None}, False),
        ({"exp": 10**30}, True),
    ):
        assert is_refused(token(claims=claims)) is not is_good, claims


def test_rules_that_we_do_not_know_are_not_ignored() -> None:
    assert is_refused(token(crit=["exp"]))


def test_claims_that_are_no_object_are_refused() -> None:
    for claims in ([], "text", 1, [[]]):
        assert is_refused(token(claims=claims))


def test_a_token_has_a_bound() -> None:
    assert not is_refused(token(claims={"matching": "x" * 10_000}))
    assert is_refused(token(claims={"matching": "x" * TOKEN_LIMIT}))
    assert is_refused(token(pad="x" * 2_000))


def test_the_first_key_that_fits_says_whose_it_is() -> None:
    keys = [read_key("other", "another secret that is long enough!"), KEYS["RS256"][0], KEYS["HS256"][0]]
    assert read_token(token(), keys, NOW * SECOND).key == "shop"
    assert is_refused(token(), *keys[:2])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short",
        "x" * 31,
        "-----BEGIN PUBLIC KEY-----\nnonsense\n-----END PUBLIC KEY-----",
        pem(rsa.generate_private_key(65_537, 1_024)),
        pem(ec.generate_private_key(ec.SECP384R1())),
        pem(ed25519.Ed25519PrivateKey.generate()),
        CURVE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
    ],
    ids=["nothing", "short", "31 bytes", "no PEM", "RSA of 1024", "P-384", "Ed25519", "a private one"],
)
def test_a_key_that_is_too_weak_or_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_key("shop", text)

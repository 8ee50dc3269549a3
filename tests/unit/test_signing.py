"""Standard Webhooks: the published vectors, the reference library, and what a verifier must refuse."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.errors import AccessError, ConfigurationError, UsageError
from aftersend.core.signing import Signer, Verifier, format_private_key, format_secret, public_key

PRIVATE = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
PUBLIC = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4="

VECTORS = [
    (
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    ),
    (
        "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
        "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
        1649367553,
        b'{"email":"test@example.com","username":"test_user"}',
        "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=",
    ),
    (
        PRIVATE,
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    ),
]

NOW = 1_767_225_600
SECRET = format_secret(b"k" * 32)
OTHER = format_secret(b"o" * 32)


def signed(signature: str, id_: str = "m1", timestamp: int | str = NOW) -> dict[str, str]:
    return {"webhook-id": id_, "webhook-timestamp": str(timestamp), "webhook-signature": signature}


@pytest.mark.parametrize(("secret", "id_", "timestamp", "body", "signature"), VECTORS)
def test_the_published_vectors_are_signed_and_verified(
    secret: str, id_: str, timestamp: int, body: bytes, signature: str
) -> None:
    assert Signer([secret]).sign(id_, timestamp, body) == signature
    Verifier([secret]).verify(signed(signature, id_, timestamp), body, timestamp)


def test_the_public_half_verifies() -> None:
    _, id_, timestamp, body, signature = VECTORS[2]
    assert public_key(PRIVATE) == PUBLIC
    Verifier([PUBLIC]).verify(signed(signature, id_, timestamp), body, timestamp)


def test_a_key_made_here_is_told_and_read_again() -> None:
    private = format_private_key(b"s" * 32)
    signature = Signer([private]).sign("m1", NOW, b"x")
    Verifier([public_key(private)]).verify(signed(signature), b"x", NOW)
    short = "whsk_" + b64encode(b"s" * 32).decode()
    assert Signer([short]).sign("m1", NOW, b"x") == signature, "the seed alone is enough"


@given(st.dictionaries(st.text(), st.text()), st.binary(min_size=24, max_size=64))
def test_the_reference_library_verifies_what_is_signed_here(content: dict[str, str], key: bytes) -> None:
    body = json.dumps(content).encode()
    now = int(datetime.now(UTC).timestamp())
    signature = Signer([OTHER, format_secret(key)]).sign("msg_1", now, body)
    assert standardwebhooks.Webhook(format_secret(key)).verify(body, signed(signature, "msg_1", now)) == content


def test_what_the_reference_library_signs_is_verified_here() -> None:
    signature = standardwebhooks.Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(NOW, UTC), '{"a":1}')
    Verifier([OTHER, SECRET]).verify(signed(signature, "msg_1"), b'{"a":1}', NOW)


def test_while_keys_rotate_the_old_and_the_new_receiver_verify() -> None:
    signature = Signer([PRIVATE, SECRET, OTHER]).sign("m1", NOW, b"x")
    assert [text.partition(",")[0] for text in signature.split()] == ["v1a", "v1", "v1"]
    for secret in (PUBLIC, SECRET, OTHER):
        Verifier([secret]).verify(signed(signature), b"x", NOW)


def test_a_secret_without_padding_is_read() -> None:
    signature = Signer([SECRET]).sign("m1", NOW, b"x")
    Verifier([SECRET.rstrip("=")]).verify(signed(signature.rstrip("=")), b"x", NOW)


@pytest.mark.parametrize("off", [-300, -1, 0, 300])
def test_a_timestamp_may_be_five_minutes_off(off: int) -> None:
    Verifier([SECRET]).verify(signed(Signer([SECRET]).sign("m1", NOW, b"x")), b"x", NOW + off)


@pytest.mark.parametrize(
    ("headers", "body", "fault"),
    [
        ({}, b"x", "not signed"),
        ({"webhook-id": "", "webhook-timestamp": "", "webhook-signature": ""}, b"x", "not signed"),
        (signed(""), b"x", "not signed"),
        (signed("v1,AAAA"), b"x", "does not match"),
        (signed("v1,"), b"x", "does not match"),
        (signed("v1,é"), b"x", "does not match"),
        (signed("nonsense"), b"x", "does not match"),
        (signed(", ,, v1 v1,"), b"x", "does not match"),
        (signed(Signer([OTHER]).sign("m1", NOW, b"x")), b"x", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW, b"x")), b"y", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW, b"x"), "m2"), b"x", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW, b"x"), "m1", NOW + 1), b"x", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW, b"x").replace("v1,", "v2,")), b"x", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW, b"x").replace("v1,", "v1a,")), b"x", "does not match"),
        (signed("v1,AAAA " * 16 + Signer([SECRET]).sign("m1", NOW, b"x")), b"x", "does not match"),
        (signed(Signer([SECRET]).sign("m1", NOW - 301, b"x"), "m1", NOW - 301), b"x", "more than 300 s off"),
        (signed(Signer([SECRET]).sign("m1", NOW + 301, b"x"), "m1", NOW + 301), b"x", "more than 300 s off"),
        (signed("v1,AAAA", "m1", "soon"), b"x", "not a count of seconds"),
        (signed("v1,AAAA", "m1", "-1"), b"x", "not a count of seconds"),
        (signed("v1,AAAA", "m1", "1e9"), b"x", "not a count of seconds"),
        (signed("v1,AAAA", "m1", "９"), b"x", "not a count of seconds"),
        (signed("v1,AAAA", "m1", "9" * 5000), b"x", "not a count of seconds"),
    ],
)
def test_what_is_not_signed_by_us_is_refused(headers: dict[str, str], body: bytes, fault: str) -> None:
    with pytest.raises(AccessError, match=fault):
        Verifier([SECRET, PUBLIC]).verify(headers, body, NOW)


@given(st.dictionaries(st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()))
def test_any_headers_are_refused_without_another_exception(headers: dict[str, str]) -> None:
    with pytest.raises(AccessError):
        Verifier([SECRET, PUBLIC]).verify(headers, b"x", NOW)


def test_no_secret_verifies_nothing() -> None:
    with pytest.raises(AccessError):
        Verifier([]).verify(signed(Signer([SECRET]).sign("m1", NOW, b"x")), b"x", NOW)


def test_an_id_with_a_dot_is_not_signed() -> None:
    with pytest.raises(UsageError, match="dot"):
        Signer([SECRET]).sign("a.b", NOW, b"x")


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hush-hush",
        "whsec_",
        "whsec_hush-hush!",
        "whsec_" + b64encode(b"short").decode(),
        "whsk_" + b64encode(b"h" * 31).decode(),
        "whsk_" + b64encode(b"h" * 64).decode(),
        PUBLIC,
    ],
)
def test_a_secret_that_cannot_sign_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^signing secret: ") as caught:
        Signer([secret])
    assert "hush" not in str(caught.value)
    if secret != PUBLIC:
        with pytest.raises(ConfigurationError, match=r"^signing secret: "):
            Verifier([secret])

"""Links: sealed and opened, Halon's read and written, and where a redirect may lead."""

import json
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.capture.halon_links import HalonLink, HalonLinks
from aftersend.capture.links import ADDRESS_LIMIT, Level, Link, Links, make_reference, read_reference
from aftersend.capture.targets import TARGET_LIMIT, safe_target, target_host
from aftersend.capture.tokens import Form, LinkError, Purpose, address, decode, encode, form_of, split_path
from aftersend.core.errors import ConfigurationError, StoreError
from aftersend.keyring import Keyring

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "capture" / "halon_tokens.json").read_text()
)
KEY_ID = "0badf00d"
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def link_key(purpose: str, key_id: str) -> bytes:
    """A key for every purpose, of one key id only."""
    if key_id != KEY_ID:
        raise StoreError("the keyring lacks that key")
    return sha256(f"{purpose} {key_id}".encode()).digest()


LINKS = Links(link_key)
CLICK = Link(
    Purpose.CLICK,
    Level.FULL,
    1,
    7,
    "alice@example.org",
    "<36e76ce2-b5a6-11ec-b8dd-000c292d8854@mail.example.com>",
    "7f1c0d52-9b1b-4c2e-8f51-0d3f2f9b7a11",
    "news",
    3,
    "https://www.example.com/spring?utm_source=newsletter&id=7",
)

uuids = st.uuids().map(str)
words = st.text(max_size=40)
ids = st.one_of(
    words, uuids, st.builds("<{}@{}>".format, uuids, words), st.sampled_from(["<@>", "<", ">", "A" * 16, "f" * 32])
)
links = st.builds(
    Link,
    purpose=st.sampled_from(Purpose),
    level=st.sampled_from(Level),
    tenant=st.integers(0, 2**32 - 1),
    domain=st.integers(0, 2**32 - 1),
    recipient=st.text(max_size=64),
    message_id=ids,
    campaign_id=ids,
    list_id=ids,
    place=st.integers(0, 10_000),
    target=st.text(max_size=300),
)


def refusal(token: str, purpose: Purpose = Purpose.CLICK, reader: Any = LINKS) -> str:
    """Why a token is refused."""
    with pytest.raises(LinkError) as error:
        reader.open(token, purpose)
    return error.value.reason


@given(links)
def test_what_was_sealed_is_what_is_opened(link: Link) -> None:
    assert LINKS.open(LINKS.seal(link, KEY_ID), link.purpose) == link


@given(links, st.sampled_from(Purpose))
def test_a_token_opens_for_its_own_purpose_only(link: Link, other: Purpose) -> None:
    if other is not link.purpose:
        assert refusal(LINKS.seal(link, KEY_ID), other) == "forged"


def test_a_purpose_inside_the_seal_holds_even_where_one_key_serves_all() -> None:
    careless = Links(lambda purpose, key_id: b"k" * 32)
    assert refusal(careless.seal(CLICK, KEY_ID), Purpose.UNSUBSCRIBE, careless) == "forged"


@given(links, st.data())
def test_a_changed_token_is_refused(link: Link, data: st.DataObject) -> None:
    token = LINKS.seal(link, KEY_ID)
    at = data.draw(st.integers(0, len(token) - 1))
    letter = data.draw(st.sampled_from(BASE64URL.replace(token[at], "")))
    refusal(token[:at] + letter + token[at + 1 :], link.purpose)


@given(links, st.data())
def test_a_shortened_token_is_refused(link: Link, data: st.DataObject) -> None:
    token = LINKS.seal(link, KEY_ID)
    refusal(token[: data.draw(st.integers(0, len(token) - 1))], link.purpose)


@given(st.one_of(st.text(), st.text(BASE64URL), st.binary(max_size=200).map(encode)), st.sampled_from(Purpose))
def test_garbage_is_refused_with_a_reason_and_no_other_error(token: str, purpose: Purpose) -> None:
    for reader in (LINKS, HalonLinks({1: b"k" * 16})):
        refusal(token, purpose, reader)


@given(links)
def test_the_same_link_has_the_same_token_every_time(link: Link) -> None:
    assert LINKS.seal(link, KEY_ID) == Links(link_key).seal(link, KEY_ID)


def test_nothing_of_a_link_can_be_read_without_the_key() -> None:
    data = decode(LINKS.seal(CLICK, KEY_ID))
    assert data[:6] == b"\x00\x01" + bytes.fromhex(KEY_ID)
    for word in (b"alice", b"example", b"news", b"spring"):
        assert word not in data


def test_an_ordinary_token_without_a_target_has_at_most_220_characters() -> None:
    longest = Link(
        Purpose.UNSUBSCRIBE,
        Level.FULL,
        2**32 - 1,
        2**32 - 1,
        "x9Kq7Zw3Jp5Vt1Lm8Rd2Fs6Hb4Nc0Gy." * 2,
        f"<{'36e76ce2-b5a6-11ec-b8dd-000c292d8854'}@mail.marketing.example.com>",
        "7f1c0d52-9b1b-4c2e-8f51-0d3f2f9b7a11",
        "7f1c0d52-9b1b-4c2e-8f51-0d3f2f9b7a12",
    )
    assert len(LINKS.seal(longest, KEY_ID)) <= 220


def test_an_ordinary_click_is_shorter_than_its_parts() -> None:
    assert len(LINKS.seal(CLICK, KEY_ID)) <= 150


def test_a_link_too_long_for_an_address_is_not_made() -> None:
    noise = "".join(sha256(b"%d" % number).hexdigest() for number in range(60))
    with pytest.raises(LinkError) as error:
        LINKS.seal(Link(Purpose.CLICK, Level.FULL, 1, 1, target=f"https://example.com/{noise}"), KEY_ID)
    assert error.value.reason == "too_long"
    assert refusal("A" * (ADDRESS_LIMIT + 1)) == "too_long"


def test_a_link_that_is_no_text_is_not_made() -> None:
    with pytest.raises(LinkError):
        LINKS.seal(Link(Purpose.CLICK, Level.FULL, 1, 1, recipient="\ud800"), KEY_ID)


def test_a_missing_key_is_told_apart_from_a_forgery() -> None:
    assert refusal(encode(b"\x00\x01" + b"\xff" * 60)) == "unknown_key"
    assert refusal(encode(b"\x00\x01" + bytes.fromhex(KEY_ID) + b"\xff" * 60)) == "forged"


def test_the_keyring_keeps_old_links_alive_after_a_rotation(tmp_path: Path) -> None:
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    sealed = Links(keyring.link_key).seal(CLICK, keyring.active_id)
    keyring.rotate()
    assert Links(keyring.link_key).open(sealed, Purpose.CLICK) == CLICK


def test_a_token_in_another_spelling_is_refused() -> None:
    token = LINKS.seal(CLICK, KEY_ID)
    while len(token) % 4 == 0:
        token = LINKS.seal(Link(Purpose.CLICK, Level.FULL, 1, 1, target=f"https://example.com/{token[:5]}"), KEY_ID)
    assert refusal(token[:-1] + BASE64URL[BASE64URL.index(token[-1]) + 1]) == "not_canonical"
    assert refusal(token + "=") == "malformed"
    assert refusal(token + "\n") == "malformed"


def test_a_path_says_purpose_and_token_with_any_number_of_slashes() -> None:
    for purpose in Purpose:
        path = address("https://t.example.com/", purpose, "AAEx").removeprefix("https://t.example.com")
        assert split_path(path) == (purpose, "AAEx")
    assert split_path("//c/AUl0==") == (Purpose.CLICK, "AUl0==")


@pytest.mark.parametrize("path", ["", "/", "/c/", "/x/AAEx", "/c/AA Ex", "/c/AAEx/", "/c/AAEx?y", "/c/" + "A" * 20_000])
def test_any_other_path_is_none_of_a_link(path: str) -> None:
    with pytest.raises(LinkError):
        split_path(path)


def test_the_first_byte_says_whose_a_token_is() -> None:
    assert form_of(LINKS.seal(CLICK, KEY_ID)) is Form.SEALED
    assert form_of(make_reference(bytes)) is Form.REFERENCE
    assert {form_of(vector["token"]) for vector in VECTORS} == {Form.HALON}
    with pytest.raises(LinkError) as error:
        form_of(encode(b"\x00\x09later"))
    assert error.value.reason == "unknown_version"


def test_a_reference_for_sms_has_twelve_characters() -> None:
    token = make_reference(lambda count: b"\xa5" * count)
    assert len(token) == 12
    assert read_reference(token) == b"\xa5" * 7
    for other in (token[:-1], token + "AAAA", LINKS.seal(CLICK, KEY_ID), ""):
        with pytest.raises(LinkError):
            read_reference(other)


# Halon's

PURPOSES = {"c": Purpose.CLICK, "o": Purpose.OPEN, "u": Purpose.UNSUBSCRIBE}


def halon(vector: dict[str, Any]) -> HalonLinks:
    """The keyring of a vector."""
    keys = {vector["secret_id"]: vector["secret_key"].encode()} if vector["secret_key"] else {}
    return HalonLinks(keys, allow_short_keys=True)


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if vector["valid"]], ids=lambda vector: vector["name"])
def test_a_token_of_halon_is_read(vector: dict[str, Any]) -> None:
    purpose, token = split_path(vector["path"])
    said = vector["decoded"]
    link = HalonLink(said["r"], said["m"], said.get("u"), said.get("a", {}))
    padded = token + "=" * (-len(token) % 4)
    assert halon(vector).open(token, purpose) == halon(vector).open(padded, purpose) == link
    assert halon(vector).open(halon(vector).seal(link, vector["secret_id"]), purpose) == link


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if not vector["valid"]], ids=lambda each: each["name"])
def test_a_bad_token_of_halon_is_refused(vector: dict[str, Any]) -> None:
    refusal(vector["token"], Purpose.CLICK, halon(vector))


@pytest.mark.parametrize("vector", [vector for vector in VECTORS if vector["valid"]], ids=lambda vector: vector["name"])
def test_only_a_click_of_halon_has_a_target(vector: dict[str, Any]) -> None:
    for purpose in Purpose:
        if (purpose is Purpose.CLICK) != ("u" in vector["decoded"]):
            assert refusal(vector["token"], purpose, halon(vector)) == "forged"


def test_what_we_write_for_halon_is_the_json_that_halon_writes() -> None:
    vector = next(vector for vector in VECTORS if vector["name"] == "click_with_additional")
    token = halon(vector).seal(halon(vector).open(vector["token"], Purpose.CLICK), 1)
    assert zlib.decompress(decode(token)[33:], -15).decode() == vector["json_text"]


def test_additional_data_of_halon_may_be_an_empty_array() -> None:
    assert halon(VECTORS[0]).open(signed(b'{"r":"a","m":null,"a":[]}'), Purpose.OPEN).additional == {}


def signed(text: bytes, after: bytes = b"", *, whole: bool = True) -> str:
    """A token of Halon's for any text, with the key of the vectors."""
    import hmac

    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(text) + deflater.flush()
    mac = hmac.digest(b"badsecret", text, "sha256")
    return encode(b"\x01" + mac + (data if whole else data[:-1]) + after)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"r":1,"m":null}', b'{"m":null}', b'{"r":"a","m":null', b"[" * 60_000])
def test_a_signed_text_that_is_no_link_is_refused(text: bytes) -> None:
    assert refusal(signed(text), Purpose.OPEN, halon(VECTORS[0])) == "malformed"


def test_bytes_that_the_mac_does_not_cover_are_refused() -> None:
    text = b'{"r":"a","m":null}'
    assert refusal(signed(text, b"x"), Purpose.OPEN, halon(VECTORS[0])) == "malformed"
    assert refusal(signed(text, whole=False), Purpose.OPEN, halon(VECTORS[0])) == "malformed"


def test_a_token_that_inflates_without_end_is_cut_off() -> None:
    assert refusal(signed(b" " * 5_000_000), Purpose.OPEN, halon(VECTORS[0])) == "too_long"


def test_keys_of_halon_are_long_and_numbered_from_1_to_254() -> None:
    HalonLinks({1: b"k" * 16, 254: b"k" * 16})
    for keys in ({0: b"k" * 16}, {255: b"k" * 16}, {1: b"k" * 15}):
        with pytest.raises(ConfigurationError) as error:
            HalonLinks(keys)
        assert "kkk" not in str(error.value)
    with pytest.raises(ConfigurationError):
        HalonLinks({1: b""}, allow_short_keys=True)


# targets


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "HTTP://EXAMPLE.com:8080/a?b=1&c=%D0%B6#d",
        "https://example.com/@x:y?u=a@b",
        "http://[2001:db8::1]/",
        "http://192.0.2.1/",
        "https://example.com/{a}|b",
    ],
)
def test_an_absolute_address_is_a_target_as_it_stands(url: str) -> None:
    assert safe_target(url) == url


def test_a_target_in_other_letters_is_written_in_ascii() -> None:
    assert safe_target("https://пример.рф/путь?q=ж x") == (
        "https://xn--e1afmkfd.xn--p1ai/%D0%BF%D1%83%D1%82%D1%8C?q=%D0%B6%20x"
    )
    assert target_host("https://Пример.рф/") == "xn--e1afmkfd.xn--p1ai"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/path",
        "//example.com/",
        "example.com",
        "http:example.com",
        "http:/example.com",
        "http:///example.com",
        "http://",
        "https:\\\\example.com",
        "https://example.com\\@evil.example",
        "https://example.com/a\\b",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://example.com:80@evil.example/",
        "https://example.com:x/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://exa mple.com/",
        "https://exa%6dple.com/",
        "https://example.com／evil.example/",
        " https://example.com/",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\x00",
        "https://example.com/\x7f",
        "https://example.com/\x85",
        "https://exam\tple.com/",
        "java\tscript:alert(1)",
        "javascript://example.com/%0aalert(1)",
        "data:text/html,x",
        "ftp://example.com/",
        "https://example.com/\ud800",
        "https://" + "a" * 300 + "/",
        "https://example.com/" + "a" * TARGET_LIMIT,
    ],
)
def test_anything_that_is_no_plain_web_address_is_refused(url: str) -> None:
    with pytest.raises(LinkError) as error:
        safe_target(url)
    assert error.value.reason == "unsafe_target"


@given(st.text(), st.sampled_from(["", "http://", "https://example.com", "https://example.com/"]))
def test_a_target_is_ascii_without_spaces_or_refused(rest: str, start: str) -> None:
    try:
        target = safe_target(start + rest)
    except LinkError:
        return
    assert target.isascii()
    assert target.isprintable()
    assert " " not in target
    assert safe_target(target) == target

"""Who asks: addresses behind proxies, forms, languages."""

import pytest

from aftersend.capture.answers import masked_person
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.forms import is_one_click, read_form
from aftersend.capture.wording import WORDING, language_of
from aftersend.core.errors import ConfigurationError

TRUSTED = ClientAddresses(["10.0.0.0/8", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", "203.0.113.9:4711", "203.0.113.9"),
        ("10.0.0.1", "[2001:db8:9::1]:4711, 2001:DB8:1::5", "2001:db8:9::1"),
        ("10.0.0.1", "::ffff:203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", ", ".join(["6.6.6.6"] + ["10.0.0.2"] * 40), "10.0.0.2"),
        ("", "203.0.113.9", ""),
    ],
)
def test_the_client_is_the_last_address_that_no_trusted_proxy_has(peer: str, forwarded: str, client: str) -> None:
    assert TRUSTED.of(peer, {b"x-forwarded-for": forwarded.encode()}) == client


def test_what_is_no_network_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="'proxy' is not a network"):
        ClientAddresses(["proxy"])


async def test_misses_are_remembered_within_a_bound_and_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0
    throttle = Throttle(lambda: now)
    monkeypatch.setattr(Throttle, "SOURCES", 10)
    for number in range(100):
        await throttle.miss(f"2001:db8::{number:x}")
        await throttle.miss(f"198.51.100.{number}")
        assert len(throttle._misses) <= 10
    monkeypatch.setattr(Throttle, "WAITING", 0)
    assert [await throttle.miss("203.0.113.9") for _ in range(30)].count(False) == 10
    now = 61_000_000_000
    assert await throttle.miss("203.0.113.9")


async def test_addresses_of_one_ipv6_network_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Throttle, "WAITING", 0)
    throttle = Throttle(lambda: 0)
    assert [await throttle.miss(f"2001:db8:1:2::{number:x}") for number in range(21)].count(False) == 1


async def form_of(body: bytes, content_type: str, piece: int = 10_000) -> dict[str, list[str]]:
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)] or [b""]
    messages = [
        {"type": "http.request", "body": part, "more_body": number < len(pieces) - 1}
        for number, part in enumerate(pieces)
    ]

    async def receive() -> dict[str, object]:
        return messages.pop(0)

    return await read_form(receive, {b"content-type": content_type.encode()})


MULTIPART = '------X\r\nContent-Disposition: form-data; name="List-Unsubscribe"\r\n\r\nOne-Click\r\n------X--\r\n'


@pytest.mark.parametrize(
    ("body", "content_type", "is_meant"),
    [
        ("List-Unsubscribe=One-Click", "application/x-www-form-urlencoded", True),
        ("List-Unsubscribe=One-Click", "", True),
        ("a=b&List-Unsubscribe=One-Click&", "application/x-www-form-urlencoded; charset=utf-8", True),
        (MULTIPART, "multipart/form-data; boundary=----X", True),
        (MULTIPART.replace("\r\n", "\n"), 'Multipart/Form-Data; boundary="----X"', True),
        (MULTIPART, "multipart/form-data; boundary=Y", False),
        (MULTIPART, "multipart/form-data", False),
        (MULTIPART.replace("One-Click", "No"), "multipart/form-data; boundary=----X", False),
        ("List-Unsubscribe=", "", False),
        ("", "", False),
        ("&".join(f"f{number}=1" for number in range(500)) + "&List-Unsubscribe=One-Click", "", False),
    ],
)
async def test_one_click_is_read_from_either_kind_of_form(body: str, content_type: str, is_meant: bool) -> None:
    assert is_one_click(await form_of(body.encode(), content_type)) is is_meant
    assert is_one_click(await form_of(body.encode(), content_type, piece=7)) is is_meant


async def test_a_body_past_the_limit_is_no_form() -> None:
    assert await form_of(b"List-Unsubscribe=One-Click&x=" + b"y" * 20_000, "") == {}


def test_both_languages_say_the_same_things() -> None:
    assert WORDING["en"].keys() == WORDING["ru"].keys()
    for key, text in WORDING["en"].items():
        assert ("{person}" in text) == ("{person}" in WORDING["ru"][key])


def test_a_header_of_any_kind_names_a_language() -> None:
    assert language_of(b"ru-RU") == "ru"
    assert language_of(b"en, ru") == "en"
    assert language_of(b"ru;q=x,,;;=, \xff") == "en"


def test_a_person_is_shown_masked() -> None:
    shown = {person: masked_person(person) for person in ("alice@example.org", "+491701234567", "x", "@x", "")}
    assert list(shown.values()) == ["a…@example.org", "…4567", "", "", ""]

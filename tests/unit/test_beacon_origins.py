"""Origins of pages: which are one, and which are listed."""

import pytest

from aftersend.core.errors import UsageError
from aftersend.core.origins import is_listed, origin_of, read_origin


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://shop.example", "https://shop.example"),
        (" HTTPS://Shop.Example/ ", "https://shop.example"),
        ("https://shop.example:443", "https://shop.example"),
        ("http://shop.example:80", "http://shop.example"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://[::1]:8443", "https://[::1]:8443"),
        ("https://*.shop.example", "https://*.shop.example"),
        ("null", "null"),
    ],
)
def test_an_origin_is_spelt_as_browsers_spell_it(text: str, origin: str) -> None:
    assert read_origin(text) == origin


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "shop.example",
        "https://",
        "ftp://shop.example",
        "https://shop.example/path",
        "https://a b",
        "https://*",
        "https://a@shop.example",
        "https://shop.*.example",
        "https://" + "a" * 300,
        "https://shop.example:123456",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        read_origin(text)


@pytest.mark.parametrize(
    ("address", "origin"),
    [
        ("https://shop.example/a?b#c", "https://shop.example"),
        ("https://user:word@shop.example/", "https://shop.example"),
        ("https://shop.example:8443?x", "https://shop.example:8443"),
        ("about:blank", "null"),
        ("https://*.shop.example/", "null"),
        ("", "null"),
    ],
)
def test_a_pages_address_has_an_origin_or_none(address: str, origin: str) -> None:
    assert origin_of(address) == origin


@pytest.mark.parametrize(
    ("origin", "listed"),
    [
        ("https://shop.example", True),
        ("https://www.shop.example", False),
        ("http://shop.example", False),
        ("https://shop.example.evil.example", False),
        ("https://a.b.wide.example", True),
        ("https://wide.example", False),
        ("https://evilwide.example", False),
        ("https://.wide.example", False),
        ("https://evil.example/.wide.example", False),
        ("http://a.wide.example", False),
        ("null", False),
        ("", False),
    ],
)
def test_only_what_is_listed_is_heard(origin: str, listed: bool) -> None:
    assert is_listed(origin, ("https://shop.example", "https://*.wide.example")) is listed

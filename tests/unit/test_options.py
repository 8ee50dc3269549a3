"""Options of plugins: read from JSON or a command line, with secrets apart."""

from dataclasses import dataclass, field
from typing import Literal

import pytest

from aftersend.core.errors import ConfigurationError
from aftersend.core.options import build, describe, option, sort_settings
from aftersend.core.secret import Secret
from aftersend.rack import find_transport, transport_names


@dataclass(slots=True, kw_only=True, eq=False)
class Plugin:
    """A plugin."""

    url: str = option(help="Where to.")
    password: Secret | None = option(None, help="Its word.", secret=True)
    count: int = option(3, help="How many.")
    names: tuple[str, ...] = option((), help="Who.")
    mode: Literal["fast", "slow"] = option("fast", help="How.")
    careful: bool = option(False, help="Whether.")
    clock: object = field(repr=False)


GIVEN = {"clock": object(), "nothing": "that it wants"}


def test_values_of_a_command_line_are_read_as_their_types() -> None:
    settings = {"url": "x://y", "count": "5", "names": "a, b", "careful": "true", "password": "hush"}
    plugin = build(Plugin, settings, "plugin", GIVEN)
    assert (plugin.url, plugin.count, plugin.names, plugin.careful) == ("x://y", 5, ("a", "b"), True)
    assert plugin.password == Secret("hush")
    assert "hush" not in repr(plugin)
    assert plugin.clock is GIVEN["clock"]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "plugin: url is missing: Where to."),
        ({"url": "u", "cuont": 1}, "plugin: unknown option 'cuont'; known are: "),
        ({"url": "u", "mode": "medium"}, "it is: fast | slow"),
        ({"url": "u", "count": "many"}, "plugin: count: "),
        ({"url": "u", "names": 5}, "it is: list of text"),
        ({"url": "u", "clock": 5}, "plugin: unknown option 'clock'"),
    ],
)
def test_what_is_wrong_is_named_with_what_it_should_be(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        build(Plugin, settings, "plugin", GIVEN)
    assert told in str(caught.value)


def test_what_is_given_cannot_be_set_besides() -> None:
    with pytest.raises(ConfigurationError, match="unknown option 'url'"):
        build(Plugin, {"url": "u"}, "plugin", {**GIVEN, "url": "own"})


def test_settings_are_kept_by_their_types_and_the_secret_ones_apart() -> None:
    plain, secrets = sort_settings(Plugin, {"password": "hush", "count": "7", "names": ["a"]}, "plugin")
    assert plain == {"count": 7, "names": ("a",)}
    assert secrets == {"password": Secret("hush")}


def test_a_plugin_describes_its_options_for_forms() -> None:
    shown = {item["name"]: item for item in describe(Plugin)}
    assert list(shown) == ["url", "password", "count", "names", "mode", "careful"]
    assert shown["url"] == {
        "name": "url",
        "type": "text",
        "default": None,
        "help": "Where to.",
        "secret": False,
        "wanted": True,
    }
    assert (shown["password"]["type"], shown["password"]["secret"]) == ("text", True)
    assert (shown["mode"]["type"], shown["mode"]["default"]) == ("fast | slow", "fast")


@pytest.mark.parametrize("name", transport_names())
def test_every_transport_says_what_it_is_and_what_its_options_do(name: str) -> None:
    plugin = find_transport(name)
    assert plugin.name == name
    assert (plugin.__doc__ or "").strip().split("\n")[0].endswith(".")
    for item in describe(plugin):
        assert item["help"].endswith((".", "…")), item
        assert item["type"] != "object" or name == "http", item

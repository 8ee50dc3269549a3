"""The generated pages hold everything that they are about, and come out the same every time."""

import re

from aftersend.cli import COMMANDS
from aftersend.cli.tables import speakers
from aftersend.config import settings
from aftersend.core.taxonomy import ROWS
from aftersend.pages import PAGES, command_page, configuration_page, matrix_page, taxonomy_page
from aftersend.rack import dialects


def test_every_page_comes_out_the_same_twice() -> None:
    assert {path: make() for path, make in PAGES.items()} == {path: make() for path, make in PAGES.items()}


def test_every_command_is_on_its_page() -> None:
    page = command_page()
    names = [name for commands in COMMANDS.values() for name in commands]
    assert [name for name in names if f"## aftersend {name}\n" not in page] == []


def test_no_option_has_a_negative_twin_that_says_nothing() -> None:
    options = set(re.findall(r"`--([a-z-]+)", command_page()))
    assert {name for name in options if name.startswith("no-") and name.removeprefix("no-") in options} == set()
    assert "--empty-" not in command_page()


def test_every_setting_is_on_its_page() -> None:
    page = configuration_page()
    assert [
        item.name for item in settings() if f"| `{item.name}` | `--{item.name.replace('_', '-')}` |" not in page
    ] == []


def test_every_row_and_every_word_is_on_the_taxonomy_page() -> None:
    page = taxonomy_page()
    words = {word for dialect in speakers(dialects()).values() for word in dialect.columns}
    assert [row.type for row in ROWS if f"`{row.type}`" not in page] == []
    assert [word for word in sorted(words) if f"`{word}`" not in page] == []


def test_the_matrix_tells_every_vendor_to_every_other() -> None:
    vendors = [name for name in dialects() if name not in ("canonical", "cloudevents")]
    for part in matrix_page().split("## Events of ")[1:]:
        heard, *lines = part.splitlines()
        told = [line.split(" | ")[0].removeprefix("| ") for line in lines[3:] if line]
        assert told == [name for name in vendors if name != heard]

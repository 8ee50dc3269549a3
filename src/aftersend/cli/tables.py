"""`aftersend types` and `aftersend schema`: what can happen, in whose words, and in which form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from aftersend.cli.output import print_json, print_table, say
from aftersend.contracts import Dialect
from aftersend.core.errors import UsageError
from aftersend.core.taxonomy import CHANNELS, OTHER, ROWS, Row, channel_of, row_of
from aftersend.rack import dialects, find_dialect


def types(
    *,
    dialect: Annotated[str, Parameter(show_default=False, help="Only this dialect, word by word.")] = "",
    format: Annotated[Literal["table", "json", "markdown"], Parameter(help="How it is printed.")] = "table",  # noqa: A002
) -> None:
    """What can happen, and each dialect's words for it."""
    chosen = {find_dialect(dialect)[0].name: find_dialect(dialect)[0]} if dialect else dialects()
    if format == "json":
        print_json([_as_json(row, chosen) for row in ROWS])
    elif format == "markdown":
        say(taxonomy(chosen).rstrip("\n"))
    elif dialect:
        print_table(("word", "type", "meaning"), [*_words_of(*chosen.values())])
    else:
        vendors = speakers(chosen)
        columns = ("type", *vendors)
        print_table(
            columns, [(row.type, *[_cell(words(item, row), item, "") for item in vendors.values()]) for row in ROWS]
        )


def schema(
    dialect: str,
    /,
    *,
    name: Annotated[str, Parameter(show_default=False, help="Only this one.")] = "",
) -> None:
    """JSON Schemas of the events that a dialect tells: the one there is, or all of them by name.

    Parameters
    ----------
    dialect
        A dialect, as `halon`.
    """
    found = find_dialect(dialect)[0].schemas()
    if name and name not in found:
        raise UsageError(f"{dialect} has no schema {name!r}; it has: {', '.join(found)}")
    chosen = {name: found[name]} if name else found
    print_json(next(iter(chosen.values())) if len(chosen) == 1 else chosen)


def speakers(chosen: Mapping[str, Dialect]) -> dict[str, Dialect]:
    """The dialects with words of their own; the others say the canonical type."""
    return {name: item for name, item in chosen.items() if not any("*" in word for word in item.columns)}


def words(dialect: Dialect, row: Row) -> list[str]:
    """A dialect's words for a row, on any channel."""
    return [word for word, type_ in dialect.columns.items() if row_of(type_).type == row.type]


def _words_of(dialect: Dialect) -> Iterator[tuple[str, str, str]]:
    for word, type_ in dialect.columns.items():
        yield word, type_, row_of(type_).meaning


def _as_json(row: Row, chosen: Mapping[str, Dialect]) -> dict[str, Any]:
    told = {
        name: {word: type_ for word, type_ in item.columns.items() if row_of(type_).type == row.type}
        for name, item in chosen.items()
    }
    return {"type": row.type, "group": row.group, "meaning": row.meaning, "words": told}


# The page


def taxonomy(chosen: Mapping[str, Dialect]) -> str:
    """The page of all rows, and of each dialect's words."""
    vendors = speakers(chosen)
    lines = [
        "# Taxonomy",
        "",
        "What can happen to a message, a person or a campaign. `*` stands for a channel:",
        f"{', '.join(f'`{name}`' for name in CHANNELS)}, or any other that a vendor names.",
        "A word that no dialect knows becomes `other` and is kept to the letter.",
    ]
    for group in dict.fromkeys(row.group for row in ROWS):
        lines += ["", f"## {group.capitalize()}", "", *_group_table(group, vendors)]
    for dialect in chosen.values():
        lines += ["", f"## In the words of {dialect.name}", "", *_dialect_part(dialect, dialect.name in vendors)]
    return "\n".join(lines) + "\n"


def _group_table(group: str, vendors: Mapping[str, Dialect]) -> Iterator[str]:
    yield table_row("Type", "What happened", *vendors)
    yield table_row(*["---"] * (len(vendors) + 2))
    for row in ROWS:
        if row.group == group:
            cells = [_cell(words(dialect, row), dialect) for dialect in vendors.values()]
            yield table_row(f"`{row.type}`", row.meaning, *cells)


def _cell(found: list[str], dialect: Dialect, quote: str = "`") -> str:
    """The words, or how many there are where several channels have their own."""
    shown = [f"{quote}{word}{quote}" for word in found]
    if len(shown) <= 3:
        return ", ".join(shown)
    channels = {channel_of(dialect.columns[word]) or "" for word in found}
    return f"{shown[0]}, … ({len(found)} words" + (f" on {len(channels)} channels)" if len(channels) > 1 else ")")


def _dialect_part(dialect: Dialect, has_words: bool) -> Iterator[str]:
    if dialect.forms:
        forms = ", ".join(f"`{dialect.name}/{form}`" for form in dialect.forms)
        yield f"Forms: {forms}; the first is spoken by default."
        yield ""
    yield f"One fact is what has the same: {dialect.identity_fields}."
    yield ""
    if dialect.native_firsts:
        yield "First opens and first clicks are told by the vendor itself."
        yield ""
    if not has_words:
        yield "The words are the types themselves."
        return
    yield table_row("Word", "Type")
    yield table_row("---", "---")
    for word, type_ in dialect.columns.items():
        yield table_row(f"`{word}`", f"`{type_}`" if type_ != OTHER else "`other`: no row, the word is kept")


def table_row(*cells: str) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

"""Pages of `docs/` that are made from the code: `python -m aftersend.pages` writes them anew."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from aftersend.cli import EPILOGUE, make_app
from aftersend.cli.tables import speakers, table_row, taxonomy
from aftersend.config import ENVIRONMENT_PREFIX, FILE_NAME, relay_settings, settings
from aftersend.core.options import describe
from aftersend.rack import dialects, find_transport, transport_names

if TYPE_CHECKING:
    from aftersend.testing.matrix import Passage

ROOT = Path(__file__).parents[2]
"""The project's folder; the pages and the fixtures are in it, and not in what is installed."""


def _mark(source: str) -> str:
    return f"<!-- generated from {source} by `make pages`; do not edit -->\n\n"


def taxonomy_page() -> str:
    """`docs/taxonomy.md`."""
    return _mark("the dialects") + taxonomy(dialects())


def command_page() -> str:
    """`docs/cli.md`."""
    before, sys.argv = sys.argv, ["aftersend"]  # cyclopts takes the program's name from there
    try:
        told = make_app().generate_docs("markdown", heading_level=1, max_heading_level=3)
    finally:
        sys.argv = before
    title, rest = told.split("\n", 1)
    tidy = "\n".join(line.rstrip() for line in rest.strip().splitlines())
    return _mark("the commands' help") + f"{title.replace('aftersend', 'The command line')}\n\n{EPILOGUE}\n\n{tidy}\n"


def configuration_page() -> str:
    """`docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        f"A setting comes from the command line, else from the environment, else from `{FILE_NAME}` in the data",
        "folder, else it has its default. `aftersend init` writes the file with every setting as a comment. Lists",
        "stand in brackets in the file and between commas in the environment. An unknown setting stops the start.",
        "",
        table_row("Setting", "Option", "Environment", "Default", "What it does"),
        table_row(*["---"] * 5),
    ]
    for item in settings():
        option = f"`--{item.name.replace('_', '-')}`"
        default = "`" + msgspec.json.encode(item.default).decode() + "`"
        lines.append(table_row(f"`{item.name}`", option, f"`{item.environment}`", default, item.help))
    lines += [
        "",
        "The SMTP relay has a table of its own, `[relay]`, whose settings have no option:",
        "",
        table_row("Setting", "Environment", "Default", "What it does"),
        table_row(*["---"] * 4),
    ]
    for item in relay_settings():
        name = item.name.removeprefix("relay_")
        default = "`" + msgspec.json.encode(item.default).decode() + "`"
        lines.append(table_row(f"`{name}`", f"`{item.environment}`", default, item.help))
    lines += [
        "",
        "Besides these, commands read:",
        "",
        table_row("Environment", "What it does"),
        table_row("---", "---"),
        table_row(f"`{ENVIRONMENT_PREFIX}DATA`", "The data folder, as `--data`; without both `./aftersend-data`."),
        table_row(f"`{ENVIRONMENT_PREFIX}URL`", "A remote instance that commands are about, as `--url`."),
        table_row(f"`{ENVIRONMENT_PREFIX}KEY`", "The key for it, as `--key`."),
        table_row(f"`{ENVIRONMENT_PREFIX}CHECK_SECRET`", "What `aftersend check` signs with, as `--secret`."),
        table_row(f"`{ENVIRONMENT_PREFIX}DEBUG`", "Set: a fault of ours is shown with where it happened."),
    ]
    return _mark("the settings") + "\n".join(lines) + "\n"


def transport_page() -> str:
    """`docs/transports.md`."""
    return _mark("the transports") + "\n".join(_transports()) + "\n"


def _transports() -> Iterator[str]:
    yield "# Ways out"
    yield ""
    yield "Each way for events to leave, with its options. An option is given as `--setting NAME=VALUE` (or"
    yield "`NAME=@FILE`, which keeps it out of the list of processes) to `aftersend subscriptions add`, and under"
    yield "`settings` to `POST /v1/subscriptions`. Secret ones are masked wherever they are shown, and sealed in the"
    yield "store. The connection is tried before a subscription is saved; `--no-probe` saves it all the same."
    yield ""
    yield "`url`, `timeout`, `headers`, `signing_secrets` and `acknowledgement` are no settings but fields of the"
    yield "subscription: `--url`, `--timeout`, `--header NAME=VALUE`, `--secret`, `--acknowledge-status` and"
    yield "`--acknowledge-body`. `aftersend subscriptions set NAME --setting OPTION=` takes a setting away, so that the"
    yield "default holds again; in the API `null` does. A change of `transport` begins with new settings."
    for name in transport_names():
        plugin = find_transport(name)
        yield from ("", f"## {name}", "", (plugin.__doc__ or "").strip().split("\n")[0])
        if plugin.schemes:
            yield f"URLs begin with {' or '.join(f'`{scheme}://`' for scheme in plugin.schemes)}."
        if plugin.brokered:
            yield "Only a key with the scope `admin` may use it, and only for what the settings list."
        yield from ("", table_row("Option", "Type", "Default", "What it does"), table_row(*["---"] * 4))
        for item in describe(plugin):
            kind = item["type"].replace("|", "\\|") + (", secret" if item["secret"] else "")
            default = "needed" if item["wanted"] else f"`{msgspec.json.encode(item['default']).decode()}`"
            yield table_row(f"`{item['name']}`", kind, default, item["help"])


def matrix_page() -> str:
    """`docs/matrix.md`."""
    from aftersend.testing.matrix import passages

    vendors = speakers(dialects())
    found = passages(vendors, ROOT / "tests" / "fixtures" / "dialects")
    return _mark("the fixtures") + "\n".join(_matrix(list(vendors), found)) + "\n"


def _matrix(vendors: list[str], found: list[Passage]) -> Iterator[str]:
    yield "# From one vendor to another"
    yield ""
    yield "What survives when the events of one vendor are told to a consumer of another. Every different event of the"
    yield "fixtures was told in the other dialect and read again. A field is kept if it came back as it was, the time"
    yield "if it came back to the second. Canonical JSON and CloudEvents keep everything and are left out."
    yield ""
    yield table_row("Events of ↓ told to →", *vendors)
    yield table_row(*["---"] * (len(vendors) + 1))
    counts = {(item.heard, item.spoken): f"{item.told} of {item.events}" for item in found}
    for heard in vendors:
        yield table_row(heard, *[counts.get((heard, spoken), "") for spoken in vendors])
    for heard in vendors:
        yield from ("", f"## Events of {heard}", "")
        yield table_row("Told to", "Always kept", "Sometimes kept", "Lost", "No word for")
        yield table_row(*["---"] * 5)
        for item in found:
            if item.heard == heard:
                yield table_row(item.spoken, *_fields(item), ", ".join(f"`{word}`" for word in item.unspoken))


def _fields(item: Passage) -> tuple[str, str, str]:
    always = [name for name, (kept, there) in item.kept.items() if kept == there]
    some = [f"{name} ({kept} of {there})" for name, (kept, there) in item.kept.items() if 0 < kept < there]
    lost = [name for name, (kept, _) in item.kept.items() if not kept]
    return ", ".join(always), ", ".join(some), ", ".join(lost)


PAGES: Mapping[str, Callable[[], str]] = {
    "docs/taxonomy.md": taxonomy_page,
    "docs/cli.md": command_page,
    "docs/configuration.md": configuration_page,
    "docs/matrix.md": matrix_page,
    "docs/transports.md": transport_page,
}
"""Each page by its path in the project, with what makes it."""


def main() -> None:
    """Write all pages; say which changed."""
    for path, make in PAGES.items():
        text, file = make(), ROOT / path
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
            sys.stdout.write(f"{path} is written anew\n")


if __name__ == "__main__":
    main()

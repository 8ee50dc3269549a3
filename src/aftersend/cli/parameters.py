"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aftersend.core.errors import UsageError

DataFolder = Annotated[Path, Parameter(name="--data", env_var="AFTERSEND_DATA", help="The instance's data folder.")]
AsJson = Annotated[bool, Parameter(name="--json", show_default=False, help="Print JSON, for programs.")]
EgressAllow = Annotated[
    tuple[str, ...],
    Parameter(
        name="--egress-allow",
        consume_multiple=True,
        show_default=False,
        help="Networks (CIDR) that may be reached besides public ones.",
    ),
]

PLAIN = Parameter(negative=())
"""For groups of commands: no `--no-…` beside each flag."""

DATA = Path("aftersend-data")


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Target:
    """Which instance a command is about: the one in a folder, or one far away."""

    data: DataFolder = DATA
    url: Annotated[
        str, Parameter(env_var="AFTERSEND_URL", show_default=False, help="A remote instance instead of the folder.")
    ] = ""
    key: Annotated[
        str, Parameter(env_var="AFTERSEND_KEY", show_default=False, help="The key for it; better in the environment.")
    ] = ""
    tenant: Annotated[str, Parameter(show_default=False, help="Whose; without it, the key's own, or `default`.")] = ""


HERE = Target()


def split_pairs(pairs: tuple[str, ...], option: str) -> dict[str, str]:
    """`NAME=VALUE` texts as a mapping. Raises UsageError."""
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise UsageError(f"{option} takes NAME=VALUE, not {pair!r}")
        found[name] = value
    return found


def read_values(pairs: Mapping[str, str], option: str) -> dict[str, str]:
    """Values as they stand or, with `@`, from a file, which keeps secrets out of the list of processes.

    Raises UsageError.
    """
    return {name: _from_file(text[1:], option) if text.startswith("@") else text for name, text in pairs.items()}


def _from_file(path: str, option: str) -> str:
    try:
        return Path(path).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None

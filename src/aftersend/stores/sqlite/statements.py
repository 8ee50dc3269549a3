"""The statements of the `.sql` files beside this module, by name."""

from __future__ import annotations

from importlib.resources import files

_MARK = "-- name: "


def read_script(name: str) -> str:
    """The text of one file."""
    return files(__package__).joinpath(name).read_text("utf-8")


def read_statements(name: str) -> dict[str, str]:
    """The statements of one file; each stands below a line `-- name: …`."""
    found = {}
    for part in read_script(name).split(_MARK)[1:]:
        title, _, statement = part.partition("\n")
        found[title.strip()] = statement.strip()
    return found


LOG = read_statements("log.sql")
CONTROL = read_statements("control.sql")
LOG_VERSIONS = (read_script("log_1.sql"), read_script("log_2.sql"))
"""What makes a file of the log out of the version before; the first out of nothing. Append, never change."""
CONTROL_VERSIONS = (read_script("control_1.sql"), read_script("control_2.sql"))
"""The same for control.db."""

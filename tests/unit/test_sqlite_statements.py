"""Every named statement is good SQL for the newest schema, and is used."""

from pathlib import Path

import apsw
import apsw.ext
import pytest

from aftersend.stores import sqlite
from aftersend.stores.sqlite.statements import CONTROL, CONTROL_VERSIONS, LOG, LOG_VERSIONS

SOURCES = "".join(path.read_text() for path in Path(sqlite.__file__).parent.glob("*.py"))


@pytest.mark.parametrize(
    ("scripts", "statement"),
    [
        *[pytest.param(LOG_VERSIONS, text, id=f"log {name}") for name, text in LOG.items()],
        *[pytest.param(CONTROL_VERSIONS, text, id=f"control {name}") for name, text in CONTROL.items()],
    ],
)
def test_a_statement_fits_the_schema(scripts: tuple[str, ...], statement: str) -> None:
    connection = apsw.Connection("")
    for script in scripts:
        connection.execute(script)
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", _anything(connection, statement)).fetchall()
    assert plan or "INSERT" in statement
    connection.close()


def _anything(connection: apsw.Connection, statement: str) -> tuple[None, ...]:
    """As many NULLs as a statement has parameters."""
    found = apsw.ext.query_info(connection, statement, actions=False)
    return (None,) * len(found.bindings_names)


@pytest.mark.parametrize("name", [*LOG, *CONTROL])
def test_a_statement_is_used(name: str) -> None:
    assert f'"{name}"' in SOURCES

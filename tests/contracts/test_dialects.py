"""Every dialect in the rack holds the laws, and has its folder of payloads."""

import importlib
import pkgutil
from pathlib import Path

import aftersend.dialects
from aftersend.testing.dialects import DialectSuite

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"
NAMES = sorted(module.name for module in pkgutil.iter_modules(aftersend.dialects.__path__))

for _name in NAMES:
    _dialect = importlib.import_module(f"aftersend.dialects.{_name}").Dialect()
    _suite = f"Test{_name.title()}"
    globals()[_suite] = type(_suite, (DialectSuite,), {"dialect": _dialect, "folder": FIXTURES / _name})


def test_every_dialect_has_a_folder_and_every_folder_a_dialect() -> None:
    assert sorted(folder.name for folder in FIXTURES.iterdir()) == NAMES


def test_a_dialect_is_named_like_its_file() -> None:
    assert [importlib.import_module(f"aftersend.dialects.{name}").Dialect.name for name in NAMES] == NAMES

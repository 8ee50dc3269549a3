"""The tree as the tests of the architecture see it: the files that belong to the project."""

from pathlib import Path

import pytest

PLACES = (".ci", "docs", "requirements", "src", "tests", "tools")
CACHES = {"__pycache__", ".hypothesis"}


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """Every file of the project, generated caches left out."""
    top = [path for path in root.iterdir() if path.is_file()]
    deep = [path for place in PLACES for path in (root / place).rglob("*") if path.is_file()]
    return sorted(path for path in top + deep if not CACHES & set(path.parts))


@pytest.fixture(scope="session")
def modules(files: list[Path], root: Path) -> list[Path]:
    """The Python modules of the package."""
    return [path for path in files if path.suffix == ".py" and path.is_relative_to(root / "src")]


@pytest.fixture(scope="session")
def pages(files: list[Path]) -> list[Path]:
    """The pages written for people."""
    return [path for path in files if path.suffix == ".md" and "fixtures" not in path.parts]

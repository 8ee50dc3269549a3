"""Prints the development group of pyproject.toml, one requirement a line, for `make pins`."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
print(*project["dependency-groups"]["dev"], sep="\n")

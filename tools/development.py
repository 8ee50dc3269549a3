"""Prints what working on aftersend needs besides running it, a requirement a line, extras included: for `make pins`."""

import tomllib
from pathlib import Path

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
extras = [item for items in project["project"]["optional-dependencies"].values() for item in items]
print(*project["dependency-groups"]["dev"], *extras, sep="\n")

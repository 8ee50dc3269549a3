"""Who may import whom: the rules in pyproject.toml hold, and breaking one is noticed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_logo=True, no_cache=True))"

BREACHES = {
    "a room that opens onto another room": ("capture/breach.py", "import aftersend.stores", "Rooms open"),
    "a room that uses what stands above it": ("core/breach.py", "import aftersend.contracts", "Rooms open"),
    "a module without a declared place": ("breach.py", "", "Rooms open"),
    "a dialect that knows another": ("dialects/breach.py", "import aftersend.dialects.canonical", "Dialects do not"),
    "a dialect that asks the clock": ("dialects/breach.py", "import time", "Core and dialects"),
    "a noun that opens files": ("core/breach.py", "from pathlib import Path", "Core and dialects"),
    "a dialect that connects": ("dialects/breach.py", "import aiohttp", "Core and dialects"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """What import-linter says of the tree in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200"}
    command = [sys.executable, "-c", LINT]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_every_module_imports_only_what_it_may(root: Path) -> None:
    said = lint(root)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("breach", BREACHES)
def test_a_broken_rule_is_noticed(breach: str, root: Path, tmp_path: Path) -> None:
    file, line, rule = BREACHES[breach]
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    (tmp_path / "src" / "aftersend" / file).write_text(f'"""A breach."""\n\n{line}\n')
    said = lint(tmp_path)
    broken = [text for text in said.stdout.splitlines() if " BROKEN" in text or "not listed" in text]
    assert said.returncode == 1, said.stdout + said.stderr
    assert any(rule in text for text in broken), said.stdout

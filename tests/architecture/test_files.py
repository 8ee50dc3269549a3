"""The files tell nothing of the machine they were made on."""

import re
import subprocess
import sys
from pathlib import Path

PATHS = re.compile(r"(?<![\w./:>-])/(?:home|root|work|Users|opt)/[\w.-]+")
REGISTRIES = re.compile(
    r"pyp[i]\.org|pythonhoste[d]\.org|registry\.npmj[s]|crate[s]\.io|proxy\.golan[g]|jfro[g]|artifactory|devpi|/simple\b"
    r"|--(?:extra-)?index-url[ =]|--find-links[ =]|--trusted-host[ =]"
)


def hits(pattern: re.Pattern[str], files: list[Path]) -> list[str]:
    """Where a pattern stands in the files, this one left out."""
    found = []
    for path in files:
        if path == Path(__file__):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found += [f"{path}:{number}: {match[0]}" for match in pattern.finditer(line)]
    return found


def configured_registries() -> list[str]:
    """Hosts of the package registries that this machine is set up to use."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return re.findall(r"https?://(?:[^/\s'@]*@)?([^/:\s']+)", said)


def test_no_file_names_a_registry(files: list[Path]) -> None:
    assert not hits(REGISTRIES, files)


def test_no_file_names_the_registry_of_this_machine(files: list[Path]) -> None:
    for host in configured_registries():
        assert not hits(re.compile(re.escape(host)), files)


def test_no_file_names_a_folder_of_somebodys_machine(files: list[Path]) -> None:
    assert not hits(PATHS, files)


def test_every_pinned_requirement_has_a_hash(root: Path) -> None:
    for name in ("base", "dev"):
        text = (root / "requirements" / f"{name}.txt").read_text().replace("\\\n", " ")
        pins = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
        loose = [line for line in pins if not re.match(r"[a-z0-9._-]+==\S+ +--hash=sha256:[0-9a-f]{64}", line)]
        assert pins, name
        assert not loose, f"not pinned by hash in {name}.txt: {loose}"


def test_what_is_developed_with_is_what_is_installed(root: Path) -> None:
    base, dev = ((root / "requirements" / f"{name}.txt").read_text() for name in ("base", "dev"))
    pinned = set(re.findall(r"^[a-z0-9._-]+==\S+", base, re.MULTILINE))
    assert pinned <= set(re.findall(r"^[a-z0-9._-]+==\S+", dev, re.MULTILINE))

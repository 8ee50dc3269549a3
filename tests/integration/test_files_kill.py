"""kill -9 while files are made and handed over, and full disks: every event is in exactly one file afterwards.

`AFTERSEND_KILLS=100 pytest tests/integration/test_files_kill.py` kills at random moments more often.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from tests.integration.file_writer import COUNT, PLACES, fill

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("file_writer.py")
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
KILLS = int(os.environ.get("AFTERSEND_KILLS", "3"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data folder `d` full of events and its keys."""
    folder = tmp_path_factory.mktemp("filled")
    asyncio.run(fill(folder / "d"))
    return folder


@pytest.fixture
def place(filled: Path, tmp_path: Path) -> Path:
    """A copy of it, with an empty folder `in`."""
    shutil.copytree(filled, tmp_path / "place")
    (tmp_path / "place" / "in").mkdir()
    return tmp_path / "place"


def tell(place: Path, where: str = "nowhere", number: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the process until it ends."""
    command = [sys.executable, str(SCRIPT), str(place / "d"), str(place / "in"), where, str(number)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def told(target: Path) -> dict[str, bytes]:
    """The files that a consumer sees."""
    return {path.name: path.read_bytes() for path in sorted(target.iterdir()) if path.name[0] != "."}


def check(files: dict[str, bytes]) -> None:
    """Every event is there once, in order over the names of the files."""
    lines = [line for name in sorted(files) for line in files[name].splitlines()]
    found = [msgspec.json.decode(line)["recipient"] for line in lines]
    assert found == [f"r{number}@example.org" for number in range(COUNT)]


@pytest.mark.parametrize("where", PLACES)
def test_a_kill_at_any_step_leaves_every_event_in_one_file(place: Path, where: str) -> None:
    killed = tell(place, where, 2)
    assert killed.returncode == -9, killed
    before = told(place / "in")
    assert (place / "d" / "outbox" / "sub_x").exists()
    again = tell(place)
    assert (again.returncode, again.stdout) == (0, "begun\nall\n"), again
    after = told(place / "in")
    check(after)
    assert before.items() <= after.items(), "a file that a consumer had taken changed"
    assert len(after) == 4
    assert len(before) == {"writing": 1, "finishing": 1, "planned": 1, "put": 2, "noted": 2}[where]
    hidden = [path.name for path in (place / "in").iterdir() if path.name[0] == "."]
    assert not hidden


def test_kills_at_random_moments_leave_every_event_in_one_file(place: Path) -> None:
    seed = random.randrange(1_000_000)
    chance = random.Random(seed)
    command = [sys.executable, str(SCRIPT), str(place / "d"), str(place / "in"), "nowhere", "1", "40"]
    before: dict[str, bytes] = {}
    for _ in range(KILLS):
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"begun\n"
            time.sleep(chance.uniform(0, 0.6 / KILLS))
            child.kill()
        after = told(place / "in")
        assert before.items() <= after.items(), f"seed {seed}: a file changed"
        before = after
    assert len(before) < COUNT // 40, f"seed {seed}: no kill came amid the work"
    assert tell(place).stdout == "begun\nall\n"
    check(told(place / "in"))


# --- full disks

DISK = """
mount -t tmpfs -o size={size} tmpfs "$1" || exit 77
shift
head -c {ballast} /dev/zero > "$1/ballast"
shift
exec "$@"
"""


def can_unshare() -> bool:
    """Whether this user may have a small disk of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_unshare(), reason="this user cannot mount a small disk (unshare --user --mount)")
@pytest.mark.parametrize(
    ("full", "ballast", "said"),
    [
        ("d/outbox", "3850k", "outbox/sub_x: the file cannot be written: no space left on device"),
        ("d/outbox", "3950k", "the disk is nearly full, and what is left of it is for the log"),
        ("in", "3950k", "cannot be written: no space left on device"),
    ],
)
def test_a_full_disk_is_told_in_one_line_and_outlived(place: Path, full: str, ballast: str, said: str) -> None:
    disk = place / full
    disk.mkdir(exist_ok=True)
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", DISK.format(size="4m", ballast=ballast)]
    command += ["sh", str(disk), str(disk), sys.executable, str(SCRIPT), str(place / "d"), str(place / "in"), "x", "1"]
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.PIPE}
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, **pipes) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        line = child.stdout.readline()
        assert line.endswith(said + "\n"), line
        inside = Path(f"/proc/{child.pid}/root{disk}")
        if full == "in":
            assert [path.name for path in inside.iterdir()] == ["ballast"], "half a file is seen"
        (inside / "ballast").unlink()
        while (line := child.stdout.readline()) and line != "all\n":
            assert line.endswith(said + "\n")
        assert line == "all\n"
        check(told(inside if full == "in" else place / "in"))

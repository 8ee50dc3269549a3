"""Child processes: the real server and a bare receiver, and what they cost. Linux only, as are the figures of /proc."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from select import select

from aftersend.core.errors import StoreError

START_SECONDS = 30.0
"""How long a child may take until it says that it is ready."""
STOP_SECONDS = 20.0
"""How long it may take to end; then it is killed."""

_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """A process that was started here."""

    def __init__(self, process: subprocess.Popen[str], ready: str) -> None:
        self._process = process
        self.ready = ready
        """The line it said when it was ready."""

    @property
    def port(self) -> int:
        """The port in the line it said."""
        return int(self.ready.split(" with ")[0].rsplit(":", 1)[-1])

    def cpu_seconds(self) -> float:
        """What all its threads have used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> int:
        """Bytes that it holds in memory now."""
        text = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0]) * 1024

    def pin(self, core: int) -> None:
        """Keep it to one core, where there are several."""
        pin(core, self._process.pid)

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None


def cores() -> list[int]:
    """The cores that this process may use."""
    return sorted(os.sched_getaffinity(0))


def pin(core: int, pid: int = 0) -> None:
    """Keep a process (this one) to the first or second core, where there are two: threads that begin later too."""
    if len(_AT_START) > 1:
        for thread in Path(f"/proc/{pid or 'self'}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {_AT_START[core % len(_AT_START)]})


_AT_START = cores()


@contextmanager
def unpinned() -> Iterator[None]:
    """Whatever is pinned within, this process has all its cores again afterwards."""
    try:
        yield
    finally:
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), _AT_START)


@contextmanager
def server(data: Path, *options: str) -> Iterator[Child]:
    """`aftersend serve` on a free port; ended in the way it should be. Raises StoreError where it does not start."""
    arguments = ["serve", "--data", str(data), "--listen", "127.0.0.1:0", "--egress-allow", "127.0.0.0/8", *options]
    with _running([sys.executable, "-m", "aftersend", *arguments]) as child:
        yield child


@contextmanager
def receiver() -> Iterator[Child]:
    """A receiver that takes everything at once."""
    with _running([sys.executable, "-m", "aftersend.simulation.receiver"]) as child:
        yield child


@contextmanager
def _running(command: list[str]) -> Iterator[Child]:
    # A group of its own: Ctrl-C reaches us, and we end it.
    process = subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield Child(process, _first_line(process, command))
    finally:
        _end(process)


def _first_line(process: subprocess.Popen[str], command: list[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline() if select([process.stdout], [], [], START_SECONDS)[0] else ""
    if not line:
        raise StoreError(f"a child process did not start: {' '.join(command[1:4])}")
    return line.strip()


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()

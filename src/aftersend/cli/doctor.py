"""`aftersend doctor`: what is wrong with an instance, in plain words."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from aftersend import __version__
from aftersend.cli import DONE, FAILED
from aftersend.cli.client import SOCKET, connected
from aftersend.cli.output import print_json, print_table, progress, say
from aftersend.cli.parameters import DATA, AsJson, DataFolder, Target
from aftersend.config import Config, load
from aftersend.core.errors import AftersendError
from aftersend.core.timestamps import DAY, format_time, parse_time

SPACE_WANTED = 1_000_000_000
"""Bytes free on the disk below which the doctor warns."""
_LIBRARIES = ("aiohttp", "apsw", "cryptography", "cyclopts", "lxml", "msgspec", "starlette", "uvicorn", "uvloop")
_BUILT = parse_time("2026-01-01T00:00:00Z")
"""No clock can be right that is before this."""


class Finding(msgspec.Struct, frozen=True):
    """What one look showed."""

    check: str
    level: str
    """ok, warning or problem."""
    detail: str


def doctor(*, data: DataFolder = DATA, json: AsJson = False) -> int:
    """Look an instance over, running or not; the exit code is 1 where there is a problem."""
    findings = list(_look_over(data))
    problems = sum(finding.level == "problem" for finding in findings)
    if json:
        print_json({"problems": problems, "checks": findings})
    else:
        print_table(("check", "level", "detail"), [(item.check, item.level, item.detail) for item in findings])
        say(f"{problems} problem{'s' * (problems != 1)} found." if problems else "Nothing is wrong.")
    return FAILED if problems else DONE


def _look_over(data: Path) -> Iterator[Finding]:
    yield _versions()
    yield _clock(data)
    if not data.is_dir():
        yield Finding("folder", "problem", f"there is no folder {data}; `aftersend init --data {data}` makes one")
        return
    yield from _modes(data)
    yield _space(data)
    config = None
    try:
        config = load(data, os.environ, {})
        yield Finding("settings", "ok", "aftersend.toml and the environment can be read")
    except AftersendError as error:
        yield Finding("settings", "problem", str(error))
    yield _keyring(data, config or Config())
    yield _lock(data)
    yield from _files(data)
    if config is not None:
        yield from _instance(data)


def _versions() -> Finding:
    import apsw

    found = ", ".join(f"{name} {metadata.version(name)}" for name in _LIBRARIES)
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "versions", "ok", f"aftersend {__version__}, Python {python}, SQLite {apsw.sqlite_lib_version()}, {found}"
    )


def _clock(data: Path) -> Finding:
    now = time.time_ns()
    newest = max((path.stat().st_mtime_ns for path in data.glob("log/*.db*")), default=0)
    if now < _BUILT:
        return Finding(
            "clock", "problem", f"it says {format_time(now)}, which has passed; set it, events get wrong times"
        )
    if newest > now + DAY // 24:
        return Finding("clock", "problem", f"it says {format_time(now)}, but the log was written later; set it right")
    return Finding("clock", "ok", format_time(now - now % 1_000_000_000))


def _modes(data: Path) -> Iterator[Finding]:
    wide = [path for path in (data, *data.rglob("*.db"), data / SOCKET) if path.exists() and _mode(path) & 0o077]
    for path in wide:
        wanted = "700" if path.is_dir() else "600"
        yield Finding("modes", "problem", f"others may reach {path} (mode {_mode(path):04o}): chmod {wanted} {path}")
    if not os.access(data, os.W_OK | os.X_OK):
        yield Finding("modes", "problem", f"this user may not write to {data}")
    elif not wide:
        yield Finding("modes", "ok", f"{data} is for its owner alone")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _space(data: Path) -> Finding:
    free = shutil.disk_usage(data).free
    said = f"{free / 1e9:.1f} GB free"
    if free < SPACE_WANTED:
        return Finding(
            "disk", "problem" if free < SPACE_WANTED // 10 else "warning", f"{said}; free some, or add a disk"
        )
    return Finding("disk", "ok", said)


def _keyring(data: Path, config: Config) -> Finding:
    from aftersend.keyring import Keyring

    path = Path(config.keyring_file) if config.keyring_file else data / "keyring.json"
    try:
        keyring = Keyring.open(path)
    except AftersendError as error:
        return Finding("keyring", "problem", str(error))
    where = "; back it up apart from the data" if path.parent == data else ""
    return Finding("keyring", "ok", f"{path} holds {len(keyring.keys)} key(s), {keyring.active_id} is used{where}")


def _lock(data: Path) -> Finding:
    try:
        file = os.open(data / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return Finding("process", "ok", "none has ever held the folder")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return Finding("process", "ok", "none holds the folder: the instance does not run")
    except BlockingIOError:
        holder = os.pread(file, 20, 0).decode("ascii", "replace").strip() or "unknown"
        return Finding("process", "ok", f"process {holder} holds the folder")
    finally:
        os.close(file)


def _files(data: Path) -> Iterator[Finding]:
    paths = sorted(data.rglob("*.db"))
    if not paths:
        yield Finding("files", "problem", f"{data} holds no store; `aftersend init --data {data}` makes one")
    broken, done = 0, 0
    with progress("reading", sum(path.stat().st_size for path in paths)) as bar:
        for path in paths:
            fault = _fault(path)
            if fault:
                broken += 1
                yield Finding("files", "problem", f"{path}: {fault}; put it back from the backup")
            done += path.stat().st_size
            bar(done, path.name)
    if paths and not broken:
        yield Finding("files", "ok", f"{len(paths)} files, {done / 1e6:.1f} MB, all readable")


def _fault(path: Path) -> str:
    """What SQLite says is wrong with a file, or nothing."""
    import apsw

    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            said = str(connection.execute("PRAGMA quick_check(1)").get)
        finally:
            connection.close()
    except apsw.Error as error:
        return str(error)
    return "" if said == "ok" else said


def _instance(data: Path) -> Iterator[Finding]:
    """What the instance itself says: the running one, or else the one that can be opened."""
    try:
        with connected(Target(data)) as client:
            ready = client.send("GET", "/readyz")
            how = "answers at its socket" if client.running else "can be opened"
            if ready.status == 200:
                yield Finding("instance", "ok", f"it {how} and is ready")
            else:
                reason = msgspec.json.decode(ready.body).get("reason")
                yield Finding("instance", "problem", f"it {how}, but is not ready: {reason}")
            yield from _subscriptions(client.call)
            yield _quarantine(client.call)
    except AftersendError as error:
        yield Finding("instance", "problem", str(error))


def _subscriptions(call: Callable[..., Any]) -> Iterator[Finding]:
    found: list[dict[str, Any]] = call("GET", "/v1/subscriptions")
    fine = 0
    for item in found:
        name, standing = f"subscription {item['name']}", item["standing"]
        if item["state"] in ("disabled", "gap"):
            advice = f"; `aftersend subscriptions enable {item['name']}` goes on"
            yield Finding(name, "problem", f"{item['state']}: {item['reason']}{advice}")
        elif standing.get("failing_since"):
            detail = standing.get("detail") or "no answer"
            since = standing["failing_since"].partition(".")[0].removesuffix("Z") + "Z"
            advice = f"; `aftersend subscriptions probe {item['name']}` tries it"
            yield Finding(name, "problem", f"failing since {since}: {detail}{advice}")
        elif item["state"] == "paused":
            yield Finding(name, "warning", f"paused, {standing.get('behind', 0)} events behind")
        else:
            fine += 1
    if not found:
        yield Finding("subscriptions", "ok", "none yet: `aftersend subscriptions add NAME --url https://…` adds one")
        return
    yield Finding(
        "subscriptions", "ok" if fine == len(found) else "warning", f"{fine} of {len(found)} are active and well"
    )


def _quarantine(call: Callable[..., Any]) -> Finding:
    found = call("GET", "/v1/quarantine", limit=1)
    if found:
        return Finding("quarantine", "warning", "something could not be read: `aftersend quarantine list` shows what")
    return Finding("quarantine", "ok", "empty")

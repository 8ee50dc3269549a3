"""`aftersend init` and `aftersend serve`: the first set-up, and everything in one process."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from cyclopts import Parameter

from aftersend.cli import DONE
from aftersend.cli.output import print_json, say
from aftersend.cli.parameters import DATA, AsJson, DataFolder
from aftersend.config import FILE_NAME, Config, Setting, load, settings, write_default
from aftersend.core.errors import AftersendError, ConfigurationError
from aftersend.core.event import DEFAULT_TENANT

if TYPE_CHECKING:
    Settings = dict[str, Any]
else:

    def _type(setting: Setting) -> Any:
        """A setting as an option; the defaults stay with `Config`, since what is not given may stand elsewhere."""
        many = isinstance(setting.default, tuple)
        kind = tuple[str, ...] if many else type(setting.default)
        return Annotated[kind, Parameter(help=setting.help, consume_multiple=many, show_default=False)]

    Settings = TypedDict("Settings", {setting.name: _type(setting) for setting in settings()}, total=False)

NONE_GIVEN: Settings = {}
_MARKS = ("control.db", "keyring.json", FILE_NAME)


def init(*, data: DataFolder = DATA, json: AsJson = False) -> int:
    """Make a data folder with its keyring, its settings and an admin key, which is shown this once."""
    if any((data / name).exists() for name in _MARKS):
        raise AftersendError(f"{data} is set up already; name another folder, or `aftersend doctor --data {data}`")
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        data.chmod(0o700)
    except OSError as error:
        raise AftersendError(f"{data} cannot be made: {(error.strerror or str(error)).lower()}") from None
    config = load(data, os.environ, {})
    keyring = Path(config.keyring_file) if config.keyring_file else data / "keyring.json"
    key = _set_up(data, config)
    if json:
        print_json({"admin_key": key, "data": str(data.resolve()), "keyring": str(keyring.resolve())})
        return DONE
    say(f"The data folder {data} is ready. This admin key is not shown again:")
    say(key)
    say(f"Back up {keyring} apart from the data: without it secrets and links cannot be read any more.")
    say(f"Go on with: aftersend serve --data {data}")
    return DONE


def _set_up(data: Path, config: Config) -> str:
    """Make the store and write the settings; returns the admin key. Leaves nothing behind where it fails."""
    import asyncio

    from aftersend.wiring import opened

    async def make() -> str:
        async with opened(data, config, create=True) as instance:
            _, token = await instance.access.create(DEFAULT_TENANT, "made by init", ("admin",))
            return token

    was_empty = not any(data.iterdir())
    try:
        key = asyncio.run(make())
        write_default(data)
    except BaseException:
        if was_empty:
            shutil.rmtree(data, ignore_errors=True)
        raise
    return key


def serve(
    *,
    data: DataFolder = DATA,
    given: Annotated[Settings, Parameter(name="*")] = NONE_GIVEN,
    without_old_keys: Annotated[
        bool, Parameter(show_default=False, help="Start although the keyring lacks a key that was used before.")
    ] = False,
) -> int:
    """Run everything in one process, until SIGTERM or Ctrl-C; prints a line when requests are answered.

    Each setting may also stand in aftersend.toml in the data folder, or in the environment (AFTERSEND_LISTEN, …).
    """
    if not data.is_dir():
        raise AftersendError(f"there is no data folder {data}; `aftersend init --data {data}` makes one")
    config = load(data, os.environ, {name: _split(value) for name, value in given.items()})
    import uvloop

    from aftersend.wiring import serve as run

    _log_to_standard_error(config.log_level)
    try:
        uvloop.run(run(data, config, ready=_ready, without_old_keys=without_old_keys))
    except ConfigurationError as error:
        raise AftersendError(str(error)) from None
    return DONE


def _split(value: Any) -> Any:
    """Lists may be told apart by commas too, as in the environment."""
    if isinstance(value, tuple):
        return [item for text in value for item in text.split(",") if item]
    return value


def _ready(line: str) -> None:
    import sys

    say(line)
    sys.stdout.flush()


def _log_to_standard_error(level: str) -> None:
    import logging

    known = logging.getLevelNamesMapping().get(level.upper())
    if known is None:
        raise ConfigurationError(f"log_level is debug, info, warning or error; not {level!r}")
    logging.basicConfig(level=known, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

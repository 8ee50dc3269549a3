"""The command line: what is typed, and how it ends.

A command is a function that returns its exit code (None: 0); its module is imported when it is typed. To add one,
write the function and a line in `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from aftersend import __version__
from aftersend.core.errors import AftersendError, UsageError

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
"""Exit codes."""
INTERRUPTED, BROKEN_PIPE = 130, 141
"""128 and the number of the signal, as shells have it."""

COMMANDS: dict[str, dict[str, str]] = {
    "Set up and run": {
        "init": "instance:init",
        "serve": "instance:serve",
        "doctor": "doctor:doctor",
    },
    "Events": {
        "convert": "conversion:convert",
        "ingest": "ingestion:ingest",
        "tail": "events:tail",
        "quarantine": "records:quarantine",
    },
    "What is registered": {
        "subscriptions": "subscriptions:subscriptions",
        "sources": "records:sources",
        "tenants": "records:tenants",
        "domains": "records:domains",
        "keys": "records:keys",
    },
    "Words and forms": {
        "types": "tables:types",
        "schema": "tables:schema",
        "check": "receivers:check",
    },
}
"""Every command by group, each with the module of this package and the function (or group of commands) in it."""

EPILOGUE = """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.
Every setting can also stand in aftersend.toml or in the environment (AFTERSEND_…)."""


def make_app() -> App:
    """All commands; none of their modules is imported yet."""
    app = App(
        name="aftersend",
        help="What happens to a message after it was sent: one stream of events, kept safely, told in any dialect.",
        help_epilogue=EPILOGUE,
        help_format="plaintext",
        version=__version__,
        version_flags=["--version"],
        default_parameter=Parameter(negative=()),
        suppress_keyboard_interrupt=False,
    )
    for number, (title, commands) in enumerate(COMMANDS.items()):
        group = Group(title, sort_key=number)
        for name, place in commands.items():
            app.command(f"aftersend.cli.{place}", name=name, group=group)
    return app


def run(arguments: Sequence[str]) -> int:
    """Do what was typed; returns the exit code. Every error is one line on standard error."""
    try:
        result = make_app()(
            list(arguments), exit_on_error=False, print_error=False, result_action="return_value", verbose=False
        )
        sys.stdout.flush()
    except CycloptsError as error:
        return told(f"{error}; `aftersend {_typed(error)}--help` shows how", USAGE)
    except UsageError as error:
        return told(str(error), USAGE)
    except AftersendError as error:
        return told(str(error), FAILED)
    except KeyboardInterrupt:
        return told("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # What is still buffered must not be written, and complained about, at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return told(where + (error.strerror or str(error)).lower(), FAILED)
    except Exception as error:
        if "AFTERSEND_DEBUG" in os.environ:
            raise
        return told(f"a fault of ours, {error!r}; AFTERSEND_DEBUG=1 shows where, please report it", FAILED)
    return result if isinstance(result, int) else DONE


def _typed(error: CycloptsError) -> str:
    return "".join(f"{name} " for name in error.command_chain or ())


def told(message: str, code: int) -> int:
    """Say one line on standard error; returns the code."""
    line = " ".join(message.split()).replace(".; ", "; ")
    line = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    try:
        sys.stderr.write(f"aftersend: {line}\n")
    except BrokenPipeError:
        pass
    return code


def main() -> NoReturn:
    """The program."""
    sys.exit(run(sys.argv[1:]))

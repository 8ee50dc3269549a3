"""The command line: what is typed, and how it ends.

A command is a function that returns its exit code (None: 0); its module is imported when it is typed. To add one,
write the function and an entry in `COMMANDS`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from cyclopts import App, CycloptsError, Group, Parameter

from aftersend import __version__
from aftersend.core.errors import AftersendError, UsageError

DONE, FAILED, USAGE, PARTLY = 0, 1, 2, 3
"""Exit codes."""
INTERRUPTED, BROKEN_PIPE = 130, 141
"""128 and the number of the signal, as shells have it."""


class Command(NamedTuple):
    """Where a command is, and what the list of all says of it."""

    place: str
    """A module of this package, and the function (or group of commands) in it."""
    summary: str
    """As its own help begins; it stands here so that the list needs no module."""


COMMANDS: dict[str, dict[str, Command]] = {
    "See it": {
        "demo": Command("demo:demo", "Play a campaign through a real server, with nothing set up."),
        "bench": Command("bench:bench", "Measure this machine."),
    },
    "Set up and run": {
        "init": Command("instance:init", "Make a data folder with its keyring, its settings and an admin key."),
        "serve": Command("instance:serve", "Run everything in one process, until SIGTERM or Ctrl-C."),
        "doctor": Command("doctor:doctor", "Look an instance over, and say what is wrong in plain words."),
    },
    "Events": {
        "convert": Command(
            "conversion:convert", "Read events in one dialect and tell them in another; needs no store."
        ),
        "ingest": Command("ingestion:ingest", "Take files into the log; safe to repeat."),
        "rewrite": Command("rewriting:rewrite", "Links, pixel and one-click unsubscribe into a message."),
        "links": Command(
            "links:links", "Make a tracked address for a message that is not rewritten, as a text message."
        ),
        "tail": Command("events:tail", "Show the newest events, and those that come."),
        "reclassify": Command("verdicts:reclassify", "Judge hits anew, after a change of the rules."),
        "quarantine": Command("records:quarantine", "What could not be read, kept with the reason."),
    },
    "What is registered": {
        "subscriptions": Command("subscriptions:subscriptions", "Who gets which events, in which dialect."),
        "sources": Command("records:sources", "Ways in for vendors: each is an address that a vendor posts to."),
        "tenants": Command("records:tenants", "Customers of this instance; nothing is shared between two."),
        "domains": Command("records:domains", "Hosts that serve only tracking links."),
        "sites": Command("records:sites", "Web sites whose pages tell what happens on them (aftersend.js)."),
        "stops": Command("people:stops", "Links that lead nowhere any more."),
        "people": Command("people:people", "How much each person lets us keep of what they do."),
        "keys": Command("records:keys", "Credentials for the API."),
    },
    "Words and forms": {
        "types": Command("tables:types", "What can happen, and each dialect's words for it."),
        "transports": Command("transports:transports", "Ways for events to leave, and their options."),
        "schema": Command("tables:schema", "JSON Schemas of the events that a dialect tells."),
        "check": Command("receivers:check", "Find out what a receiver of webhooks gets wrong."),
    },
}
"""Every command, by group, in the order of the list."""

EPILOGUE = """Exit codes: 0 done, 1 failed, 2 wrong usage, 3 partly done.
Every setting can also stand in aftersend.toml or in the environment (AFTERSEND_…)."""


def make_app(*, listing: bool = False) -> App:
    """All commands; none of their modules is imported yet. `listing`: with their summaries in place of their help."""
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
        for order, (name, command) in enumerate(commands.items()):
            place = f"aftersend.cli.{command.place}"
            app.command(place, name=name, group=group, sort_key=order, help=command.summary if listing else None)
    return app


def run(arguments: Sequence[str]) -> int:
    """Do what was typed; returns the exit code. Every error is one line on standard error."""
    try:
        app = make_app(listing=not arguments or arguments[0] in ("-h", "--help"))
        result = app(
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

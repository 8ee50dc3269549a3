"""`aftersend transports`: the ways for events to leave, and their options."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from aftersend.cli.output import hint, print_json, print_table, say
from aftersend.cli.parameters import AsJson
from aftersend.core.options import describe
from aftersend.rack import find_transport, transport_names


def transports(
    name: Annotated[str, Parameter(show_default=False, help="Only this one, with its options.")] = "",
    /,
    *,
    json: AsJson = False,
) -> None:
    """Ways for events to leave, and the options of each: what `subscriptions add --setting NAME=VALUE` takes."""
    if name:
        _show(name, json)
    elif json:
        print_json([_described(each) for each in transport_names()])
    else:
        rows = [(each, _schemes(each), _caption(each)) for each in transport_names()]
        print_table(("transport", "URLs", "what it is"), rows)
        hint("`aftersend transports NAME` shows its options.")


_SWITCHES = {
    "url": "--url",
    "timeout": "--timeout",
    "headers": "--header",
    "signing_secrets": "--secret",
    "acknowledgement": "--acknowledge-status",
}
"""Options that every subscription has, and that are no settings."""


def _show(name: str, json: bool) -> None:
    if json:
        print_json(_described(name))
        return
    say(_caption(name))
    if _schemes(name):
        say(f"URLs begin with {_schemes(name)}")
    options = describe(find_transport(name))
    print_table(("option", "what it is", "default", "what it does"), [_row(option) for option in options])
    hint("Each is given as --setting NAME=VALUE, but for those with a switch of their own.")


def _row(option: dict[str, Any]) -> tuple[str, str, str, str]:
    kind = option["type"] + (", secret" if option["secret"] else "") + (", needed" if option["wanted"] else "")
    default = option["default"]
    if isinstance(default, dict):
        default = default.get("statuses")
    shown = "" if default in (None, "", (), []) else str(default)
    return _SWITCHES.get(option["name"], option["name"]), kind, shown, option["help"]


def _described(name: str) -> dict[str, Any]:
    plugin = find_transport(name)
    return {"name": name, "help": _caption(name), "schemes": plugin.schemes, "options": describe(plugin)}


def _schemes(name: str) -> str:
    return ", ".join(f"{scheme}://" for scheme in find_transport(name).schemes)


def _caption(name: str) -> str:
    return (find_transport(name).__doc__ or "").strip().split("\n")[0]

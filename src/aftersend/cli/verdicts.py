"""`aftersend reclassify`: hits that are kept, judged by the rules as they are now."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from aftersend.cli.client import Client, connected
from aftersend.cli.output import hint, print_json, print_table, say, waiting
from aftersend.cli.parameters import HERE, AsJson, Target
from aftersend.core.errors import AftersendError


def reclassify(
    *,
    since: Annotated[str, Parameter(show_default=False, help="Hits received from here on (RFC 3339).")],
    until: Annotated[
        int | None, Parameter(show_default=False, help="The position that was shown, to apply just what was shown.")
    ] = None,
    apply: Annotated[
        bool, Parameter(show_default=False, help="Tell the difference to the log, and so to subscriptions.")
    ] = False,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Judge hits anew after a change of the rules or networks: the difference is shown, and with --apply told."""
    with connected(target) as client:
        found = _asked(client, since, until, apply=False)
        if apply and found["changes"]:
            if not json:
                _show(found)
            found = _asked(client, since, found["until"], apply=True)
    if json:
        print_json(found)
    elif found["applied"]:
        say(f"Applied: each of these hits has an event.reclassified in the log ({found['ruleset']}).")
    else:
        _show(found)
        if found["changes"]:
            hint(f"Nothing is changed yet: aftersend reclassify --since {since} --until {found['until']} --apply")


def _asked(client: Client, since: str, until: int | None, *, apply: bool) -> dict[str, Any]:
    fields = {"since": since, "until": until, "apply": apply}
    with waiting("judging hits anew"):
        found: dict[str, Any] = client.call("POST", "/v1/reclassify", fields)
    if "detail" in found:
        raise AftersendError(found["detail"])
    return found


def _show(found: dict[str, Any]) -> None:
    say(f"{found['hits']} hits were judged by {found['ruleset']}.")
    if not found["changes"]:
        say("All of them stand as they are.")
        return
    rows = [(change["was"], change["becomes"], change["hits"]) for change in found["changes"]]
    print_table(("was", "becomes", "hits"), rows)

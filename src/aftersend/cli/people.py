"""`aftersend stops | people`: links that lead nowhere any more, and how much a person lets us keep."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import App, Parameter

from aftersend.cli.client import connected
from aftersend.cli.output import print_json, say
from aftersend.cli.parameters import HERE, PLAIN, AsJson, Target
from aftersend.cli.records import show_list

stops = App(name="stops", default_parameter=PLAIN, help="Links that lead nowhere any more.")
people = App(name="people", default_parameter=PLAIN, help="How much each person lets us keep of what they do.")

Stopped = Annotated[
    str, Parameter(name="NAME", help="`campaign/spring`, `message/<1@shop.example>` or `domain/old.example`.")
]
Person = Annotated[str, Parameter(name="PERSON", help="An address, a number, or the sender's own id.")]


# Stops


@stops.command(name="add")
def add_stop(name: Stopped, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """Have the links of a campaign or a message, or those to a domain, lead nowhere."""
    with connected(target) as client:
        made = client.call("POST", "/v1/stops", {"name": name})
    if json:
        print_json(made)
    else:
        say(f"Links of {made['name']} are answered with a page from now on.")


@stops.command(name="list")
def list_stops(*, target: Target = HERE, json: AsJson = False) -> None:
    """What is stopped."""
    with connected(target) as client:
        found = client.call("GET", "/v1/stops")
    empty = "Nothing is stopped: every link leads where it should. Stop some: aftersend stops add campaign/spring"
    show_list(found, ("name", "tenant", "created_at"), json, empty)


@stops.command(name="remove")
def remove_stop(name: Stopped, /, *, target: Target = HERE) -> None:
    """Let links lead on again."""
    with connected(target) as client:
        client.call("DELETE", f"/v1/stops/{quote(name, '')}")
    say(f"Links of {name} lead on again.")


# People


@people.command(name="show")
def show_person(person: Person, /, *, target: Target = HERE, json: AsJson = False) -> None:
    """How much a person lets us keep."""
    with connected(target) as client:
        _show(client.call("GET", "/v1/people", person=person), json)


@people.command(name="set")
def set_person(
    person: Person,
    level: Annotated[
        Literal["none", "anonymous", "full"],
        Parameter(name="LEVEL", help="nothing, type with hour, campaign and link, or everything."),
    ],
    /,
    *,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Change how much a person lets us keep; it holds for mail that was sent already too."""
    with connected(target) as client:
        _show(client.call("PUT", "/v1/people", {"person": person, "level": level}), json)


def _show(found: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        say(f"{found['person']}: {found['level']}, {_MEANING[found['level']]}")


_MEANING = {
    "none": "nothing is kept of what they open and follow",
    "anonymous": "of what they open and follow, type, hour, campaign and link are kept",
    "full": "everything is kept",
}

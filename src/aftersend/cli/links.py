"""`aftersend links`: a tracked address for a message that is not rewritten."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from aftersend.cli.client import connected
from aftersend.cli.output import print_json, say
from aftersend.cli.parameters import HERE, AsJson, Target


def links(
    address: Annotated[str, Parameter(name="ADDRESS", show_default=False, help="Where a click leads.")] = "",
    /,
    *,
    purpose: Annotated[
        Literal["click", "unsubscribe", "confirm", "preferences"], Parameter(help="What the address is for.")
    ] = "click",
    recipient: Annotated[str, Parameter(show_default=False, help="Whose message it stands in.")] = "",
    message_id: Annotated[str, Parameter(show_default=False, help="The message's id.")] = "",
    campaign_id: Annotated[str, Parameter(show_default=False, help="The campaign's id.")] = "",
    list_id: Annotated[str, Parameter(show_default=False, help="The list's id.")] = "",
    channel: Annotated[str, Parameter(show_default=False, help="With --short: what kind of message, as sms.")] = "",
    level: Annotated[Literal["none", "anonymous", "full"], Parameter(help="The most that may be kept.")] = "full",
    domain: Annotated[
        str, Parameter(show_default=False, help="The tracking domain; can be left out if it is one.")
    ] = "",
    short: Annotated[bool, Parameter(show_default=False, help="12 characters in the place of the token.")] = False,
    target: Target = HERE,
    json: AsJson = False,
) -> None:
    """Make a tracked address for a message that is not rewritten, as a text message."""
    fields = {"target": address, "purpose": purpose, "recipient": recipient, "message_id": message_id, "level": level}
    fields |= {"campaign_id": campaign_id, "list_id": list_id, "channel": channel, "domain": domain}
    asked = {name: value for name, value in fields.items() if value}
    with connected(target) as client:
        made = client.call("POST", "/v1/links", {**asked, "short": short})
    if json:
        print_json(made)
    else:
        say(made["url"])

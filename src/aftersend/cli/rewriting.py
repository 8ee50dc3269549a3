"""`aftersend rewrite`: links, pixel and one-click unsubscribe into a message."""

from __future__ import annotations

import json as json_
import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from aftersend.cli import DONE
from aftersend.cli.client import check, connected
from aftersend.cli.output import hint
from aftersend.cli.parameters import HERE, Target
from aftersend.core.errors import UsageError

REPORT_HEADER = "aftersend-report"
MESSAGE_LIMIT = 20_000_000
"""Bytes of a message; the API takes no larger body."""

Text = Annotated[str, Parameter(show_default=False)]


def rewrite(
    *,
    target: Target = HERE,
    domain: Annotated[
        str, Parameter(show_default=False, help="The tracking domain; needed where the tenant has several.")
    ] = "",
    recipient: Annotated[Text, Parameter(help="Whom it is for; without it X-Aftersend-Recipient, or To.")] = "",
    message_id: Annotated[Text, Parameter(help="Its id; without it X-Aftersend-Message, or Message-ID.")] = "",
    campaign_id: Annotated[Text, Parameter(help="Its campaign; without it X-Aftersend-Campaign.")] = "",
    list_id: Annotated[Text, Parameter(help="Its list; without it X-Aftersend-List.")] = "",
    level: Annotated[
        Literal["none", "anonymous", "full"], Parameter(help="The most that is tracked; the message can lower it.")
    ] = "full",
    text: Annotated[bool, Parameter(show_default=False, help="Links of the text part too.")] = False,
    office: Annotated[
        bool, Parameter(show_default=False, help="Links in conditional comments too, which only Outlook shows.")
    ] = False,
    top: Annotated[bool, Parameter(show_default=False, help="A pixel at the top too.")] = False,
    no_clicks: Annotated[bool, Parameter(show_default=False, help="Leave links alone.")] = False,
    no_pixel: Annotated[bool, Parameter(show_default=False, help="No pixel at the bottom.")] = False,
    reading: Annotated[
        bool, Parameter(show_default=False, help="A picture that measures how long it stays open; ask people first.")
    ] = False,
    no_unsubscribe: Annotated[bool, Parameter(show_default=False, help="No List-Unsubscribe.")] = False,
    json: Annotated[
        bool, Parameter(name="--json", show_default=False, help="The report as a line of JSON on standard error.")
    ] = False,
) -> int:
    """Read a message on standard input and write it, ready to be signed and sent, to standard output.

    Outside links, pixels and header fields not one byte changes. Warnings go to standard error.
    """
    message = sys.stdin.buffer.read(MESSAGE_LIMIT + 1)
    if not message or len(message) > MESSAGE_LIMIT:
        raise UsageError(f"standard input must be one message, of at most {MESSAGE_LIMIT // 1_000_000} MB")
    wishes = {"domain": domain, "recipient": recipient, "message_id": message_id, "campaign_id": campaign_id}
    wishes |= {"list_id": list_id, "level": level}
    flags = {"text": text, "office": office, "top": top, "reading": reading, "clicks": not no_clicks}
    flags |= {"bottom": not no_pixel, "unsubscribe": not no_unsubscribe}
    wishes |= {name: "true" if flag else "false" for name, flag in flags.items()}
    with connected(target) as client:
        reply = client.send("POST", "/v1/rewrite", message, {"content-type": "message/rfc822"}, **wishes)
    check(reply)
    sys.stdout.buffer.write(reply.body)
    sys.stdout.buffer.flush()
    _tell(reply.headers.get(REPORT_HEADER, "{}"), json)
    return DONE


def _tell(report: str, as_json: bool) -> None:
    """What was done, on standard error: as it came, or the warnings in words."""
    if as_json:
        hint(report)
        return
    from aftersend.capture.plan import NOTICES

    found = json_.loads(report)
    for code in found.get("warnings", []):
        hint(f"aftersend: {NOTICES.get(code, code)}")
    for reason, number in found.get("skipped", {}).items():
        if reason in ("too_long", "too_many", "unsafe", "charset"):
            hint(f"aftersend: {number} links were left alone: {reason}")

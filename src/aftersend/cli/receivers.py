"""`aftersend check`: what a receiver of webhooks gets wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from aftersend.cli import DONE, FAILED
from aftersend.cli.output import print_json, print_table, say
from aftersend.cli.parameters import AsJson, EgressAllow
from aftersend.rack import find_dialect

if TYPE_CHECKING:
    from aftersend.testing.receiver import Finding


def check(
    url: str,
    /,
    *,
    secret: Annotated[
        tuple[str, ...],
        Parameter(env_var="AFTERSEND_CHECK_SECRET", show_default=False, help="What the receiver verifies with."),
    ] = (),
    dialect: Annotated[str, Parameter(help="What the receiver understands.")] = "canonical",
    timeout: Annotated[float, Parameter(help="Seconds for one answer.")] = 15.0,
    egress_allow: EgressAllow = (),
    json: AsJson = False,
) -> int:
    """Send a receiver what it meets sooner or later, and say what it gets wrong.

    Repeats, forgeries, old requests, new fields, large batches. The events are marked as tests. Whether a repeat was
    counted twice cannot be seen from outside.
    """
    findings = asyncio.run(_findings(url, secret, dialect, timeout, egress_allow))
    wrong = sum(finding.level == "error" for finding in findings)
    if json:
        print_json(findings)
    else:
        print_table(("check", "level", "detail"), [(item.check, item.level, item.detail) for item in findings])
        say(f"{wrong} of {len(findings)} checks found an error." if wrong else "Nothing is wrong with this receiver.")
    return FAILED if wrong else DONE


async def _findings(
    url: str, secrets: Sequence[str], dialect: str, timeout: float, allow: tuple[str, ...]
) -> list[Finding]:
    from aftersend.egress import Egress
    from aftersend.testing.receiver import check as check_receiver
    from aftersend.transports.http import HttpClient

    speaker, form = find_dialect(dialect)
    client = HttpClient(Egress.read(allow, (), ()))
    try:
        return await check_receiver(client.poster(url, timeout), speaker, time.time_ns, secrets, form)
    finally:
        await client.close()

"""The doors of rewriting: what the relay, the API and the command line share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta, Struct, structs

from aftersend.capture.links import Links
from aftersend.capture.plan import Plan, Rewritten, Sign
from aftersend.capture.rewrite import rewrite
from aftersend.capture.tokens import address
from aftersend.core.consent import Level
from aftersend.core.errors import UsageError
from aftersend.core.registry import Domain
from aftersend.core.relay import RelaySettings

REPORT_HEADER = "Aftersend-Report"

Text = Annotated[str, Meta(max_length=500)]


class Way(NamedTuple):
    """Whose mail is rewritten, and with whose addresses."""

    tenant: int
    """As links name it; so is the domain."""
    domain: int
    own_hosts: frozenset[str]
    """Every tracking domain of the instance, in lower case."""
    sign: Sign
    level_of: Callable[[str], Level] = lambda person: Level.FULL
    """How much a person lets be tracked. Raises StoreError."""


Ways = Callable[[str, str], Way]
"""From a tenant and a tracking domain, or nothing for its only one, by their names. Raises UsageError."""


_RELAY_OPTIONS = ("clicks", "text", "office", "top", "bottom", "reading", "unsubscribe")


class Choices(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may be chosen for a message: in the query of `POST /v1/rewrite`, as options of `aftersend rewrite`."""

    domain: Text = ""
    """The tracking domain; it can be left out where the tenant has one."""
    level: str | None = None
    clicks: bool | None = None
    text: bool | None = None
    office: bool | None = None
    top: bool | None = None
    bottom: bool | None = None
    reading: bool | None = None
    unsubscribe: bool | None = None
    recipient: Text | None = None
    message_id: Text | None = None
    campaign_id: Text | None = None
    list_id: Text | None = None


class Answer(NamedTuple):
    """What the API answers."""

    headers: Mapping[str, str]
    body: bytes


def signer(links: Links, key_id: str, base: str) -> Sign:
    """Writes whole addresses; `base` is the tracking domain as `https://HOST`."""
    return lambda link: address(base, link.purpose, links.seal(link, key_id))


def domain_for(domains: Iterable[Domain], tenant: str, name: str = "") -> Domain:
    """The tracking domain of a tenant: the one named, or its only one. Raises UsageError."""
    own = [domain for domain in domains if domain.tenant == tenant]
    found = [domain for domain in own if domain.name == name.lower()] if name else own
    if len(found) == 1:
        return found[0]
    if not own:
        raise UsageError(f"the tenant {tenant} has no tracking domain; `aftersend domains add HOST` registers one")
    known = ", ".join(domain.name for domain in own)
    raise UsageError(f"domain is one of {known}" + (f"; not {name!r}" if name else "; name one"))


def plan_of(way: Way, **options: Any) -> Plan:
    """The plan of a way; options are fields of Plan."""
    return Plan(tenant=way.tenant, domain=way.domain, own_hosts=way.own_hosts, level_of=way.level_of, **options)


def options_of(settings: RelaySettings) -> dict[str, Any]:
    """What the relay's settings say of every message, as fields of Plan."""
    options = {name: getattr(settings, name) for name in _RELAY_OPTIONS}
    untracked = frozenset(host.lower() for host in settings.untracked)
    return {**options, "level": Level[settings.level.upper()], "untracked": untracked}


def read_choices(query: Mapping[str, str]) -> Choices:
    """Choices as text (`true`, `false`, `full`). Raises UsageError."""
    try:
        return msgspec.convert(dict(query), Choices, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"rewrite: {error}") from None


def chosen(choices: Choices) -> dict[str, Any]:
    """Choices as fields of Plan. Raises UsageError for an unknown level."""
    options = {name: value for name, value in structs.asdict(choices).items() if value is not None}
    del options["domain"]
    if choices.level is not None:
        try:
            options["level"] = Level[choices.level.upper()]
        except KeyError:
            raise UsageError(f"level is none, anonymous or full; not {choices.level!r}") from None
    return options


def report(done: Rewritten) -> dict[str, Any]:
    """What was done to a message, for programs; its warnings by their codes."""
    return {
        "growth": done.growth,
        "links": done.links,
        "pixels": done.pixels,
        "skipped": dict(done.skipped),
        "warnings": [notice.code for notice in done.warnings],
    }


def answer_rewrite(body: bytes, query: Mapping[str, str], tenant: str, ways: Ways) -> Answer:
    """`POST /v1/rewrite`: a message in, the rewritten one out, and what was done to it as JSON in one header.

    The message is the whole body (`message/rfc822`), byte for byte, so that it can be piped on; the report is short
    whatever the message (codes and counts), so a header holds it. Raises UsageError, LinkError and StoreError.
    """
    choices = read_choices(query)
    way = ways(tenant, choices.domain)
    done = rewrite(body, plan_of(way, **chosen(choices)), way.sign)
    text = msgspec.json.encode(report(done)).decode("ascii")
    return Answer({"Content-Type": "message/rfc822", REPORT_HEADER: text, "Cache-Control": "no-store"}, done.message)

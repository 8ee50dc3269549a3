"""`POST /v1/links`: addresses for messages that are not rewritten, short ones for text messages among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from aftersend.capture.links import Link, make_reference, read_reference
from aftersend.capture.rewriting import Way
from aftersend.capture.targets import safe_target
from aftersend.capture.tokens import LinkError, Purpose, address
from aftersend.contracts import Reference, References
from aftersend.core.consent import Level
from aftersend.core.errors import UsageError

LINKS_LIMIT = 1_000
"""Addresses made at once."""
LIFE_DAYS = 400
"""How long a short address leads anywhere."""

_AT_ONCE = 100
"""Links that are sealed before others get their turn; some 3 ms."""
_WAYS_LIMIT = 16

Text = Annotated[str, Meta(max_length=512)]


class AskedLink(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An address as a sender asks for it."""

    purpose: Literal["click", "unsubscribe", "confirm", "preferences"] = "click"
    target: Annotated[str, Meta(max_length=1_900)] = ""
    recipient: Text = ""
    message_id: Text = ""
    campaign_id: Text = ""
    list_id: Text = ""
    channel: Annotated[str, Meta(pattern=r"^[a-z][a-z_]{0,30}$")] = "email"
    level: Literal["none", "anonymous", "full"] = "full"
    domain: Text = ""
    short: bool = False
    """12 characters in the place of the sealed token."""


async def make_links(
    body: Any, way_of: Callable[[str], Way], references: References, chance: Callable[[int], bytes]
) -> list[str]:
    """The addresses that are asked for, in order; the short ones are kept, durably, before they are told.

    All or none are made. Raises UsageError, which says what is wrong with which, and StoreError.
    """
    try:
        asked = msgspec.convert(body, Annotated[list[AskedLink], Meta(min_length=1, max_length=LINKS_LIMIT)])
    except msgspec.ValidationError as error:
        raise UsageError(f"links: {error}") from None
    made = []
    find_way = lru_cache(_WAYS_LIMIT)(way_of)
    for number, one in enumerate(asked):
        try:
            made.append(_made(one, find_way(one.domain), chance))
        except (UsageError, LinkError) as error:
            raise UsageError(f"links[{number}]: {error}") from None
        if number % _AT_ONCE == _AT_ONCE - 1:
            await asyncio.sleep(0)
    await references.keep([reference for _, reference in made if reference is not None])
    return [link for link, _ in made]


def _made(asked: AskedLink, way: Way, chance: Callable[[int], bytes]) -> tuple[str, Reference | None]:
    purpose = Purpose(asked.purpose)
    _check(asked, purpose)
    most = way.level_of(asked.recipient) if asked.recipient else Level.FULL
    link = Link(
        purpose,
        min(most, Level[asked.level.upper()]),
        way.tenant,
        way.domain,
        asked.recipient,
        asked.message_id,
        asked.campaign_id,
        asked.list_id,
        0,
        asked.target,
    )
    whole = way.sign(link)
    if not asked.short:
        return whole, None
    base, _, token = whole.rsplit("/", 2)
    short = make_reference(chance)
    return address(base, purpose, short), Reference(read_reference(short), token, asked.channel)


def _check(asked: AskedLink, purpose: Purpose) -> None:
    if (purpose is Purpose.CLICK) != bool(asked.target):
        raise UsageError("target: a click needs one, and nothing else has one")
    if asked.channel != "email" and not asked.short:
        raise UsageError('channel: only short links know theirs; add "short": true')
    if purpose is Purpose.CLICK:
        try:
            safe_target(asked.target)
        except LinkError as error:
            raise UsageError(f"target: {error}") from None

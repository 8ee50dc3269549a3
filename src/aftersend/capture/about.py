"""Whom and what a message is about: its own X-Aftersend fields, else the plan, else Message-ID and To."""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import getaddresses
from typing import NamedTuple

from aftersend.capture.links import Link
from aftersend.capture.message import Field
from aftersend.capture.plan import Plan
from aftersend.capture.tokens import Purpose
from aftersend.core.consent import Level

PREFIX = b"x-aftersend-"
"""Fields that are read and removed: Recipient, Message, Campaign, List, Tracking."""

_KNOWN = frozenset((b"recipient", b"message", b"campaign", b"list", b"tracking"))
_VALUE_LIMIT = 500
_TO_LIMIT = 2_000


class About(NamedTuple):
    """What every link of a message says, and what was wrong with its header."""

    link: Link
    notes: list[str]


def about(fields: Sequence[Field], plan: Plan) -> About:
    """The first field of a name holds; a level can be lowered only, and one that cannot be read is `none`.

    Raises StoreError where the recipient's level cannot be told.
    """
    notes: list[str] = []
    own = _own(fields, notes)
    recipient = own.get(b"recipient") or plan.recipient or _only_recipient(fields)
    if not recipient:
        notes.append("no_recipient")
    most = min(plan.level, plan.level_of(recipient)) if recipient else plan.level
    link = Link(
        purpose=Purpose.CLICK,
        level=_level(own.get(b"tracking"), most, notes),
        tenant=plan.tenant,
        domain=plan.domain,
        recipient=recipient,
        message_id=own.get(b"message") or plan.message_id or value_of(fields, b"message-id")[:_VALUE_LIMIT],
        campaign_id=own.get(b"campaign") or plan.campaign_id,
        list_id=own.get(b"list") or plan.list_id,
    )
    return About(link, notes)


def value_of(fields: Sequence[Field], name: bytes) -> str:
    """The value of the first field of a name (in lower case), or nothing."""
    return next((field.value for field in fields if field.name == name), "")


def _own(fields: Sequence[Field], notes: list[str]) -> dict[bytes, str]:
    own: dict[bytes, str] = {}
    for field in fields:
        if field.name.startswith(PREFIX):
            name = field.name[len(PREFIX) :]
            value = field.value[: _VALUE_LIMIT + 1]
            if name not in _KNOWN or (len(value) > _VALUE_LIMIT and name != b"tracking"):
                notes.append("unknown_header")
            else:
                own.setdefault(name, value)
    return own


def _level(said: str | None, most: Level, notes: list[str]) -> Level:
    if said is None:
        return most
    try:
        return min(most, Level[said.upper()])
    except KeyError:
        notes.append("unknown_level")
        return Level.NONE


def _only_recipient(fields: Sequence[Field]) -> str:
    """The one address of To, or nothing where there are none or several."""
    values = [field.value for field in fields if field.name == b"to"]
    if len(values) != 1 or len(values[0]) > _TO_LIMIT:
        return ""
    addresses = [address for _, address in getaddresses(values)]
    return addresses[0] if len(addresses) == 1 and "@" in addresses[0] else ""

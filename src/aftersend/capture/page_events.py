"""What a page tells, as events: page views and what happens to popups."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from aftersend.core.event import Event, Receipt, Rejected, Source
from aftersend.core.identity import event_id
from aftersend.core.members import split_json
from aftersend.core.registry import Site
from aftersend.core.taxonomy import channel_of
from aftersend.core.timestamps import MILLISECOND, format_time, time_fault

MEMBERS_LIMIT = 100
"""Events of one body; of a longer one none is taken."""
DATA_LIMIT = 4_096
"""Bytes of an event's own data, as JSON."""
DATA_FIELDS = 32

PAGE_VIEW = "page_view"
TYPES = {
    "popup_open": "popup.opened",
    "popup_click": "popup.clicked",
    "popup_post": "popup.submitted",
    "popup_close": "popup.closed",
    "popup_error": "popup.failed",
    "popup_bounce": "popup.bounced",
    "popup_custom": "popup.custom",
    PAGE_VIEW: "web.pixel_opened",
}
"""The words of a page, each with its canonical type."""

_Address = Annotated[str, Meta(max_length=2_048)]
_Text = Annotated[str, Meta(max_length=256)]
_FARTHEST = 1 << 53
_Plain = str | float | Annotated[int, Meta(ge=-_FARTHEST, le=_FARTHEST)] | bool | None


class Told(Struct, frozen=True, gc=False):
    """One event as a page tells it."""

    type: str
    at: float | None = None
    """The browser's own time, in ms since 1970."""
    url: _Address | None = None
    referrer: _Address | None = None
    name: _Text | None = None
    """Which popup; of a page view, what the page is called."""
    profile_id: _Text | None = None
    message_id: _Text | None = None
    campaign_id: _Text | None = None
    data: Annotated[dict[_Text, _Plain], Meta(max_length=DATA_FIELDS)] | None = None
    """Flat, and the page's own."""


class Visit(Struct, frozen=True):
    """Whence and when a page told something."""

    site: Site
    received_at: int
    ip: str = ""
    user_agent: str = ""


def read_body(body: bytes) -> list[Told | Rejected]:
    """The events of a body (an array, an object, or an object a line), a bad one as Rejected in its place."""
    members = split_json(body)
    if len(members) > MEMBERS_LIMIT:
        return [Rejected("too_many", f"{len(members)} events in one body; send at most {MEMBERS_LIMIT}")]
    return [member if isinstance(member, Rejected) else _read(member, index) for index, member in enumerate(members)]


def _read(member: dict[str, Any], index: int) -> Told | Rejected:
    try:
        told = msgspec.convert(member, Told)
    except msgspec.ValidationError as error:
        return Rejected("wrong_type", f"event {index}: {error}", index)
    if told.type not in TYPES:
        return Rejected("unknown_type", f"event {index}: the type is none of {', '.join(TYPES)}", index)
    if told.data and len(msgspec.json.encode(told.data)) > DATA_LIMIT:
        return Rejected("too_large", f"event {index}: its data is more than {DATA_LIMIT} bytes of JSON", index)
    return told


def event_of(told: Told, visit: Visit, nonce: str) -> Event:
    """The event that a page told. It happened when it arrived: browsers' clocks are wrong, so theirs is kept beside."""
    site, now, type_ = visit.site, visit.received_at, TYPES[told.type]
    receipt = Receipt(b"", now, tenant=site.tenant, origin="aftersend")
    return Event(
        id=event_id(receipt, "aftersend", told.type, now, nonce),
        type=type_,
        time=now,
        source=Source(site.name, "aftersend", told.type, nonce),
        tenant=site.tenant,
        received_at=now,
        channel=channel_of(type_),
        profile_id=told.profile_id or None,
        message_id=told.message_id or None,
        campaign_id=told.campaign_id or None,
        ip=visit.ip or None,
        user_agent=visit.user_agent or None,
        url=told.url or None,
        url_name=told.name or None,
        extra=_extra(told, now),
    )


def _extra(told: Told, received_at: int) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if told.referrer:
        extra["referrer"] = told.referrer
    if told.at is not None and abs(told.at) < _FARTHEST:
        time = int(told.at) * MILLISECOND
        extra["client_time"] = format_time(time) if time_fault(time, received_at) is None else told.at
    if told.data:
        extra["data"] = told.data
    return extra

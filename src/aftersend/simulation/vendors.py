"""What happened to messages, in the words of each vendor: the bodies that its own sender would post.

Written from the vendors' documents and not with our dialects, so that both sides of a demonstration are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any
from urllib.parse import urlencode
from xml.sax.saxutils import escape

import msgspec

from aftersend.core.event import Body
from aftersend.core.timestamps import MILLISECOND, SECOND, format_time
from aftersend.simulation.campaign import Happening

Teller = Callable[[Sequence[Happening]], list[Body]]

_encode = msgspec.json.Encoder().encode
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"

_HAPPENINGS = ("sent", "delivered", "opened", "clicked", "hard_bounced", "soft_bounced", "unsubscribed", "complained")

WORDS: Mapping[str, Mapping[str, str]] = {
    "activatepro": {
        "sent": "Message Sent",
        "delivered": "Message Delivered",
        "opened": "Message Viewed",
        "clicked": "Message Clicked",
        "hard_bounced": "Message hard_bounced",
        "soft_bounced": "Message soft_bounced",
        "unsubscribed": "Message Unsubscribed",
        "complained": "Message marked_as_spam",
    },
    "altcraft": {
        "sent": "send",
        "delivered": "deliv",
        "opened": "open",
        "clicked": "click",
        "hard_bounced": "hbounce",
        "soft_bounced": "sbounce",
        "unsubscribed": "unsub",
        "complained": "complain",
    },
    "canonical": {what: f"email.{what}" for what in _HAPPENINGS},
    "halon": {"opened": "open", "clicked": "click", "unsubscribed": "unsubscribe"},
    "messagegears": {
        "delivered": "DeliveredMessageActivity",
        "opened": "OpenActivity",
        "clicked": "ClickActivity",
        "hard_bounced": "BouncedMessageActivity",
        "soft_bounced": "BouncedMessageActivity",
        "unsubscribed": "UnsubActivity",
        "complained": "SpamComplaintActivity",
    },
    "pure360": {
        "opened": "OPEN",
        "clicked": "CLICK",
        "hard_bounced": "BOUNCE",
        "soft_bounced": "SOFTBOUNCE",
        "unsubscribed": "OPTOUT",
    },
}
"""Which happenings each vendor tells, and its word for each."""


def told(dialect: str, happenings: Sequence[Happening]) -> list[Happening]:
    """Those that the vendor has a word for."""
    words = WORDS[dialect]
    return [item for item in happenings if item.what in words]


def tell(dialect: str, happenings: Sequence[Happening]) -> list[Body]:
    """Happenings, each with a word, as the bodies that the vendor posts."""
    return _TELLERS[dialect](happenings) if happenings else []


def _activatepro(happenings: Sequence[Happening]) -> list[Body]:
    """A request for each run of one person's events; at most 50, which no message reaches here."""
    bodies = []
    for person, run in groupby(happenings, lambda item: item.person):
        events = [_activatepro_event(item) for item in run]
        data = _encode({"id": person.profile, "email": person.address, "events": events})
        bodies.append(Body(data, _JSON, len(events)))
    return bodies


def _activatepro_event(item: Happening) -> dict[str, Any]:
    properties = {"channel": "Email", "type": "Newsletter", "campaignId": item.campaign, "messageId": item.message}
    if item.url:
        properties["url"] = item.url
    word = WORDS["activatepro"][item.what]
    return {"event": word, "timestamp": format_time(item.time), "properties": properties}


def _altcraft(happenings: Sequence[Happening]) -> list[Body]:
    return [Body(_encode([_altcraft_event(item) for item in happenings]), _JSON, len(happenings))]


def _altcraft_event(item: Happening) -> dict[str, Any]:
    person = item.person
    data: dict[str, Any] = {
        "message_id": 17,
        "campaign_id": int(item.campaign),
        "segment_id": 0,
        "resource_id": 3,
        "launch_id": "00000017000003cd5a9bf01a",
        "send_message_id": item.message,
    }
    if item.what in ("opened", "clicked", "unsubscribed"):
        data |= {"ip": person.ip, "country": f".{person.country.lower()}", "city": person.city, "device": "web"}
        data |= {"user_agent": person.agent}
    if item.url:
        data["link_url"] = item.url
    return {
        "event_type": WORDS["altcraft"][item.what],
        "event_date": format_time(item.time),
        "_xxh": person.profile[:16],
        "list_id": 111,
        "account_id": 23,
        "is_test": False,
        "custom_data": {"email": person.address},
        "profile_id": person.profile,
        "sends_trying_num": 1,
        "is_static": False,
        "event_data": data,
    }


def _canonical(happenings: Sequence[Happening]) -> list[Body]:
    return [Body(_encode([canonical_event(item) for item in happenings]), _JSON, len(happenings))]


def canonical_event(item: Happening) -> dict[str, Any]:
    """A happening as our own JSON, for senders without a vendor."""
    person = item.person
    event = {
        "id": item.id,
        "type": f"email.{item.what}",
        "time": format_time(item.time),
        "recipient": person.address,
        "profile_id": person.profile,
        "message_id": item.message,
        "campaign_id": item.campaign,
    }
    if item.what in ("opened", "clicked", "unsubscribed"):
        event |= {"ip": person.ip, "user_agent": person.agent}
    if item.url:
        event["url"] = item.url
    return event


def _halon(happenings: Sequence[Happening]) -> list[Body]:
    return [Body(_encode([_halon_event(item) for item in happenings]), _JSON, len(happenings))]


def _halon_event(item: Happening) -> dict[str, Any]:
    event: dict[str, Any] = {
        "type": WORDS["halon"][item.what],
        "event_id": item.id,
        "timestamp": str(item.time // MILLISECOND),
        "recipient": item.person.address,
        "message_id": f"<{item.message}@mx.shop.example>",
        "ip": item.person.ip,
        "user_agent": item.person.agent,
        "additional": {"campaign": item.campaign},
    }
    if item.url:
        event["url"] = item.url
    return event


_PER_DOCUMENT = 100
_NAMESPACE = "http://messagegears.com/3.1/webService"


def _messagegears(happenings: Sequence[Happening]) -> list[Body]:
    bodies = []
    for start in range(0, len(happenings), _PER_DOCUMENT):
        run = happenings[start : start + _PER_DOCUMENT]
        items = "".join(_messagegears_item(item) for item in run)
        data = f'<ActivityItems xmlns="{_NAMESPACE}">{items}</ActivityItems>'.encode()
        bodies.append(Body(data, "application/xml", len(run)))
    return bodies


def _messagegears_item(item: Happening) -> str:
    word = WORDS["messagegears"][item.what]
    inside = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in _messagegears_fields(item))
    return f"<{word}>{inside}</{word}>"


def _messagegears_fields(item: Happening) -> Iterator[tuple[str, str]]:
    """The fields in the order of the vendor's schema."""
    person = item.person
    yield "RequestId", f"t25710-{item.message}"
    yield "CorrelationId", f"campaign {item.campaign}"
    yield "EmailAddress", person.address
    yield "RecipientId", person.profile
    yield "Timestamp", format_time(item.time)
    if item.what == "hard_bounced":
        yield from (("Category", "Invalid Recipient"), ("CategoryCode", "10"), ("Details", "550-5.1.1 no such user"))
    elif item.what == "soft_bounced":
        yield from (("Category", "Soft Bounce"), ("CategoryCode", "20"), ("Details", "452-4.2.2 mailbox full"))
    elif item.what == "complained":
        yield "Isp", person.address.partition("@")[2]
    yield "IpAddress", person.ip
    if item.what in ("opened", "clicked", "unsubscribed"):
        yield "UserAgent", person.agent
    if item.url:
        yield "Url", item.url
    yield "ActivityId", item.id
    yield "JobCategory", "newsletter"


def _pure360(happenings: Sequence[Happening]) -> list[Body]:
    return [Body(urlencode(_pure360_fields(item)).encode(), _FORM, 1) for item in happenings]


def _pure360_fields(item: Happening) -> dict[str, str]:
    fields = {
        "type": WORDS["pure360"][item.what],
        "Event_date": str(item.time // SECOND),
        "email": item.person.address,
        "mobile": "",
        "messageName": "Autumn-Deals",
        "deliveryDate": str(item.time // SECOND // 86_400 * 86_400),
    }
    if item.url:
        fields["clickUrl"] = item.url
    if item.what in ("opened", "clicked"):
        fields |= {"device_type": "mobile", "device_OS": "iOS", "device_Browser": "Safari"}
    return fields | {"Delivery_ID": item.campaign, "firstName": item.person.address.partition(".")[0]}


_TELLERS: Mapping[str, Teller] = {
    "activatepro": _activatepro,
    "altcraft": _altcraft,
    "canonical": _canonical,
    "halon": _halon,
    "messagegears": _messagegears,
    "pure360": _pure360,
}

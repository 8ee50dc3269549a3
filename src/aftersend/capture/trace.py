"""The trace that a relay leaves in a message, and finding out by it that a message goes in circles."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import format_datetime

HOPS_LIMIT = 50
"""`Received` fields of a message, past which it goes in circles."""
PASSES_LIMIT = 5
"""Times that a message may come by here: it may be forwarded, but not for ever."""

_HEADER_END = re.compile(rb"\r\n\r\n|\A\r\n")
_RECEIVED = re.compile(rb"^received[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE)


def hops(message: bytes, hostname: str) -> tuple[int, int]:
    """How many servers a message has passed, and how often this one."""
    end = _HEADER_END.search(message)
    found = _RECEIVED.findall(message, 0, end.start() if end else len(message))
    own = re.compile(rb"\sby\s+" + re.escape(hostname.encode()) + rb"\s+\(aftersend\)\s", re.IGNORECASE)
    return len(found), sum(1 for field in found if own.search(field))


def received(*, helo: str, peer: str, hostname: str, protocol: str, id_: str, recipient: str, now: int) -> bytes:
    """Our `Received` field, RFC 5321 4.4; `now` in ns since 1970, UTC."""
    address = f"IPv6:{peer}" if ":" in peer else peer
    date = format_datetime(datetime.fromtimestamp(now // 1_000_000_000, UTC))
    whom = f"\r\n\tfor <{recipient}>" if recipient.isascii() else ""
    by = f"by {hostname} (aftersend) with {protocol} id {id_}"
    return f"Received: from {helo} ([{address}])\r\n\t{by}{whom};\r\n\t{date}\r\n".encode("ascii")


def protocol_name(*, extended: bool, encrypted: bool, authenticated: bool, utf8: bool) -> str:
    """How a message came, as RFC 3848 and RFC 6531 name it."""
    base = "UTF8SMTP" if utf8 else "ESMTP" if extended else "SMTP"
    return base + ("S" if encrypted and base != "SMTP" else "") + ("A" if authenticated else "")

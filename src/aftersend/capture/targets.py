"""Targets of redirects: where a person may be sent.

Only an absolute http or https address with a host that every browser reads alike. Everything that makes one look like
another is refused: names and passwords before the host, backslashes, control characters, slashes too few or too many.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from yarl import URL

from aftersend.capture.tokens import LinkError

TARGET_LIMIT = 8_192
"""Characters of a target."""

_TARGET = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[^\x00-\x20\x7f-\x9f/?#@:%\\\[\]<>^|\"'`{}]{1,253})"
    r"(?P<port>:[0-9]{0,5})?"
    r"(?P<rest>(?:[/?#][^\x00-\x1f\x7f-\x9f\\]*)?)",
    re.IGNORECASE,
)
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_PRINTED = "!#$%&'()*+,/:;=?@[]~|^`{}"
_PORTS = range(1, 65_536)


def safe_target(url: str) -> str:
    """The address for a `Location` header, in ASCII: unchanged where it was that already. Raises LinkError."""
    match = _matched(url)
    if url.isascii() and " " not in url and _HOST.fullmatch(match["host"]):
        return url
    try:
        return f"{match['scheme']}://{_ascii_host(match['host'])}{match['port'] or ''}{quote(match['rest'], _PRINTED)}"
    except ValueError:
        raise LinkError("unsafe_target") from None


def target_host(url: str) -> str:
    """The host of a safe target, in lower case. Raises LinkError where `safe_target` would."""
    host = _matched(url)["host"].lower()
    if _HOST.fullmatch(host) is None or not url.isascii():
        return _matched(safe_target(url))["host"].lower()
    return host


def _matched(url: str) -> re.Match[str]:
    match = _TARGET.fullmatch(url) if len(url) <= TARGET_LIMIT else None
    if match is None or (match["port"] not in (None, ":") and int(match["port"][1:]) not in _PORTS):
        raise LinkError("unsafe_target")
    return match


def _ascii_host(host: str) -> str:
    """A host in the letters of DNS. Raises ValueError where it has none, or where some browsers would see others."""
    written = host if host.isascii() else URL.build(scheme="http", host=host).raw_host or ""
    if _HOST.fullmatch(written) is None:
        raise ValueError(host)
    return written

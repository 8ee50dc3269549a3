"""What the network or TLS did, in words for a person: no error numbers, and nothing of the libraries' own names."""

from __future__ import annotations

import os
import re
import ssl

_NO_TLS = frozenset(("WRONG_VERSION_NUMBER", "UNKNOWN_PROTOCOL", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG"))
"""What OpenSSL says of bytes that are not TLS at all."""
_NUMBERED = re.compile(r"\[Errno (\d+)\] ")
_IN_LIBRARY = re.compile(r"\[SSL(?:: (\w+))?\] ?|\s*\(_ssl\.c:\d+\)$")


def why(error: BaseException) -> str:
    """What an error says, as `connection refused`, `TLS: self-signed certificate`; empty where it says nothing."""
    if isinstance(error, ssl.SSLError):
        return f"TLS: {_tls_reason(error)}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        # Event loops put a text of their own beside the number: `Connect call failed ('192.0.2.1', 587)`.
        return os.strerror(error.errno).lower()
    return _NUMBERED.sub("", str(getattr(error, "strerror", None) or error))


def _tls_reason(error: ssl.SSLError) -> str:
    said = getattr(error, "verify_message", "")
    if said:
        return str(said)
    reason: str = getattr(error, "reason", "") or ""
    if reason in _NO_TLS:
        return "what answers there does not speak TLS"
    if reason:
        return reason.replace("_", " ").lower()
    return _IN_LIBRARY.sub("", str(error))

"""Tokens: the last part of a tracking address, as text and as bytes.

A token is unpadded base64url. Its first byte says whose it is: 0x00 is ours and a version byte follows, anything else
is Halon's. Ours are read only in their canonical spelling, so that one link has one address.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from enum import Enum, StrEnum

from aftersend.core.errors import AftersendError

TOKEN_LIMIT = 16_384
"""Characters of a token that are looked at; ours are far shorter, Halon's hold addresses of any length."""
INFLATED_LIMIT = 65_536
"""Bytes that the content of a token may inflate to."""

OWN_MARK = b"\x00"
SEALED_MARK = b"\x00\x01"
REFERENCE_MARK = b"\x00\x02"

REASONS = {
    "malformed": "the link's token cannot be read",
    "not_canonical": "the link's token is spelt in another way than it was made",
    "unknown_version": "the link was made by a newer aftersend",
    "unknown_key": "the key that made the link is missing",
    "forged": "the link was not made by one of our keys, or for another purpose",
    "too_long": "the link is too long",
    "unsafe_target": "the link leads somewhere that nobody must be sent to",
}

_ALPHABET = re.compile(r"[A-Za-z0-9_-]+")
_PATH = re.compile(r"/+([a-z])/+([A-Za-z0-9_=-]+)")


class LinkError(AftersendError):
    """A link cannot be used; `reason` says why in one word, for counting."""

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason


class Purpose(StrEnum):
    """What an address is for: it is sealed in the token, and each purpose has its own key."""

    CLICK = "click"
    OPEN = "open"
    READ = "read"
    UNSUBSCRIBE = "unsubscribe"
    CONFIRM = "confirm"
    PREFERENCES = "preferences"

    # The hash of Enum is written in Python, and this one is a key at every link.
    __hash__ = str.__hash__


PATHS = {
    Purpose.CLICK: "c",
    Purpose.OPEN: "o",
    Purpose.READ: "r",
    Purpose.UNSUBSCRIBE: "u",
    Purpose.CONFIRM: "s",
    Purpose.PREFERENCES: "p",
}
"""The one letter by which an address says its purpose."""
_PURPOSES = {letter: purpose for purpose, letter in PATHS.items()}


class Form(Enum):
    """Whose token it is, and how it is read."""

    SEALED = "sealed"
    REFERENCE = "reference"
    HALON = "halon"


def address(base: str, purpose: Purpose, token: str) -> str:
    """The whole address; `base` is scheme and host, with or without a slash at the end."""
    return f"{base.rstrip('/')}/{PATHS[purpose]}/{token}"


def split_path(path: str) -> tuple[Purpose, str]:
    """Purpose and token of a path such as `/c/AAF…`; doubled slashes are taken as one. Raises LinkError."""
    match = _PATH.fullmatch(path) if len(path) <= TOKEN_LIMIT else None
    if match is None or match[1] not in _PURPOSES:
        raise LinkError("malformed")
    return _PURPOSES[match[1]], match[2]


def form_of(token: str) -> Form:
    """Whose token it is, by its first two bytes. Raises LinkError for what is no token or of a later version."""
    head = decode(token[:4]) if len(token) >= 4 else b""
    if len(head) < 2:
        raise LinkError("malformed")
    if head[:1] != OWN_MARK:
        return Form.HALON
    if head[:2] == SEALED_MARK:
        return Form.SEALED
    if head[:2] == REFERENCE_MARK:
        return Form.REFERENCE
    raise LinkError("unknown_version")


def encode(data: bytes) -> str:
    """Bytes as unpadded base64url."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(token: str) -> bytes:
    """The bytes of unpadded base64url, in its canonical spelling only. Raises LinkError."""
    if len(token) > TOKEN_LIMIT:
        raise LinkError("too_long")
    if len(token) % 4 == 1 or _ALPHABET.fullmatch(token) is None:
        raise LinkError("malformed")
    data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    if encode(data) != token:
        raise LinkError("not_canonical")
    return data

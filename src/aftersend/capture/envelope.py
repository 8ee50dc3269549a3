"""SMTP envelopes: what MAIL and RCPT say, read strictly and handed on as it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

ADDRESS_LIMIT = 512
"""Octets of an address; RFC 5321 promises 256."""

_TEXT_LIMIT = 300
_LINES_LIMIT = 20
_ARGUMENT = re.compile(r"(?:FROM|TO): ?<((?:[^<>\s\"]|\"(?:[^\"\\]|\\.)*\")*)>((?: +[^ ]+)*) *", re.IGNORECASE)
_ROUTE = re.compile(r"@[^:]+:")
_MAILBOX = re.compile(
    r"(?:[^\x00-\x20\x7f()<>\[\]:;@\\,\"]+|\"(?:[\x20!#-\[\]-~\x80-\U0010ffff]|\\[\x20-\x7e])*\")"
    r"@(?:[^\x00-\x20\x7f()<>@\\,\";:]+|\[[0-9A-Za-z:.-]+\])"
)
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20\x7f=][^\x00-\x20\x7f]*))?")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]+")


class Reply(NamedTuple):
    """What one side of SMTP says to the other."""

    code: int
    text: str
    """With its enhanced status; a line break continues the reply on a new line."""

    @property
    def positive(self) -> bool:
        """Whether it was done."""
        return 200 <= self.code < 400

    def line(self) -> bytes:
        """As it is sent; what was written elsewhere has been made printable and short."""
        lines = [_UNPRINTABLE.sub(" ", text)[:_TEXT_LIMIT] for text in self.text.split("\n")[:_LINES_LIMIT]]
        marks = ["-"] * (len(lines) - 1) + [" "]
        return "".join(f"{self.code}{mark}{text}\r\n" for mark, text in zip(marks, lines, strict=True)).encode()


class Refused(Exception):  # noqa: N818
    """What the client said cannot be taken."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, text)


class Path(NamedTuple):
    """The argument of MAIL or RCPT."""

    address: str
    """Without brackets and source route; empty: the null sender."""
    parameters: Mapping[str, str]
    """By their names in upper case; a value is as it was written, or empty."""


class Envelope(Struct, frozen=True):
    """Whom a message is from and for: one recipient."""

    sender: str
    """Empty: the null sender, whose mail is a notice about other mail."""
    recipient: str
    sender_parameters: Mapping[str, str] = {}
    recipient_parameters: Mapping[str, str] = {}

    @property
    def utf8(self) -> bool:
        """Whether addresses or header fields may hold UTF-8."""
        return "SMTPUTF8" in self.sender_parameters


def read_path(argument: bytes, keyword: str) -> Path:
    """The path after `FROM` or `TO`. Raises Refused."""
    try:
        text = argument.decode()
    except UnicodeDecodeError:
        raise Refused(501, "5.5.2 What is not ASCII must be UTF-8") from None
    match = _ARGUMENT.fullmatch(text) if text.upper().startswith(keyword) else None
    if match is None:
        raise Refused(501, f"5.5.4 Syntax: {'MAIL FROM' if keyword == 'FROM' else 'RCPT TO'}:<address> [parameters]")
    address = _ROUTE.sub("", match[1], count=1) if match[1].startswith("@") else match[1]
    _check(address, keyword)
    return Path(address, _parameters(match[2]))


def _check(address: str, keyword: str) -> None:
    short = not address if keyword == "FROM" else address.lower() == "postmaster"
    if not short and (len(address.encode()) > ADDRESS_LIMIT or not _MAILBOX.fullmatch(address)):
        raise Refused(553, "5.1.3 That is not an address")


def _parameters(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in text.split():
        match = _PARAMETER.fullmatch(word)
        name = match[1].upper() if match else ""
        if match is None or name in found:
            raise Refused(501, "5.5.4 A parameter is malformed or stands twice")
        found[name] = match[2] or ""
    return found

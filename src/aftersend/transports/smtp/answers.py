"""What goes wrong between us and a mail relay, as outcomes that a person can read in one line."""

from __future__ import annotations

import re
import socket
import ssl
from base64 import b64encode
from typing import NamedTuple

from aiosmtplib import SMTPException, SMTPResponseException

from aftersend.core.errors import EgressError
from aftersend.core.excerpts import one_line
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import MASK
from aftersend.egress.connecting import is_ours
from aftersend.egress.faults import why

RETRY_AFTER_LIMIT = 86_400.0

_LATER = r"(?:retry|again|back|wait)\D{0,40}?"
_HINT = re.compile(_LATER + r"(\d{1,6})\s*(s|sec|second|m|min|minute|h|hour)s?\b", re.IGNORECASE)
_CLOCK_HINT = re.compile(_LATER + r"(\d{1,2}):(\d{2}):(\d{2})\b", re.IGNORECASE)
_UNITS = {"s": 1.0, "m": 60.0, "h": 3_600.0}
TOO_LARGE = 552
"""The relay wants smaller mails."""


class Answer(NamedTuple):
    """What the relay says to a command."""

    code: int
    text: str

    @property
    def positive(self) -> bool:
        """Whether it was done."""
        return 200 <= self.code < 400

    @property
    def final(self) -> bool:
        """Whether it is refused for good."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code or ''} {one_line(self.text)}".strip()


class Masked:
    """Makes what the other side said fit for people: without our credentials, in case it repeats them."""

    def __init__(self, user: str, password: str) -> None:
        pairs = (f"\0{user}\0{password}", password) if password else ()
        self._secrets = [text for pair in pairs for text in (pair, b64encode(pair.encode()).decode())]

    def __call__(self, answer: Answer) -> Answer:
        """The answer with every credential masked."""
        text = answer.text
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return Answer(answer.code, text)


def hinted(text: str) -> float | None:
    """Seconds after which the relay wants to be asked again, where it says so in words: SMTP has no field for it."""
    clock = _CLOCK_HINT.search(text)
    if clock is not None:
        hours, minutes, seconds = map(int, clock.groups())
        return min(hours * 3_600.0 + minutes * 60 + seconds, RETRY_AFTER_LIMIT)
    found = _HINT.search(text)
    if found is None:
        return None
    return min(int(found[1]) * _UNITS[found[2][0].lower()], RETRY_AFTER_LIMIT)


def failed(step: str, answer: Answer) -> Outcome:
    """The relay cannot or will not now: nothing is said about the mail itself."""
    return Outcome(Verdict.FAILED, f"{step}: {answer}", answer.code or None, hinted(answer.text))


def refused_content(step: str, answer: Answer) -> Outcome:
    """The relay's word on the mail itself: refused for good, too large, or not now."""
    if answer.code == TOO_LARGE:
        return Outcome(Verdict.TOO_LARGE, f"{step}: {answer}", answer.code)
    if answer.final and answer.code not in (502, 503, 530, 535):
        return Outcome(Verdict.REFUSED, f"{step}: {answer}", answer.code)
    return failed(step, answer)


def broken(step: str, error: Exception, masked: Masked) -> Outcome:
    """What to tell of a step that got no answer, or none that can be read."""
    if isinstance(error, SMTPResponseException):
        return failed(step, masked(Answer(max(error.code, 0), error.message)))
    if isinstance(error, EgressError):
        return Outcome(Verdict.FAILED, one_line(error), ours=True)
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    if isinstance(cause, ssl.SSLError):
        return Outcome(Verdict.FAILED, one_line(why(cause)))
    if isinstance(cause, socket.gaierror):
        ours = is_ours(cause)
        return Outcome(Verdict.FAILED, f"name lookup: {one_line(cause.strerror or cause)}", ours=ours)
    if isinstance(cause, SMTPException):
        text = one_line(masked(Answer(0, str(cause))).text)
        return Outcome(Verdict.FAILED, f"{step}: {text or 'the connection broke'}")
    if isinstance(cause, OSError):
        detail = f"{step}: {one_line(why(cause)) or 'the connection broke'}"
        return Outcome(Verdict.FAILED, detail, ours=is_ours(cause))
    return Outcome(Verdict.FAILED, f"{step}: {one_line(error) or type(error).__name__}", ours=True)

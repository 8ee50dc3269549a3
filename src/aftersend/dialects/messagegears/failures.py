"""What MessageGears' failures mean: bounce codes, categories, errors; and which of them tell others' failures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aftersend.core.event import Event, Failure

Values = dict[str, Any]
Judge = Callable[[Values, Values], tuple[str, Failure | None]]
"""Type and failure of an item: from the fields with a place in our event, and the others."""

# What a failure means: what happened, class, final (None: the vendor does not say).
Meaning = tuple[str, str | None, bool | None]
_HARD: Meaning = ("hard_bounced", "hard", True)
_SOFT: Meaning = ("soft_bounced", "soft", True)
_FAULT: Meaning = ("soft_bounced", "soft", None)
_BLOCKED: Meaning = ("blocked", "block", True)
_DEFERRED: Meaning = ("deferred", "soft", False)
_UNDETERMINED: Meaning = ("bounced", "undetermined", True)
_UNKNOWN: Meaning = ("bounced", "undetermined", None)
_CANCELLED: Meaning = ("undelivered", None, True)
# Dropped before sending: nobody refused, so there is no class that would be counted against the sender.
_SUPPRESSED: Meaning = ("suppressed", None, True)

CODES: dict[int, tuple[str, Meaning]] = {
    1: ("Undetermined", _UNDETERMINED),
    10: ("Invalid Recipient", _HARD),
    20: ("Soft Bounce", _SOFT),
    21: ("DNS Failure", _SOFT),
    22: ("Mailbox Full", _SOFT),
    23: ("Too Large", _SOFT),
    24: ("Timeout", _SOFT),
    25: ("Admin Failure", _SOFT),
    30: ("Generic Bounce: No RCPT", _HARD),
    40: ("Generic Bounce", _SOFT),
    50: ("Mail Block", _BLOCKED),
    51: ("Spam Block", _BLOCKED),
    52: ("Spam Content", _BLOCKED),
    53: ("Prohibited Attachment", _BLOCKED),
    54: ("Relay Denied", _BLOCKED),
    70: ("Transient Failure", _DEFERRED),
    110: ("Invalid Email Syntax", _HARD),
    130: ("Hardbounce Suppression", _SUPPRESSED),
    131: ("Unsubscribe Suppression", _SUPPRESSED),
    132: ("Fbl Suppression", _SUPPRESSED),
    133: ("Complainer Suppression", _SUPPRESSED),
    134: ("Domain Suppression", _SUPPRESSED),
    135: ("Role Suppression", _SUPPRESSED),
}
PUSH_CATEGORIES: dict[str, Meaning] = {
    "TRANSIENT_FAILURE": _DEFERRED,
    "FAILURE_PERMANENT": _HARD,
    "SERVICE_FAILURE": _FAULT,
    "TIMEOUT": _FAULT,
    "DAILY_CAP": _FAULT,  # a limit, as is the next
    "THROTTLED": _FAULT,
    "EXPIRED": ("undelivered", "soft", True),  # its time to live ended; nobody refused it
    "JOB_CANCELLED": _CANCELLED,
}
SMS_CATEGORIES: dict[str, Meaning] = {
    "INVALID_ADDRESS": _HARD,
    "ADDRESS_BLOCKED": _BLOCKED,
    "INTERNATIONAL_SENDING_PROHIBITED": _BLOCKED,  # a policy
    "INVALID_CONTENT": _BLOCKED,
    "SERVICE_FAILURE": _FAULT,
    "JOB_CANCELLED": _CANCELLED,
}
# Said of others' events where every category of the vendor would claim a cause that nobody told us.
_OWN_CATEGORIES = {"undelivered": "UNDELIVERED", "bounced": "UNDETERMINED"}
_CLASS_CODES = {"hard": "10", "soft": "20", "block": "50"}

# The vendor names no values; these are to be expected, and compared without case and separators.
_CLASSIFICATIONS = {
    "REPLY": "email.replied",
    "AUTOREPLY": "email.auto_replied",
    "AUTORESPONSE": "email.auto_replied",
    "AUTORESPONDER": "email.auto_replied",
    "OUTOFOFFICE": "email.auto_replied",
}
SAID_CLASSIFICATIONS = {"email.replied": "REPLY", "email.auto_replied": "AUTO_REPLY"}


def _failure(fields: Values, meaning: Meaning, code: int | None = None) -> Failure:
    _, class_, final = meaning
    category, detail = fields.pop("failure_category", None), fields.pop("failure_detail", None)
    return Failure(class_, code, category, None, None, final, detail)


def _judge_bounce(fields: Values, extra: Values) -> tuple[str, Failure]:
    """By the code; its text is kept where it is not a plain number."""
    text = fields.pop("failure_code", "")
    code = int(text) if len(text) <= 9 and text.isascii() and text.isdecimal() else None
    if text and str(code) != text:
        extra.setdefault("CategoryCode", text)
    meaning = CODES[code][1] if code in CODES else _UNKNOWN
    return f"email.{meaning[0]}", _failure(fields, meaning, code or None)


def _judge_category(channel: str, categories: Mapping[str, Meaning]) -> Judge:
    known: dict[str, Meaning] = {"UNDELIVERED": ("undelivered", "undetermined", None), **categories}

    def judge(fields: Values, extra: Values) -> tuple[str, Failure]:
        meaning = known.get(fields.get("failure_category", ""), _UNKNOWN)
        return f"{channel}.{meaning[0]}", _failure(fields, meaning)

    return judge


def _judge_classification(fields: Values, extra: Values) -> tuple[str, None]:
    said = extra.get("Classification")
    letters = filter(str.isalpha, said[:40].upper()) if isinstance(said, str) else ()
    return _CLASSIFICATIONS.get("".join(letters), "email.received"), None


def _judge_context(fields: Values, extra: Values) -> tuple[str, None]:
    """A miss is told as a hit without size and dates."""
    found = "RecordSize" in extra or "CreateTimestamp" in extra or "UpdateTimestamp" in extra
    return "record.found" if found else "record.missed", None


def _judge_errors(type_: str) -> Judge:
    """The first error is the failure; all of them stay in `extra`."""

    def judge(fields: Values, extra: Values) -> tuple[str, Failure | None]:
        errors = _first(extra.get("RenderErrors"))
        error = _first(errors.get("RenderError")) or _first(extra.get("JobError"))
        category, detail = error.get("ErrorCode"), error.get("ErrorMessage")
        if not isinstance(category, str) or not isinstance(detail, str):
            return type_, None
        return type_, Failure(category=category or None, final=True, detail=detail or None)

    return judge


def _first(value: Any) -> Values:
    if isinstance(value, list):
        value = value[0]
    return value if isinstance(value, dict) else {}


JUDGES: dict[str, Judge] = {
    "email.bounced": _judge_bounce,
    "sms.bounced": _judge_category("sms", SMS_CATEGORIES),
    "push.bounced": _judge_category("push", PUSH_CATEGORIES),
    "email.received": _judge_classification,
    "record.found": _judge_context,
    **{row: _judge_errors(row) for row in ("email.render_failed", "push.render_failed", "sms.render_failed")},
    "campaign.failed": _judge_errors("campaign.failed"),
}


def foreign_bounce(event: Event, failure: Failure) -> tuple[str, str]:
    """Category and code for the bounce of another's event."""
    what = event.type.partition(".")[2]
    codes = [code for code, (_, meaning) in CODES.items() if meaning[0] == what]
    code = failure.code if failure.code is not None and failure.code in codes else codes[0]
    return CODES[code][0], str(code)


def foreign_category(event: Event, failure: Failure) -> tuple[str, str]:
    """Category and code for the failure of another's SMS or push message."""
    channel, _, what = event.type.partition(".")
    table = SMS_CATEGORIES if channel == "sms" else PUSH_CATEGORIES
    fitting = [name for name, meaning in table.items() if meaning[0] == what]
    own = _OWN_CATEGORIES.get(what)
    category = failure.category if failure.category in fitting else own or (fitting or ["UNDETERMINED"])[0]
    class_ = table[category][1] if category in table else failure.class_
    return category or "", _CLASS_CODES.get(class_ or "", "1")

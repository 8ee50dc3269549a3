"""Mail that aftersend writes itself: its ids, and how events about it are known, so that no mail is written about it.

A mail about an event is delivered, opened and perhaps bounced, and each of these is an event again. Without this rule a
subscription of all e-mail events would write to itself for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from hashlib import blake2b

from aftersend.core.event import Event
from aftersend.core.registry import Subscription

Teller = Callable[[Event], str | None]

_FORM = re.compile(r"\s*<?aftersend\.[0-9a-f]{32}@[^\s<>@]{1,255}>?\s*", re.IGNORECASE)


def own_message_id(id_: str, domain: str) -> str:
    """The Message-ID of a mail of ours; the same id and domain make the same one."""
    return f"<aftersend.{blake2b(id_.encode(), digest_size=16).hexdigest()}@{domain}>"


def is_own_mail(event: Event, recipients: Collection[str] = ()) -> bool:
    """Whether an event is about a mail of ours: by the form of its Message-ID.

    Providers that hand our mail on may put an id of their own in its place. So an e-mail event of one of `recipients`
    (in lower case: those whom our mails go to) counts too, where it belongs to no campaign, job, template or list.
    """
    if _has_our_form(event.message_id) or _has_our_form(event.correlation_id):
        return True
    if not event.recipient or not recipients or event.recipient.strip().lower() not in recipients:
        return False
    belongs = event.campaign_id or event.job_id or event.template_id or event.list_id
    return not belongs and (event.channel or event.type.partition(".")[0]) == "email"


def teller(subscription: Subscription, word: Teller) -> Teller:
    """The dialect's `word` that a subscription is told by; for mail, it has none for events about our own mail."""
    if subscription.transport != "smtp":
        return word
    recipients = frozenset(str(one).strip().lower() for one in subscription.settings.get("recipients", ()))

    def word_unless_own(event: Event) -> str | None:
        return None if is_own_mail(event, recipients) else word(event)

    return word_unless_own


def _has_our_form(id_: str | None) -> bool:
    return id_ is not None and "aftersend." in id_.lower() and _FORM.fullmatch(id_) is not None

"""No mail is written about mail that aftersend wrote itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core.event import Event, Source
from aftersend.core.own_mail import is_own_mail, own_message_id, teller
from aftersend.core.registry import Subscription
from aftersend.dialects.canonical import Dialect

WORD = Dialect().word


def event(type_: str = "email.delivered", **fields: str | None) -> Event:
    return Event("id", type_, 0, Source("relay", "canonical", type_), **fields)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.text(min_size=1), st.from_regex(r"[a-z]{1,20}(\.[a-z]{1,20}){0,3}", fullmatch=True))
def test_our_mails_are_known_by_their_ids_however_these_are_written(id_: str, domain: str) -> None:
    made = own_message_id(id_, domain)
    assert made == own_message_id(id_, domain)
    for written in (made, made[1:-1], made.upper(), f" {made} "):
        assert is_own_mail(event(message_id=written))
        assert is_own_mail(event("email.hard_bounced", correlation_id=written))


@pytest.mark.parametrize(
    "id_",
    [None, "", "<1@shop.example>", "<aftersend.news@shop.example>", "<x.aftersend." + "0" * 32 + "@a>", "0" * 32],
)
def test_other_mails_are_told(id_: str | None) -> None:
    assert not is_own_mail(event(message_id=id_))


def test_another_id_is_seen_through_where_the_mail_went_to_us_and_belongs_to_nothing() -> None:
    ours = frozenset({"ops@shop.example"})
    assert is_own_mail(event(message_id="010f-ses", recipient="Ops@shop.example"), ours)
    assert is_own_mail(event(recipient="ops@shop.example", channel="email"), ours)
    assert not is_own_mail(event(recipient="ops@shop.example"))
    assert not is_own_mail(event(recipient="customer@x.example"), ours)
    assert not is_own_mail(event("sms.delivered", recipient="ops@shop.example"), ours)
    for name in ("campaign_id", "job_id", "template_id", "list_id"):
        assert not is_own_mail(event(recipient="ops@shop.example", **{name: "spring"}), ours), "it is a real campaign"


def test_a_subscription_by_mail_is_told_nothing_of_our_own_mail() -> None:
    word = teller(Subscription(name="m", transport="smtp", settings={"recipients": ["OPS@shop.example "]}), WORD)
    assert word(event(message_id="<1@shop.example>")) == "email.delivered"
    assert word(event(message_id=own_message_id("msg_1", "shop.example"))) is None
    assert word(event(recipient="ops@shop.example")) is None


def test_every_other_subscription_is_told_of_it() -> None:
    assert teller(Subscription(name="h"), WORD) is WORD

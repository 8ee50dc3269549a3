"""How subscriptions are shown to people."""

from typing import Any

import pytest

from aftersend.cli.standings import in_short, laid_out, require_told, say_next
from aftersend.core.errors import AftersendError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def subscription(transport: str = "http", url: str = "", **fields: Any) -> dict[str, Any]:
    usual = {
        "name": "crm",
        "transport": transport,
        "url": url,
        "settings": {},
        "state": "active",
        "reason": "",
        "failing_since": 0,
        "file": {"every": "hour"},
        "retry": [5.0, 30.0],
        "standing": {"behind": 3},
    }
    return {**usual, **fields}


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"url": "https://crm.example/hook"}, "https://crm.example/hook"),
        ({"transport": "rest_pull"}, "rest_pull"),
        ({"transport": "soap_pull", "settings": {"user": "acme.sys", "password": "********"}}, "soap_pull acme.sys"),
        ({"transport": "messagegears_rest", "settings": {"account_id": "23"}}, "messagegears_rest 23"),
        (
            {"transport": "smtp", "url": "smtp://mail", "settings": {"recipients": ["a@b.example", "c@d.example"]}},
            "smtp://mail a@b.example +1",
        ),
        ({"transport": "amqp", "url": "amqps://rabbit", "settings": {"queue": "events"}}, "amqps://rabbit events"),
        ({"transport": "sftp", "url": "sftp://files/in", "settings": {"user": "bob"}}, "sftp://files/in"),
    ],
)
def test_every_row_says_where_events_go(fields: dict[str, Any], place: str) -> None:
    assert in_short(subscription(**fields))["to"] == place


def test_a_row_says_that_a_receiver_fails_and_what_it_said() -> None:
    standing = {"behind": 3, "failing_since": "2026-08-01T10:00:00Z", "detail": "connect: connection refused"}
    row = in_short(subscription(standing=standing))
    assert (row["state"], row["reason"], row["behind"]) == ("failing", "connect: connection refused", 3)
    row = in_short(subscription(standing=standing, state="disabled", reason="nothing but failure for 3 days"))
    assert (row["state"], row["reason"]) == ("disabled", "nothing but failure for 3 days")


def test_a_subscription_is_laid_out_a_line_for_each_setting_without_what_says_nothing() -> None:
    settings = {"recipients": ["a@b.example", "c@d.example"], "ca": CERTIFICATE, "prefix": ""}
    shown = laid_out(subscription("smtp", "smtp://mail", settings=settings))
    assert shown["setting recipients"] == ["a@b.example", "c@d.example"]
    assert shown["setting ca"] == "-----BEGIN CERTIFICATE----- … (3 lines)"
    assert shown["file every"] == "hour"
    assert shown["retry"] == [5, 30]
    assert shown["standing behind"] == 3
    assert not {"setting prefix", "failing_since", "reason"} & shown.keys()
    assert "file every" not in laid_out(subscription("rest_pull"))


def test_the_place_of_each_word_has_a_line_of_its_own() -> None:
    words = {"OPEN": {"position": 7, "epoch": 1, "sequence": 2}, "*": {"position": 9, "epoch": 1, "sequence": 0}}
    shown = laid_out(subscription("soap_pull", standing={"behind": 3, "words": words}))
    assert (shown["position OPEN"], shown["position *"]) == (7, 9)
    assert "standing words" not in shown


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"transport": "rest_pull"}, "aftersend subscriptions pull crm"),
        ({"transport": "soap_pull", "settings": {"user": "acme.sys"}}, "logs in as acme.sys"),
        ({"transport": "messagegears_rest", "settings": {"account_id": "23"}}, "AccountId 23"),
        ({"transport": "folder"}, "when its hour is over; --file every=minute"),
        ({"transport": "folder", "file": {"every": "minute"}}, "when its minute is over."),
        ({"transport": "smtp", "settings": {"mode": "events"}}, ""),
        ({}, ""),
    ],
)
def test_who_added_a_subscription_is_told_what_happens_next(
    fields: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_next(subscription(**fields))
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(said) == bool(printed)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"state": "disabled"}, "`aftersend subscriptions enable crm`"),
        ({"state": "paused"}, "`aftersend subscriptions resume crm`"),
        ({"transport": "rest_pull"}, "it is pulled"),
    ],
)
def test_what_tries_nothing_is_not_said_to_try_again(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(AftersendError, match=said):
        require_told(subscription(**fields), aside=False)


def test_events_set_aside_are_offered_anew_to_pullers_too() -> None:
    require_told(subscription("rest_pull"), aside=True)
    require_told(subscription(), aside=False)

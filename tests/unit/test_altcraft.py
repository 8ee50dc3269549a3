"""Altcraft's oddities: what the shared suite does not show."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Event, Failure, Geo, Receipt, Rejected, Source
from aftersend.core.options import build
from aftersend.core.taxonomy import OTHER, is_type
from aftersend.core.timestamps import format_time, parse_time
from aftersend.dialects.altcraft import Dialect
from aftersend.testing.dialects import QUICK, RECEIVED_AT, plain

FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "altcraft"
HOOKS = sorted(FOLDER.glob("hook_*.json"))


def heard(value: Any, dialect: Dialect | None = None) -> list[Event]:
    found = (dialect or Dialect()).decode(Receipt(json.dumps(value).encode(), RECEIVED_AT))
    assert all(isinstance(item, Event) for item in found), found
    return [item for item in found if isinstance(item, Event)]


def hook(word: str = "send", data: Any = None, **fields: Any) -> dict[str, Any]:
    return {"event_type": word, "event_date": "2026-01-15T08:00:00Z", "event_data": data or {}, **fields}


def told(events: list[Event], dialect: Dialect | None = None) -> list[dict[str, Any]]:
    (body,) = (dialect or Dialect()).encode(events)
    items: list[dict[str, Any]] = json.loads(body.data)
    return items


def foreign(type_: str, recipient: str | None = "alice@example.org", **fields: Any) -> Event:
    return Event("0", type_, parse_time("2026-01-15T08:00:00Z"), Source("x", "x", "x"), recipient=recipient, **fields)


@pytest.mark.parametrize("file", HOOKS, ids=lambda file: file.stem)
def test_a_hook_is_said_again_to_the_letter(file: Path) -> None:
    items = json.loads(file.read_bytes())
    for item in items:
        item.setdefault("is_test", False)  # required by the newest page, lacking in the oldest example
        item["event_type"] = item.pop("event", None) or item["event_type"]
        item["event_date"] = item["event_date"].replace("00Z", "00.000000000Z")
    assert told(heard(items)) == items


def test_all_eighty_names_have_a_row_of_their_own() -> None:
    columns = Dialect.columns
    names = {item["event_type"] for file in FOLDER.glob("hook_family_*.json") for item in json.loads(file.read_bytes())}
    assert len(names) == 80
    assert names == columns.keys()
    assert all(is_type(type_) and type_ != OTHER for type_ in columns.values())
    assert len(set(columns.values())) == 80


def test_a_bounce_says_whether_it_is_final() -> None:
    hard, soft = heard([hook("hbounce"), hook("sbounce_push")])
    assert hard.failure == Failure("hard", final=True)
    assert soft.failure == Failure("soft", final=False)


def test_nanoseconds_are_kept_and_always_nine() -> None:
    (event,) = heard([hook(event_date="2018-03-04T13:13:19.034315796Z")])
    assert event.time % 1_000_000_000 == 34_315_796
    assert told([event])[0]["event_date"] == "2018-03-04T13:13:19.034315796Z"
    assert told(heard([hook(event_date="2018-03-04T13:13:19.5Z")]))[0]["event_date"] == "2018-03-04T13:13:19.500000000Z"


def test_the_same_act_with_more_attempts_is_the_same_fact() -> None:
    first, second = heard([hook("deliv", sends_trying_num=1), hook("deliv", sends_trying_num=2)])
    assert first.id == second.id


@pytest.mark.parametrize(
    "other",
    [
        {"account_id": 24},
        {"profile_id": "5a8c045fc1dde44cbf718f79"},
        {"event_data": {"send_message_id": "u2"}},
        {"event_data": {"link_url": "http://www.example.com/2"}},
        {"event_type": "uclick"},
        {"event_date": "2026-01-15T08:00:00.000000001Z"},
    ],
)
def test_events_that_differ_in_an_identity_field_are_two_facts(other: dict[str, Any]) -> None:
    one = hook("click", {"send_message_id": "u1"}, account_id=23, profile_id="5a8c045fc1dde44cbf718f78")
    assert len({event.id for event in heard([one, {**one, **other}])}) == 2


def test_people_without_profile_and_hash_are_told_apart_by_address() -> None:
    items = [hook(custom_data={"email": f"{name}@example.org"}, _xxh=None) for name in ("alice", "bob")]
    assert len({event.id for event in heard(items)}) == 2


def test_the_historys_zone_is_found_from_its_event_id() -> None:
    (event,) = heard(json.loads((FOLDER / "history_get_response.json").read_bytes()))
    assert format_time(event.time) == "2024-09-27T12:52:57.004Z"
    assert event.source.id == "66f6aaa9da00a9db1c0b2683"


@pytest.mark.parametrize(("minutes", "time"), [(0, "15:52:57"), (180, "12:52:57"), (-60, "16:52:57")])
def test_the_historys_zone_may_be_set(minutes: int, time: str) -> None:
    dialect = build(Dialect, {"history_offset": minutes}, "altcraft")
    (event,) = heard(json.loads((FOLDER / "history_get_response.json").read_bytes()), dialect)
    assert format_time(event.time) == f"2024-09-27T{time}.004Z"


@pytest.mark.parametrize("event_id", [None, 5, "66f6aaa9", "zzzzzzzzda00a9db1c0b2683", "000000000000000000000000"])
def test_without_a_clue_the_history_speaks_moscow_time(event_id: Any) -> None:
    item = {"action": "open", "datetime": "2024-09-27T15:52:57Z", "event_id": event_id}
    (event,) = heard({"data": [item]})
    assert format_time(event.time) == "2024-09-27T12:52:57Z"


def test_the_history_is_told_as_a_hook() -> None:
    (item,) = told(heard(json.loads((FOLDER / "history_get_response.json").read_bytes())))
    assert item["event_type"] == "send"
    assert item["event_date"] == "2024-09-27T12:52:57.004000000Z"
    assert item["_xxh"] == "9202595093f237d4"
    assert item["event_data"]["message_id"] == 5
    assert item["event_data"]["send_message_id"].startswith("u")
    assert [entry["channel"] for entry in item["subscription"]] == ["email"]
    assert not {"action", "datetime", "smid", "xxh"} & item.keys()


@pytest.mark.parametrize(
    ("type_", "word"),
    [
        ("rcs.delivered", "rcs_deliv"),
        ("max_bot.first_clicked", "max_bot_uclick"),
        ("whatsapp.hard_bounced", "whatsapp_hbounce"),
        ("sms.clicked", "click_sms"),
        ("viber.clicked", "viber_click"),
        ("email.subscribed", None),
        ("sms.complained", None),
        ("push.unsubscribed", None),
        ("web.clicked", None),
        ("email.blocked", None),
        ("rcs.deferred", None),
        ("pixel.opened", None),
        ("campaign.finished", None),
        ("other", None),
    ],
)
def test_the_word_for_an_event_of_others(type_: str, word: str | None) -> None:
    assert Dialect().word(foreign(type_)) == word


def test_an_event_of_others_is_told_as_altcraft_would() -> None:
    event = foreign(
        "email.clicked",
        message_id="<1@shop.example>",
        campaign_id="973",
        template_id="017",
        job_id="0000001",
        list_id="spring",
        url="https://shop.example/",
        geo=Geo("GB", city="Leeds", latitude=53.8),
        extra={"account_id": 99, "secret": 1},
    )
    (item,) = told([event], Dialect(account_id=23))
    assert item == {
        "event_type": "click",
        "event_date": "2026-01-15T08:00:00.000000000Z",
        "is_test": False,
        "list_id": "spring",
        "account_id": 23,
        "custom_data": {"email": "alice@example.org"},
        "event_data": {
            "message_id": "017",
            "campaign_id": 973,
            "country": ".uk",
            "city": "Leeds",
            "lat": 53.8,
            "link_url": "https://shop.example/",
            "launch_id": "0000001",
            "send_message_id": "<1@shop.example>",
        },
    }


def test_an_sms_never_takes_an_address_for_its_recipient() -> None:
    (event,) = heard([hook("unsub_sms", custom_data={"email": "alice@example.org"})])
    assert event.recipient is None
    assert told([foreign("sms.sent", "4790000000")])[0]["custom_data"] == {"phone": "4790000000"}


def test_what_is_told_fits_the_schema() -> None:
    schema = Dialect().schemas()["event"]
    jsonschema.Draft202012Validator.check_schema(schema)
    for file in [*HOOKS, FOLDER / "history_get_response.json"]:
        for item in told(heard(json.loads(file.read_bytes()))):
            jsonschema.validate(item, schema)


def test_a_bad_member_says_what_is_wrong_and_keeps_its_bytes() -> None:
    (fault,) = Dialect().decode(Receipt(b'[{"event_type":"send","event_date":"yesterday"}]', RECEIVED_AT))
    assert isinstance(fault, Rejected)
    assert fault.detail == "event 0: event_date is not an RFC 3339 time"
    assert json.loads(fault.raw) == {"event_type": "send", "event_date": "yesterday"}


_NAMES = {
    "": "account_id list_id profile_id _xxh is_test channel email phone event_id custom_data subscription event_data "
    "event action xxh smid message_id",
    "event_data": "message_id campaign_id launch_id send_message_id link_url ip country city lat lon tz segment_id",
    "custom_data": "email phone channel city",
    "subscription": "email phone channel",
}
_NUMBERS = (0, 17, -1, 1.5, 17.0, 10**18, 10**30, True, False, None)
_TEXTS = ("", "17", "017", ".ru", ".uk", ".gb", "RU", "sms", "email", "a@example.org", "b@example.org", "+79990000001")
_values = st.sampled_from([*_NUMBERS, *_TEXTS, "66f6aaa9da00a9db1c0b2683", [], {}, ["a"], {"email": "c@d"}])


def _object(level: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(_NAMES[level].split()), _values, max_size=6)


@QUICK
@given(
    _object(""),
    _values | _object("event_data"),
    _values | _object("custom_data"),
    _values | _object("subscription") | st.lists(_object("subscription"), max_size=2),
    st.sampled_from(["click", "send_sms", "open_push", "viber_read", "segs_add", "camp_error", "X-Y_send", "new_word"]),
    st.booleans(),
)
def test_whatever_the_fields_hold_is_said_again(
    item: dict[str, Any], data: Any, custom: Any, subscription: Any, word: str, history: bool
) -> None:
    item |= {"event_data": data, "custom_data": custom, "subscription": subscription}
    if history:
        item |= {"event": None, "action": word, "datetime": "2024-09-27T15:52:57Z"}
    else:
        item |= {"event_type": word, "event_date": "2024-09-27T15:52:57Z"}
    events = heard([item])
    again = told(events)
    assert [plain(event) for event in heard(again)] == [plain(event) for event in events]
    assert told(heard(again)) == again
    if not history:
        assert again == [{"is_test": False, **item, "event_date": "2024-09-27T15:52:57.000000000Z"}]

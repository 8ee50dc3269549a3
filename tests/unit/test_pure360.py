"""What the shared suite does not show of Pure360: its forms, spellings, broken examples, columns and limits."""

import base64
import csv
import time as clock
from email import message_from_bytes
from typing import Any
from urllib.parse import urlencode

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from aftersend.core.errors import EncodeError
from aftersend.core.event import Event, Receipt, Rejected, Source
from aftersend.core.timestamps import SECOND, parse_time
from aftersend.dialects.pure360 import (
    COLUMNS,
    FIELD_LIMIT,
    Dialect,
    csv_lines,
    csv_rows,
    event_meta,
    read_rows,
    told_meta,
)

RECEIVED_AT = parse_time("2026-02-01T00:00:00Z")
DIALECT = Dialect()
META = {
    "CLICK": "type,email,Message Name,Delivery Date,Click Url,Click Date",
    "OPEN": "type, email, messageName, deliveryDate",
}


def read(body: bytes, form: str = "") -> list[Event | Rejected]:
    return DIALECT.decode(Receipt(body, RECEIVED_AT, form=form))


def event_of(body: bytes, form: str = "") -> Event:
    (event,) = read(body, form)
    assert isinstance(event, Event), event
    return event


def reason_of(body: bytes, form: str = "") -> str:
    (rejected,) = read(body, form)
    assert isinstance(rejected, Rejected), rejected
    return rejected.reason


def foreign(type_: str, **fields: object) -> Event:
    told = Event("x", type_, 1_437_585_002 * SECOND + 5, Source("y", "elsewhere", "w"), recipient="ann@example.com")
    return structs.replace(told, **fields)


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"type=OPEN&email=ann%40example.com", "http"),
        (b"OPEN,ann@example.com,Deals,1437581341", "csv"),
        (b'"OPEN","ann@example.com"', "csv"),
        (b'"type:OPEN","email:ann@example.com"', "ftp"),
        (b'\'"type:OPEN","email:ann@example.com"\'', "ftp"),
        (b"Subject: OPEN\n\nemail: ann@example.com", "email"),
        (b"\xef\xbb\xbftype: OPEN\nemail: ann@example.com", "email"),
    ],
)
def test_a_body_shows_its_form(body: bytes, form: str) -> None:
    assert read(body) == read(body, form)
    assert event_of(body).recipient == "ann@example.com"


@pytest.mark.parametrize(
    "body", [b'{"type":"OPEN"}', b"<html>", b"hello", b"\x00\x01,\x02", b"type=type", b"Hi: there\n\nyou", b"=,:"]
)
def test_bytes_of_no_form_are_rejected(body: bytes) -> None:
    assert reason_of(body) in ("missing_field", "invalid_type")


def test_an_event_without_a_word_cannot_be_told() -> None:
    assert DIALECT.word(foreign("email.bounced")) is None
    with pytest.raises(EncodeError, match=r"email\.bounced"):
        DIALECT.encode([foreign("email.bounced")])


def test_a_form_that_is_not_known_is_named() -> None:
    assert reason_of(b"type=OPEN", "soap") == "unknown_form"
    with pytest.raises(EncodeError, match="http, csv, ftp, email"):
        DIALECT.encode([foreign("email.opened")], "soap")


def test_an_empty_batch_of_rows_is_no_fault_and_an_empty_request_is() -> None:
    assert read(b"", "csv") == []
    assert [reason_of(b" \n", form) for form in ("", "http", "ftp", "email")] == ["empty_body"] * 4


def test_the_sender_hears_ok_and_wants_to_hear_it() -> None:
    assert (DIALECT.answer.status, DIALECT.answer.body) == (200, b"OK")
    assert DIALECT.acknowledgement.tries == 5


def test_names_are_the_same_in_any_spelling() -> None:
    plain = event_of(b"type=CLICK&Event_date=1437585102&email=a%40b.example&Delivery_ID=7&clickUrl=https%3A%2F%2Fx")
    for body in (
        b"Type=CLICK&event+date=1437585102&E-mail=a%40b.example&delivery_id=7&Click%20Url=https%3A%2F%2Fx",
        b"TYPE=CLICK&eventDate=1437585102&EMAIL=a@b.example&Delivery-ID=7&click/url=https://x",
    ):
        assert event_of(body) == plain


def test_a_message_name_is_said_again_as_it_was_spelled() -> None:
    body = b"type=DELIVERYSTART&Delivery_ID=1&MessageName=A%20%26%20B&List_Names[]=a%20b&List_Names[]=c"
    (told,) = DIALECT.encode([event_of(body)], "http")
    assert told.data == b"type=DELIVERYSTART&Delivery_ID=1&MessageName=A%20%26%20B&List_Names[]=a%20b&List_Names[]=c"


def test_a_campaign_is_on_its_way_but_nobody_got_anything() -> None:
    event = event_of(b"type=DELIVERY&Message_Type=SMS&Delivery_ID=5&Delivery_Complete_Date=1437581500")
    assert (event.type, event.channel, event.recipient) == ("campaign.sending", "sms", None)
    assert event.time == 1_437_581_500 * SECOND


def test_a_nine_digit_time_is_kept_and_doubted() -> None:
    event = event_of(b"type=OPEN&Event_date=143758140&email=a%40b.example")
    assert (event.time, event.suspect) == (143_758_140 * SECOND, ["time"])
    assert b"Event_date=143758140&" in DIALECT.encode([event])[0].data


def test_words_in_the_place_of_a_time_are_said_again_and_the_receipt_gives_the_time() -> None:
    event = event_of(b"type=OPEN&Event_date=Unix Timestamp&email=a%40b.example")
    assert (event.time, event.extra) == (RECEIVED_AT, {"Event_date": "Unix Timestamp"})
    assert DIALECT.encode([event])[0].data == b"type=OPEN&email=a%40b.example&Event_date=Unix%20Timestamp"


@pytest.mark.parametrize("time", [b"-5", b"99999999999999999999", b"1970000000", b"01%2F01%2F1950+10:00"])
def test_times_out_of_range_are_rejected(time: bytes) -> None:
    assert reason_of(b"type=OPEN&email=a%40b.example&Event_date=" + time) == "time_out_of_range"


def test_a_retry_is_the_same_fact_and_another_message_of_the_same_second_is_not() -> None:
    body = b"type=BOUNCE&Event_date=1437585202&email=a%40b.example&Delivery_ID=1&device_OS=iOS"
    again = DIALECT.decode(Receipt(body.replace(b"iOS", b"Android"), RECEIVED_AT + SECOND))[0]
    assert isinstance(again, Event)
    assert again.id == event_of(body).id
    others = [body.replace(b"ID=1", b"ID=2"), body.replace(b"a%40", b"b%40"), body.replace(b"BOUNCE", b"BLOCKED")]
    assert len({event_of(other).id for other in [body, *others]}) == 4


def test_pulled_opens_without_time_and_delivery_differ_by_their_message() -> None:
    rows = b"OPEN,joe@example.com,Deals,1437581341\nOPEN,joe@example.com,News,1437581341\n"
    assert len({event.id for event in read_rows(rows, META, Receipt(b"", RECEIVED_AT))}) == 2  # type: ignore[union-attr]


def test_a_number_is_the_recipient_where_there_is_no_address() -> None:
    event = event_of(b"type=OPTIN&email=&mobile=44789856545")
    assert event.recipient == "44789856545"
    assert b"&mobile=44789856545&email=" in DIALECT.encode([event])[0].data
    assert event_of(b"type=SMSFAILED&email=a%40b.example&mobile=447").extra == {"email": "a@b.example"}


def test_a_form_with_too_many_fields_is_rejected_quickly() -> None:
    assert reason_of(b"type=OPEN" + b"&a=b" * FIELD_LIMIT) == "too_many_fields"
    assert reason_of(b"OPEN" + b",x" * FIELD_LIMIT, "csv") == "too_many_fields"
    assert reason_of(b'"type:OPEN"' + b',"a:b"' * FIELD_LIMIT, "ftp") == "too_many_fields"
    assert reason_of(b"type: OPEN\n" + b"a: b\n" * FIELD_LIMIT, "email") == "too_many_fields"


@pytest.mark.parametrize(
    ("head", "piece", "form"),
    [
        (b"", b"%", "http"),
        (b"", b"&", "http"),
        (b"", b'"', "csv"),
        (b"", b'",', "csv"),
        (b"", b'x,""y\n', "csv"),
        (b"", b'"z\nx,""y\n', "csv"),
        (b"", b'a,"\\', "csv"),
        (b'"', b",", "csv"),
        (b"", b',"', "ftp"),
        (b"", b', "a', "ftp"),
        (b"", b'"a:b",\n', "ftp"),
        (b"Subject: ", b"=?a?q?", "email"),
        (b"Subject: OPEN", b"\n ", "email"),
        (b"Content-Type: multipart/mixed; boundary=a\n\n--a\n", b"Content-Type: a/b\n\n--a\n", "email"),
        (b'Content-Type: multipart/mixed; a="', b";", "email"),
        (b'Content-Type: multipart/mixed; a="', b';"', "email"),
    ],
)
def test_no_body_takes_long(head: bytes, piece: bytes, form: str) -> None:
    size = 300_000 if form != "email" else 60_000
    body = head + piece * ((size - len(head)) // len(piece)) + b"\n\ntype: OPEN\n"
    began = clock.perf_counter()
    assert all(isinstance(item, Event | Rejected) for item in read(body, form))
    assert clock.perf_counter() - began < 2


def test_event_data_is_read_by_its_event_meta() -> None:
    rows = b'CLICK,joe@example.com,Deals,1437581341,"https://www.example.com/?id=1,2",1437585002\r\nOPEN,o\xa4@x,Deals,1\r\n'
    click, opened = read_rows(rows, META, Receipt(b"", RECEIVED_AT, source="pull", tenant="acme"))
    assert isinstance(click, Event)
    assert isinstance(opened, Event)
    assert (click.url, click.time, click.tenant) == ("https://www.example.com/?id=1,2", 1_437_585_002 * SECOND, "acme")
    assert (opened.recipient, opened.time, opened.source.name) == ("o€@x", RECEIVED_AT, "pull")
    assert opened.extra == {"messageName": "Deals", "deliveryDate": "1"}


def test_event_data_is_told_with_the_columns_of_its_event_meta() -> None:
    events = [
        foreign("email.clicked", campaign_id="Deals", url="https://x/?a=1,2"),
        foreign("sms.undelivered", recipient="447", message_id="m-1"),
        event_of(b"type=OPEN&Event_date=1437585002&email=a%40b.example&first_name=Ann"),
    ]
    assert csv_rows(events) == (
        'CLICK,ann@example.com,Deals,,"https://x/?a=1,2",1437585002\nSMSFAILED,447,,,1437585002\nOPEN,a@b.example,,,\n'
    ).replace("a@b.example,,,", "a@b.example,,,1437585002")
    named = {word: f"{columns},firstName" for word, columns in COLUMNS.items()}
    assert csv_rows(events[2:], named) == "OPEN,a@b.example,,,1437585002,Ann\n"
    assert event_meta(events[:2]) == {
        "CLICK": f"{COLUMNS['CLICK']},Delivery ID",
        "SMSFAILED": f"{COLUMNS['SMSFAILED']},message_id",
    }
    again = read_rows(csv_rows(events, event_meta(events)).encode(), event_meta(events), Receipt(b"", RECEIVED_AT))
    assert [item.message_id for item in again if isinstance(item, Event)] == [None, "m-1", None]


def test_the_meta_of_words_has_the_vendors_columns_and_the_custom_fields_that_are_none_of_them() -> None:
    assert told_meta(["CLICK", "open", "FORWARD"]) == {
        "CLICK": COLUMNS["CLICK"],
        "open": COLUMNS["OPEN"],
        "FORWARD": COLUMNS["OPTIN"],
    }
    custom = ["first name", "EMAIL", "messageName", "FirstName", "a,b"]
    assert told_meta(["OPEN"], custom) == {"OPEN": f'{COLUMNS["OPEN"]},first name,"a,b"'}


def test_a_custom_column_finds_its_field_under_any_spelling_whoever_told_the_event() -> None:
    events = [
        foreign("email.opened", extra={"first_name": "Ann", "score": 7, "tags": ["a", "b"], "deep": {"x": 1}}),
        event_of(b"type=OPEN&Event_date=1437585002&email=a%40b.example&FirstName=Ben&list[]=x&list[]=y"),
    ]
    meta = told_meta(["OPEN"], ["First Name", "score", "tags", "deep", "list", "Delivery ID"])
    ann, ben = csv_lines(events, meta)
    assert ann == 'OPEN,ann@example.com,,,1437585002,Ann,7,"a, b",,,\n'
    assert ben == 'OPEN,a@b.example,,,1437585002,Ben,,,,"x, y",\n'


def test_the_time_of_an_event_stands_in_its_column_though_it_was_heard_in_another_form() -> None:
    heard = event_of(b"type=OPEN&Event_date=22%2F07%2F2015+17%3A10&email=a%40b.example")
    assert csv_lines([heard]) == ["OPEN,a@b.example,,,1437585000\n"]


FIELDS = st.dictionaries(
    st.text(max_size=8) | st.sampled_from(["type", "email", "Event_date", "Open Date", "messageName", "clickUrl"]),
    st.none() | st.text(max_size=8) | st.integers() | st.lists(st.text(max_size=3), max_size=3) | st.just({"a": 1}),
    max_size=6,
)


@given(st.sampled_from(sorted(COLUMNS)), FIELDS, st.lists(st.text("abc ,", min_size=1, max_size=5), max_size=3))
def test_every_event_makes_one_row_with_a_cell_for_each_column(
    word: str, extra: dict[str, Any], custom: list[str]
) -> None:
    heard = Event("i", DIALECT.columns[word], RECEIVED_AT, Source("s", "pure360", word), extra=extra, recipient="a\nb")
    told = foreign(DIALECT.columns[word], extra=extra, campaign_id="c\r\nd", message_id='m"')
    meta = told_meta([word, "OPTIN"], custom)
    for event in (heard, told):
        (line,) = csv_lines([event], meta)
        assert line.endswith("\n")
        assert "\n" not in line[:-1]
        cells = next(csv.reader([line]))
        assert len(cells) == len(next(csv.reader([meta[DIALECT.word(event) or ""]])))


def test_rows_with_the_vendors_own_columns_need_no_line_that_names_them() -> None:
    (body,) = DIALECT.encode([foreign("email.unsubscribed"), foreign("email.blocked")], "csv")
    assert (body.data, body.count) == (
        b"OPTOUT,ann@example.com,,,1437585002\nBLOCKED,ann@example.com,,,1437585002\n",
        2,
    )


def test_a_body_of_rows_names_the_columns_that_are_not_the_vendors() -> None:
    (body,) = DIALECT.encode([foreign("email.unsubscribed", message_id="m,1")], "csv")
    assert body.data == (
        b"eventMeta,OPTOUT,type,email,Message Name,Delivery Date,Event Date,message_id\n"
        b'OPTOUT,ann@example.com,,,1437585002,"m,1"\n'
    )


def test_an_open_row_does_not_swallow_the_next() -> None:
    first, second = read(b'OPEN,"joe@example.com,Deals\nOPEN,ann@example.com,"Big, deals"\n', "csv")
    assert isinstance(first, Rejected)
    assert (first.reason, first.index, first.raw) == ("unclosed_quote", 0, b'OPEN,"joe@example.com,Deals')
    assert isinstance(second, Event)
    assert second.recipient == "ann@example.com"


def test_requests_and_mails_tell_one_event_each_and_lines_tell_all() -> None:
    events = [foreign("email.opened"), foreign("email.clicked", url="https://x")]
    counts = {form: [body.count for body in DIALECT.encode(events, form)] for form in DIALECT.forms}
    assert counts == {"http": [1, 1], "csv": [2], "ftp": [2], "email": [1, 1]}
    assert DIALECT.singles == {form for form, count in counts.items() if count == [1, 1]}


def test_a_foreign_event_fills_the_documented_fields_and_tells_nothing_of_its_extra() -> None:
    event = foreign("campaign.sending", channel="sms", campaign_id="42", list_id="all", extra={"secret": "1"})
    assert DIALECT.encode([event])[0].data == (
        b"type=DELIVERY&notificationSubject=&user=&Profile=&Message_Type=SMS&Message_Name=42&Delivery_ID=42"
        b"&List_Names[]=all&Delivery_Scheduled_Date=&Delivery_Start_Date=&Delivery_Complete_Date=1437585002"
        b"&Emails_Sent_/_Credits_Used="
    )
    (line,) = DIALECT.encode([event], "ftp")
    assert line.data == (
        b'"type:DELIVERY","message name:42","delivery status:COMPLETED","delivery scheduled date:","message type:SMS",'
        b'"profile:","delivery id:42","delivery complete date:1437585002","emails sent:"\n'
    )


@pytest.mark.parametrize("message_id", ["plain", "Zoë", "x" * 2_000])
def test_a_mail_is_fit_for_any_server(message_id: str) -> None:
    (body,) = DIALECT.encode([foreign("email.opened", message_id=message_id)], "email")
    assert body.data.isascii()
    assert max(map(len, body.data.split(b"\r\n"))) <= 998
    mail = message_from_bytes(b"From: a@b.example\r\nTo: c@d.example\r\n" + body.data)
    text = mail.get_payload(decode=True)
    assert mail["Subject"] == "OPEN"
    assert isinstance(text, bytes)
    assert f"message_id: {message_id}" in text.decode()
    assert event_of(mail.as_bytes(), "email").message_id == message_id


def test_a_subject_may_be_the_notification_subject() -> None:
    event = event_of(b"Subject: Do Not\r\n Miss Out\r\n\r\ntype: OPEN\r\nemail: a@b.example\r\n", "email")
    assert event.extra["notificationSubject"] == "Do Not Miss Out"


def test_parts_within_parts_have_an_end() -> None:
    body = b"Subject: OPEN\nContent-Type: multipart/mixed; boundary=a\n\n" + b"multipart/" * 20
    assert reason_of(body, "email") == "too_large"
    coded = b"Subject: OPEN\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(b"email: a@b.example")
    assert event_of(coded, "email").recipient == "a@b.example"


def test_what_is_told_fits_its_schema() -> None:
    schemas = DIALECT.schemas()
    assert set(schemas) == set(DIALECT.columns)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"type": "OPEN", "email": "a", "List_Names[]": ["x"], "own": "y"}, schemas["OPEN"])


_SPELLED = """
type Type email Email mobile Event_date eventDate event-date Click_Date Delivery_ID message_id clickUrl url x x[] é%26=
Delivery_Start_Date Delivery_Complete_Date Delivery_Scheduled_Date Message_Type List_Names[] messageName deliveryDate
"""
_SAID = """
OPEN CLICK DELIVERY SMSFAILED forward a@b.example 447 1437585002 143758500 22/07/2015 Unix 1437585002.5 01437585003 ä
"""
_field = st.tuples(
    st.sampled_from(_SPELLED.split()),
    st.sampled_from(_SAID.split()) | st.sampled_from(["", " ", '"a","b:c"', "x ", "line\nbreak"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_field, max_size=9), st.sampled_from(["OPEN", "CLICK", "DELIVERY", "SMSFAILED"]))
def test_whatever_a_form_says_is_said_again_the_same(pairs: list[tuple[str, str]], word: str) -> None:
    for item in read(urlencode([*pairs, ("type", word)]).encode(), "http"):
        if isinstance(item, Event):
            (body,) = DIALECT.encode([item], "http")
            assert event_of(body.data, "http") == item


def _folded(field: tuple[str, str]) -> str:
    return field[0].lower().replace("_", "").replace("-", "")


def _meant(event: Event) -> list[str | None]:
    return [event.type, event.source.word, event.recipient, event.message_id, event.campaign_id]


@settings(max_examples=200, deadline=None)
@given(st.lists(_field, max_size=9, unique_by=_folded), st.sampled_from(["csv", "ftp", "email"]))
def test_what_one_form_says_can_be_told_in_another_and_keeps_what_it_means(
    pairs: list[tuple[str, str]], form: str
) -> None:
    for item in read(urlencode([("type", "OPEN"), *pairs]).encode(), "http"):
        if isinstance(item, Event):
            (body,) = DIALECT.encode([item], form)
            again = event_of(body.data, form)
            for said, kept in zip(_meant(item), _meant(again), strict=True):
                assert said == kept or (said or "").replace("\n", " ") == kept, "a row or line cannot hold a line break"
            assert again.time // SECOND == item.time // SECOND, "a part of a second is not told"

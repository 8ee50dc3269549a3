"""Oddities of MessageGears that the shared suite does not show."""

import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from lxml import etree

from aftersend.core.errors import EncodeError
from aftersend.core.event import Event, Failure, Receipt, Rejected, Source
from aftersend.core.options import build
from aftersend.core.timestamps import parse_time
from aftersend.core.xml import BYTES_LIMIT, DEPTH_LIMIT, parse_xml
from aftersend.dialects.messagegears import Dialect
from aftersend.testing.dialects import plain

FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "messagegears"
NOW = parse_time("2026-02-01T00:00:00.123456789Z")
NAMESPACE = "http://messagegears.com/3.1/webService"
SEQUENCE = [
    "OpenActivity",
    "ClickActivity",
    "UnsubActivity",
    "InboundEmailActivity",
    "BouncedMessageActivity",
    "DeliveredMessageActivity",
    "SpamComplaintActivity",
    "RenderErrorActivity",
    "JobErrorActivity",
    "SmsDeliveredActivity",
    "SmsDeliveryFailureActivity",
    "SmsRenderErrorActivity",
    "SmsInboundActivity",
    "RequestActivity",
]

spoken = Dialect()


def read(text: str | bytes) -> list[Event | Rejected]:
    return spoken.decode(Receipt(text.encode() if isinstance(text, str) else text, NOW))


def events_of(text: str | bytes) -> list[Event]:
    found = read(text)
    assert all(isinstance(item, Event) for item in found), found
    return [item for item in found if isinstance(item, Event)]


def reasons_of(text: str | bytes) -> list[tuple[int | None, str]]:
    return [(item.index, item.reason) for item in read(text) if isinstance(item, Rejected)]


def told(type_: str, **fields: object) -> Event:
    at = parse_time("2024-07-01T12:00:00Z")
    return Event("018f0000-0000-8000-8000-000000000000", type_, at, Source("x", "x", "x"), **fields)  # type: ignore[arg-type]


def said(event: Event, dialect: Dialect = spoken) -> str:
    (body,) = dialect.encode([event])
    return body.data.decode()


@pytest.mark.parametrize("path", sorted((FOLDER / "canonical_v31").glob("*.xml")), ids=lambda path: path.stem)
def test_the_canonical_form_is_said_again_byte_for_byte(path: Path) -> None:
    (body,) = spoken.encode(events_of(path.read_bytes()))
    assert body.data == path.read_bytes().strip()


@pytest.mark.parametrize("path", sorted((FOLDER / "docs_v31").glob("*.xml")), ids=lambda path: path.stem)
def test_the_page_is_said_again_as_documented(path: Path) -> None:
    (body,) = Dialect(as_documented=True).encode(events_of(path.read_bytes()))
    assert body.data == path.read_bytes().replace(b"\n", b"")


def test_the_daily_file_and_the_queue_tell_the_same_facts() -> None:
    daily = events_of((FOLDER / "account_activity/response_OPENS.xml").read_bytes())
    queue = events_of((FOLDER / "canonical_v31/OpenActivity.xml").read_bytes())
    assert daily[0].id == queue[0].id


def test_an_sms_under_its_name_on_the_page_and_in_the_schema_is_one_fact() -> None:
    fields = "<SmsAddress>1</SmsAddress><Timestamp>2024-07-01T08:00:00.000-04:00</Timestamp><ActivityId>a</ActivityId>"
    page = events_of(f"<DeliveredSmsActivity>{fields}</DeliveredSmsActivity>")
    schema = events_of(f"<SmsDeliveredActivity>{fields}</SmsDeliveredActivity>")
    assert page[0].id == schema[0].id
    assert page[0].source.word != schema[0].source.word


def test_items_that_share_an_activity_id_are_two_facts() -> None:
    opened = events_of((FOLDER / "docs_v31/OpenActivity.xml").read_bytes())
    clicked = events_of((FOLDER / "docs_v31/ClickActivity.xml").read_bytes())
    assert opened[0].source.id == clicked[0].source.id
    assert opened[0].id != clicked[0].id


def test_a_stop_by_sms_is_told_once() -> None:
    heard = events_of((FOLDER / "canonical_v31/SmsInboundActivity.xml").read_bytes())
    assert [event.type for event in heard] == ["sms.received", "sms.unsubscribed"]
    assert heard[0].id != heard[1].id
    (body,) = spoken.encode(heard)
    assert body.count == 2
    assert body.data.count(b"<SmsInboundActivity>") == 1


def test_a_stop_by_sms_whose_message_was_left_out_is_told_whole() -> None:
    received, unsubscribed = events_of((FOLDER / "canonical_v31/SmsInboundActivity.xml").read_bytes())
    (body,) = spoken.encode([unsubscribed])
    assert events_of(body.data)[1].id == unsubscribed.id
    assert spoken.item(unsubscribed) == spoken.item(received)
    assert spoken.item(unsubscribed, received) == b""


def test_nobody_is_made_to_have_said_stop() -> None:
    event = told("sms.unsubscribed", recipient="15555550100")
    assert spoken.word(event) is None
    with pytest.raises(EncodeError):
        spoken.item(event)


def test_an_event_of_others_has_every_element_that_the_schema_wants() -> None:
    text = said(told("email.delivered", recipient="ann@example.com", ip="192.0.2.1"))
    assert text == (
        f'<ActivityItems xmlns="{NAMESPACE}"><DeliveredMessageActivity><RequestId></RequestId>'
        "<EmailAddress>ann@example.com</EmailAddress><Timestamp>2024-07-01T08:00:00.000-04:00</Timestamp>"
        "<IpAddress></IpAddress><MessageSize>0</MessageSize>"
        "<ActivityId>018f0000-0000-8000-8000-000000000000</ActivityId></DeliveredMessageActivity></ActivityItems>"
    )


def test_as_documented_leaves_out_what_the_page_leaves_out() -> None:
    text = said(told("sms.delivered", recipient="15555550100", message_id="m"), Dialect(as_documented=True))
    assert text == (
        "<ActivityItems><DeliveredSmsActivity><RequestId>m</RequestId>"
        "<ActivityId>018f0000-0000-8000-8000-000000000000</ActivityId><SmsAddress>15555550100</SmsAddress>"
        "<Timestamp>2024-07-01T08:00:00.000-04:00</Timestamp></DeliveredSmsActivity></ActivityItems>"
    )


def test_the_bounce_of_others_keeps_its_code_where_that_means_the_same() -> None:
    assert "<CategoryCode>22</CategoryCode>" in said(told("email.soft_bounced", failure=Failure("soft", 22)))
    assert "<CategoryCode>20</CategoryCode>" in said(told("email.soft_bounced", failure=Failure("soft", 10)))
    assert "<CategoryCode>70</CategoryCode>" in said(told("email.deferred"))


def test_an_sms_failure_of_others_claims_no_cause_that_nobody_told() -> None:
    assert "<Category>UNDELIVERED</Category>" in said(told("sms.undelivered"))
    cancelled = told("sms.undelivered", failure=Failure(category="JOB_CANCELLED"))
    assert "<Category>JOB_CANCELLED</Category>" in said(cancelled)


def test_what_others_kept_for_themselves_is_not_told() -> None:
    assert "secret" not in said(told("email.opened", extra={"Note": "secret", "UserAgent": "secret"}))


def test_characters_that_xml_cannot_carry_are_replaced() -> None:
    event = told("email.opened", user_agent="a\x00b\x0bc\ud800d]]>&<e>\r\n\tf", recipient="änn@example.com")
    text = said(event)
    (again,) = events_of(text)
    assert again.user_agent == "a\ufffdb\ufffdc\ufffdd]]>&<e>\r\n\tf"
    assert again.recipient == "änn@example.com"


def test_a_tampered_extra_cannot_break_the_document() -> None:
    extra = {
        "<script>": "x",
        "a b": "x",
        '@on"x': "y",
        "@xmlns": "urn:x",
        "@ok": '"<&\n',
        "Deep": [[["x"]]],
        "Number": 7,
        "Truth": True,
        "Nothing": None,
        "Url": {"#text": 7, "@a": None, "Inner": [1, {"x:y": 2}]},
        "": "x",
    }
    (event,) = events_of((FOLDER / "docs_v31/ClickActivity.xml").read_bytes())
    text = said(msgspec.structs.replace(event, extra=extra))
    root = etree.fromstring(text.encode())
    assert root[0].tag == f"{{{NAMESPACE}}}ClickActivity"
    assert "script" not in text


def test_an_item_whose_name_no_xml_could_carry_has_no_word() -> None:
    assert spoken.word(told("other")) is None
    forged = Event("0", "other", 0, Source("messagegears", "messagegears", "a><b"))
    assert spoken.word(forged) is None


@pytest.mark.parametrize(
    ("at", "text"),
    [
        ("2024-01-15T14:30:00.5Z", "2024-01-15T09:30:00.500-05:00"),
        ("2024-07-15T13:30:00.064Z", "2024-07-15T09:30:00.064-04:00"),
        ("2024-11-03T05:59:59Z", "2024-11-03T01:59:59.000-04:00"),
        ("2024-11-03T06:00:00Z", "2024-11-03T01:00:00.000-05:00"),
        ("2010-03-14T06:59:59Z", "2010-03-14T01:59:59.000-05:00"),
        ("2010-03-14T07:00:00Z", "2010-03-14T03:00:00.000-04:00"),
    ],
)
def test_times_are_us_eastern_with_the_offset_in_force(at: str, text: str) -> None:
    event = Event("0", "email.opened", parse_time(at), Source("x", "x", "x"))
    assert f"<Timestamp>{text}</Timestamp>" in said(event)


def test_an_item_without_a_time_takes_the_receipts_to_the_millisecond() -> None:
    (event,) = events_of("<OpenActivity><RequestId>m</RequestId></OpenActivity>")
    assert event.time == parse_time("2026-02-01T00:00:00.123Z")
    (again,) = events_of(said(event))
    assert again.id == event.id


def test_a_document_with_a_doctype_is_refused_in_every_encoding() -> None:
    text = '<?xml version="1.0"?><!-- x --><!DOCTYPE a [<!ENTITY b "c">]><OpenActivity><A>&b;</A></OpenActivity>'
    assert reasons_of(text) == [(None, "doctype")]
    assert reasons_of(text.encode("utf-16")) == [(None, "doctype")]
    assert reasons_of(text.replace("?>", ' encoding="ISO-8859-1"?>', 1)) == [(None, "doctype")]


def test_the_word_doctype_within_an_item_does_no_harm() -> None:
    (event,) = events_of(
        "<InboundEmailActivity><Content><![CDATA[<!DOCTYPE html><p>]]></Content></InboundEmailActivity>"
    )
    assert event.extra["Content"] == "<!DOCTYPE html><p>"


def test_encodings_that_could_hide_something_are_refused() -> None:
    assert reasons_of('<?xml version="1.0" encoding="UTF-7"?><OpenActivity/>') == [(None, "invalid_encoding")]
    assert reasons_of(b"<OpenActivity><A>\xff</A></OpenActivity>") == [(None, "invalid_utf8")]
    assert reasons_of(b"\xff\xfe<") == [(None, "invalid_utf8")]


def test_too_much_is_refused() -> None:
    assert reasons_of(b" " * (BYTES_LIMIT + 1)) == [(None, "too_large")]
    assert reasons_of("<ActivityItems>" + "<a/>" * 1_000_001) == [(None, "too_large")]
    assert reasons_of("<ActivityItems>" + "<a/>" * 100_001 + "</ActivityItems>") == [(None, "too_large")]


def test_an_item_that_nests_too_deeply_loses_only_itself() -> None:
    deep = "<x>" * (DEPTH_LIMIT + 2) + "</x>" * (DEPTH_LIMIT + 2)
    item = "<OpenActivity><RequestId>m</RequestId>{}</OpenActivity>"
    found = read(f"<ActivityItems>{item.format('')}{item.format(deep)}{item.format('')}</ActivityItems>")
    assert [getattr(one, "reason", "") for one in found] == ["", "too_deep", ""]
    assert reasons_of(f"<OpenActivity>{'<x>' * 5000}") == [(None, "invalid_xml")]


def test_an_item_with_too_many_attributes_loses_only_itself() -> None:
    flood = " ".join(f"a{number}=''" for number in range(20_000))
    item = "<OpenActivity {0}><RequestId {1}>m</RequestId></OpenActivity>"
    items = [item.format("", ""), item.format(flood, ""), item.format("", flood), item.format("a='1'", "b='2'")]
    found = read(f"<ActivityItems>{''.join(items)}</ActivityItems>")
    assert [getattr(one, "reason", "") for one in found] == ["", "too_large", "too_large", ""]


def test_reading_takes_time_in_proportion_to_size() -> None:
    started = time.perf_counter()
    (event,) = events_of(f"<OpenActivity><RequestId>m</RequestId>{'<b>1</b>' * 100_000}</OpenActivity>")
    assert len(event.extra["b"]) == 100_000
    assert time.perf_counter() - started < 3


def test_the_deepest_value_that_is_read_is_said_again() -> None:
    deep = "<x>" * (DEPTH_LIMIT - 1) + "y" + "</x>" * (DEPTH_LIMIT - 1)
    (event,) = events_of(f"<OpenActivity><ActivityId>a</ActivityId><d>{deep}</d></OpenActivity>")
    (again,) = events_of(said(event))
    assert again.extra == event.extra


def test_a_bad_member_keeps_its_bytes() -> None:
    text = "<ActivityItems>\n<OpenActivity><Timestamp>soon</Timestamp></OpenActivity>\n</ActivityItems>"
    (fault,) = read(text)
    assert isinstance(fault, Rejected)
    assert fault.raw == b"<OpenActivity><Timestamp>soon</Timestamp></OpenActivity>"
    assert fault.detail == "item 0: 'soon' is not an ISO 8601 time"


def test_a_failed_request_says_why() -> None:
    (fault,) = read((FOLDER / "account_activity/response_failed.xml").read_bytes())
    assert isinstance(fault, Rejected)
    assert fault.detail == "INVALID_PARAMETER: ActivityDate: the value must be a date in the past."


@pytest.mark.parametrize(
    "text",
    [
        "<OpenActivity><EmailAddress>joe</OpenActivity>",
        "<ActivityItems><OpenActivity><EmailAddress>joe<Isp>x</Isp></OpenActivity></ActivityItems>",
        "<ActivityItems><OpenActivity><EmailAddress>joe<Isp>x</EmailAddress></Isp></OpenActivity></ActivityItems>",
        "<ActivityItems><OpenActivity><EmailAddress>joe</EmailAddress>",
        "<ActivityItems><OpenActivity></ActivityItems></OpenActivity>",
        "<OpenActivity><a>1</a></ClickActivity>",
        "</OpenActivity>",
        "<OpenActivity><!-- </OpenActivity>",
        "<>" * 1000,
    ],
)
def test_end_tags_are_not_guessed(text: str) -> None:
    assert reasons_of(text) == [(None, "invalid_xml")]


def test_a_field_closed_by_another_fields_name_is_repaired() -> None:
    (event,) = events_of("<OpenActivity><EmailAddress>joe</DeviceId><ActivityId>a</ActivityId></openactivity>")
    assert (event.recipient, event.source.id) == ("joe", "a")


def test_repairing_takes_no_more_than_a_moment() -> None:
    started = time.perf_counter()
    for text in ("<a>" * 80_000, "<!--" * 60_000, "<a></b>" * 30_000, "<" * 250_000, "<a><![CDATA[" * 20_000):
        assert isinstance(parse_xml(text.encode()), Rejected)
    assert time.perf_counter() - started < 3


def test_in_the_schemas_sequence_no_body_goes_backwards() -> None:
    heard = events_of((FOLDER / "canonical_v31/_mixed_batch.xml").read_bytes())
    mixed = [*heard[::-1], *heard]
    bodies = Dialect(sequence="schema").encode(mixed)
    assert sum(body.count for body in bodies) == len(mixed)
    for body in bodies:
        ranks = [SEQUENCE.index(item.tag.rpartition("}")[2]) for item in etree.fromstring(body.data)]
        assert all(first <= second for first, second in pairwise(ranks))
    assert len(Dialect(sequence="schema").encode(heard)) == 1
    assert len(spoken.encode(mixed)) == 1


def test_no_body_outgrows_the_queue() -> None:
    event = told("email.opened", recipient="ann@example.com")
    bodies = spoken.encode([event] * 1000)
    assert sum(body.count for body in bodies) == 1000
    assert all(len(body.data) <= 65_536 for body in bodies)
    huge = told("email.opened", user_agent="x" * 70_000)
    assert [body.count for body in spoken.encode([event, huge, event])] == [1, 1, 1]


def test_the_options_are_read_from_settings() -> None:
    dialect = build(Dialect, {"as_documented": True, "sequence": "schema", "body_bytes": 262_144}, "messagegears")
    assert dialect == Dialect(as_documented=True, sequence="schema", body_bytes=262_144)


def test_every_item_has_a_schema_that_its_payloads_hold() -> None:
    schemas = spoken.schemas()
    assert set(SEQUENCE) < set(schemas)
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)
    for item in etree.parse(FOLDER / "canonical_v31/_mixed_batch.xml").getroot():
        properties = schemas[item.tag.rpartition("}")[2]]
        names = [child.tag.rpartition("}")[2] for child in item]
        assert set(properties["required"]) <= set(names) <= set(properties["properties"])


def test_every_bounce_code_has_a_row() -> None:
    codes = [word.split()[1] for word in spoken.columns if word.startswith("BouncedMessageActivity ")]
    assert len(codes) == 23
    assert spoken.columns["BouncedMessageActivity 70"] == "email.deferred"
    assert spoken.columns["BouncedMessageActivity 131"] == "email.suppressed"


_names = st.sampled_from(
    [
        "RequestId",
        "CorrelationId",
        "EmailAddress",
        "SmsAddress",
        "SendingSmsNumber",
        "RecipientId",
        "DeviceId",
        "ActivityId",
        "IpAddress",
        "Url",
        "UserAgent",
        "Category",
        "CategoryCode",
        "Details",
        "MessageSize",
        "JobCategory",
        "CampaignId",
        "RecordSize",
        "SmsBody",
        "Classification",
        "JobError",
        "RenderErrors",
        "RenderError",
        "ErrorCode",
        "ErrorMessage",
        "Microsite",
        "Timestamp",
        "Unknown",
    ]
)
_texts = st.sampled_from(
    ["", " ", "0", "10", "070", "STOP", " stop\n", "a &amp; b", "&lt;x&gt;", "é\t", "REPLY", "&#13;"]
)
_times = st.sampled_from(["2024-07-01T08:00:00.000-04:00", " 2024-07-01T08:00:00Z", "2024-01-01T08:00:00.5-05:00", ""])
_leaves = st.builds(lambda name, text: f"<{name}>{text}</{name}>", _names, _texts)
_elements = st.recursive(
    _leaves,
    lambda inner: st.builds(
        lambda name, text, parts: f'<{name} x="{text}">{text}{"".join(parts)} {text}</{name}>',
        _names,
        _texts,
        st.lists(inner, max_size=3),
    ),
    max_leaves=5,
)


@st.composite
def _documents(draw: st.DrawFn) -> str:
    word = draw(st.sampled_from([*spoken.schemas(), "ClickSmsActivity", "Novelty"]))
    parts = draw(st.lists(_elements, max_size=7))
    parts.insert(0, f"<Timestamp>{draw(_times)}</Timestamp>")
    return f"<ActivityItems><{word}>{''.join(parts)}</{word}></ActivityItems>"


def test_whatever_was_heard_is_heard_again_when_it_is_said() -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_documents())
    def check(document: str) -> None:
        heard = [item for item in read(document) if isinstance(item, Event)]
        for dialect in (spoken, Dialect(as_documented=True)):
            for body in dialect.encode(heard):
                again = [plain(event) for event in events_of(body.data)]
                assert again == [plain(event) for event in heard]

    check()


def test_an_sqs_message_that_cannot_be_read_keeps_its_own_bytes() -> None:
    found = read((FOLDER / "oddities/sqs_one_message_unreadable.json").read_bytes())
    assert [item.raw for item in found if isinstance(item, Rejected)] == [b"hello", b'{"MessageId":"3"}']


def test_an_sqs_answer_within_a_message_is_not_opened() -> None:
    answer = (FOLDER / "oddities/sqs_empty.xml").read_text()
    body = msgspec.json.encode({"Messages": [{"Body": answer}]})
    assert reasons_of(body) == [(None, "unknown_document")]
    assert reasons_of(msgspec.json.encode({"Messages": [{"Body": "<a/>"}] * 1001})) == [(None, "too_large")]
    assert reasons_of("{}") == [(None, "missing_field")]
    assert reasons_of('{"Messages": {"Body"') == [(None, "invalid_json")]

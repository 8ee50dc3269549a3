"""MessageGears' daily files: valid, read by the vendor's clients as they read, and heard as the same events again."""

import re
from datetime import date
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from aftersend.core.event import Event, Failure, Receipt, Source
from aftersend.core.framing import Sheet, framing_of
from aftersend.core.taxonomy import ROWS
from aftersend.core.timestamps import parse_time
from aftersend.dialects.messagegears import Dialect
from aftersend.dialects.messagegears.daily import ACTIVITIES, DailyFile, activity_of
from aftersend.dialects.messagegears.rest import xsd
from aftersend.dialects.messagegears.times import day_start, eastern_date
from aftersend.testing.dialects import plain

FOLDER = Path(__file__).parents[1] / "fixtures" / "dialects" / "messagegears"
NAMESPACE = "http://messagegears.com/3.1/webService"
RECEIVED = parse_time("2026-02-01T00:00:00Z")
CANONICAL = sorted(path for path in (FOLDER / "canonical_v31").glob("*.xml") if path.stem != "_mixed_batch")
EVERY = sorted(path for path in FOLDER.rglob("*.xml"))

heard = Dialect()
schema = etree.XMLSchema(etree.fromstring(xsd()))


def events_of(body: bytes) -> list[Event]:
    return [item for item in heard.decode(Receipt(body, RECEIVED)) if isinstance(item, Event)]


def file_of(activity: str, events: list[Event], day: str = "2010-09-14") -> bytes:
    file = DailyFile(activity, day, "71d7261e-bbf7-487d-b201-6d3557370cd1")
    before = [None, *events]
    return file.head + b"".join(map(file.item, events, before)) + file.foot


def all_files(events: list[Event]) -> list[bytes]:
    """The files of every type that have an item."""
    files = [file_of(activity, events) for activity in ACTIVITIES]
    return [file for file in files if b"<ActivityItems></ActivityItems>" not in file]


def faults(file: bytes) -> list[str]:
    if schema.validate(etree.fromstring(file)):
        return []
    return str(schema.error_log).splitlines()


def read_by_java(file: bytes, tag: str) -> list[list[str]]:
    """As the Java SDK's file reader: elements of that very name, without a prefix, whose children keep their order."""
    named = etree.fromstring(xsd()).iterfind(f".//{{*}}complexType[@name='{tag}']//*[@name]")
    order = [f"{{{NAMESPACE}}}{element.get('name')}" for element in named]
    items = []
    for item in etree.fromstring(file).iter(f"{{{NAMESPACE}}}{tag}"):
        places = [order.index(str(child.tag)) for child in item if child.prefix is None]
        assert len(places) == len(item)
        assert places == sorted(places)
        items.append([child.text or "" for child in item])
    return items


def read_by_csharp(file: bytes, tag: str) -> list[str]:
    """As the C# SDK's file reader, which works on the text: it needs the namespace first and whole end tags."""
    text = file.decode()
    first = re.match(r'<[A-Za-z]+ ([a-z:]+)="([^"]*)"', text)
    assert first is not None
    assert first.groups() == ("xmlns", NAMESPACE)
    assert "<![CDATA[" not in text
    assert "/>" not in text
    return re.findall(f"<{tag}>.*?</{tag}>", text, re.DOTALL)


@pytest.mark.parametrize("path", CANONICAL, ids=lambda path: path.stem)
def test_a_file_of_every_item_validates_and_is_heard_and_said_again_byte_for_byte(path: Path) -> None:
    events = events_of(path.read_bytes())
    first = all_files(events)[0]
    assert faults(first) == []
    again = events_of(first)
    assert [plain(event) for event in again] == [plain(event) for event in events]
    assert all_files(again)[0] == first


@pytest.mark.parametrize("path", CANONICAL, ids=lambda path: path.stem)
def test_the_vendors_readers_find_every_item(path: Path) -> None:
    events = events_of(path.read_bytes())
    first = all_files(events * 2)[0]
    assert len(read_by_java(first, path.stem)) == 2
    assert len(read_by_csharp(first, path.stem)) == 2


def test_the_documented_file_is_written_as_the_vendor_shows_it() -> None:
    shown = (FOLDER / "account_activity/response_OPENS.xml").read_bytes().strip()
    assert file_of("OPENS", events_of(shown)) == shown
    empty = (FOLDER / "account_activity/response_empty_day.xml").read_bytes().strip()
    assert file_of("CLICKS", []) == empty.replace(b"370cd2", b"370cd1")


@pytest.mark.parametrize("path", EVERY, ids=lambda path: f"{path.parent.stem}-{path.stem}")
def test_whatever_was_heard_its_files_are_valid(path: Path) -> None:
    for file in all_files(events_of(path.read_bytes())):
        assert faults(file) == [], file


def test_others_events_make_valid_files() -> None:
    at = parse_time("2024-07-01T12:00:00Z")
    types = [row.type.replace("*", channel) for row in ROWS for channel in ("email", "sms", "push")]
    failures = [None, Failure("hard", 10, "x", "5.1.1", "550 <no>", True, "y"), Failure(category="]]>")]
    events = [
        Event(f"{number}", type_, at, Source("x", "halon", type_), failure=failure, recipient="ann@example.com")
        for number, (type_, failure) in enumerate((type_, failure) for type_ in types for failure in failures)
    ]
    files = all_files(events)
    assert len(files) > 12
    assert [fault for file in files for fault in faults(file)] == []


_texts = st.text(max_size=12)
_values = st.recursive(
    _texts | st.sampled_from(["true", "7", "2010-09-14T15:49:16Z", "2010-09-14 15:49:60"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["RenderError", "ErrorCode", "ErrorMessage", "#text", "@a"]), inner, max_size=3
        )
    ),
    max_leaves=4,
)
_names = st.sampled_from(
    [
        "Timestamp",
        "Microsite",
        "MessageSize",
        "CategoryCode",
        "Category",
        "RenderErrors",
        "JobError",
        "Url",
        "To",
        "New",
    ]
)


def test_no_extra_however_odd_makes_an_invalid_file() -> None:
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(heard.schemas())), st.dictionaries(_names, _values, max_size=4))
    def check(word: str, extra: dict[str, object]) -> None:
        at = parse_time("2024-07-01T12:00:00Z")
        event = Event("1", "other", at, Source("s", "messagegears", word, "a"), extra=extra)
        for file in all_files([event]):
            assert faults(file) == [], file

    check()


def test_an_item_under_its_name_on_the_page_stands_in_the_file_under_the_schemas() -> None:
    (bounced,) = events_of((FOLDER / "docs_v31/BouncedSmsActivity.xml").read_bytes())
    (item,) = etree.fromstring(file_of("SMS_DELIVERY_FAILURES", [bounced])).iter("{*}SmsDeliveryFailureActivity")
    assert [child.tag.rpartition("}")[2] for child in item][-3:] == ["Category", "CategoryCode", "ActivityId"]
    (again,) = events_of(file_of("SMS_DELIVERY_FAILURES", [bounced]))
    assert again.id == bounced.id


def test_an_inbound_sms_under_its_name_on_the_page_keeps_what_it_said() -> None:
    text = (
        "<InboundSmsActivity><ActivityId>a</ActivityId><SmsAddress>1555</SmsAddress><To>12345</To>"
        "<InboundMessageType>STOP</InboundMessageType><InboundMessage>stop it</InboundMessage></InboundSmsActivity>"
    )
    file = file_of("SMS_INBOUNDS", events_of(text.encode()))
    for said in (
        b"<SendingSmsNumber>1555</SendingSmsNumber>",
        b"<DestinationSmsNumber>12345</DestinationSmsNumber>",
        b"<SmsBody>stop it</SmsBody>",
    ):
        assert file.count(said) == 1


def test_elements_that_old_clients_refuse_are_left_out() -> None:
    (event,) = events_of((FOLDER / "v32/OpenActivity.composed.xml").read_bytes())
    assert event.campaign_id
    file = file_of("OPENS", [event])
    assert b"CampaignId" not in file
    assert faults(file) == []


def test_a_time_that_was_heard_in_finer_parts_keeps_them() -> None:
    text = "<OpenActivity><Timestamp>{}</Timestamp><ActivityId>a</ActivityId></OpenActivity>"
    (fine,) = events_of(text.format("2010-09-14T15:49:16.064123456Z").encode())
    assert events_of(file_of("OPENS", [fine]))[0].id == fine.id
    (odd,) = events_of(text.format("2010-09-14 15:49:16").encode())
    assert b"<Timestamp>2010-09-14T11:49:16.000-04:00</Timestamp>" in file_of("OPENS", [odd])


def test_both_vocabularies_name_the_same_files() -> None:
    events = events_of((FOLDER / "canonical_v31/_mixed_batch.xml").read_bytes())
    for page, sdk in (
        ("SMS_DELIVERIES", "SMS_DELIVERED_ACTIVITY"),
        ("SMS_DELIVERY_FAILURES", "SMS_DELIVERY_FAILURE_ACTIVITY"),
        ("SMS_RENDER_ERRORS", "SMS_RENDER_ERROR_ACTIVITY"),
        ("SMS_INBOUNDS", "SMS_INBOUND_ACTIVITY"),
    ):
        assert file_of(page, events) == file_of(sdk, events)
        assert b"<ActivityItems></ActivityItems>" not in file_of(page, events)


def test_clicks_that_nobody_knows_how_to_write_make_an_empty_file() -> None:
    clicked = Event("1", "sms.clicked", RECEIVED, Source("x", "x", "x"))
    assert b"<ActivityItems></ActivityItems>" in file_of("SMS_CLICKS", [clicked])


def test_a_stop_is_one_item_of_the_file() -> None:
    events = events_of((FOLDER / "canonical_v31/SmsInboundActivity.xml").read_bytes())
    assert len(events) == 2
    assert file_of("SMS_INBOUNDS", events).count(b"<SmsInboundActivity>") == 1
    assert file_of("SMS_INBOUNDS", events[1:]).count(b"<SmsInboundActivity>") == 1


@pytest.mark.parametrize(
    ("day", "hours", "start"),
    [
        ("2024-01-15", 24, "2024-01-15T05:00:00Z"),
        ("2024-07-15", 24, "2024-07-15T04:00:00Z"),
        ("2024-03-10", 23, "2024-03-10T05:00:00Z"),
        ("2024-11-03", 25, "2024-11-03T04:00:00Z"),
    ],
)
def test_a_day_is_as_long_as_it_is_in_us_eastern(day: str, hours: int, start: str) -> None:
    first = date.fromisoformat(day)
    following = date.fromordinal(first.toordinal() + 1)
    assert day_start(first) == parse_time(start)
    assert day_start(following) - day_start(first) == hours * 3_600_000_000_000
    assert eastern_date(day_start(first)) == first
    assert eastern_date(day_start(following) - 1) == first
    assert eastern_date(day_start(following)) == following


def test_files_for_folders_are_one_a_type_and_valid() -> None:
    events = events_of((FOLDER / "canonical_v31/_mixed_batch.xml").read_bytes())
    framing = framing_of(heard, "")
    assert framing.type_of is not None
    since = parse_time("2010-09-14T04:00:00Z")
    for event in events:
        activity = framing.type_of(event)
        pen = framing.pen(Sheet(since, since + 1, "America/New_York", activity))
        file = pen.head() + pen.tell(event) + pen.tell(event) + pen.foot()
        assert faults(file) == []
        assert b"<ActivityDate>2010-09-14</ActivityDate>" in file
        assert activity in ACTIVITIES


def test_an_item_that_no_client_can_ask_for_has_a_file_besides() -> None:
    (hit,) = events_of((FOLDER / "docs_v31/ContextHitActivity.xml").read_bytes())
    assert activity_of(hit) == "OTHER"
    pen = framing_of(heard, "").pen(Sheet(0, 1, "UTC", "OTHER"))
    (again,) = events_of(pen.head() + pen.tell(hit) + pen.foot())
    assert again.id == hit.id


def test_the_schema_refuses_what_the_readers_refuse() -> None:
    good = all_files(events_of((FOLDER / "canonical_v31/DeliveredMessageActivity.xml").read_bytes()))[0]
    assert faults(good) == []
    for before, after in (
        (b"<MessageSize>", b"<MessageSize>x"),
        (f' xmlns="{NAMESPACE}"'.encode(), b""),
        (b"<IpAddress>", b"<New></New><IpAddress>"),
        (b"REQUEST_SUCCESSFUL", b"GOOD"),
        (b"DeliveredMessageActivity>", b"OddActivity>"),
    ):
        assert faults(good.replace(before, after)) != []


def test_an_event_that_was_changed_by_hand_cannot_break_the_file() -> None:
    (event,) = events_of((FOLDER / "canonical_v31/OpenActivity.xml").read_bytes())
    broken = msgspec.structs.replace(
        event, user_agent="</OpenActivity>\x00\ud800", extra={"</x>": "y", "Microsite": "1"}
    )
    assert faults(file_of("OPENS", [broken])) == []

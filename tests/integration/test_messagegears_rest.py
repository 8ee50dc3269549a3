"""MessageGears' REST over a real socket and a real log, asked as the vendor's SDKs ask."""

import asyncio
import io
import logging
import tracemalloc
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from random import Random
from urllib.parse import urlencode

import pytest
from aiohttp import ClientPayloadError, ClientSession
from lxml import etree
from tests.integration.capturing import exchange, raw, serving
from yarl import URL

from aftersend.contracts import Entry
from aftersend.core.errors import ConfigurationError
from aftersend.core.event import Event, Receipt, Source
from aftersend.core.identity import make_id
from aftersend.core.options import build
from aftersend.core.outcome import Parcel, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.secret import Secret
from aftersend.core.timestamps import DAY, parse_time
from aftersend.dialects.messagegears import Dialect
from aftersend.dialects.messagegears.rest import Rest
from aftersend.keyring import Keyring
from aftersend.pipeline.selection import Selection
from aftersend.stores.sqlite import SqliteStore
from aftersend.telemetry import Telemetry
from aftersend.transports.messagegears_rest import Transport, accounts
from aftersend.transports.messagegears_rest import service as handler
from aftersend.transports.messagegears_rest.service import WebService

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects" / "messagegears"
SAMPLES = FIXTURES / "account_activity"
NAMESPACE = "{http://messagegears.com/3.1/webService}"
NOW = parse_time("2026-08-02T12:00:00Z")
"""Eight in the morning in US Eastern, where the second of August began at four."""
KEY = "an-api-key-of-the-client"
PATH = "/3.1/WebService"


class House:
    """A store and what is served of it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.now = NOW
        self.subscriptions = [account("acme", types=("*",))]
        self.telemetry = Telemetry()
        self.service = WebService(
            log=store,
            subscriptions=lambda: self.subscriptions,
            open_transport=opened,
            select=lambda subscription: Selection(subscription).wants,
            vendor=Rest(),
            clock=lambda: self.now,
            telemetry=self.telemetry,
        )

    async def keep(self, events: list[Event], tenant: str = "default") -> None:
        await self.store.append(Entry(tenant, events))

    async def ask(self, method: str = "POST", **fields: str) -> tuple[int, dict[str, str], bytes]:
        form = urlencode({"AccountId": "acme", "ApiKey": KEY, **fields}).encode()
        get = method == "GET"
        async with serving(self.service) as port, ClientSession() as client:
            url = URL(f"http://127.0.0.1:{port}{PATH}{'?' + form.decode() if get else ''}", encoded=True)
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            async with client.request(method, url, data=None if get else form, headers=kind) as answer:
                body = await answer.read()
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, body

    async def file(
        self, activity: str = "OPENS", day: str = "2026-08-01", **fields: str
    ) -> tuple[dict[str, str], bytes]:
        _, headers, body = await self.ask(Action="AccountActivity", ActivityType=activity, ActivityDate=day, **fields)
        return headers, body

    async def error(self, **fields: str) -> tuple[str, str]:
        status, headers, body = await self.ask(**fields)
        assert status == 200
        assert "content-disposition" not in headers
        assert b"\n" not in body
        root = etree.fromstring(body)
        assert root.findtext(f"{NAMESPACE}Result") == "REQUEST_FAILED"
        assert schema().validate(root)
        error = root.find(f"{NAMESPACE}RequestErrors/{NAMESPACE}RequestError")
        assert error is not None
        return error.findtext(f"{NAMESPACE}ErrorCode", ""), error.findtext(f"{NAMESPACE}ErrorMessage", "")


def schema() -> etree.XMLSchema:
    return etree.XMLSchema(etree.fromstring(Rest().order({"Action": "XSD"}, NOW, "r").head()))


def account(name: str, key: str = KEY, **fields: object) -> Subscription:
    return Subscription(
        id=f"sub_{name}",
        name=name,
        transport="messagegears_rest",
        dialect="messagegears",
        settings={"account_id": name},
        secrets={"api_key": Secret(key)},
        **fields,  # type: ignore[arg-type]
    )


def opened(subscription: Subscription) -> Transport:
    return Transport(account_id=subscription.settings["account_id"], api_key=subscription.secrets["api_key"])


def event(number: int, at: str | int, type_: str = "email.opened", **fields: object) -> Event:
    time = parse_time(at) if isinstance(at, str) else at
    return Event(
        make_id(time, b"%d" % number),
        type_,
        time,
        Source("s", "halon", type_),
        **fields,  # type: ignore[arg-type]
    )


def ids_in(body: bytes) -> list[str]:
    return [str(element.text) for element in etree.fromstring(body).iter(f"{NAMESPACE}ActivityId")]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(accounts, "WRONG_SECONDS", 0.05)
    yield


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    clock: Callable[[], int] = lambda: made[0].now if made else NOW  # noqa: E731
    made: list[House] = []
    keyring = Keyring.open(tmp_path / "keyring.json", create=True)
    store = await SqliteStore.open(tmp_path / "d", clock=clock, keyring=keyring, create=True, max_file_bytes=100_000)
    made.append(House(store))
    yield made[0]
    await store.close()


async def test_a_file_holds_the_events_of_its_day_in_us_eastern_whenever_they_arrived(house: House) -> None:
    before, first = event(1, "2026-08-01T03:59:59.999Z"), event(2, "2026-08-01T04:00:00Z")
    last, after = event(3, "2026-08-02T03:59:59.999Z"), event(4, "2026-08-02T04:00:00Z")
    house.now = parse_time("2026-08-01T20:00:00Z")
    await house.keep([before, first])
    house.now = parse_time("2026-08-09T20:00:00Z")
    await house.keep([last, after])
    headers, body = await house.file()
    assert ids_in(body) == [first.id, last.id]
    assert headers["content-disposition"] == "attachment; filename=2026-08-01_OPENS.xml"
    assert headers["content-type"] == "application/octet-stream"
    assert schema().validate(etree.fromstring(body))
    assert ids_in((await house.file(day="2026-08-02"))[1]) == [after.id]
    assert ids_in((await house.file(day="2026-7-31"))[1]) == [before.id]


@pytest.mark.parametrize(
    ("kind", "form", "day"),
    [
        (
            "application/x-www-form-urlencoded; charset=UTF-8",
            "AccountId=acme&ApiKey={key}&Action=AccountActivity&ActivityDate=2010-09-14&ActivityType=OPENS",
            "2010-09-14",
        ),
        (
            "application/x-www-form-urlencoded",
            "Action=AccountActivity&AccountId=acme&ApiKey={key}&ActivityDate=2012-9-7&ActivityType=OPENS",
            "2012-09-07",
        ),
    ],
    ids=["java", "csharp"],
)
async def test_the_requests_of_the_vendors_sdks_are_answered(house: House, kind: str, form: str, day: str) -> None:
    then = event(1, f"{day}T15:00:00Z")
    await house.keep([then])
    body = form.format(key=KEY).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: t\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(house.service) as port:
        answer, _, told = (await raw(port, head.encode() + body)).partition(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f"filename={day}_OPENS.xml".encode() in answer
    assert ids_in(told) == [then.id]


async def test_what_was_heard_of_the_vendor_is_told_again_to_the_letter(house: House) -> None:
    sample = (SAMPLES / "response_OPENS.xml").read_bytes().strip()
    events = [item for item in Dialect().decode(Receipt(sample, NOW)) if isinstance(item, Event)]
    await house.keep(events)
    _, body = await house.file(day="2010-09-14")
    assert body.partition(b"<Result>")[2] == sample.partition(b"<Result>")[2]
    again = Dialect().decode(Receipt(body, NOW))
    assert again == events


async def test_only_wanted_events_of_the_accounts_own_tenant_are_told(house: House) -> None:
    house.subscriptions = [account("acme", types=("email.*",), campaigns=("spring",))]
    at = "2026-08-01T12:00:00Z"
    wanted = event(1, at, campaign_id="spring")
    await house.keep([wanted, event(2, at, campaign_id="autumn"), event(3, at, "email.clicked", campaign_id="spring")])
    await house.keep([event(4, at, campaign_id="spring", tenant="other")], "other")
    assert ids_in((await house.file())[1]) == [wanted.id]


async def test_a_day_without_events_is_a_file_without_items(house: House) -> None:
    headers, body = await house.file()
    assert "content-disposition" in headers
    shown = (SAMPLES / "response_empty_day.xml").read_bytes().strip().replace(b"2010-09-14", b"2026-08-01")
    assert body.partition(b"<Result>")[2] == shown.partition(b"<Result>")[2]


async def test_a_file_may_be_asked_for_as_a_zip(house: House) -> None:
    await house.keep([event(number, "2026-08-01T12:00:00Z") for number in range(500)])
    _, plain = await house.file()
    headers, body = await house.file(UseCompression="TRUE")
    assert headers["content-type"] == "application/zip"
    assert headers["content-disposition"] == "attachment; filename=2026-08-01_OPENS.zip"
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.namelist() == ["2026-08-01_OPENS.xml"]
        assert ids_in(archive.read("2026-08-01_OPENS.xml")) == ids_in(plain)
    assert len(body) < len(plain) / 4


async def test_a_summary_counts_what_the_files_hold(house: House) -> None:
    types = {
        "email.opened": 3,
        "email.clicked": 2,
        "email.delivered": 5,
        "email.hard_bounced": 1,
        "email.complained": 1,
    }
    number = count()
    for at in ("2026-08-01T12:00:00Z", "2026-07-31T12:00:00Z", "2026-07-01T03:00:00Z"):
        told = [type_ for type_, amount in types.items() for _ in range(amount)]
        await house.keep([event(next(number), at, type_) for type_ in told])
    for asked, day in (("2026-8-1", "2026-08-01"), ("2026-07", "2026-07-01"), ("2026-06-30", "2026-06-30")):
        _, headers, body = await house.ask(Action="AccountSummary", ActivityDate=asked)
        assert "content-disposition" not in headers
        root = etree.fromstring(body)
        assert schema().validate(root), schema().error_log
        summary = {item.tag.removeprefix(NAMESPACE): item.text for item in root.find(f"{NAMESPACE}AccountSummary")}  # type: ignore[union-attr]
        assert summary == {
            "ActivityDate": day,
            "Messages": "6",
            "Clicks": "2",
            "Opens": "3",
            "Bounces": "1",
            "Unsubscribes": "0",
            "Deliveries": "5",
            "SpamComplaints": "1",
            "RenderErrors": "0",
            "JobErrors": "0",
        }


async def test_the_schema_is_there_for_everybody(house: House) -> None:
    status, headers, body = await house.ask(Action="XSD", ApiKey="")
    assert (status, headers["content-type"]) == (200, "application/xml")
    assert etree.XMLSchema(etree.fromstring(body)).validate(etree.parse(SAMPLES / "response_OPENS.xml"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ActivityDate": "2026-08-02"}, ""),
        ({"ActivityDate": "2026-08-03"}, "ActivityDate: the value must be a date in the past."),
        (
            {"ActivityDate": "2026-02-30"},
            "ActivityDate: '2026-02-30' is not a date, yyyy-MM-dd or yyyy-MM, from 1970 on.",
        ),
        (
            {"ActivityDate": "1969-12-31"},
            "ActivityDate: '1969-12-31' is not a date, yyyy-MM-dd or yyyy-MM, from 1970 on.",
        ),
        ({"ActivityDate": "<&\n"}, "ActivityDate: '<&' is not a date, yyyy-MM-dd or yyyy-MM, from 1970 on."),
        ({"ActivityDate": "2026-07"}, "ActivityDate: the value must be a day, yyyy-MM-dd."),
        ({"ActivityType": "SMILES"}, "ActivityType: 'SMILES' is unknown; it is one of OPENS, CLICKS,"),
        ({"ActivityType": ""}, "ActivityType: '' is unknown"),
        ({"Action": "Bulk"}, "Action: 'Bulk' is unknown; it is AccountActivity, AccountSummary or XSD"),
        ({"Note": "x" * 20_000}, "The request is larger than 16384 bytes."),
        ({f"n{number}": "" for number in range(40)}, "The request has more than 32 parameters."),
    ],
)
async def test_what_is_wrong_is_told_in_one_line_of_the_vendors_form(
    house: House, fields: dict[str, str], message: str
) -> None:
    house.now = parse_time("2026-08-03T03:59:00Z") if not message else parse_time("2026-08-03T05:00:00Z")
    asked = {"Action": "AccountActivity", "ActivityType": "OPENS", "ActivityDate": "2026-08-01"} | fields
    code, said = await house.error(**asked)
    assert code == "INVALID_PARAMETER"
    assert said.startswith(message or "ActivityDate: the value must be a date in the past.")


async def test_days_that_are_no_longer_kept_whole_are_refused(house: House) -> None:
    house.now = parse_time("2026-06-01T12:00:00Z")
    for start in range(0, 3_000, 500):
        await house.keep(
            [
                event(n, "2026-06-01T12:00:00Z", user_agent=Random(n).randbytes(200).hex())
                for n in range(start, start + 500)
            ]
        )
    house.now = parse_time("2026-08-01T12:00:00Z")
    await house.keep([event(9_999, house.now)])
    house.now = NOW + DAY
    await house.store.retain(parse_time("2026-07-01T00:00:00Z"), None, {})
    assert house.store.tail() > 0
    asked = {"Action": "AccountActivity", "ActivityType": "OPENS", "ActivityDate": "2026-06-01"}
    assert await house.error(**asked) == (
        "INVALID_PARAMETER",
        "ActivityDate: what happened then is no longer kept whole.",
    )
    assert len(ids_in((await house.file())[1])) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"AccountId": "other"},
        {"ApiKey": "wrong"},
        {"ApiKey": ""},
        {"ApiKey": KEY.upper()},
        {"AccountId": "", "ApiKey": ""},
        {"AccountId": f"acme\0{KEY}", "ApiKey": ""},
        {"ApiKey": "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")},
    ],
)
async def test_a_wrong_account_or_key_is_told_in_the_vendors_form_and_slowly(
    house: House, fields: dict[str, str]
) -> None:
    began = asyncio.get_running_loop().time()
    assert await house.error(Action="AccountActivity", **fields) == (
        "INVALID_CREDENTIALS",
        "AccountId or ApiKey is missing or wrong.",
    )
    assert asyncio.get_running_loop().time() - began >= 0.05


async def test_of_two_accounts_each_sees_its_own_and_a_paused_one_nothing(house: House) -> None:
    house.subscriptions = [account("acme"), account("paused", state="paused"), account("acme", "another-key-of-acme")]
    house.subscriptions[2] = account("acme", "another-key-of-acme", tenant="other")
    await house.keep([event(1, "2026-08-01T12:00:00Z", tenant="other")], "other")
    assert ids_in((await house.file())[1]) == []
    assert len(ids_in((await house.file(ApiKey="another-key-of-acme"))[1])) == 1
    assert await house.error(Action="AccountActivity", AccountId="paused") == (
        "INVALID_CREDENTIALS",
        "The account is paused.",
    )


async def test_an_account_that_cannot_be_used_any_more_harms_no_other(house: House) -> None:
    house.subscriptions = [account("broken", "short"), *house.subscriptions]
    assert "content-disposition" in (await house.file())[0]
    assert (await house.error(AccountId="broken", ApiKey="short"))[0] == "INVALID_CREDENTIALS"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"account_id": "a b", "api_key": KEY}, "account_id: 1 to 64 letters"),
        ({"account_id": "a", "api_key": "fifteen-letters"}, "api_key: 16 to 256 characters"),
        ({"account_id": "a"}, "transport messagegears_rest: api_key is missing"),
    ],
)
def test_an_account_is_checked_when_it_is_made(options: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        build(Transport, options, "transport messagegears_rest")
    assert KEY not in str(caught.value)


async def test_nothing_is_sent_by_it() -> None:
    transport = Transport(account_id="a", api_key=Secret(KEY))
    assert transport.carries == "nothing"
    assert (await transport.probe()).verdict is Verdict.TAKEN
    refused = await transport.send(Parcel("1", b"", ""))
    assert (refused.verdict, refused.ours) == (Verdict.FAILED, True)
    assert KEY not in repr(transport)
    await transport.close()


async def test_a_fault_of_ours_in_the_midst_is_logged_and_breaks_the_file_off(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.keep([event(n, "2026-08-01T12:00:00Z", user_agent="x" * 300) for n in range(1_000)])
    monkeypatch.setattr("aftersend.transports.messagegears_rest.answering.PIECE_BYTES", 1)
    monkeypatch.setattr(Rest, "order", lambda *given: Broken())
    with pytest.raises(ClientPayloadError):
        await house.file()
    assert [record.message for record in caplog.records][:2] == [
        "a request failed",
        "the file for acme broke off: a fault of ours; it is in the log",
    ]


class Broken:
    """An order that cannot be told to its end."""

    since, until, file_name, compressed = 0, NOW, "x.xml", False

    def head(self) -> bytes:
        return b"<"

    def tell(self, events: Sequence[Event]) -> bytes:
        raise RuntimeError("broken")

    def foot(self) -> bytes:
        return b">"


async def test_a_get_is_answered_too_and_nothing_else(house: House) -> None:
    fields = {"Action": "AccountActivity", "ActivityType": "OPENS", "ActivityDate": "2026-08-01"}
    status, headers, _ = await house.ask("GET", **fields)
    assert (status, "content-disposition" in headers) == (200, True)
    async with serving(house.service) as port:
        assert (await exchange(port, "PUT", PATH))[0].status == 405
        assert (await exchange(port, "POST", "/3.1/Other"))[0].status == 404


async def test_a_fault_of_ours_is_no_file(house: House, caplog: pytest.LogCaptureFixture) -> None:
    await house.keep([event(1, "2026-08-01T12:00:00Z")])
    await house.store.close()
    status, headers, body = await house.ask(Action="AccountActivity", ActivityType="OPENS", ActivityDate="2026-08-01")
    assert status == 503
    assert "content-disposition" not in headers
    assert b"<ErrorCode>SERVICE_UNAVAILABLE</ErrorCode>" in body
    assert not caplog.records


async def test_a_file_that_breaks_off_never_looks_whole(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.keep([event(n, "2026-08-01T12:00:00Z", user_agent="x" * 300) for n in range(3_000)])
    tails = iter([0, 0])
    monkeypatch.setattr(house.store, "tail", lambda: next(tails, 1 << 40))
    monkeypatch.setattr("aftersend.transports.messagegears_rest.reading.READ_EVENTS", 500)
    form = urlencode({"AccountId": "acme", "ApiKey": KEY, "Action": "AccountActivity", "ActivityType": "OPENS"})
    form += "&ActivityDate=2026-08-01"
    with caplog.at_level(logging.WARNING):
        async with serving(house.service) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {PATH} HTTP/1.1\r\nHost: t\r\nContent-Length: {len(form)}\r\n\r\n"
            writer.write((head + form).encode())
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
    assert b"transfer-encoding: chunked" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"</AccountActivityResponse>" not in answer
    assert any("broke off: the log's limit took events away" in record.message for record in caplog.records)


async def test_a_client_that_hangs_up_costs_no_more_reading(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.keep([event(n, "2026-08-01T12:00:00Z", user_agent="x" * 2_000) for n in range(5_000)])
    monkeypatch.setattr("aftersend.transports.messagegears_rest.reading.READ_EVENTS", 50)
    fields = {"AccountId": "acme", "ApiKey": KEY, "Action": "AccountActivity", "ActivityType": "OPENS"}
    form = urlencode({**fields, "ActivityDate": "2026-08-01"}).encode()
    async with serving(house.service) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST %s HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%s" % (PATH.encode(), len(form), form))
        await reader.readexactly(100)
        writer.transport.abort()
        async with asyncio.timeout(10):
            while 'result="abandoned"' not in house.telemetry.text():
                await asyncio.sleep(0.01)
    assert 'result="answered"' not in house.telemetry.text()


async def test_too_many_at_once_wait_and_then_come_again(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler, "QUEUE_SECONDS", 0.05)
    for _ in range(handler.READERS_LIMIT):
        await house.service._readers.acquire()
    status, _, body = await house.ask(Action="AccountActivity", ActivityType="OPENS", ActivityDate="2026-08-01")
    assert status == 503
    assert b"try again in a moment" in body
    house.service._readers.release()
    assert "content-disposition" in (await house.file())[0]


async def test_memory_is_bounded_however_long_the_file(house: House) -> None:
    for start in range(0, 40_000, 5_000):
        await house.keep([event(n, "2026-08-01T12:00:00Z", user_agent="x" * 500) for n in range(start, start + 5_000)])
    sizes: list[int] = []
    asked: list[bool] = []

    async def send(message: dict[str, object]) -> None:
        body = message.get("body", b"")
        assert isinstance(body, bytes)
        sizes.append(len(body))

    async def receive() -> dict[str, object]:
        if not asked:
            asked.append(True)
            fields = {"AccountId": "acme", "ApiKey": KEY, "Action": "AccountActivity", "ActivityType": "OPENS"}
            return {"type": "http.request", "body": urlencode({**fields, "ActivityDate": "2026-08-01"}).encode()}
        return await asyncio.Future()

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await house.service({"type": "http", "path": PATH, "method": "POST"}, receive, send)
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert sum(sizes) > 25_000_000
    assert max(sizes) < 1_000_000
    assert peak < 30_000_000

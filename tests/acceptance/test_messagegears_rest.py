"""A client of MessageGears' REST against `aftersend serve`: given an account, it fetches what the source told."""

import io
import zipfile
from pathlib import Path
from urllib.parse import urlencode

import msgspec
import pytest
from tests.acceptance.conftest import Server

from aftersend.core.event import Event, Receipt
from aftersend.dialects.messagegears import Dialect

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects" / "messagegears"
KEY = "an-api-key-of-the-client"
PATH = "/3.1/WebService"


async def fetch(server: Server, **fields: str) -> tuple[int, bytes, dict[str, str]]:
    form = urlencode({"Action": "AccountActivity", "AccountId": "23295228", "ApiKey": KEY, **fields})
    return await server.request(
        "POST", PATH, form.encode(), key="", Content_Type="application/x-www-form-urlencoded; charset=UTF-8"
    )


async def subscribe(server: Server, **fields: object) -> object:
    record = {
        "name": "shop",
        "transport": "messagegears_rest",
        "dialect": "messagegears",
        "settings": {"account_id": "23295228", "api_key": KEY},
    }
    return await server.json("POST", "/v1/subscriptions", record | fields, 201)


async def test_a_client_fetches_the_file_of_a_day_as_the_vendor_wrote_it(server: Server) -> None:
    shown = await subscribe(server)
    assert KEY not in str(shown)
    sample = (FIXTURES / "account_activity" / "response_OPENS.xml").read_bytes().strip()
    assert (await server.request("POST", "/v1/events/messagegears", sample))[0] == 200
    status, body, headers = await fetch(server, ActivityType="OPENS", ActivityDate="2010-9-14")
    assert status == 200
    assert headers["content-disposition"] == "attachment; filename=2010-09-14_OPENS.xml"
    assert body.partition(b"<Result>")[2] == sample.partition(b"<Result>")[2]
    _, packed, _ = await fetch(server, ActivityType="OPENS", ActivityDate="2010-9-14", UseCompression="TRUE")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.read("2010-09-14_OPENS.xml").partition(b"<Result>")[2] == sample.partition(b"<Result>")[2]


@pytest.mark.parametrize("options", [("--admin-listen", "127.0.0.1:0"), ()], ids=["apart", "together"])
async def test_accounts_are_checked_and_errors_have_the_vendors_form(
    stopped_server: Server, options: tuple[str, ...]
) -> None:
    stopped_server.options = options
    await stopped_server.start()
    status, body, headers = await fetch(stopped_server, ActivityType="OPENS", ActivityDate="2010-09-14")
    assert (status, "content-disposition" in headers) == (200, False)
    assert b"<Result>REQUEST_FAILED</Result>" in body
    assert b"<ErrorCode>INVALID_CREDENTIALS</ErrorCode>" in body


async def test_events_of_other_sources_are_counted_and_told_as_activity(server: Server) -> None:
    await subscribe(server)
    event = {
        "type": "email.clicked",
        "time": "2026-08-01T12:00:00Z",
        "recipient": "ann@example.com",
        "url": "https://a/",
    }
    await server.json("POST", "/v1/events", event)
    _, body, _ = await fetch(server, Action="AccountSummary", ActivityDate="2026-08")
    assert b"<Clicks>1</Clicks><Opens>0</Opens>" in body
    _, body, _ = await fetch(server, ActivityType="CLICKS", ActivityDate="2026-08-01")
    (told,) = Dialect().decode(Receipt(body, 1_790_000_000_000_000_000))
    assert isinstance(told, Event)
    assert (told.type, told.recipient, told.url) == ("email.clicked", "ann@example.com", "https://a/")


async def test_a_key_that_was_read_from_a_file_may_have_a_line_break_at_its_end(server: Server) -> None:
    await subscribe(server)
    day = {"ActivityType": "OPENS", "ActivityDate": "2010-09-14"}
    _, body, _ = await fetch(server, **day, ApiKey=f"{KEY}\r\n")
    assert b"<Result>REQUEST_SUCCESSFUL</Result>" in body


async def test_no_two_subscriptions_have_one_account_and_key(server: Server) -> None:
    await subscribe(server)
    await subscribe(server, name="other", settings={"account_id": "23295228", "api_key": "a-key-of-the-other-one"})
    for fields, said in (
        ({"name": "third"}, "another subscription has this account and key"),
        ({"name": "third", "dialect": "canonical"}, "set dialect to messagegears"),
    ):
        record = {"transport": "messagegears_rest", "dialect": "messagegears"}
        settings = {"settings": {"account_id": "23295228", "api_key": KEY}}
        status, answer, _ = await server.request(
            "POST", "/v1/subscriptions", msgspec.json.encode(record | settings | fields)
        )
        assert (status, said in answer.decode()) == (400, True), answer


async def test_an_account_is_never_behind(server: Server) -> None:
    await subscribe(server)
    await server.json("POST", "/v1/events", [{"type": "email.opened", "recipient": "ann@example.org"}])
    shown = await server.json("GET", "/v1/subscriptions/shop")
    assert isinstance(shown, dict)
    assert shown["standing"]["behind"] == 0

"""The addresses of SOAP clients over a real socket: the collection's requests, and what each call does and refuses."""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from tests.integration.capturing import exchange, serving
from tests.integration.soap_pulling import DIALECT, PullHouse, event, pulled, pulled_over_http
from tests.unit.test_soap_wire import ANSWERS, CALLS, HEX, SAMPLES, content, result_of

from aftersend.contracts import Entry
from aftersend.core.errors import ConfigurationError, ConflictError, StoreError
from aftersend.core.event import Event, Receipt, Rejected
from aftersend.core.outcome import Parcel, Verdict
from aftersend.core.secret import Secret
from aftersend.core.timestamps import SECOND
from aftersend.core.xml import Element, local_name, parse_xml
from aftersend.transports import soap_pull
from aftersend.transports.soap_pull import Transport
from aftersend.transports.soap_pull.door import BODY_LIMIT, Door, is_soap
from aftersend.transports.soap_pull.session import IDLE_LIMIT, MISSES_WINDOW, SESSIONS_OF_USER, WAITING_OF_ONE, Guard
from aftersend.transports.soap_pull.wire import Call

SERVICE = "/_bus/request.soap"
CONTEXT, EVENTS = "bus_facade_context", "bus_facade_eventNotification"
BATCH = "bus_entity_eventNotificationBatch"
PASSWORDS = {"acme.sys": "s3cret", "u.sys": "pwd"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[PullHouse]:
    async with pulled(tmp_path) as made:
        yield made


class Client:
    """A client that speaks to the facade without an envelope."""

    def __init__(self, house: PullHouse, address: str = "192.0.2.1") -> None:
        self.house = house
        self.address = address
        self.context = ""

    async def call(self, facade: str, process: str, data: Any = (), entity: Any = ()) -> dict[str, Any]:
        call = Call(self.context, facade, process, dict(entity), dict(data), False)
        return await self.house.facade.answer(call, self.address)

    async def login(self, user: str = "acme.sys", password: str = "s3cret") -> dict[str, Any]:
        result = await self.call(CONTEXT, "login", entity={"userName": user, "password": password})
        if result["result"] == "success":
            self.context = result["resultData"]["bus_entity_context"]["beanId"]
        return result

    async def pull(self, **values: Any) -> list[str]:
        """The rows of a batch."""
        bean = await self.bean(encoding="plain", **values)
        rows: list[str] = bean["eventData"].splitlines()
        assert len(rows) == bean["eventCount"]
        return rows

    async def bean(self, **values: Any) -> dict[str, Any]:
        result = await self.call(EVENTS, "getBatch", values)
        assert result["result"] == "success", result
        bean: dict[str, Any] = result["resultData"][BATCH]
        return bean

    async def refused(self, **values: Any) -> Any:
        result = await self.call(EVENTS, "getBatch", values)
        return result["result"].removeprefix("bean_exception_"), result["resultData"]


async def logged_in(house: PullHouse, address: str = "192.0.2.1") -> Client:
    client = Client(house, address)
    assert (await client.login())["result"] == "success"
    return client


def who(rows: list[str]) -> list[int]:
    return [int(row.split(",")[1].partition("@")[0][1:]) for row in rows]


def keys_of(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """The beans of an answer with their keys, in order."""
    return [(name, list(bean)) for name, bean in result["resultData"].items()]


async def post(url_port: int, body: bytes, query: str = "") -> tuple[int, bytes]:
    head, answer = await exchange(url_port, "POST", SERVICE + query, body)
    return head.status, answer


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


# The collection's requests


@pytest.mark.parametrize("name", sorted(CALLS))
async def test_every_request_of_the_collection_gets_the_answer_of_its_kind(name: str, tmp_path: Path) -> None:
    call, user = CALLS[name], {**CALLS[name].entity}.get("userName", "acme.sys")
    password = {**call.entity}.get("password", PASSWORDS[user])
    literal = name.startswith("soap_literal")
    async with pulled_over_http(tmp_path, user=user, password=Secret(password)) as (house, url):
        await house.keep(event(1), event(2, "email.clicked", url="https://x/"))
        client = Client(house)
        await client.login(user, password)
        body = content(name).replace(call.context.encode() or b"\0", client.context.encode())
        status, answer = await post(port_of(url), body, "?use=literal" if literal else "")
    assert status == 200
    result, sample = result_of(answer), f"{name.partition('/')[0]}/{call.process}_response.xml"
    assert result["result"] == "success"
    if call.process == "logout":
        assert answer == content(sample)
        return
    assert keys_of(result) == keys_of(result_of(content(sample)))
    if call.process == "login":
        assert re.fullmatch("[0-9a-f]{32}", result["resultData"]["bus_entity_context"]["beanId"])
    else:
        words = [word for word in ("CLICK", "OPEN") if word in str(call.entity or call.data)]
        assert result["resultData"][BATCH]["eventCount"] == (str(len(words)) if literal else len(words))
        assert list(result["resultData"][BATCH]["eventMeta"]) == words


@pytest.mark.parametrize("kind", ["soap_encoded", "soap_literal"])
async def test_a_batch_is_answered_with_the_bytes_of_the_collections(kind: str, tmp_path: Path) -> None:
    """The rows of its batch, kept and told again, make its answer, but for the columns of an open."""
    rows = (SAMPLES.parents[1] / "dialects/pure360/csv/eventData.decoded.csv").read_bytes()
    literal = "?use=literal" if kind == "soap_literal" else ""
    async with pulled_over_http(tmp_path) as (house, url):
        client = await logged_in(house)
        request = content(f"{kind}/getBatch_request.php_client_capture.xml").replace(
            HEX.encode(), client.context.encode()
        )
        assert (await post(port_of(url), request, literal))[1] == content(f"{kind}/getBatch_response_empty.xml")
        for number, row in enumerate(reversed(rows.splitlines())):
            (item,) = DIALECT.decode(Receipt(row, (1437583000 + number) * SECOND, form="csv"))
            assert isinstance(item, Event)
            await house.store.append(Entry("default", [item]))
        _, answer = await post(port_of(url), request, literal)
        plain = request.replace(b"clientType", b"encoding").replace(b"CLIENT_PULL", b"plain")
        _, plain_answer = await post(port_of(url), plain, literal)
    bean = result_of(answer)["resultData"][BATCH]
    told = b64decode(bean["eventData"]).decode()
    assert re.sub(r"^(OPEN.*),\d+$", r"\1", told, flags=re.MULTILINE).encode() == rows, "an open tells its time besides"
    same = answer.decode().replace(bean["eventMeta"]["OPEN"], "type, email, messageName, deliveryDate")
    sample = content(f"{kind}/getBatch_response.xml").decode()
    assert same.replace(bean["eventData"], "") == sample.replace(
        result_of(sample.encode())["resultData"][BATCH]["eventData"], ""
    )
    assert result_of(plain_answer)["resultData"][BATCH]["eventData"] == told


def test_all_kinds_of_answers_of_the_collection_are_ours() -> None:
    kinds = {Path(name).name.removesuffix(".xml") for name in ANSWERS}
    errors = {"error_security", "error_system", "error_validation"}
    batches = {"getBatch_response", "getBatch_response_empty", "getBatch_response_plain"}
    assert kinds == errors | batches | {"login_response", "logout_response"}


async def test_an_answer_can_be_read_by_position_as_a_node_client_does(tmp_path: Path) -> None:
    async with pulled_over_http(tmp_path) as (_, url):
        _, answer = await post(
            port_of(url), content("soap_literal/login_request.php_client_capture.xml"), "?use=literal"
        )
    root = parse_xml(answer)
    assert not isinstance(root, Rejected)
    result: Element = root[0][0][0]
    context = result[1][1][0][3]
    assert (result[1][0].text, context[0].text) == ("resultData", "bus_entity_context")
    bean_id = context[1][0][9]
    assert bean_id[0].text == "beanId"
    assert re.findall(rb"<ns2:key>beanId</ns2:key><ns2:value><ns2:str>([0-9a-f]{32})</ns2:str>", answer) == [
        (bean_id[1][0].text or "").encode()
    ]


async def test_a_literal_call_without_the_switch_is_answered_literally(tmp_path: Path) -> None:
    async with pulled_over_http(tmp_path) as (_, url):
        _, answer = await post(port_of(url), content("soap_literal/login_request.php_client_capture.xml"))
    assert b"<Result><ns2:pairs>" in answer


# Descriptions


@pytest.mark.parametrize(
    ("name", "sample", "use"),
    [
        ("ctrlPaint.wsdl", "ctrlPaint.inferred.wsdl", ""),
        ("ctrlPaintLiteral.wsdl", "ctrlPaintLiteral.wsdl", "?use=literal"),
    ],
)
async def test_a_description_is_served_below_any_host_and_says_what_the_vendors_says(
    name: str, sample: str, use: str, tmp_path: Path
) -> None:
    async with pulled_over_http(tmp_path) as (house, url):
        for host in ("paint.pure360.com", "127.0.0.1", "emailapi.co.uk"):
            head, body = await exchange(port_of(url), "GET", f"/{host}/{name}", headers={"Host": "pull.example:81"})
            assert (head.status, head.headers["content-type"]) == (200, "text/xml; charset=utf-8")
            assert f'location="http://pull.example:81{SERVICE}{use}"'.encode() in body
        house.door = Door(house.facade, base="https://pull.example.com/")
        _, body = await exchange(port_of(url), "GET", f"/x/{name}")
        assert f'location="https://pull.example.com{SERVICE}{use}"'.encode() in body
        head, nothing = await exchange(port_of(url), "HEAD", f"/x/{name}")
        assert (head.headers["content-length"], nothing) == (str(len(body)), b"")
    assert described(body) - ADDED == described(content(f"wsdl/{sample}")) - ADDED


ADDED = {("complexType", "Array"), ("complexType", "Map"), ("complexType", "mapItem"), ("element", "item"),
         ("element", "key"), ("element", "value")}  # fmt: skip
"""What the encoded description defines itself: not every stack knows Apache's Map."""


def described(wsdl: bytes) -> set[tuple[str, ...]]:
    """Every named thing with its attributes, apart from the address and how often something may stand."""
    root = parse_xml(wsdl)
    assert not isinstance(root, Rejected)
    left_out = ("location", "minOccurs", "nillable", "elementFormDefault", "processContents")
    found = set()
    for element in root.iter():
        values = [text for key, text in sorted(element.items()) if key not in left_out and text != "xsd:anyType"]
        if element.get("name") or local_name(element.tag) in ("body", "binding", "operation"):
            found.add((local_name(element.tag), *values))
    return {item for item in found if "apache:mapItem" not in item}


async def test_other_methods_hosts_and_sizes_are_refused(tmp_path: Path) -> None:
    async with pulled_over_http(tmp_path) as (_, url):
        port = port_of(url)
        assert (await exchange(port, "GET", SERVICE))[0].status == 405
        assert (await exchange(port, "POST", "/x/ctrlPaint.wsdl"))[0].status == 405
        assert (await exchange(port, "GET", "/x/ctrlPaint.wsdl", headers={"Host": 'a"b'}))[0].status == 400
        too_large = {"Content-Length": str(BODY_LIMIT + 1)}
        assert (await exchange(port, "POST", SERVICE, headers=too_large))[0].status == 413


def test_which_addresses_are_served() -> None:
    assert is_soap("/_bus/request.soap")
    assert is_soap("/any.host/ctrlPaint.wsdl")
    assert is_soap("/any.host/ctrlPaintLiteral.wsdl")
    assert not any(map(is_soap, ("/ctrlPaint.wsdl", "//ctrlPaint.wsdl", "/a/b/ctrlPaint.wsdl", "/_bus/", "/v1/events")))


@pytest.mark.parametrize(
    ("body", "sample"),
    [
        (b"<broken", "fault_bad_xml.php_default.xml"),
        (
            b"<e:Envelope xmlns:e='x'><e:Body><nope/></e:Body></e:Envelope>",
            "fault_unknown_operation.php_default.xml",
        ),
    ],
)
async def test_what_is_no_call_is_answered_with_phps_fault(body: bytes, sample: str, tmp_path: Path) -> None:
    async with pulled_over_http(tmp_path) as (_, url):
        assert await post(port_of(url), body) == (500, content(f"soap_encoded/{sample}"))


async def test_what_is_called_base64_and_is_not_is_a_fault_of_its_field(tmp_path: Path) -> None:
    body = content("soap_literal/login_request.suds_base64_keys.xml").replace(b"YWNtZS5zeXM=", b"!!!")
    async with pulled_over_http(tmp_path) as (_, url):
        status, answer = await post(port_of(url), body, "?use=literal")
    assert status == 200
    assert result_of(answer) == {
        "result": "bean_exception_validation",
        "resultData": {"userName_base64": "this is not base64"},
    }


async def test_a_fault_of_ours_is_told_as_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with pulled(tmp_path) as house:

        async def broken(*_: object) -> dict[str, Any]:
            raise RuntimeError("a secret of ours")

        house.facade.answer = broken  # type: ignore[method-assign]
        async with serving(house.door) as port:
            status, answer = await post(port, content("soap_literal/login_request.php_client_capture.xml"))
    assert (status, b"secret" in answer) == (500, False)
    assert b"<faultcode>SOAP-ENV:Server</faultcode>" in answer
    assert "a call failed" in caplog.text


# Batches


async def test_a_batch_is_told_the_newest_first_and_read(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(*[event(number) for number in range(1, 8)])
    assert who(await client.pull(maxNotifications="5")) == [5, 4, 3, 2, 1]
    assert who(await client.pull()) == [7, 6]
    assert await client.pull() == []


async def test_what_happened_first_and_arrived_late_is_told_by_its_time(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(event(5), event(2), event(9), event(1))
    assert who(await client.pull(maxNotifications="3")) == [9, 5, 2], "the oldest of the log, the newest of them first"
    assert who(await client.pull()) == [1]


async def test_a_batch_is_told_the_oldest_first_where_the_login_says_so(tmp_path: Path) -> None:
    async with pulled(tmp_path, order="oldest") as house:
        client = await logged_in(house)
        await house.keep(*[event(number) for number in range(1, 5)])
        assert who(await client.pull(maxNotifications="3")) == [1, 2, 3]
        assert who(await client.pull(recall="Y")) == [1, 2, 3]


async def test_a_batch_that_is_not_marked_as_read_comes_again(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(event(1), event(2))
    for _ in range(3):
        assert who(await client.pull(markAsReadInd="N")) == [2, 1]
    assert who(await client.pull(markAsReadInd="Y")) == [2, 1]
    assert await client.pull(markAsReadInd="N") == []


async def test_nothing_is_lost_between_looking_and_reading_though_the_process_dies(house: PullHouse) -> None:
    await house.keep(event(1), event(2))
    assert who(await (await logged_in(house)).pull(markAsReadInd="N")) == [2, 1]
    house.restart()
    await house.keep(event(3))
    assert who(await (await logged_in(house)).pull(markAsReadInd="Y")) == [3, 2, 1]
    house.restart()
    assert await (await logged_in(house)).pull() == []


async def test_a_reserved_batch_is_read_by_the_next_call_of_its_session(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(*[event(number) for number in range(1, 7)])
    reserving = {"markAsProcessingInd": "Y", "maxNotifications": "2"}
    assert who(await client.pull(**reserving)) == [2, 1]
    assert who(await client.pull(**reserving)) == [4, 3]
    assert (await client.call(EVENTS, "processBatchReport", {"batchReport": {"summary": "2 stored"}}))[
        "result"
    ] == "success"
    house.now += 600 * SECOND
    assert who(await client.pull(markAsReadInd="N")) == [6, 5]


async def test_a_reserved_batch_comes_again_when_its_session_is_silent_for_ten_minutes(house: PullHouse) -> None:
    await house.keep(*[event(number) for number in range(1, 5)])
    crashing, other = await logged_in(house), await logged_in(house)
    assert who(await crashing.pull(markAsProcessingInd="Y", maxNotifications="3")) == [3, 2, 1]
    assert who(await other.pull(markAsProcessingInd="Y")) == [4]
    house.restart()
    house.now += 599 * SECOND
    other = await logged_in(house)
    assert await other.pull(markAsReadInd="N") == []
    house.now += SECOND
    assert who(await other.pull()) == [4, 3, 2, 1]


async def test_logging_out_does_not_read_what_was_reserved(house: PullHouse) -> None:
    await house.keep(event(1))
    client = await logged_in(house)
    assert who(await client.pull(markAsProcessingInd="Y")) == [1]
    assert await client.call(CONTEXT, "logout") == {"result": "success"}
    house.now += 600 * SECOND
    assert who(await (await logged_in(house)).pull()) == [1]


async def test_what_is_marked_as_read_in_so_many_words_is_read_though_it_is_reserved(house: PullHouse) -> None:
    await house.keep(event(1))
    client = await logged_in(house)
    assert who(await client.pull(markAsReadInd="Y", markAsProcessingInd="Y")) == [1]
    house.now += 600 * SECOND
    assert await client.pull() == []


async def test_the_last_batch_is_told_again_on_request(house: PullHouse) -> None:
    await house.keep(*[event(number) for number in range(1, 7)])
    await (await logged_in(house)).pull(maxNotifications="2")
    house.now += 1
    await (await logged_in(house)).pull(maxNotifications="3")
    house.restart()
    client = await logged_in(house)
    assert who(await client.pull(recall="Y")) == [5, 4, 3]
    assert who(await client.pull(recall="2")) == [2, 1]
    assert await client.refused(recall="3") == ("validation", {"recall": "there is no such batch, or its time is over"})
    assert who(await client.pull()) == [6]


async def test_recalling_does_not_read_what_was_reserved(house: PullHouse) -> None:
    await house.keep(event(1))
    client = await logged_in(house)
    for _ in range(3):
        assert who(await client.pull(markAsProcessingInd="Y", recall="Y" if _ else "N")) == [1]
    house.now += 600 * SECOND
    assert who(await client.pull()) == [1]


async def test_types_custom_fields_and_columns_are_told_as_asked(house: PullHouse) -> None:
    extra = {"firstName": "Ann, Lee", "score": 7, "tags": ["a", "b"], "deep": {"x": 1}, "none": None}
    client = await logged_in(house)
    await house.keep(event(1, extra=extra, campaign_id="Spring", message_id="m1"), event(2, "sms.undelivered"))
    bean = await client.bean(
        markAsReadInd="N",
        encoding="plain",
        customFieldNames="first_name, score,tags,deep,none,missing,EMAIL,message id,firstName",
    )
    added = "first_name,score,tags,deep,none,missing"
    assert bean["eventMeta"] == {
        "SMSFAILED": f"type,mobile,Message Name,Delivery Date,Event Date,{added},EMAIL,message id",
        "OPEN": f"type,email,Message Name,Delivery Date,Open Date,{added},message id",
    }
    assert bean["eventData"] == (
        "SMSFAILED,r2@example.org,,,1770000002,,,,,,,,\n"
        'OPEN,r1@example.org,Spring,,1770000001,"Ann, Lee",7,"a, b",,,,m1\n'
    )
    for name in ("customFieldNames",):
        for nothing in (None, "", [], {}, "  "):
            bean = await client.bean(markAsReadInd="N", notificationTypes="open", **{name: nothing})
            assert bean["eventMeta"] == {"OPEN": "type,email,Message Name,Delivery Date,Open Date"}
            assert b64decode(bean["eventData"]) == b"OPEN,r1@example.org,Spring,,1770000001\n"


async def test_the_parameters_may_stand_in_either_place(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(event(1), event(2, "email.clicked"))
    result = await client.call(
        EVENTS,
        "getBatch",
        {"maxNotifications": None, "x": ""},
        {"notificationTypes": ["CLICK"], "markAsReadInd": "N", "maxNotifications": "7"},
    )
    assert list(result["resultData"][BATCH]["eventMeta"]) == ["CLICK"]


@pytest.mark.parametrize(
    ("values", "field", "text"),
    [
        ({"notificationTypes": "OPEN,OPENED"}, "notificationTypes", "there is no type 'OPENED'"),
        ({"notificationTypes": "*"}, "notificationTypes", "there is no type '*'"),
        ({"maxNotifications": "0"}, "maxNotifications", "a number from 1 to 10000"),
        ({"maxNotifications": "-1"}, "maxNotifications", "a number from 1 to 10000"),
        ({"maxNotifications": "1e3"}, "maxNotifications", "a number"),
        ({"markAsReadInd": "maybe"}, "markAsReadInd", "Y or N"),
        ({"markAsProcessingInd": "2"}, "markAsProcessingInd", "Y or N"),
        ({"customFieldNames": ["a,b"]}, "customFieldNames", "at most 100 names"),
        ({"customFieldNames": ["a\nb"]}, "customFieldNames", "at most 100 names"),
        ({"customFieldNames": ["a"] * 101}, "customFieldNames", "at most 100 names"),
        ({"encoding": "utf-7"}, "encoding", "plain or base64"),
        ({"recall": "last"}, "recall", "Y for the last batch"),
    ],
)
async def test_a_wrong_parameter_is_named_and_nothing_is_read(
    house: PullHouse, values: dict[str, Any], field: str, text: str
) -> None:
    client = await logged_in(house)
    await house.keep(event(1))
    kind, fields = await client.refused(**values)
    assert kind == "validation"
    assert list(fields) == [field]
    assert fields[field].startswith(text)
    assert who(await client.pull()) == [1]


async def test_a_batch_has_a_thousand_events_and_never_more_than_ten_thousand(house: PullHouse) -> None:
    client = await logged_in(house)
    for start in range(0, 12_000, 2_000):
        await house.keep(*[event(number) for number in range(start, start + 2_000)])
    for nothing in (None, "", " "):
        assert len(await client.pull(markAsReadInd="N", maxNotifications=nothing)) == 1_000
    assert len(await client.pull(markAsReadInd="N", maxNotifications="99999")) == 10_000


async def test_others_get_their_turn_while_a_large_batch_is_made(house: PullHouse) -> None:
    client = await logged_in(house)
    for start in range(0, 10_000, 1_000):
        await house.keep(*[event(number) for number in range(start, start + 1_000)])
    turns, done = 0, asyncio.Event()

    async def others() -> None:
        nonlocal turns
        while not done.is_set():
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(others())
    assert len(await client.pull(maxNotifications="10000")) == 10_000
    done.set()
    await task
    assert turns >= 25


async def test_a_batch_is_cut_where_its_rows_would_be_too_long(
    house: PullHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aftersend.transports.soap_pull.facade.DATA_LIMIT", 20_000)
    client = await logged_in(house)
    await house.keep(*[event(number) for number in range(1, 1_801)], event(1_801, "email.clicked"))
    bean = await client.bean(maxNotifications="1801", encoding="plain")
    assert who(bean["eventData"].splitlines())[::-1] == list(range(1, 501))
    assert list(bean["eventMeta"]) == ["OPEN"]
    assert who(await client.pull(maxNotifications="1800"))[::-1] == list(range(501, 1_001))


async def test_a_paused_subscription_cannot_be_pulled_and_loses_nothing(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(event(1))
    house.logins.put(structs.replace(house.subscription, state="paused"), house.transport)
    assert await client.refused() == ("security", "action not allowed: the subscription is paused")
    house.logins.put(structs.replace(house.subscription, state="gap"), house.transport)
    assert who(await client.pull()) == [1]


async def test_a_fault_of_the_store_is_told_and_nothing_is_read(
    house: PullHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await logged_in(house)
    await house.keep(event(1))

    async def failing(*_: object) -> None:
        raise StoreError("the disk is gone")

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "settle_leases", failing)
        assert await client.refused() == ("system", "the disk is gone")
    assert who(await client.pull()) == [1]


# Logins


async def test_a_login_is_told_of_itself_and_may_keep_its_role(house: PullHouse) -> None:
    client = await logged_in(house)
    role = (await client.login())["resultData"]["bus_entity_context"]["currentRoleKey"]
    switched = await client.call(CONTEXT, "switchRole", entity={"currentRoleKey": role})
    assert switched["resultData"]["bus_entity_context"]["beanId"] == client.context
    refused = await client.call(CONTEXT, "switchRole", entity={"currentRoleKey": "IDENT_1"})
    assert refused["result"] == "bean_exception_security"


@pytest.mark.parametrize(
    ("user", "password", "kind"),
    [
        ("", "s3cret", "validation"),
        ("acme.sys", "", "validation"),
        ("acme.sys", "S3cret", "security"),
        ("acme.sy", "s3cret", "security"),
        ("nobody", "", "validation"),
        ("nobody", "x" * 100_000, "security"),
    ],
)
async def test_a_wrong_login_is_refused_without_saying_what_is_wrong(
    house: PullHouse, user: str, password: str, kind: str
) -> None:
    result = await Client(house).login(user, password)
    assert result["result"] == f"bean_exception_{kind}"
    if kind == "security":
        assert result["resultData"] == "The user name or the password is not valid"


@pytest.mark.parametrize(
    ("facade", "process"),
    [
        ("bus_facade_campaign_email", "create"),
        (EVENTS, "search"),
        (CONTEXT, "loginAsAdmin"),
        ("", ""),
    ],
)
async def test_everything_else_is_not_allowed(house: PullHouse, facade: str, process: str) -> None:
    client = await logged_in(house)
    result = await client.call(facade, process)
    assert result == {"result": "bean_exception_security", "resultData": "action not allowed"}


async def test_a_session_ends_with_its_time_its_logout_its_password_and_its_login(house: PullHouse) -> None:
    async def is_gone(client: Client) -> bool:
        kind, text = await client.refused()
        return (kind, text[:17]) == ("security", "Context not found")

    stranger = Client(house)
    assert await is_gone(stranger)
    stranger.context = HEX
    assert await is_gone(stranger)
    client = await logged_in(house)
    await client.call(CONTEXT, "logout")
    assert await is_gone(client)
    client = await logged_in(house)
    house.now += IDLE_LIMIT - 1
    assert await client.pull() == []
    house.now += IDLE_LIMIT
    assert await is_gone(client)
    client = await logged_in(house)
    house.logins.put(house.subscription, Transport(user="acme.sys", password=Secret("new")))
    assert await is_gone(client)
    house.logins.put(house.subscription, house.transport)
    house.logins.put(structs.replace(house.subscription, id="sub_other"), Transport(user="b", password=Secret("b")))
    assert await client.pull() == []
    house.logins.remove("sub_pull")
    assert await is_gone(client)
    assert (await client.login())["result"] == "bean_exception_security"


async def test_a_user_has_so_many_sessions_and_the_oldest_goes(house: PullHouse) -> None:
    first, *others = [await logged_in(house) for _ in range(SESSIONS_OF_USER + 1)]
    assert (await first.refused())[0] == "security"
    assert await others[0].pull() == []


async def test_two_subscriptions_cannot_have_one_name(house: PullHouse) -> None:
    other = structs.replace(house.subscription, id="sub_other")
    with pytest.raises(ConflictError, match="choose another"):
        house.logins.put(other, house.transport)
    house.logins.put(house.subscription, Transport(user="renamed", password=Secret("x")))
    house.logins.put(other, house.transport)


async def test_who_guesses_is_slowed_down_by_user_and_by_address(house: PullHouse) -> None:
    async def seconds(user: str, password: str, address: str) -> float:
        began = asyncio.get_running_loop().time()
        await Client(house, address).login(user, password)
        return asyncio.get_running_loop().time() - began

    for number in range(5):
        assert await seconds("acme.sys", f"guess {number}", "192.0.2.9") < 0.05
    assert await seconds("acme.sys", "guess", "198.51.100.1") >= 0.05, "the user, from elsewhere"
    assert await seconds("other", "guess", "192.0.2.9") >= 0.05, "the address, for another user"
    assert await seconds("acme.sys", "s3cret", "198.51.100.1") >= 0.05, "and the right password too"
    assert await seconds("other", "guess", "198.51.100.7") < 0.05
    house.now += MISSES_WINDOW
    assert await seconds("acme.sys", "s3cret", "192.0.2.9") < 0.05


async def test_no_more_guesses_wait_than_the_limit(house: PullHouse) -> None:
    client = Client(house)
    for number in range(5):
        await client.login(password=f"guess {number}")
    results = await asyncio.gather(*[client.login() for _ in range(WAITING_OF_ONE + 3)])
    kinds = [result["result"] for result in results]
    assert kinds.count("bean_exception_system") == 3
    assert kinds.count("success") == WAITING_OF_ONE


def test_an_ipv6_customer_counts_once() -> None:
    guard = Guard(lambda: SECOND)
    for number in range(5):
        guard.miss(f"user {number}", f"2001:db8::{number:x}")
    assert guard._count("address " + str(0x20010DB800000000)) == 5
    for number in range(20_000):
        guard.miss(f"user {number}", "x")
    assert len(guard._misses) <= 8_192


# The transport


def test_the_transport_is_named_like_its_package() -> None:
    assert Transport.name == soap_pull.__name__.rpartition(".")[2]


async def test_nothing_is_ever_sent() -> None:
    transport = Transport(user="acme.sys", password=Secret("s3cret"))
    assert transport.carries == "nothing"
    assert (await transport.probe()).verdict is Verdict.TAKEN
    outcome = await transport.send(Parcel("p", b"", "text/plain"))
    assert (outcome.verdict, outcome.detail[:9]) == (Verdict.FAILED, "is pulled")
    await transport.close()
    assert "s3cret" not in repr(transport)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"user": ""}, "user:"),
        ({"user": " acme"}, "user:"),
        ({"user": "x" * 129}, "user:"),
        ({"password": Secret("")}, "password: it is empty"),
        ({"lease_seconds": 0.5}, "lease_seconds: 1 to 86400"),
        ({"recall_hours": -1.0}, "recall_hours: 0 to 168"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{text}"):
        Transport(**{"user": "acme.sys", "password": Secret("s3cret"), **options})


async def test_figures_tell_calls_and_events_and_no_secret(house: PullHouse) -> None:
    client = await logged_in(house)
    await house.keep(event(1))
    await client.pull()
    await client.login("acme.sys", "hunter2")
    text = house.telemetry.text()
    assert 'aftersend_soap_calls_total{result="success"} 2' in text
    assert "aftersend_soap_events_total 1" in text
    assert "hunter2" not in text
    assert client.context not in text
    for lease in await house.store.list_leases("sub_pull"):
        assert client.context not in repr(lease)

"""PAINT's envelopes: whatever client stacks send is read, and answers have the bytes that clients read by."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.event import Rejected
from aftersend.core.xml import Element, local_name, parse_xml
from aftersend.transports.soap_pull.wire import (
    DEPTH_LIMIT,
    VALUES_LIMIT,
    Call,
    FaultError,
    NotBase64Error,
    print_encoded,
    print_fault,
    print_literal,
    read_call,
)

SAMPLES = Path(__file__).parents[1] / "fixtures" / "foreign" / "pure360"
REQUESTS = sorted(path.relative_to(SAMPLES).as_posix() for path in SAMPLES.glob("soap_*/*_request*.xml"))
ANSWERS = sorted(
    path.relative_to(SAMPLES).as_posix()
    for path in SAMPLES.glob("soap_*/*.xml")
    if "_request" not in path.name and "fault_" not in path.name
)
CONTEXT, EVENTS = "bus_facade_context", "bus_facade_eventNotification"
ACME = {"userName": "acme.sys", "password": "s3cret"}
TESTER = {"userName": "acme.sys", "password": "example-password"}
HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"
ALL = "CLICK,OPEN,BOUNCE,BLOCKED,SOFTBOUNCE,OPTOUT,OPTIN,SIGNUP,DELIVERYSTART,DELIVERY"

CALLS = {
    "soap_encoded/getBatch_request.docs.xml": Call(
        "P-JMDAF9HdkwjRCevNVPathRy",
        EVENTS,
        "getBatch",
        {},
        {"notificationTypes": "OPEN,CLICK,DELIVERY", "maxNotifications": "1000", "markAsReadInd": "N"},
        False,
    ),
    "soap_encoded/getBatch_request.facade_doc_style.xml": Call(
        "C-KFDsCMMHXpDUi0ltN0p3FvF",
        EVENTS,
        "getBatch",
        {"notificationTypes": ["OPEN", "CLICK"], "maxNotifications": "1000", "markAsReadInd": "Y"},
        {},
        False,
    ),
    "soap_encoded/getBatch_request.paintwork.xml": Call(
        "A-503c9f3c6137e350278961",
        EVENTS,
        "getBatch",
        {},
        {
            "clientType": "CLIENT_PULL",
            "notificationTypes": ALL,
            "maxNotifications": None,
            "markAsReadInd": "N",
            "markAsProcessingInd": "N",
            "customFieldNames": None,
            "encoding": "plain",
        },
        False,
    ),
    "soap_encoded/getBatch_request.php_client_capture.xml": Call(
        HEX,
        EVENTS,
        "getBatch",
        {},
        {
            "notificationTypes": "OPEN,CLICK",
            "maxNotifications": "1000",
            "markAsReadInd": "N",
            "customFieldNames": "",
            "clientType": "CLIENT_PULL",
        },
        False,
    ),
    "soap_encoded/login_request.docs.xml": Call("", CONTEXT, "login", TESTER, {}, False),
    "soap_encoded/login_request.paintwork.xml": Call("", CONTEXT, "login", TESTER, {}, False),
    "soap_encoded/logout_request.xml": Call(HEX, CONTEXT, "logout", {}, {}, False),
    "soap_literal/getBatch_request.array_types_capture.xml": Call(
        HEX,
        EVENTS,
        "getBatch",
        {},
        {"notificationTypes": {"0": "OPEN", "1": "CLICK"}, "maxNotifications": "1000"},
        True,
    ),
    "soap_literal/getBatch_request.php_client_capture.xml": Call(
        HEX,
        EVENTS,
        "getBatch",
        {},
        {
            "notificationTypes": "OPEN,CLICK",
            "maxNotifications": "1000",
            "markAsReadInd": "N",
            "customFieldNames": "",
            "clientType": "CLIENT_PULL",
        },
        True,
    ),
    "soap_literal/getBatch_request.pyresponse_leading_space_key.xml": Call(
        HEX,
        EVENTS,
        "getBatch",
        {},
        {"notificationTypes": "CLICK", "maxNotifications": "1000", "markAsReadInd": "N"},
        True,
    ),
    "soap_literal/login_request.node_soap_capture.xml": Call(
        "", CONTEXT, "login", {"password": "pwd", "userName": "u.sys"}, {}, True
    ),
    "soap_literal/login_request.php_client_capture.xml": Call("", CONTEXT, "login", ACME, {}, True),
    "soap_literal/login_request.suds_base64_keys.xml": Call("", CONTEXT, "login", ACME, {}, True),
    "soap_literal/login_request.suds_capture.xml": Call("", CONTEXT, "login", ACME, {}, True),
    "soap_literal/login_request.zeep_capture.xml": Call("", CONTEXT, "login", ACME, {"x": ""}, True),
}


def content(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def envelope(inner: str) -> bytes:
    return f'<e:Envelope xmlns:e="http://e"><e:Body>{inner}</e:Body></e:Envelope>'.encode()


def handled(data: str) -> bytes:
    names = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    return envelope(f"<handleRequest {names}><processData>{data}</processData></handleRequest>")


def data_of(data: str) -> Any:
    return read_call(handled(data)).data


def value_of(element: Element) -> Any:
    """An answer's value, read with the typed and the empty forms told apart."""
    kinds = {local_name(name): text for name, text in element.items()}
    if kinds.get("nil") == "true":
        return None
    if kinds.get("type") == "xsd:int":
        return int(element.text or "")
    if kinds.get("type") == "xsd:string":
        return element.text or ""
    children = list(element)
    if not children:
        return [] if local_name(element.tag) in ("arr", "value") and kinds else None
    if local_name(children[0].tag) == "str":
        return children[0].text or ""
    if local_name(children[0].tag) == "arr":
        return value_of(children[0]) if len(children[0]) else []
    if kinds.get("type") == "SOAP-ENC:Array":
        return [value_of(child) for child in children]
    return {child[0].text: value_of(child[1]) for child in children}


def result_of(answer: bytes) -> Any:
    root = parse_xml(answer)
    assert not isinstance(root, Rejected)
    return value_of(root[0][0][0])


@pytest.mark.parametrize("name", REQUESTS)
def test_every_request_of_the_collection_is_read(name: str) -> None:
    assert read_call(content(name)) == CALLS[name]


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_of_the_collection_is_printed_to_the_byte(name: str) -> None:
    answer = content(name)
    printed = print_literal if "literal" in name else print_encoded
    assert printed(result_of(answer)) == answer


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("fault_bad_xml.php_default.xml", b"<SOAP-ENV:Envelope><open>"),
        ("fault_bad_xml.php_default.xml", b""),
        ("fault_bad_xml.php_default.xml", b"<x/>"),
        ("fault_bad_xml.php_default.xml", envelope("")),
        ("fault_bad_xml.php_default.xml", b"<Envelope/>"),
        ("fault_bad_xml.php_default.xml", b"\xff\x00"),
        ("fault_bad_xml.php_default.xml", b'<!DOCTYPE x [<!ENTITY y "z">]>' + handled("<item/>")),
        ("fault_unknown_operation.php_default.xml", envelope("<x:nope xmlns:x='urn:localhost-paint'/>")),
    ],
)
def test_what_is_no_call_is_a_fault_as_php_tells_it(name: str, body: bytes) -> None:
    with pytest.raises(FaultError) as caught:
        read_call(body)
    assert print_fault(caught.value) == content(f"soap_encoded/{name}")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('<item><key>a</key><value xsi:nil="true">text that means nothing</value></item>', {"a": None}),
        ('<item><key>a</key><value xsi:nil="1"/></item>', {"a": None}),
        ("<item><key>a</key></item>", {"a": None}),
        ("<item><key> a\n</key><value/></item>", {"a": ""}),
        ("<item><key>a</key><value><item>x</item><item>y</item></value></item>", {"a": ["x", "y"]}),
        ("<item><key>a</key><value><item><key>b</key><value>c</value></item></value></item>", {"a": {"b": "c"}}),
        ("<pairs><key>a</key><value><str>b</str><arr/></value></pairs>", {"a": "b"}),
        ("<pairs><key>a</key><value><str/><arr><pairs><key>0</key><value><str>b</str></value></pairs></arr></value></pairs>",
         {"a": {"0": "b"}}),
        ("<pairs><key>a</key><value><!-- a remark -->\n<str>b<!-- and one -->c</str></value></pairs>", {"a": "bc"}),
        ("<item><key>a</key><value><![CDATA[<b>]]></value></item>", {"a": "<b>"}),
        ("\n  ", {}),
        ("text", {}),
    ],
)  # fmt: skip
def test_every_way_to_say_a_value_or_nothing_is_understood(data: str, expected: Any) -> None:
    assert data_of(data) == expected


def test_values_that_a_stack_puts_beside_the_call_are_found() -> None:
    call = read_call(
        envelope(
            '<handleRequest><processData href="#d"/></handleRequest>'
            '<multiRef id="d"><item><key>types</key><value href="#t"/></item></multiRef>'
            '<multiRef id="t">OPEN</multiRef>'
        )
    )
    assert call.data == {"types": "OPEN"}


@pytest.mark.parametrize(
    ("data", "text"),
    [("schön €".encode(), "schön €"), ("schön €".encode("iso-8859-15"), "schön €"), (b"", "")],
)
def test_a_base64_key_carries_text_of_either_character_set(data: bytes, text: str) -> None:
    packed = b64encode(data).decode()
    assert data_of(f"<item><key>name_base64</key><value>{packed}\n</value></item>") == {"name": text}
    listed = f"<item><key>name_base64</key><value><item>{packed}</item></value></item>"
    assert data_of(listed) == {"name": [text]}


def test_what_is_called_base64_and_is_not_names_its_key() -> None:
    with pytest.raises(NotBase64Error, match="password_base64 is not base64"):
        data_of("<item><key>password_base64</key><value>plain!</value></item>")


def test_a_request_of_too_many_values_or_too_deep_is_refused() -> None:
    deep = "<item>" * (DEPTH_LIMIT + 1) + "</item>" * (DEPTH_LIMIT + 1)
    loop = '<item id="i" href="#i"/>'
    many = "<item><key>a</key><value>b</value></item>" * (VALUES_LIMIT // 2)
    wide = (
        "".join(f'<item id="n{n}">' + f'<item href="#n{n + 1}"/>' * 10 + "</item>" for n in range(12))
        + '<item id="n12">x</item>'
    )
    for data in (deep, loop, many, wide):
        with pytest.raises(FaultError):
            data_of(data)


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    for data in (body, handled(body.decode("latin-1"))):
        try:
            read_call(data)
        except (FaultError, NotBase64Error):
            pass


VALUES = st.recursive(
    st.none() | st.text(max_size=20) | st.integers(0, 9),
    lambda inner: st.dictionaries(st.text("abcXYZ_0", min_size=1, max_size=5), inner, min_size=1, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcXYZ", min_size=1, max_size=5), VALUES, min_size=1, max_size=4))
def test_whatever_is_answered_is_well_formed_and_says_the_same(result: dict[str, Any]) -> None:
    for answer in (print_encoded(result), print_literal(result)):
        root = parse_xml(answer)
        assert not isinstance(root, Rejected)
        assert root[0][0][0].tag == "Result"
        assert len(root[0][0][0]) == len(result)


# How clients without a stack read


def test_a_client_that_reads_by_pattern_finds_the_session() -> None:
    answer = print_literal({"resultData": {"bus_entity_context": {"status": "modified", "beanId": HEX}}}).decode()
    pattern = r"<ns2:key>beanId</ns2:key><ns2:value><ns2:str>([a-zA-Z0-9,]+)</ns2:str></ns2:value>"
    assert re.findall(pattern, answer) == [HEX]


def test_nothing_stands_between_the_elements() -> None:
    for name in ANSWERS:
        answer = content(name)
        printed = (print_literal if "literal" in name else print_encoded)(result_of(answer))
        assert not re.search(rb">\s+<", printed.split(b"\n", 1)[1].replace(b"\n</", b"</")), name

"""PAINT's envelopes: requests read by local names, answers printed as PHP's SoapServer prints them.

Client stacks disagree about namespaces, prefixes and ways to say nothing, so none of these mean anything here: a nil,
an empty and a missing element are one. Answers are read by pattern and by position, so their bytes are fixed.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from aftersend.core.errors import UsageError
from aftersend.core.event import Rejected
from aftersend.core.xml import Element, escaped, local_name, parse_xml

VALUES_LIMIT = 20_000
"""How many values a request may have."""
DEPTH_LIMIT = 32
"""How deep they may nest."""

_SUFFIX = "_base64"
_NIL = "{http://www.w3.org/2001/XMLSchema-instance}nil"
_MEMBERS = ("item", "pairs")


class FaultError(UsageError):
    """The request cannot be read as a call."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class NotBase64Error(UsageError):
    """A value that its key calls base64 is not."""

    def __init__(self, key: str) -> None:
        super().__init__(f"{key} is not base64")
        self.key = key


class Call(Struct, frozen=True):
    """A request, read."""

    context: str
    """The session; empty: none was named."""
    facade: str
    process: str
    entity: Mapping[str, Any]
    """Texts, None, objects and lists by their trimmed keys."""
    data: Mapping[str, Any]
    literal: bool
    """Its values came in the form of the literal description."""


def read_call(body: bytes) -> Call:
    """The call in an envelope. Raises FaultError, and NotBase64Error."""
    root = parse_xml(body)
    if isinstance(root, Rejected) or local_name(root.tag) != "Envelope":
        raise FaultError("Client", "Bad Request")
    content = next((child for child in root if local_name(child.tag) == "Body"), None)
    operation = None if content is None else next(iter(content), None)
    if content is None or operation is None:
        raise FaultError("Client", "Bad Request")
    name = local_name(operation.tag)
    if name != "handleRequest":
        raise FaultError("Server", f"Procedure '{name[:100]}' not present")
    reader = _Reader(content)
    parts = {local_name(part.tag): reader.value(part) for part in operation}
    return Call(
        _text(parts.get("contextId")),
        _text(parts.get("className")),
        _text(parts.get("processName")),
        _object(parts.get("entityData")),
        _object(parts.get("processData")),
        reader.literal,
    )


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


class _Reader:
    """Reads the values of one envelope within its limits."""

    def __init__(self, content: Element) -> None:
        self._content = content
        self._left = VALUES_LIMIT
        self._targets: dict[str, Element] | None = None
        self.literal = False

    def value(self, element: Element, depth: int = 1) -> Any:
        """A text, None, an object or a list."""
        self._left -= 1
        if self._left < 0 or depth > DEPTH_LIMIT:
            raise FaultError("Client", "Bad Request")
        reference = element.get("href")
        if reference is not None:
            return self.value(self._target(reference), depth + 1)
        if element.get(_NIL, "").strip() in ("true", "1"):
            return None
        children = list(element)
        if not children:
            return element.text or ""
        if local_name(children[0].tag) in _MEMBERS:
            return self._collection(children, depth)
        # The literal form: `str` or `arr`; some stacks send the other one besides, empty.
        found = [self.value(child, depth + 1) for child in children]
        self.literal = True
        return next((item for item in found if item), found[0])

    def _target(self, reference: str) -> Element:
        """The element that a stack put beside the call and only pointed to."""
        if self._targets is None:
            self._targets = {text: child for child in self._content.iter() if (text := child.get("id")) is not None}
        try:
            return self._targets[reference.removeprefix("#")]
        except KeyError:
            raise FaultError("Client", "Bad Request") from None

    def _collection(self, members: Iterable[Element], depth: int) -> Any:
        found: dict[str, Any] = {}
        listed: list[Any] = []
        for member in members:
            self.literal = self.literal or local_name(member.tag) == "pairs"
            parts = {local_name(child.tag): child for child in member}
            if "key" in parts:
                key = _text(self.value(parts["key"], depth + 1))
                value = self.value(parts["value"], depth + 1) if "value" in parts else None
                found |= [_plain(key, value)]
            else:
                listed.append(self.value(member, depth + 1))
        return found or listed


def _plain(key: str, value: Any) -> tuple[str, Any]:
    """Key and value as meant: `name_base64` is `name`, decoded."""
    if not key.endswith(_SUFFIX) or len(key) == len(_SUFFIX):
        return key, value
    return key.removesuffix(_SUFFIX), _decoded(key, value)


def _decoded(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _decoded(key, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_decoded(key, item) for item in value]
    if not value:
        return value
    try:
        data = b64decode("".join(value.split()), validate=True)
    except ValueError:
        raise NotBase64Error(key) from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("iso-8859-15")


# Answers

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<SOAP-ENV:Envelope xmlns:SOAP-ENV="http://schemas.xmlsoap.org/soap/envelope/"'
)
_CALL = "<SOAP-ENV:Body><ns1:handleRequestResponse>"
_TAIL = "</ns1:handleRequestResponse></SOAP-ENV:Body></SOAP-ENV:Envelope>\n"
_ENCODING = "http://schemas.xmlsoap.org/soap/encoding/"
_DECLARED = {"ns2": ' xmlns:ns2="http://xml.apache.org/xml-soap"', "SOAP-ENC": f' xmlns:SOAP-ENC="{_ENCODING}"'}


def print_encoded(result: Mapping[str, Any]) -> bytes:
    """An answer of the encoded binding; namespaces are declared in the order in which PHP comes to need them."""
    needed: dict[str, None] = {}
    content = _encoded("Result", result, needed)
    declared = "".join([_DECLARED[prefix] for prefix in (*needed, *(_DECLARED.keys() - needed.keys()))])
    return (
        f'{_HEAD} xmlns:ns1="urn:localhost-paint" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xmlns:xsd="http://www.w3.org/2001/XMLSchema"{declared} SOAP-ENV:encodingStyle="{_ENCODING}">'
        f"{_CALL}{content}{_TAIL}"
    ).encode()


def _encoded(name: str, value: Any, needed: dict[str, None]) -> str:
    if value is None:
        return f'<{name} xsi:nil="true"/>'
    if isinstance(value, str):
        return f'<{name} xsi:type="xsd:string">{escaped(value)}</{name}>'
    if isinstance(value, int):
        return f'<{name} xsi:type="xsd:int">{value}</{name}>'
    if not value:
        needed["SOAP-ENC"] = None
        return f'<{name} SOAP-ENC:arrayType="xsd:ur-type[0]" xsi:type="SOAP-ENC:Array"/>'
    if isinstance(value, Mapping):
        pairs = [(_encoded("key", key, needed), _encoded("value", item, needed)) for key, item in value.items()]
        needed["ns2"] = None
        inner = "".join([f"<item>{key}{item}</item>" for key, item in pairs])
        return f'<{name} xsi:type="ns2:Map">{inner}</{name}>'
    inner = "".join([_encoded("item", item, needed) for item in value])
    needed["SOAP-ENC"] = None
    return f'<{name} SOAP-ENC:arrayType="xsd:string[{len(value)}]" xsi:type="SOAP-ENC:Array">{inner}</{name}>'


def print_literal(result: Mapping[str, Any]) -> bytes:
    """An answer of the literal binding, with the prefix `ns2` and no white space."""
    return (
        f'{_HEAD} xmlns:ns1="urn:localhost-paint" xmlns:ns2="http://www.pure360.com/paint">'
        f"{_CALL}<Result>{_pairs(result)}</Result>{_TAIL}"
    ).encode()


def _pairs(values: Mapping[str, Any]) -> str:
    return "".join(
        [f"<ns2:pairs><ns2:key>{escaped(key)}</ns2:key>{_literal(value)}</ns2:pairs>" for key, value in values.items()]
    )


def _literal(value: Any) -> str:
    if value is None:
        return "<ns2:value/>"
    if isinstance(value, str | int):
        text = escaped(str(value))
        return f"<ns2:value><ns2:str>{text}</ns2:str></ns2:value>" if text else "<ns2:value><ns2:str/></ns2:value>"
    if not value:
        return "<ns2:value><ns2:arr/></ns2:value>"
    values = value if isinstance(value, Mapping) else {str(number): item for number, item in enumerate(value)}
    return f"<ns2:value><ns2:arr>{_pairs(values)}</ns2:arr></ns2:value>"


def print_fault(fault: FaultError) -> bytes:
    """A fault, as PHP's server tells it."""
    return (
        f"{_HEAD}><SOAP-ENV:Body><SOAP-ENV:Fault><faultcode>SOAP-ENV:{fault.code}</faultcode>"
        f"<faultstring>{escaped(str(fault))}</faultstring></SOAP-ENV:Fault></SOAP-ENV:Body></SOAP-ENV:Envelope>\n"
    ).encode()

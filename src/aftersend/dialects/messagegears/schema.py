"""Schemas of what MessageGears tells: each item as JSON Schema, and the documents of its REST as XML Schema.

The XML Schema is ours, made of the items' tables: what the vendor's clients read is valid against it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from aftersend.dialects.messagegears.items import INTEGERS, NAMESPACE, Item

_ERROR = {"type": "object", "properties": {"ErrorCode": {"type": "string"}, "ErrorMessage": {"type": "string"}}}
_SHAPES: dict[str, dict[str, Any]] = {
    **{name: {"type": "string", "format": "date-time"} for name in ("Timestamp", "CreateTimestamp", "UpdateTimestamp")},
    **{name: {"type": "integer"} for name in INTEGERS},
    "Microsite": {"type": "boolean"},
    "JobError": _ERROR,
    "RenderErrors": {"type": "object", "properties": {"RenderError": {"type": "array", "items": _ERROR}}},
}


def json_schema(item: Item) -> dict[str, Any]:
    """The JSON Schema of an item, its elements as an object."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": item.name,
        "type": "object",
        "properties": {name: _SHAPES.get(name, {"type": "string"}) for name, _, _, _ in item.rows},
        "required": [name for name, _, _, default in item.rows if default is not None],
    }


_KINDS = {
    "Timestamp": "xs:dateTime",
    "Microsite": "xs:boolean",
    "RenderErrors": "RenderErrors",
    "JobError": "Error",
    **dict.fromkeys(INTEGERS, "xs:integer"),
}
_ONCE, _OPTIONAL, _ANY = "", ' minOccurs="0"', ' minOccurs="0" maxOccurs="unbounded"'
_HEAD = (
    f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" xmlns="{NAMESPACE}"\n'
    f'  targetNamespace="{NAMESPACE}" elementFormDefault="qualified">'
)
_RESULT = (
    '<xs:simpleType name="Result"><xs:restriction base="xs:string"><xs:enumeration value="REQUEST_SUCCESSFUL"/>'
    '<xs:enumeration value="REQUEST_FAILED"/></xs:restriction></xs:simpleType>'
)


def xml_schema(items: Iterable[Item], counts: Iterable[str]) -> bytes:
    """The XML Schema of the queue's messages, the daily files and the summaries, with these items and counts."""
    text, date = "xs:string", "xs:date"
    answer = [("RequestId", text, _ONCE), ("Result", "Result", _ONCE)]
    errors = ("RequestErrors", "RequestErrors", _OPTIONAL)
    listed = list(items)
    parts = [_HEAD]
    parts += [_element(name, name, _ONCE) for name in ("AccountActivityResponse", "AccountSummaryResponse")]
    parts.append(_element("ActivityItems", "ActivityItems", _ONCE))
    items_element = ("ActivityItems", "ActivityItems", _OPTIONAL)
    parts += [
        _type("AccountActivityResponse", [*answer, ("ActivityDate", date, _OPTIONAL), errors, items_element]),
        _type("AccountSummaryResponse", [*answer, errors, ("AccountSummary", "AccountSummary", _OPTIONAL)]),
        _type("AccountSummary", [("ActivityDate", date, _ONCE), *((name, "xs:integer", _ONCE) for name in counts)]),
        _type("ActivityItems", [(item.name, item.name, _ANY) for item in listed]),
        *map(_item_type, listed),
        _type("RequestErrors", [("RequestError", "Error", _ANY)]),
        _type("RenderErrors", [("RenderError", "Error", _ANY)]),
        _type("Error", [("ErrorCode", text, _ONCE), ("ErrorMessage", text, _ONCE)]),
        _RESULT,
        "</xs:schema>\n",
    ]
    return "\n".join(parts).encode()


def _item_type(item: Item) -> str:
    elements = [
        (name, _KINDS.get(name, "xs:string"), _OPTIONAL if default is None else _ONCE)
        for name, _, _, default in item.rows
    ]
    return _type(item.name, elements, "all" if item.name == "JobErrorActivity" else "sequence")


def _type(name: str, elements: Sequence[tuple[str, str, str]], group: str = "sequence") -> str:
    inside = "\n    ".join(_element(*element) for element in elements)
    return f'<xs:complexType name="{name}"><xs:{group}>\n    {inside}\n</xs:{group}></xs:complexType>'


def _element(name: str, type_: str, occurs: str) -> str:
    return f'<xs:element name="{name}" type="{type_}"{occurs}/>'

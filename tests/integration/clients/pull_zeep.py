"""Pulls batches with zeep and prints what it was told: pull_zeep.py ADDRESS_OF_THE_DESCRIPTION CALLS."""

import json
import sys
from typing import Any

import zeep

ADDRESS, CALLS = sys.argv[1:]
LITERAL = "Literal" in ADDRESS
STRING = zeep.xsd.String()


def packed(values: Any) -> Any:
    """Objects as the description has them."""
    if not LITERAL:
        return {"item": [{"key": typed(key), "value": typed(value)} for key, value in values.items()]}
    return {
        "pairs": [
            {"key": key, "value": {"arr": packed(value)} if isinstance(value, dict) else {"str": value}}
            for key, value in values.items()
        ]
    }


def typed(value: Any) -> Any:
    """A value of any type needs to be told which."""
    if isinstance(value, dict):
        return zeep.xsd.AnyObject(client.get_type("{http://xml.apache.org/xml-soap}Map"), packed(value))
    return zeep.xsd.AnyObject(STRING, value)


def unpacked(value: Any) -> Any:
    """What came, as plain objects."""
    if value is None or isinstance(value, str | int):
        return value
    if not LITERAL:
        members = value if isinstance(value, list) else getattr(value, "item", ())
        return {member.key: unpacked(member.value) for member in members}
    pairs = value if isinstance(value, list) else value.pairs
    return {pair.key: pair.value and unpacked(pair.value.arr or pair.value.str) for pair in pairs}


client = zeep.Client(ADDRESS)
context, told = "", []
for facade, process, (entity, data) in json.loads(CALLS):
    result = unpacked(client.service.handleRequest(context, facade, process, packed(entity), packed(data)))
    if process == "login":
        context = result["resultData"]["bus_entity_context"]["beanId"]
    told.append(result)
print(json.dumps(told))

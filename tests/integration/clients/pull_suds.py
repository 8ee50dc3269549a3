"""Pulls batches with suds and prints what it was told: pull_suds.py ADDRESS_OF_THE_DESCRIPTION CALLS."""

import json
import sys
from typing import Any

from suds.client import Client

ADDRESS, CALLS = sys.argv[1:]
LITERAL = "Literal" in ADDRESS
MAP = "{http://xml.apache.org/xml-soap}"


def packed(values: Any) -> Any:
    """Objects as the description has them."""
    whole = client.factory.create("paintArray" if LITERAL else MAP + "Map")
    members = [member(key, value) for key, value in values.items()]
    setattr(whole, "pairs" if LITERAL else "item", members)
    return whole


def member(key: str, value: Any) -> Any:
    """One of them."""
    made = client.factory.create("paintKeyValuePair" if LITERAL else MAP + "mapItem")
    made.key = key
    content = packed(value) if isinstance(value, dict) else value
    if LITERAL:
        made.value.arr, made.value.str = (content, None) if isinstance(value, dict) else (None, content)
    else:
        made.value = content
    return made


def unpacked(value: Any) -> Any:
    """What came, as plain objects."""
    if value is None or isinstance(value, str | int):
        return value if value is None or isinstance(value, int) else str(value)
    members = getattr(value, "pairs", None) or getattr(value, "item", None)
    if members is None:
        return unpacked(getattr(value, "arr", getattr(value, "str", None))) if LITERAL else {}
    return {str(one.key): unpacked(one.value) for one in members}


client = Client(ADDRESS, cache=None)
context, told = "", []
for facade, process, (entity, data) in json.loads(CALLS):
    result = unpacked(client.service.handleRequest(context, facade, process, packed(entity), packed(data)))
    if process == "login":
        context = result["resultData"]["bus_entity_context"]["beanId"]
    told.append(result)
print(json.dumps(told))

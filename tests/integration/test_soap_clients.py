"""Real SOAP clients pull batches from both descriptions over a real socket: PHP, zeep, suds and node-soap."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.soap_pulling import event, pulled_over_http

from aftersend.core.event import Event, Receipt
from aftersend.core.timestamps import parse_time
from aftersend.dialects.pure360 import read_rows

CLIENTS = Path(__file__).parent / "clients"
NODE_MODULES = Path(__file__).parents[2] / ".node" / "node_modules"
COMMANDS = {
    "php": ["php", str(CLIENTS / "pull.php")],
    "zeep": [sys.executable, str(CLIENTS / "pull_zeep.py")],
    "suds": [sys.executable, str(CLIENTS / "pull_suds.py")],
    "node-soap": ["node", str(CLIENTS / "pull.cjs")],
}
MARKS = {"php": [pytest.mark.server("php")], "node-soap": [pytest.mark.server("node")]}
DESCRIPTIONS = ("ctrlPaint.wsdl", "ctrlPaintLiteral.wsdl")
CONTEXT, EVENTS = "bus_facade_context", "bus_facade_eventNotification"
LOGIN = (CONTEXT, "login", [{"userName": "acme.sys", "password": "s3cret"}, {}])
ROWS = 'OPEN,r4@example.org,,,1770000004\nCLICK,r2@example.org,,,"https://x/?a=1,2&b=ä",1770000002\n'
META = {
    "OPEN": "type,email,Message Name,Delivery Date,Open Date",
    "CLICK": "type,email,Message Name,Delivery Date,Click Url,Click Date",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Leave out, and name, the client that could not be installed: node's registry is not to be had everywhere."""
    if "client" not in metafunc.fixturenames:
        return
    names = [name for name in COMMANDS if name != "node-soap" or NODE_MODULES.is_dir()]
    metafunc.parametrize("client", [pytest.param(name, marks=MARKS.get(name, ())) for name in names])
    if len(names) < len(COMMANDS):
        for plugin in metafunc.config.pluginmanager.get_plugins():
            if hasattr(plugin, "pytest_terminal_summary") and hasattr(plugin, "missed"):
                plugin.missed["the module soap of node"] += len(DESCRIPTIONS)


async def told(client: str, address: str, *calls: tuple[str, str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """What a client makes of the answers to these calls."""
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[client],
        address,
        json.dumps(calls),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(NODE_MODULES), "no_proxy": "127.0.0.1"},
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    found: list[dict[str, Any]] = json.loads(out)
    return found


def batch_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["result"] == "success"
    found: dict[str, Any] = result["resultData"]["bus_entity_eventNotificationBatch"]
    return found


@pytest.mark.parametrize("description", DESCRIPTIONS)
async def test_a_client_logs_in_pulls_and_logs_out(client: str, description: str, tmp_path: Path) -> None:
    asked = {"notificationTypes": "OPEN,CLICK", "maxNotifications": "1000"}
    listed = {"notificationTypes": {"0": "OPEN", "1": "CLICK"}, "encoding": "plain"}
    async with pulled_over_http(tmp_path) as (house, url):
        await house.keep(event(2, "email.clicked", url="https://x/?a=1,2&b=ä"), event(3, "sms.undelivered"), event(4))
        login, again, batch, empty, sms, logout = await told(
            client,
            f"{url}/127.0.0.1/{description}",
            LOGIN,
            (EVENTS, "getBatch", [{}, {**asked, " markAsReadInd": "N"}]),
            (EVENTS, "getBatch", [listed, {}]),
            (EVENTS, "getBatch", [{}, asked]),
            (EVENTS, "getBatch", [{}, {"notificationTypes_base64": base64.b64encode(b"SMSFAILED").decode()}]),
            (CONTEXT, "logout", [{}, {}]),
        )
    context = login["resultData"]["bus_entity_context"]
    assert (context["userName"], len(context["beanId"])) == ("acme.sys", 32)
    assert base64.b64decode(batch_of(again)["eventData"]).decode() == ROWS
    plain = batch_of(batch)
    assert (plain["eventData"].rstrip("\n"), plain["eventMeta"]) == (ROWS.rstrip("\n"), META), "node-soap trims texts"
    assert [int(batch_of(result)["eventCount"]) for result in (again, batch, empty, sms)] == [2, 2, 0, 1]
    assert not batch_of(empty)["eventData"]
    assert not batch_of(empty)["eventMeta"]
    assert logout == {"result": "success"}
    rows = read_rows(ROWS.encode(), META, Receipt(b"", parse_time("2026-03-01T00:00:00Z")))
    assert [item.type for item in rows if isinstance(item, Event)] == ["email.opened", "email.clicked"]


@pytest.mark.parametrize("description", DESCRIPTIONS)
async def test_a_client_understands_each_refusal(client: str, description: str, tmp_path: Path) -> None:
    async with pulled_over_http(tmp_path) as (_, url):
        _, wrong_number, elsewhere, gone = await told(
            client,
            f"{url}/127.0.0.1/{description}",
            LOGIN,
            (EVENTS, "getBatch", [{}, {"maxNotifications": "many"}]),
            ("bus_facade_campaign_list", "create", [{"listName": "x"}, {}]),
            (CONTEXT, "switchRole", [{"currentRoleKey": "IDENT_1"}, {}]),
        )
    assert wrong_number["result"] == "bean_exception_validation"
    assert wrong_number["resultData"] == {"maxNotifications": "a number from 1 to 10000"}
    assert elsewhere == {"result": "bean_exception_security", "resultData": "action not allowed"}
    assert gone["result"] == "bean_exception_security"

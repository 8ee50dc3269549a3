"""A whole instance is pulled over SOAP by PHP's client, and is killed while it does so."""

import asyncio
import json
from pathlib import Path

import pytest
from tests.acceptance.conftest import Server, run

PULL = Path(__file__).parents[1] / "integration" / "clients" / "pull.php"
CONTEXT, EVENTS = "bus_facade_context", "bus_facade_eventNotification"


async def pull(server: Server, program: str, *calls: object) -> list[dict[str, object]]:
    login = [CONTEXT, "login", [{"userName": "acme.sys", "password": "s3cret"}, {}]]
    process = await asyncio.create_subprocess_exec(
        program,
        str(PULL),
        f"{server.url}/any.host/ctrlPaint.wsdl",
        json.dumps([login, *calls]),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await asyncio.wait_for(process.communicate(), 60)
    logged_in, *results = json.loads(out)
    assert logged_in["result"] == "success"
    return [result["resultData"]["bus_entity_eventNotificationBatch"] for result in results]


def batch(**values: str) -> object:
    return [EVENTS, "getBatch", [{}, {"encoding": "plain", **values}]]


@pytest.mark.server("php")
async def test_a_client_pulls_from_an_instance_that_is_killed(server: Server, programs: dict[str, str]) -> None:
    options = ["--setting", "user=acme.sys", "--setting", "password=s3cret", "--start", "beginning"]
    data = ["--data", str(server.data)]
    await run("subscriptions", "add", "crm", *data, "--transport", "soap_pull", "--dialect", "pure360", *options)
    events = [
        {"type": "email.opened", "time": f"2026-02-01T00:00:0{n}Z", "recipient": f"r{n}@example.org"} for n in range(4)
    ]
    await server.json("POST", "/v1/events", events)
    (first,) = await pull(server, programs["php"], batch(markAsProcessingInd="Y", maxNotifications="3"))
    assert first["eventCount"] == 3
    await server.kill()
    await server.start()
    rest, again = await pull(server, programs["php"], batch(), batch(recall="2"))
    assert str(rest["eventData"]).startswith("OPEN,r3@example.org")
    assert again == first, "what was in hand when both died"
    shown = await server.json("GET", "/v1/subscriptions/crm")
    assert isinstance(shown, dict)
    assert (shown["settings"]["password"], shown["standing"]["in_hand"]) == ("********", 1)
    assert (await server.request("DELETE", "/v1/subscriptions/crm"))[0] == 204
    with pytest.raises(ValueError):
        await pull(server, programs["php"])

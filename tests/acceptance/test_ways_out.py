"""Subscriptions whose events leave by other ways than POST requests: one form for all of them."""

import asyncio
import socket
from pathlib import Path

import msgspec
from tests.acceptance.conftest import Inlet, Server, run
from tests.acceptance.test_delivery import Inlets


def a_port_where_nobody_is() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


async def test_the_ways_out_are_listed_with_their_options(server: Server) -> None:
    listed = await server.json("GET", "/v1/transports")
    assert isinstance(listed, list)
    names = [item["name"] for item in listed]
    assert "http" in names
    assert "sftp" in names
    for item in listed:
        assert all(option["help"] for option in item["options"])


async def test_a_receiver_that_is_not_there_is_told_before_anything_is_saved(server: Server) -> None:
    port = a_port_where_nobody_is()
    fields = {"name": "files", "url": f"ftp://127.0.0.1:{port}/in", "settings": {"user": "u", "password": "hush-hush"}}
    status, answer, _ = await server.request("POST", "/v1/subscriptions", msgspec.json.encode(fields))
    assert status == 400
    told = msgspec.json.decode(answer)["detail"]
    assert told.startswith("not saved, the probe failed: connect")
    assert "hush" not in told
    assert await server.json("GET", "/v1/subscriptions") == []


async def test_secret_settings_are_masked_wherever_they_are_shown_and_sealed_on_the_disk(server: Server) -> None:
    port = a_port_where_nobody_is()
    fields = {"name": "files", "url": f"ftp://127.0.0.1:{port}/in", "settings": {"user": "u", "password": "hush-hush"}}
    made = await server.json("POST", "/v1/subscriptions?probe=skip", fields, 201)
    assert isinstance(made, dict)
    assert made["transport"] == "ftp"
    assert made["settings"] == {"user": "u", "password": "********"}
    assert "secrets" not in made
    assert made["signing_secrets"] == []
    changed = await server.json("PATCH", "/v1/subscriptions/files?probe=skip", {"settings": {"user": "v"}})
    assert isinstance(changed, dict)
    assert changed["settings"] == {"user": "v", "password": "********"}
    printed = await run("subscriptions", "show", "files", "--data", str(server.data))
    assert b"hush" not in printed
    for file in Path(server.data).rglob("*"):
        if file.is_file() and not file.is_socket():
            assert b"hush-hush" not in file.read_bytes(), file


async def test_a_receiver_of_requests_may_come_up_later_and_can_be_probed(server: Server, inlets: Inlets) -> None:
    inlet: Inlet = await inlets()
    port = a_port_where_nobody_is()
    for name, url in (("there", inlet.url), ("away", f"http://127.0.0.1:{port}/")):
        await server.json("POST", "/v1/subscriptions", {"name": name, "url": url}, 201)
    assert await server.json("POST", "/v1/subscriptions/there/probe") == {"reached": True, "detail": ""}
    away = await server.json("POST", "/v1/subscriptions/away/probe")
    assert isinstance(away, dict)
    assert not away["reached"]
    assert away["detail"].startswith("connect: 127.0.0.1: ")
    assert inlet.requests == []
    await run("subscriptions", "probe", "away", "--data", str(server.data), status=1)
    fields = {"name": "strict", "url": f"http://127.0.0.1:{port}/"}
    status, _, _ = await server.request("POST", "/v1/subscriptions?probe=require", msgspec.json.encode(fields))
    assert status == 400


async def test_a_setting_can_come_from_a_file(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "word"
    secret.write_text("hush-hush\n")
    url = f"ftp://127.0.0.1:{a_port_where_nobody_is()}/in"
    given = ("--setting", "user=u", "--setting", f"password=@{secret}", "--no-probe", "--json")
    made = msgspec.json.decode(
        await run("subscriptions", "add", "files", "--url", url, *given, "--data", str(server.data))
    )
    assert made["settings"] == {"user": "u", "password": "********"}
    await run(
        *("subscriptions", "add", "other", "--url", url, "--setting", "password=@/nowhere/at/all", "--no-probe"),
        *("--data", str(server.data)),
        status=2,
    )


async def test_ways_that_connect_by_themselves_need_an_admin_key_and_a_listed_host(server: Server) -> None:
    made = await server.json("POST", "/v1/keys", {"name": "d", "scopes": ["deliver"]}, 201)
    assert isinstance(made, dict)
    fields = msgspec.json.encode({"name": "queue", "url": "nats://127.0.0.1:4222/events"})
    status, answer, _ = await server.request("POST", "/v1/subscriptions", fields, str(made["key"]))
    assert (status, msgspec.json.decode(answer)["detail"]) == (
        403,
        "the transport nats may be used with an admin key only",
    )
    status, answer, _ = await server.request("POST", "/v1/subscriptions", fields)
    assert status == 400
    assert "add it to the setting egress_brokers" in msgspec.json.decode(answer)["detail"]


async def test_how_files_are_cut_is_said_and_changed_part_by_part(server: Server) -> None:
    data = ("--data", str(server.data))
    where = ("--url", f"ftp://127.0.0.1:{a_port_where_nobody_is()}/in", "--setting", "user=u", "--no-probe")
    given = ("--file", "every=day", "--file", "zone=Europe/Berlin", "--file", "format=ndjson")
    made = msgspec.json.decode(await run("subscriptions", "add", "files", *where, *given, "--json", *data))
    assert (made["file"]["every"], made["file"]["zone"], made["file"]["format"]) == ("day", "Europe/Berlin", "ndjson")
    await run("subscriptions", "set", "files", "--file", "max_events=1000", "--file", "compression=gzip", *data)
    shown = msgspec.json.decode(await run("subscriptions", "show", "files", "--json", *data))
    assert shown["file"] == made["file"] | {"max_events": 1000, "compression": "gzip"}
    for wrong in ("evry=day", "every=fortnight", "max_events=many", "zone=Mars/Phobos"):
        await run("subscriptions", "set", "files", "--file", wrong, *data, status=2)


async def answered(server: Server, method: str, path: str, fields: object, status: int = 400) -> str:
    """What is said against a request."""
    found, answer, _ = await server.request(method, path, msgspec.json.encode(fields))
    assert found == status, answer
    detail = msgspec.json.decode(answer)["detail"]
    assert isinstance(detail, str)
    return detail


async def test_a_way_without_an_address_takes_none(server: Server) -> None:
    fields = {"name": "crm", "transport": "rest_pull", "url": "https://crm.example/hook"}
    assert "rest_pull takes none" in await answered(server, "POST", "/v1/subscriptions", fields)


async def test_who_comes_for_events_instead_is_not_shown_with_the_old_address(server: Server) -> None:
    url = f"http://127.0.0.1:{a_port_where_nobody_is()}/"
    await server.json("POST", "/v1/subscriptions", {"name": "crm", "url": url}, 201)
    changed = await server.json("PATCH", "/v1/subscriptions/crm", {"transport": "rest_pull"})
    assert isinstance(changed, dict)
    assert (changed["transport"], changed["url"]) == ("rest_pull", "")
    assert "rest_pull takes none" in await answered(server, "PATCH", "/v1/subscriptions/crm", {"url": url})


async def test_a_change_to_signed_requests_makes_a_secret_and_shows_it_once(server: Server) -> None:
    await server.json("POST", "/v1/subscriptions", {"name": "crm", "transport": "rest_pull"}, 201)
    url = f"http://127.0.0.1:{a_port_where_nobody_is()}/"
    changed = await server.json("PATCH", "/v1/subscriptions/crm", {"transport": "http", "url": url, "timeout": 3})
    assert isinstance(changed, dict)
    assert changed["signing_secrets"][0].startswith("whsec_")
    again = await server.json("PATCH", "/v1/subscriptions/crm", {"timeout": 4})
    assert isinstance(again, dict)
    assert again["signing_secrets"] == ["********"]


async def test_what_is_wrong_with_a_field_is_told_by_its_name(server: Server) -> None:
    for fields, said in (
        ({"name": "Crm"}, "name: lower-case letters, digits"),
        ({"timeout": 301}, "timeout: Expected `float` <= 300.0"),
        ({"batch": {"max_events": 0}}, "batch.max_events: Expected `int` >= 1"),
        ({"types": []}, "types: name at least one"),
    ):
        usual = {"name": "crm", "transport": "rest_pull"}
        assert (await answered(server, "POST", "/v1/subscriptions", {**usual, **fields})).startswith(said)


async def test_an_empty_setting_on_the_command_line_takes_it_away(server: Server) -> None:
    here = ("--data", str(server.data))
    await run("subscriptions", "add", "crm", "--transport", "rest_pull", "--setting", "lease=120", *here)
    await run("subscriptions", "set", "crm", "--setting", "lease=", *here)
    shown = await server.json("GET", "/v1/subscriptions/crm")
    assert isinstance(shown, dict)
    assert shown["settings"] == {}


async def test_a_subscription_that_wants_nothing_of_what_arrives_is_not_behind(server: Server, inlets: Inlets) -> None:
    inlet = await inlets()
    await server.json("POST", "/v1/subscriptions", {"name": "rare", "url": inlet.url, "types": ["sms.*"]}, 201)
    await server.json("POST", "/v1/events", [{"type": "email.opened", "recipient": "ann@example.org"}] * 1)
    async with asyncio.timeout(10):
        while True:
            shown = await server.json("GET", "/v1/subscriptions/rare")
            assert isinstance(shown, dict)
            if shown["standing"]["position"] and not shown["standing"]["behind"]:
                break
            await asyncio.sleep(0.02)

"""Sites: what an operator registers so that pages are heard."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
from tests.acceptance.conftest import Server

COMMAND = "import sys; from aftersend.cli.records import sites; sites(sys.argv[1:])"


def sites(data: Path, *arguments: str) -> str:
    """What the command prints, as the program would run it."""
    command = [sys.executable, "-c", COMMAND, *arguments, "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


async def test_a_site_is_added_listed_and_removed(server: Server) -> None:
    made = await server.json("POST", "/v1/sites", {"name": "shop", "origins": ["HTTPS://Shop.example:443/"]}, 201)
    assert isinstance(made, dict)
    assert (made["name"], made["tenant"], made["origins"]) == ("shop", "default", ["https://shop.example"])
    assert len(made["key"]) == 16
    assert await server.json("GET", "/v1/sites") == [made]
    assert await server.json("DELETE", "/v1/sites/shop", status=204) is None
    assert await server.json("GET", "/v1/sites") == []


async def test_a_site_that_is_put_wrongly_is_refused_in_one_line(server: Server) -> None:
    for fields in (
        {"name": "shop"},
        {"name": "shop", "origins": ["shop.example"]},
        {"name": "Shop!", "origins": ["https://shop.example"]},
        {"name": "shop", "origins": ["https://shop.example"], "key": "mine"},
    ):
        status, body, _ = await server.request("POST", "/v1/sites", msgspec.json.encode(fields))
        assert status == 400, fields
        assert json.loads(body)["detail"]


async def test_a_site_is_kept_over_a_restart_and_its_name_is_taken_once(server: Server) -> None:
    fields = {"name": "shop", "origins": ["https://shop.example"]}
    made = await server.json("POST", "/v1/sites", fields, 201)
    await server.json("POST", "/v1/sites", fields, 409)
    await server.stop()
    await server.start()
    assert await server.json("GET", "/v1/sites") == [made]


async def test_a_tenant_that_has_a_site_stays_and_sees_only_its_own(server: Server) -> None:
    await server.json("POST", "/v1/tenants", {"name": "acme"}, 201)
    await server.json("POST", "/v1/sites", {"name": "shop", "origins": ["https://shop.example"], "tenant": "acme"}, 201)
    await server.json("POST", "/v1/sites", {"name": "ours", "origins": ["https://ours.example"]}, 201)
    await server.json("DELETE", "/v1/tenants/acme", status=409)
    key = await server.json("POST", "/v1/keys", {"tenant": "acme", "scopes": ["admin"]}, 201)
    assert isinstance(key, dict)
    _, body, _ = await server.request("GET", "/v1/sites", key=key["key"])
    assert [site["name"] for site in json.loads(body)] == ["shop"]
    status, _, _ = await server.request("DELETE", "/v1/sites/ours", key=key["key"])
    assert status == 403


async def test_the_command_prints_what_goes_into_the_pages(server: Server) -> None:
    printed = sites(server.data, "add", "shop", "--origin", "https://shop.example", "https://*.shop.example")
    (site,) = json.loads(sites(server.data, "list", "--json"))
    assert site["origins"] == ["https://shop.example", "https://*.shop.example"]
    assert f'data-site="{site["key"]}"></script>' in printed
    assert "shop" in sites(server.data, "list")
    assert "removed" in sites(server.data, "remove", "shop")
    assert json.loads(sites(server.data, "list", "--json")) == []

"""A full disk: 507, the process stays up, and goes on by itself when there is room again."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
from tests.acceptance.conftest import Server

SCRIPT = """
mount -t tmpfs -o size=12m tmpfs "$1" || exit 77
{command} init --data "$1/data" --json > "$2" || exit 78
head -c 6m /dev/zero > "$1/ballast"
exec {command} serve --data "$1/data" --listen 127.0.0.1:0 --spool-bytes 1000000
"""


def can_unshare() -> bool:
    """Whether this user may have a small disk of its own."""
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def rows(start: int) -> bytes:
    fields = {"type": "email.opened", "time": "2026-01-15T08:00:00Z"}
    many = [
        fields | {"id": f"{start}-{number}", "recipient": f"{hash((start, number)):x}@example.org"}
        for number in range(500)
    ]
    return msgspec.json.encode(many)


@pytest.mark.skipif(not can_unshare(), reason="this user cannot mount a small disk (unshare --user --mount)")
async def test_a_full_disk_is_told_and_outlived(tmp_path: Path) -> None:
    place, keyfile = tmp_path / "disk", tmp_path / "key.json"
    place.mkdir()
    server = Server(place / "data")
    script = SCRIPT.format(command=f"{sys.executable} -m aftersend")
    server.process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh", str(place), str(keyfile)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.process.stdout is not None
    line = await asyncio.wait_for(server.process.stdout.readline(), 30)
    assert b"ready" in line, (line, server.process.returncode)
    server.url = line.decode().split()[4]
    server.key = msgspec.json.decode(keyfile.read_bytes())["admin_key"]
    server._session = aiohttp.ClientSession()
    try:
        acknowledged = await fill(server)
        status, body, _ = await server.request("POST", "/v1/events", rows(-1))
        assert (status, msgspec.json.decode(body)["error"]) == (507, "disk_full")
        assert (await server.request("GET", "/healthz"))[0] == 200
        assert (await server.request("GET", "/readyz"))[0] == 503
        assert (await server.request("GET", "/v1/events"))[0] == 200
        Path(f"/proc/{server.process.pid}/root{place}/ballast").unlink()
        async with asyncio.timeout(30):
            while (await server.request("POST", "/v1/events", rows(10_000)))[0] != 200:
                await asyncio.sleep(0.1)
        assert (await server.request("GET", "/readyz"))[0] == 200
        names = [event["source"]["id"] for event in await server.events() if event["source"]["dialect"] == "canonical"]  # type: ignore[index]
        assert len(names) == len(set(names))
        assert {name for start in acknowledged for name in (f"{start}-0", f"{start}-499")} <= set(names)
    finally:
        await server.close()


async def fill(server: Server) -> list[int]:
    """Send until the disk is full; returns what was acknowledged."""
    acknowledged = []
    for start in range(2_000):
        status, body, _ = await server.request("POST", "/v1/events", rows(start))
        if status == 507:
            return acknowledged
        assert status == 200, body
        acknowledged.append(start)
    raise AssertionError("the disk never filled")

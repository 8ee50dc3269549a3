"""Files through the whole of it: the API, the log, a folder, and a kill amid everything."""

import asyncio
import random
import shutil
from pathlib import Path

import msgspec
import pytest
from tests.acceptance.conftest import Server

KILLS = 4


def rows(first: int, count: int = 20) -> bytes:
    fields = {"type": "email.opened", "time": "2026-01-15T08:00:00Z"}
    return msgspec.json.encode([fields | {"id": f"e{number}"} for number in range(first, first + count)])


def told(folder: Path) -> dict[str, bytes]:
    """The files that a consumer sees."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.ndjson"))}


def ids(files: dict[str, bytes]) -> list[str]:
    return [msgspec.json.decode(line)["source"]["id"] for data in files.values() for line in data.splitlines()]


@pytest.fixture
async def prepared(stopped_server: Server, tmp_path: Path) -> tuple[Server, Path]:
    """A server that may write into one folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    path = stopped_server.data / "aftersend.toml"
    path.write_text(f'folders = ["{folder}"]\n' + path.read_text())
    await stopped_server.start()
    return stopped_server, folder


def subscription(folder: Path, **fields: object) -> dict[str, object]:
    usual = {"name": "warehouse", "transport": "folder", "url": folder.as_uri(), "start": "beginning"}
    file = {"every": "week", "max_events": 100, "format": "ndjson"}
    return usual | {"file": file, "retry": [0.05]} | fields


@pytest.mark.slow
async def test_every_event_is_in_one_file_whatever_is_killed(prepared: tuple[Server, Path]) -> None:
    server, folder = prepared
    await server.json("POST", "/v1/subscriptions", subscription(folder), 201)
    seen: dict[str, bytes] = {}
    sent = 0
    for _ in range(KILLS):
        for _ in range(20):
            await server.json("POST", "/v1/events", msgspec.Raw(rows(sent)))
            sent += 20
        await asyncio.sleep(random.uniform(0, 0.3))
        await server.kill()
        found = told(folder)
        assert seen.items() <= found.items(), "a file changed that a consumer may have taken"
        seen = found
        await server.start()
    async with asyncio.timeout(30):
        while len(told(folder)) < sent // 100:
            await asyncio.sleep(0.05)
    files = told(folder)
    assert ids(files) == [f"e{number}" for number in range(sent)]
    assert seen.items() <= files.items()
    assert [len(data.splitlines()) for data in files.values()] == [100] * (sent // 100)


async def test_what_cannot_be_a_file_is_refused_in_one_line(prepared: tuple[Server, Path]) -> None:
    server, folder = prepared
    for fields, said in (
        ({"url": "file:///etc"}, "is in none of the folders that are listed"),
        ({"dialect": "pure360/http"}, "set dialect to canonical"),
        ({"file": {"zone": "Mars/Phobos"}}, "no time zone 'Mars/Phobos'"),
        ({"file": {"name": "../{stamp}"}}, "may have letters"),
        ({"file": {"every": "year"}}, "file.every: Invalid"),
    ):
        status, body, _ = await server.request(
            "POST", "/v1/subscriptions", msgspec.json.encode(subscription(folder, **fields))
        )
        assert status == 400, body
        assert said in msgspec.json.decode(body)["detail"]
    shutil.rmtree(folder)
    status, body, _ = await server.request("POST", "/v1/subscriptions", msgspec.json.encode(subscription(folder)))
    assert status == 400, body
    assert "the folder cannot be opened: no such file or directory" in msgspec.json.decode(body)["detail"]


async def test_a_subscription_that_is_removed_leaves_nothing_behind(prepared: tuple[Server, Path]) -> None:
    server, folder = prepared
    made = await server.json("POST", "/v1/subscriptions", subscription(folder), 201)
    await server.json("POST", "/v1/events", msgspec.Raw(rows(0)))
    outbox = server.data / "outbox"
    async with asyncio.timeout(10):
        while not list(outbox.glob("*/*.part")):
            await asyncio.sleep(0.02)
    await server.json("DELETE", f"/v1/subscriptions/{made['name']}", None, 204)  # type: ignore[index]
    assert not list(outbox.iterdir())


async def test_what_was_told_can_be_told_again_in_files_beside_those_before(prepared: tuple[Server, Path]) -> None:
    server, folder = prepared
    await server.json("POST", "/v1/subscriptions", subscription(folder), 201)
    await server.json("POST", "/v1/events", msgspec.Raw(rows(0, 250)))
    async with asyncio.timeout(30):
        while len(told(folder)) < 2:
            await asyncio.sleep(0.05)
    before = told(folder)
    order = {"since": "2020-01-01T00:00:00Z", "types": ["email.opened"]}
    await server.json("POST", "/v1/subscriptions/warehouse/replay", order, 202)
    async with asyncio.timeout(30):
        while (replays := await server.json("GET", "/v1/subscriptions/warehouse/replay"))[0]["state"] == "running":  # type: ignore[index]
            await asyncio.sleep(0.05)
    (replay,) = replays  # type: ignore[misc]
    assert (replay["state"], replay["done"], replay["total"]) == ("done", 250, 250)
    after = told(folder)
    assert before.items() <= after.items(), "no file of before was replaced"
    again = {name: data for name, data in after.items() if name not in before}
    assert ids(again) == [f"e{number}" for number in range(250)]
    assert len(again) == 3
    assert list((server.data / "outbox").glob("rpl_*")) == []


async def test_a_replay_in_files_that_nobody_takes_ends_as_failed(prepared: tuple[Server, Path]) -> None:
    server, folder = prepared
    await server.json("POST", "/v1/subscriptions", subscription(folder, retry=[0.01]), 201)
    await server.json("POST", "/v1/events", msgspec.Raw(rows(0)))
    shutil.rmtree(folder)
    await server.json("POST", "/v1/subscriptions/warehouse/replay", {"since": "2020-01-01T00:00:00Z"}, 202)
    async with asyncio.timeout(30):
        while (replays := await server.json("GET", "/v1/subscriptions/warehouse/replay"))[0]["state"] == "running":  # type: ignore[index]
            await asyncio.sleep(0.05)
    assert (replays[0]["state"], replays[0]["done"]) == ("failed", 0)  # type: ignore[index]
    assert str(folder) in replays[0]["detail"]  # type: ignore[index]
    assert list((server.data / "outbox").glob("rpl_*")) == []


async def until_outbox_holds(server: Server, *names: str) -> None:
    async with asyncio.timeout(20):
        while {path.name for path in (server.data / "outbox").glob("sub_*/*")} != set(names):
            await asyncio.sleep(0.05)


async def test_files_that_wait_are_gone_when_their_events_are_told_in_another_way(
    prepared: tuple[Server, Path],
) -> None:
    server, folder = prepared
    file = {"every": "week", "max_events": 1}
    await server.json("POST", "/v1/subscriptions", subscription(folder, file=file, retry=[60]), 201)
    folder.rmdir()
    await server.json("POST", "/v1/events", msgspec.Raw(rows(0, 1)))
    await until_outbox_holds(server, "1-1.file", "plan.json")
    await server.json("PATCH", "/v1/subscriptions/warehouse", {"transport": "rest_pull"})
    await until_outbox_holds(server, "names.json")
    _, body, _ = await server.request("GET", "/v1/subscriptions/warehouse/batch?wait=10")
    assert msgspec.json.decode(body)["source"]["id"] == "e0"

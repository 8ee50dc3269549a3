"""The other doors of rewriting: the API over HTTP, and the command that calls it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from tests.integration.relaying import KEY, MESSAGE, links_in, way

from aftersend.capture.rewrite import rewrite
from aftersend.capture.rewriting import answer_rewrite, domain_for, plan_of
from aftersend.core.errors import AccessError, UsageError
from aftersend.core.registry import Domain, Key
from aftersend.web.rewriting import Rewriting
from aftersend.web.services import Guard

PROGRAM = """
from aftersend import cli

cli.COMMANDS = {"": {"rewrite": cli.Command("rewriting:rewrite", "")}}
cli.sys.argv.insert(1, "rewrite")
cli.main()
"""
"""The command alone, as the whole program would run it."""


class Keys:
    """The one key of a tenant."""

    def of_header(self, authorization: bytes | None, scope: str) -> Key:
        if authorization != b"Bearer " + KEY.encode() or scope != "ingest":
            raise AccessError
        return Key(id="1", tenant="acme", scopes=("ingest",))


@pytest.fixture
def url() -> Iterator[str]:
    """The door, served."""
    door = Rewriting(lambda body, query, tenant: answer_rewrite(body, query, tenant, way))
    app = Starlette(routes=door.routes(Guard(Keys())))  # type: ignore[arg-type]
    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(url: str, body: bytes, key: str = KEY, **query: str) -> Reply:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        path = f"/v1/rewrite?{urlencode(query)}"
        connection.request("POST", path, body, {"Authorization": f"Bearer {key}", "Content-Type": "message/rfc822"})
        answer = connection.getresponse()
        return Reply(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def run(url: str, message: bytes, *options: str) -> subprocess.CompletedProcess[bytes]:
    """The command, in a process of its own."""
    command = (sys.executable, "-c", PROGRAM, "--url", url, "--key", KEY, *options)
    return subprocess.run(command, input=message, capture_output=True, timeout=60, check=False)


def test_a_message_comes_back_rewritten_with_a_report(url: str) -> None:
    reply = ask(url, MESSAGE, recipient="bob@example.org", bottom="false")
    expected = rewrite(MESSAGE, plan_of(way("acme"), recipient="bob@example.org", bottom=False), way("acme").sign)
    assert reply.status == 200
    assert reply.body == expected.message
    assert reply.headers["content-type"] == "message/rfc822"
    assert msgspec.json.decode(reply.headers["aftersend-report"]) == {
        "growth": len(expected.message) - len(MESSAGE),
        "links": 2,
        "pixels": 0,
        "skipped": {},
        "warnings": ["sign_after"],
    }
    assert {(link.tenant, link.recipient) for link in links_in(reply.body)} == {(2, "bob@example.org")}


@pytest.mark.parametrize(
    ("body", "query", "status", "told"),
    [
        (MESSAGE, {"level": "high"}, 400, "none, anonymous or full"),
        (MESSAGE, {"clicks": "maybe"}, 400, "clicks"),
        (MESSAGE, {"color": "red"}, 400, "color"),
        (MESSAGE, {"tenant": "other"}, 403, "acme"),
        (b"", {}, 400, "message/rfc822"),
    ],
)
def test_a_request_put_wrongly_is_told_what_is_wrong(
    url: str, body: bytes, query: dict[str, str], status: int, told: str
) -> None:
    reply = ask(url, body, **query)
    assert reply.status == status
    assert told in msgspec.json.decode(reply.body)["detail"]
    assert ask(url, MESSAGE, "wrong").status == 401


def test_the_command_reads_and_writes_messages_and_warns(url: str) -> None:
    done = run(url, MESSAGE, "--no-pixel")
    assert done.returncode == 0
    assert done.stdout == rewrite(MESSAGE, plan_of(way("acme"), bottom=False), way("acme").sign).message
    assert done.stderr.startswith(b"aftersend: sign with DKIM after this")
    assert msgspec.json.decode(run(url, MESSAGE, "--json").stderr)["links"] == 2


def test_the_command_wants_a_message(url: str) -> None:
    done = run(url, b"")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input must be one message" in done.stderr


def test_a_tenants_domain_is_the_one_named_or_its_only_one() -> None:
    domains = [Domain(name="a.example", tenant="acme"), Domain(name="b.example"), Domain(name="c.example")]
    assert domain_for(domains, "acme").name == "a.example"
    assert domain_for(domains, "default", "B.example").name == "b.example"
    for tenant, name, told in (
        ("default", "", "one of b.example, c.example; name one"),
        ("default", "a.example", "not 'a.example'"),
        ("nobody", "", "domains add"),
    ):
        with pytest.raises(UsageError, match=told):
            domain_for(domains, tenant, name)

"""The API as commands call it: over the socket of a running instance, over the net, or in this process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote, urlencode, urlsplit

from aftersend.cli.parameters import Target
from aftersend.core.errors import AccessError, AftersendError, StoreError, UsageError

if TYPE_CHECKING:
    from aftersend.wiring import Instance

SOCKET = "aftersend.sock"
"""As in `wiring`, which takes long to import."""
TIMEOUT = 120.0
"""Seconds without a byte after which a request is given up."""

Headers = Mapping[str, str]


class Reply(NamedTuple):
    """What came back."""

    status: int
    headers: Headers
    """With names in lower case."""
    body: bytes


class Way(Protocol):
    """A way to the API."""

    instance: Instance | None
    """The instance that this process opened; None: another process serves at the other end."""

    def __call__(self, method: str, path: str, headers: Headers, body: bytes) -> Reply:
        """Ask, and wait for the whole answer."""
        ...


class Client:
    """Asks the API, and raises what it says as an error of ours."""

    def __init__(self, way: Way, tenant: str, headers: Headers | None = None) -> None:
        self._way = way
        self._tenant = tenant
        self._headers = headers or {}

    @property
    def instance(self) -> Instance | None:
        """The instance that this process opened; None where one runs elsewhere, and goes on when this command ends."""
        return self._way.instance

    @property
    def running(self) -> bool:
        """Whether one runs elsewhere."""
        return self._way.instance is None

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Headers | None = None, **query: str | int
    ) -> Reply:
        """The answer, whatever it is."""
        given = {name: str(value) for name, value in {"tenant": self._tenant, **query}.items() if value != ""}
        where = f"{path}?{urlencode(given)}" if given else path
        return self._way(method, where, {**self._headers, **(headers or {})}, body)

    def call(self, method: str, path: str, fields: Any = None, **query: str | int) -> Any:
        """What the answer's JSON says. Raises UsageError for a request put wrongly, else AftersendError."""
        body = b"" if fields is None else json.dumps(fields).encode()
        reply = self.send(method, path, body, {"content-type": "application/json"} if body else {}, **query)
        check(reply)
        return json.loads(reply.body) if reply.body.strip() else None


def check(reply: Reply) -> None:
    """Raises the error that an answer tells of."""
    if reply.status < 400:
        return
    try:
        said = json.loads(reply.body)
        detail = str(said["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"the instance answered {reply.status}"
    if reply.status == 401:
        raise AccessError(detail)
    raise UsageError(detail) if reply.status == 400 else AftersendError(detail)


@contextmanager
def connected(target: Target) -> Iterator[Client]:
    """A client of the instance that is meant. Raises errors in one line where there is none."""
    if target.url:
        if not target.key:
            raise UsageError("--url needs a key: --key as_…, or AFTERSEND_KEY in the environment")
        with closing(_Net(target.url)) as net:
            yield Client(net, target.tenant, {"authorization": f"Bearer {target.key}"})
    elif _answers(target.data / SOCKET):
        with closing(_Socket(target.data / SOCKET)) as near:
            yield Client(near, target.tenant)
    else:
        with _in_process(target.data) as way:
            yield Client(way, target.tenant)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(5)
        try:
            probe.connect(str(path))
        except (OSError, ValueError):
            return False
    return True


class _Net:
    """An instance at an address."""

    instance: Instance | None = None

    def __init__(self, url: str) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise UsageError(f"--url takes an address such as https://events.example.com, not {url!r}")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._connection: HTTPConnection = kind(parts.hostname, port, timeout=TIMEOUT)
        self._prefix = parts.path.rstrip("/")
        self._name = url

    def __call__(self, method: str, path: str, headers: Headers, body: bytes) -> Reply:
        """Ask over a connection that is kept."""
        try:
            self._connection.request(method, self._prefix + path, body or None, dict(headers))
            answer = self._connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        except (OSError, HTTPException) as error:
            self._connection.close()
            reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
            raise AftersendError(f"{self._name} does not answer: {reason}") from None

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


class _SocketConnection(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket in the folder."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class _Socket(_Net):
    """The instance that holds the folder."""

    def __init__(self, path: Path) -> None:
        super().__init__("http://localhost")
        self._connection = _SocketConnection(path)
        self._name = str(path)


class _Process:
    """The API of an instance that this process opened, without a server."""

    def __init__(self, instance: Instance, runner: asyncio.Runner) -> None:
        self.instance: Instance | None = instance
        self._app = instance.app(local=True)
        self._runner = runner

    def __call__(self, method: str, path: str, headers: Headers, body: bytes) -> Reply:
        """Ask the ASGI application."""
        return self._runner.run(self._ask(method, path, headers, body))

    async def _ask(self, method: str, path: str, headers: Headers, body: bytes) -> Reply:
        where, _, query = path.partition("?")
        sent: list[dict[str, Any]] = []
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(where),
            "raw_path": where.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
            "client": None,
            "server": ("localhost", None),
        }

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


@contextmanager
def _in_process(data: Path) -> Iterator[_Process]:
    """The instance of a folder that no process holds, for as long as the command takes."""
    if not data.is_dir():
        raise StoreError(f"there is no data folder {data}; `aftersend init --data {data}` makes one")
    from aftersend.config import load
    from aftersend.wiring import opened

    config = load(data, os.environ, {})
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        instance = runner.run(stack.enter_async_context(opened(data, config)))
        try:
            yield _Process(instance, runner)
        finally:
            runner.run(stack.aclose())

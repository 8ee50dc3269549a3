"""A real RabbitMQ of a test's own: its own folder, ports and name service on loopback, gone after the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aio_pika
from aio_pika.abc import AbstractChannel
from tests.integration.postfixes import free_port

from aftersend.testing.pieces import Arrived

START_SECONDS = 60.0

SETTINGS = """
listeners.tcp.default = 127.0.0.1:{port}
listeners.ssl.default = 127.0.0.1:{tls_port}
ssl_options.cacertfile = {pem}
ssl_options.certfile = {pem}
ssl_options.keyfile = {pem}
ssl_options.verify = verify_none
default_user = ann
default_pass = hunter2
max_message_size = 1500000
log.console = false
{more}
"""


class RabbitMq:
    """One node; what its queues keep outlives its process."""

    def __init__(self, program: str, folder: Path, pem: Path) -> None:
        self.port, self.tls_port = free_port(), free_port()
        self.folder, self.pem = folder, pem
        # The program on the path is a wrapper that becomes the system's own service.
        self._program = Path(program).resolve().parent / "rabbitmq-server"
        self._names_port, self._node_port = free_port(), free_port()
        self._names: subprocess.Popen[bytes] | None = None
        self._node: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"amqp://127.0.0.1:{self.port}"

    def start(self, more: str = "") -> None:
        """Start the node, with more settings; returns when it listens."""
        (self.folder / "rabbitmq.conf").write_text(
            SETTINGS.format(port=self.port, tls_port=self.tls_port, pem=self.pem, more=more)
        )
        (self.folder / "plugins").write_text("[].\n")
        surroundings = self._surroundings()
        if self._names is None:
            epmd = shutil.which("epmd", path=surroundings["PATH"]) or "epmd"
            self._names = _started((epmd,), surroundings)
        self._node = _started((str(self._program),), surroundings)
        end = time.monotonic() + START_SECONDS
        while not self._listens():
            assert self._node.poll() is None, self._said()
            assert time.monotonic() < end, self._said()
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the node's process."""
        node, self._node = self._node, None
        _end(node, how)

    def end(self) -> None:
        """End everything."""
        self.stop()
        names, self._names = self._names, None
        _end(names, signal.SIGKILL)

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """A channel of the test's own."""
        connection = await aio_pika.connect(host="127.0.0.1", port=self.port, login="ann", password="hunter2")
        try:
            yield await connection.channel()
        finally:
            await connection.close()

    async def declare(self, queue: str, **arguments: Any) -> None:
        """A durable queue; `max_length=3` stands for the argument `x-max-length`."""
        named = {f"x-{name.replace('_', '-')}": value for name, value in arguments.items()}
        async with self.channel() as channel:
            await channel.declare_queue(queue, durable=True, arguments=named)

    async def arrived(self, queue: str) -> list[Arrived]:
        """Take everything out of a queue, in order."""
        taken = []
        async with self.channel() as channel:
            source = await channel.get_queue(queue)
            while (message := await source.get(fail=False)) is not None:
                await message.ack()
                taken.append(_arrived(message))
        return taken

    async def count(self, queue: str) -> int:
        async with self.channel() as channel:
            return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0

    def _surroundings(self) -> dict[str, str]:
        return {
            "PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", "/sbin", "/bin"]),
            "HOME": str(self.folder),
            "LANG": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._names_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            # Otherwise a shell stands between us and the node, and would have to be ended too.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0

    def _said(self) -> str:
        logs = sorted((self.folder / "log").glob("*.log"))
        return "".join(path.read_text()[-2_000:] for path in logs) or "the node said nothing"


def _arrived(message: Any) -> Arrived:
    return Arrived(message.message_id, message.type, message.body, message.content_type)


def _started(command: tuple[str, ...], surroundings: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        env=surroundings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    """End a process and what it started: its whole session is ours."""
    if process is not None:
        os.killpg(process.pid, how)
        process.wait(30)


@contextmanager
def rabbitmq(program: str, pem: Path) -> Iterator[RabbitMq]:
    """A running node; `pem` is its certificate with the key."""
    folder = Path(tempfile.mkdtemp(prefix="rabbitmq-"))
    made = RabbitMq(program, folder, pem)
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(folder, ignore_errors=True)

"""moto's SQS in a process of its own on a loopback port, and boto3 as the customer who reads it."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config
from tests.integration.postfixes import free_port

from aftersend.testing.pieces import Arrived

START_SECONDS = 30.0


class SqsServer:
    """One server; queues are of the account 123456789012."""

    def __init__(self) -> None:
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_SECONDS
        while not self._listens():
            assert self._process.poll() is None, "moto ended"
            assert time.monotonic() < end, "moto does not listen"
            time.sleep(0.05)
        self.reader = boto3.client(
            "sqs",
            region_name="eu-west-1",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            aws_access_key_id="reader",
            aws_secret_access_key="reader",
            config=Config(proxies={}),
        )

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def create(self, name: str, **attributes: str) -> str:
        """A queue's path."""
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        url: str = self.reader.create_queue(QueueName=name, Attributes=fifo | attributes)["QueueUrl"]
        return "/" + url.split("/", 3)[3]

    def messages(self, path: str) -> list[dict[str, Any]]:
        """Take everything out of a queue."""
        url = f"http://127.0.0.1:{self.port}{path}"
        taken: list[dict[str, Any]] = []
        while True:
            found = self.reader.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            ).get("Messages", [])
            if not found:
                return taken
            taken += found
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(found)]
            self.reader.delete_message_batch(QueueUrl=url, Entries=entries)

    def arrived(self, path: str) -> list[Arrived]:
        """What a customer makes of the messages."""
        return [_arrived(one) for one in self.messages(path)]

    def _listens(self) -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(("127.0.0.1", self.port)) == 0


def _arrived(message: dict[str, Any]) -> Arrived:
    named = {name: value["StringValue"] for name, value in message["MessageAttributes"].items()}
    body = message["Body"]
    is_encoded = named.get("aftersend-encoding") == "base64"
    return Arrived(
        named["aftersend-id"],
        named["aftersend-type"],
        base64.b64decode(body) if is_encoded else body.encode(),
        named["content-type"],
        message["Attributes"].get("MessageGroupId"),
    )


@contextmanager
def sqs_server() -> Iterator[SqsServer]:
    """A running server."""
    made = SqsServer()
    try:
        made.start()
        yield made
    finally:
        made.stop()

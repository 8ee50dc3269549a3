"""Mail relays on loopback for the tests of the SMTP transport: well-behaved ones, and one that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any, cast

from tests.integration.relaying import Inlet

from aftersend.core.outcome import Parcel, Tally, Volume
from aftersend.core.timestamps import parse_time
from aftersend.egress import Egress
from aftersend.transports.smtp import Transport

LOOPBACK = Egress.read(["127.0.0.0/8"])
NOW = parse_time("2026-11-21T12:00:00Z")
SENDER, RECIPIENTS = "events@shop.example", ("ops@shop.example", "lead@shop.example")


def mailer(url: str | int, **options: Any) -> Transport:
    """The transport to a relay, by its URL or its port; without TLS, unless `tls` says otherwise."""
    given = {"egress": LOOPBACK, "clock": lambda: NOW, "subscription": "shop", "tls": "none", "mode": "events"}
    given |= {"sender": SENDER, "recipients": RECIPIENTS, "timeout": 5.0}
    return Transport(url=url if isinstance(url, str) else f"smtp://127.0.0.1:{url}", **(given | options))


def parcel(number: int = 1, body: bytes = b"something happened\r\n", type_: str = "text/plain") -> Parcel:
    """A parcel by its number."""
    return Parcel(
        f"msg_{number}", body, type_, (("aftersend-epoch", "1"), ("aftersend-sequence", f"{number}-{number}"))
    )


def opened(mail: bytes) -> EmailMessage:
    """A mail, read by the standard library."""
    return cast(EmailMessage, message_from_bytes(mail, policy=default))


def tally(**counts: int) -> Tally:
    """So many e-mail events of each kind at noon, and half as many an hour later."""
    types = {f"email.{what}": count for what, count in counts.items()}
    hours = {
        "2026-11-21T12": {type_: count - count // 3 for type_, count in types.items()},
        "2026-11-21T13": {type_: count // 3 for type_, count in types.items()},
    }
    return Tally(sum(types.values()), types, 0, hours, {"550 5.1.1 No such user": counts.get("hard_bounced", 0)})


def volume(folder: Path, counted: Tally, data: bytes = b"id,type\r\n1,email.opened\r\n", number: int = 1) -> Volume:
    """A file of events on our side."""
    path = folder / f"{number}.file"
    path.write_bytes(data)
    return Volume(
        id=f"vol_{number}",
        name=f"shop-{number}.csv",
        path=str(path),
        size=len(data),
        content_type="text/csv; charset=utf-8",
        epoch=1,
        first_sequence=1,
        last_sequence=counted.count,
        since=parse_time("2026-11-21T12:01:00Z"),
        until=parse_time("2026-11-21T13:59:00Z"),
        tally=counted,
    )


class Actor:
    """A relay that answers each command as it is told: with a line, with silence, or by hanging up."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        """By command (`MAIL`), or by command and address; `greeting`, `END` (of a message). `""`: silence; `cut`."""
        self.commands: list[str] = []
        self.messages: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Actor:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=1 << 24)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.01)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            await self._say(writer, "greeting", "220 actor.example ESMTP")
            while line := (await reader.readline()).decode().strip():
                self.commands.append(line)
                await self._answer(line, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _answer(self, line: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        verb = line.split()[0].upper()
        usual = {"EHLO": "250-actor.example\r\n250 SIZE 5000000", "DATA": "354 go on", "QUIT": "221 bye"}
        address = line[line.find("<") + 1 : line.find(">")]
        answer = await self._say(
            writer, f"{verb} {address}" if f"{verb} {address}" in self.answers else verb, usual.get(verb, "250 OK")
        )
        if verb == "DATA" and answer.startswith("354"):
            message = await reader.readuntil(b"\r\n.\r\n")
            if (await self._say(writer, "END", "250 OK")).startswith("250"):
                self.messages.append(message[:-3])

    async def _say(self, writer: asyncio.StreamWriter, key: str, usual: str) -> str:
        answer = self.answers.get(key, usual)
        if answer == "cut":
            writer.close()
            raise ConnectionError
        if answer:
            writer.write(answer.encode() + b"\r\n")
            await writer.drain()
        else:
            await asyncio.sleep(30)
        return answer


@asynccontextmanager
async def acting(**answers: str) -> AsyncIterator[Actor]:
    """A relay that does as it is told."""
    async with Actor(**answers) as actor:
        yield actor


def mails_of(inlet: Inlet) -> list[EmailMessage]:
    """What an inlet has got, read."""
    return [opened(content) for _, _, content in inlet.messages]

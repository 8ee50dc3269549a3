"""Capture: links followed on `aftersend serve`, mail rewritten, pictures held open to measure the reading time.

Each click is another person's on another message: a token is opened and verified, the hit judged, committed and synced,
and only then is the redirect sent. The load comes from this process over keep-alive connections.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import uvloop

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.capture.links import Link, Links
from aftersend.capture.plan import Plan
from aftersend.capture.rewrite import rewrite
from aftersend.capture.rewriting import signer
from aftersend.capture.tokens import Purpose, address
from aftersend.config import FILE_NAME
from aftersend.core.consent import Level
from aftersend.core.errors import StoreError
from aftersend.keyring import Keyring
from aftersend.simulation.campaign import Happening, hits
from aftersend.simulation.instance import set_up
from aftersend.simulation.processes import Child, pin, server, unpinned
from aftersend.simulation.sender import Connection, request

CLICKS = Row("click to redirect, durable, 64 connections", "clicks", 9_000, 14_000)
DELAY = Row("99th percentile of a click, 64 connections", "ms", 25, 15, rising=False)
REWRITING = Row("rewriting a 60 kB mail with 40 links", "mails", 700, 1_000)
HELD = Row("memory of a picture held open, {} at once", "kB", 20, 15, rising=False)

CONNECTIONS = 64
LINKS = 40
WARMING = 100
"""Pictures of a first round, so that what every process takes once is not counted."""
_SETTLING_SECONDS = 1.0
_NOW = 1_770_000_000_000_000_000
_READER = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.1.0"


def clicks(scale: Scale, report: Report) -> Iterator[Reading]:
    """How many a CPU-second, and how long they take of the clock."""
    report(CLICKS.name)
    people = list(hits(scale.of(40_000, CONNECTIONS), 5, _NOW))
    with TemporaryDirectory(prefix="aftersend-bench-") as folder, unpinned():
        data = Path(folder) / "data"
        asked = _requests(data, people, Purpose.CLICK)
        with server(data) as child:
            child.pin(0)
            pin(1)
            reference = bare_rate()
            before = child.cpu_seconds()
            delays = uvloop.run(follow(child.port, asked))
            seconds = max(child.cpu_seconds() - before, 0.01)
            yield Reading(CLICKS, len(delays) / seconds, len(delays), (reference + bare_rate()) / 2)
            yield Reading(DELAY, sorted(delays)[len(delays) * 99 // 100] * 1_000, len(delays))


def _requests(data: Path, people: Sequence[Happening], purpose: Purpose) -> list[bytes]:
    """Set an instance up, and ask it for a link of each of these."""
    uvloop.run(set_up(data))
    keyring = Keyring.open(data / "keyring.json")
    links = Links(keyring.link_key)
    return [_request(links, keyring.active_id, happening, purpose) for happening in people]


def _request(links: Links, key_id: str, happening: Happening, purpose: Purpose) -> bytes:
    link = Link(
        purpose,
        Level.FULL,
        tenant=0,
        domain=1,
        recipient=happening.person.address,
        message_id=f"<{happening.message}@mail.example>",
        campaign_id=happening.campaign,
        target="https://shop.example/deals?utm_campaign=spring" if purpose is Purpose.CLICK else "",
    )
    agent = happening.person.agent if purpose is Purpose.CLICK else _READER
    path = address("", purpose, links.seal(link, key_id))
    return request(path, headers={"User-Agent": agent}, method="GET")


async def follow(port: int, asked: Sequence[bytes], connections: int = CONNECTIONS) -> list[float]:
    """Follow links over many connections at once; how long each took, in seconds. Raises StoreError at a refusal."""
    made = await _connected(port, connections)
    waiting = iter(asked)
    delays: list[float] = []

    async def work(connection: Connection) -> None:
        for data in waiting:
            began = time.perf_counter()
            answer = await connection.send(data)
            delays.append(time.perf_counter() - began)
            if answer.status != 302:
                raise StoreError(f"a click was answered {answer.status}")

    try:
        await asyncio.gather(*map(work, made))
    finally:
        for connection in made:
            connection.close()
    return delays


async def _connected(port: int, count: int) -> list[Connection]:
    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(Connection, "127.0.0.1", port) for _ in range(count)]
    return [connection for _, connection in made]


def rewriting(scale: Scale, report: Report) -> Iterator[Reading]:
    """Mail of 60 kB with forty links, each mail another person's."""
    report(REWRITING.name)
    count = scale.of(1_000)
    mails = [_mail(happening) for happening in hits(min(count, 100), 9, _NOW)]
    sign = signer(Links(lambda purpose, key_id: (purpose.encode() * 32)[:32]), "00000001", "https://track.example")
    plan = Plan(tenant=0, domain=1, own_hosts=frozenset({"track.example"}))
    reference = bare_rate()
    with stopwatch() as watch:
        done = [rewrite(mails[number % len(mails)], plan, sign).links for number in range(count)]
    if set(done) != {LINKS}:
        raise StoreError(f"{LINKS} links were to be rewritten, {min(done)} were")
    yield Reading(REWRITING, watch.rate(count), count, (reference + bare_rate()) / 2)


def _mail(happening: Happening) -> bytes:
    """A newsletter: tables, styles, words and links."""
    chance = Random(happening.id)  # noqa: S311
    html = "".join(["<html><body><table>", *[_row(chance, happening) for _ in range(LINKS)], "</table></body></html>"])
    head = (
        f"From: Shop <news@shop.example>\r\nTo: {happening.person.address}\r\nSubject: Spring\r\n"
        f"Message-ID: <{happening.message}@mail.example>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/html; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    return (head + html).encode()


def _row(chance: Random, happening: Happening) -> str:
    """A link and some text: 1,500 bytes."""
    style = "padding:0 12px;color:#333;font:16px/1.5 Helvetica,Arial,sans-serif"
    url = f"https://shop.example/item/{chance.getrandbits(32)}?utm_campaign={happening.campaign}&amp;r=mail"
    paragraphs = [
        f'<p style="{style}">{" ".join([f"{chance.getrandbits(28):07x}" for _ in range(27)])}</p>\r\n' for _ in range(4)
    ]
    link = f'<a href="{url}" style="{style}">Look</a>\r\n'
    return f'<tr><td style="{style}">\r\n{link}{"".join(paragraphs)}</td></tr>\r\n'


def held(scale: Scale, report: Report) -> Iterator[Reading]:
    """What the server's memory grows by while so many messages are open at once."""
    count = scale.of(2_000)
    row = Row(HELD.name.format(f"{count:,}"), HELD.unit, HELD.floor, HELD.reach, rising=False)
    report(row.name)
    with TemporaryDirectory(prefix="aftersend-bench-") as folder:
        data = Path(folder) / "data"
        asked = _requests(data, list(hits(count, 5, _NOW)), Purpose.READ)
        (data / FILE_NAME).write_text("reading_time = true\n")
        with server(data) as child:
            uvloop.run(_hold(child, asked[:WARMING]))
            before = child.memory()
            after = uvloop.run(_hold(child, asked))
    yield Reading(row, max(after - before, 1) / count / 1_000, count)


async def _hold(child: Child, asked: Sequence[bytes]) -> int:
    """Open so many pictures, and hang up; what memory the server had while all were open."""
    made = await _connected(child.port, len(asked))
    try:
        await asyncio.gather(*[connection.send(data) for connection, data in zip(made, asked, strict=True)])
        await asyncio.sleep(_SETTLING_SECONDS)
        return child.memory()
    finally:
        for connection in made:
            connection.close()

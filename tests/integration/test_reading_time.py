"""Reading time over real sockets: how long a picture was wanted is how long the message stayed open."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.integration.capturing import Kept, exchange, serving

from aftersend.capture import reading
from aftersend.capture.clients import ClientAddresses, Throttle
from aftersend.capture.endpoints import Tracking
from aftersend.capture.exchange import PIXEL
from aftersend.capture.links import Link, Links
from aftersend.capture.reading import ReadingTime, kind_of, unsupported
from aftersend.capture.tokens import Purpose
from aftersend.capture.visits import Addresses, Visit, Witness
from aftersend.core.consent import Level
from aftersend.telemetry import Telemetry

KEY_ID = "0a1b2c3d"
LINKS = Links(lambda purpose, key_id: (purpose.encode() * 32)[:32])
THUNDERBIRD = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Thunderbird/128.1.0"
GMAIL = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)"


def token(level: Level = Level.FULL, purpose: Purpose = Purpose.READ, message: str = "m1") -> str:
    return LINKS.seal(Link(purpose, level, 1, 1, "alice@example.org", message, "spring"), KEY_ID)


class Nobody:
    """No person has said how much of what they do may be kept."""

    def level(self, tenant: str, person_key: bytes) -> Level:
        return Level.FULL

    async def set_level(self, tenant: str, person: str, level: Level, method: str = "") -> None:
        raise AssertionError


def handler(kept: Kept, **options: Any) -> ReadingTime:
    tracking = Tracking(
        addresses=Addresses(LINKS, {1: "acme"}, {}),
        hits=kept,
        people=Nobody(),
        clients=ClientAddresses(),
        throttle=Throttle(kept.clock),
        witness=Witness(kept.clock, kept.chance),
        telemetry=options.pop("telemetry", Telemetry()),
    )
    return ReadingTime(tracking, **{"enabled": True, **options})


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of the time, so that eight seconds take 0.4."""
    monkeypatch.setattr(reading, "READ_MS", 400)
    monkeypatch.setattr(reading, "SKIMMED_MS", 200)
    monkeypatch.setattr(reading, "STEP_SECONDS", 0.05)


class Look:
    """Somebody who looks at a message."""

    def __init__(self, port: int, path: str, agent: str = THUNDERBIRD) -> None:
        self.port, self.path, self.agent = port, path, agent

    async def __aenter__(self) -> Look:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(f"GET {self.path} HTTP/1.1\r\nHost: t\r\nUser-Agent: {self.agent}\r\n\r\n".encode())
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def picture(self) -> bytes:
        """What comes, chunk by chunk, to its end."""
        data = b""
        while True:
            size = int(await asyncio.wait_for(self.reader.readline(), 10), 16)
            chunk = (await self.reader.readexactly(size + 2))[:-2]
            if not size:
                return data
            data += chunk


def frames(gif: bytes) -> int:
    """How many pictures a GIF holds; every block of it must be well-formed up to the trailer."""
    assert gif[:6] == b"GIF89a"
    at, found = 13 + 3 * 2 ** ((gif[10] & 7) + 1), 0
    while gif[at] != 0x3B:
        if gif[at] == 0x2C:
            found, at = found + 1, at + 11
        else:
            assert gif[at] == 0x21
            at += 2
        while gif[at]:
            at += gif[at] + 1
        at += 1
    assert at == len(gif) - 1
    return found


async def until(kept: Kept, count: int) -> None:
    async with asyncio.timeout(5):
        while len(kept.events) < count:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("duration_ms", "kind"),
    [(0, "glanced"), (3_999, "glanced"), (4_000, "skimmed"), (7_999, "skimmed"), (8_000, "read"), (60_000, "read")],
)
def test_four_seconds_are_skimmed_and_eight_are_read(duration_ms: int, kind: str) -> None:
    assert kind_of(duration_ms) == kind


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("seconds", "kind"), [(0.05, "glanced"), (0.27, "skimmed"), (None, "read")])
async def test_a_message_that_is_closed_tells_how_long_it_was_open(
    kept: Kept, seconds: float | None, kind: str
) -> None:
    async with serving(handler(kept)) as port:
        async with Look(port, f"/r/{token()}") as look:
            await asyncio.sleep(seconds) if seconds is not None else await look.picture()
        await until(kept, 1)
    (event,) = kept.events
    assert (event.type, event.source.word, event.channel) == (f"email.{kind}", kind, "email")
    assert (event.tenant, event.recipient, event.message_id) == ("acme", "alice@example.org", "m1")
    assert event.extra["supported"] is True
    assert event.extra["duration_ms"] == pytest.approx((seconds or 0.4) * 1_000, abs=80)
    assert kept.levels == [2]


@pytest.mark.usefixtures("quick")
async def test_the_picture_shows_at_once_and_is_whole_in_the_end(kept: Kept) -> None:
    async with serving(handler(kept)) as port, Look(port, f"/r/{token()}") as look:
        assert b"transfer-encoding: chunked" in look.head.lower()
        assert b"cache-control: no-store" in look.head.lower()
        size = int(await look.reader.readline(), 16)
        first = await look.reader.readexactly(size)
        assert first.startswith(PIXEL[:-1]), "the dot is there before anything is waited for"
        await look.reader.readexactly(2)
        whole = first + await look.picture()
    assert frames(whole) == 1
    assert len(whole) > len(PIXEL)


@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (GMAIL, "gmail_proxy"),
        ("Mozilla/5.0", "apple_mail_privacy"),
        ("YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html", "yahoo_proxy"),
        ("", "no_user_agent"),
    ],
)
async def test_a_proxy_is_answered_at_once_and_marked(kept: Kept, agent: str, reason: str) -> None:
    async with serving(handler(kept)) as port:
        head, body = await exchange(port, "GET", f"/r/{token()}", headers={"User-Agent": agent})
        assert (head.status, body) == (200, PIXEL)
        await until(kept, 1)
    (event,) = kept.events
    assert event.extra == {"duration_ms": 0, "supported": False, "reason": reason}
    assert event.suspect == ["type"], "nobody should believe how long it was"


def test_a_prefetch_is_no_reading_and_an_ordinary_mail_program_is() -> None:
    def visit(agent: str, **headers: str) -> Visit:
        given = {"user-agent": agent} | {name.replace("_", "-"): value for name, value in headers.items()}
        return Visit("GET", "/r/x", "t", "", {name.encode(): value.encode() for name, value in given.items()})

    assert unsupported(visit(THUNDERBIRD)) == ""
    assert unsupported(visit(THUNDERBIRD, sec_purpose="prefetch;prerender")) == "fetched_ahead"
    apple_mail = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    assert unsupported(visit(apple_mail)) == "", "Apple Mail without its privacy protection is a person"


@pytest.mark.parametrize(
    "path",
    [
        "/r/" + token(Level.NONE),
        "/r/" + token(purpose=Purpose.OPEN),
        "/o/" + token(purpose=Purpose.OPEN),
        "/r/" + token()[:-1] + ("A" if token()[-1] != "A" else "B"),
        "/r/" + LINKS.seal(Link(Purpose.READ, Level.FULL, 99, 1), KEY_ID),
        "/r/AAAA",
        "/r/",
    ],
    ids=["level none", "sealed for opens", "another path", "altered", "unknown tenant", "short", "empty"],
)
async def test_whatever_is_wrong_with_a_link_the_dot_comes_and_nothing_is_kept(kept: Kept, path: str) -> None:
    async with serving(handler(kept)) as port:
        head, body = await exchange(port, "GET", path, headers={"User-Agent": THUNDERBIRD})
    assert (head.status, body, kept.events) == (200, PIXEL, [])


async def test_it_is_off_until_it_is_asked_for(kept: Kept) -> None:
    async with serving(handler(kept, enabled=False)) as port:
        head, body = await exchange(port, "GET", f"/r/{token()}", headers={"User-Agent": THUNDERBIRD})
    assert (head.status, body, kept.events) == (200, PIXEL, [])


async def test_a_head_request_and_a_post_measure_nothing(kept: Kept) -> None:
    async with serving(handler(kept)) as port:
        assert (await exchange(port, "HEAD", f"/r/{token()}", headers={"User-Agent": THUNDERBIRD}))[0].status == 200
        assert (await exchange(port, "POST", f"/r/{token()}", headers={"User-Agent": THUNDERBIRD}))[0].status == 405
    assert not kept.events


@pytest.mark.usefixtures("quick")
async def test_an_anonymous_link_hands_its_level_on_and_tells_no_proxy(kept: Kept) -> None:
    async with serving(handler(kept)) as port:
        async with Look(port, f"/r/{token(Level.ANONYMOUS)}"):
            pass
        await until(kept, 1)
        await exchange(port, "GET", f"/r/{token(Level.ANONYMOUS)}", headers={"User-Agent": GMAIL})
    assert kept.levels == [1]


async def test_past_the_limit_pictures_are_answered_at_once_and_counted(kept: Kept) -> None:
    telemetry = Telemetry()
    paths = [f"/r/{token(message=str(number))}" for number in range(3)]
    async with serving(handler(kept, limit=2, telemetry=telemetry)) as port:
        async with Look(port, paths[0]), Look(port, paths[1]):
            assert "aftersend_reading_held 2" in telemetry.text()
            head, body = await exchange(port, "GET", paths[2], headers={"User-Agent": THUNDERBIRD})
            assert (head.status, body) == (200, PIXEL)
        await until(kept, 2)
        assert "aftersend_reading_refused_total 1" in telemetry.text()
        assert "aftersend_reading_held 0" in telemetry.text()
        async with Look(port, paths[2]) as look:
            assert b"chunked" in look.head, "there is room again"
        await until(kept, 3)


async def test_one_link_cannot_take_all_the_room(kept: Kept) -> None:
    async with serving(handler(kept)) as port:
        looks = [await Look(port, f"/r/{token()}").__aenter__() for _ in range(reading.HELD_PER_LINK)]
        _, body = await exchange(port, "GET", f"/r/{token()}", headers={"User-Agent": THUNDERBIRD})
        assert body == PIXEL
        for look in looks:
            await look.__aexit__()
        await until(kept, reading.HELD_PER_LINK)


@pytest.mark.slow
async def test_two_thousand_messages_open_at_once_take_less_than_20_kb_each() -> None:
    program = Path(__file__).parent / "held_pixels.py"
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    looks: list[Look] = []
    try:
        port = int(await asyncio.wait_for(process.stdout.readline(), 20))
        await warm(port)
        before, _ = await memory(port)
        for start in range(0, 2_000, 100):
            paths = [f"/r/{token(message=f'm{number}')}" for number in range(start, start + 100)]
            looks += await asyncio.gather(*[Look(port, path).__aenter__() for path in paths])
        after, _ = await memory(port)
        each = (after - before) / len(looks)
        pictures = await asyncio.gather(*[look.picture() for look in looks])
        assert {frames(picture) for picture in pictures} == {1}
        _, types = await memory(port)
        assert types["email.read"] == 2_000, "all of them were held for eight seconds"
        assert each < 20_000, f"{each:.0f} bytes each"
        print(f"{each:.0f} bytes each")
    finally:
        for look in looks:
            look.writer.close()
        process.kill()
        await process.wait()


async def warm(port: int) -> None:
    """A first round, so that what every process takes once is not counted."""
    looks = await asyncio.gather(*[Look(port, f"/r/{token(message=f'w{n}')}").__aenter__() for n in range(100)])
    for look in looks:
        look.writer.close()
    await asyncio.sleep(0.3)


async def memory(port: int) -> tuple[int, dict[str, int]]:
    _, body = await exchange(port, "GET", "/memory")
    said = json.loads(body)
    return said["resident"], said["types"]

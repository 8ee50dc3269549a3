"""Digests through relays on this machine, a real Postfix among them."""

from __future__ import annotations

import asyncio
import os
from email.message import EmailMessage
from pathlib import Path

import pytest
from msgspec import structs
from tests.integration.mailing import NOW, acting, mailer, mails_of, opened, parcel, tally, volume
from tests.integration.postfixes import free_port, postfix
from tests.integration.relaying import Inlet, certificate, listening

from aftersend.core.outcome import Outcome, Tally, Verdict
from aftersend.core.rotation import Rotation
from aftersend.testing.transports import assert_told
from aftersend.transports.smtp import Transport, chart

COUNTED = tally(delivered=1_200, opened=430, clicked=75, hard_bounced=9)
POSTFIX = [
    pytest.mark.server("postfix"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix can be started by root only"),
]


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes half a second, so only those tests draw that look at the picture."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(chart, "can_draw", lambda: False)


@pytest.fixture
def drawn() -> None:
    """This test draws."""
    pytest.importorskip("vl_convert")


def digester(url: str | int, **options: object) -> Transport:
    return mailer(url, **({"mode": "digest"} | options))


def parts(mail: EmailMessage) -> list[str]:
    return [part.get_content_type() for part in mail.walk()]


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    body = mail.get_body((kind,))
    assert body is not None
    return str(body.get_content()).replace("\u00a0", " ")


@pytest.mark.usefixtures("drawn")
async def test_a_digest_tells_counts_failures_and_shows_a_chart(tmp_path: Path) -> None:
    async with listening(Inlet()) as inlet:
        transport = digester(inlet.port, attach=True, prefix="[shop]", zone="Europe/Berlin")
        assert transport.carries == "volumes"
        outcome = await transport.put(volume(tmp_path, COUNTED))
        await transport.close()
    assert outcome == Outcome(Verdict.TAKEN)
    [mail] = mails_of(inlet)
    assert mail["Subject"].replace("\u00a0", " ") == (
        "[shop] shop: 1,714 events, Saturday, 21 November 2026, 13:01 – 14:59"
    )
    assert mail["Aftersend-Sequence"] == "1-1714"
    assert parts(mail) == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"),
        "text/csv",
    ]
    text = text_of(mail)
    for said in ("1,714 events", "13:01 – 14:59 (Europe/Berlin)", "70.0%", "9  550 5.1.1 No such user"):
        assert said in text
    assert "Attached: shop-1.csv (25 bytes)." in text
    picture = next(part for part in mail.walk() if part.get_content_type() == "image/png")
    assert f'src="cid:{picture["Content-ID"][1:-1]}"' in text_of(mail, "html")
    assert next(mail.iter_attachments()).get_filename() == "shop-1.csv"


async def test_without_the_extra_the_chart_is_a_table(tmp_path: Path) -> None:
    async with listening(Inlet()) as inlet:
        transport = digester(inlet.port, rotation=Rotation(zone="Asia/Tokyo"))
        await transport.put(volume(tmp_path, COUNTED))
        await transport.close()
    [mail] = mails_of(inlet)
    assert parts(mail) == ["multipart/alternative", "text/plain", "text/html"]
    assert "<img" not in text_of(mail, "html")
    assert "21:00" in text_of(mail, "html")
    assert "(Asia/Tokyo)" in text_of(mail)


@pytest.mark.usefixtures("drawn")
async def test_a_repeat_after_a_failure_is_the_same_mail_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(NOW, NOW + 10**12, 10**11))
    told, drawings, draw = volume(tmp_path, COUNTED), [], chart.draw
    monkeypatch.setattr(chart, "draw", lambda spec: drawings.append(1) or draw(spec))
    async with acting(END="451 4.3.0 Not now") as actor:
        transport = digester(actor.port, clock=lambda: next(clock), attach=True)
        refused = await transport.put(told)
        del actor.answers["END"]
        taken = await transport.put(told)
        assert len(drawings) == 1, "it is not drawn again"
        await transport.close()
        after_a_restart = digester(actor.port, clock=lambda: next(clock), attach=True)
        assert (await after_a_restart.put(told)).verdict is Verdict.TAKEN
        await after_a_restart.close()
    assert (refused.verdict, taken.verdict) == (Verdict.FAILED, Verdict.TAKEN)
    first, second = map(opened, actor.messages)
    assert first["Message-ID"] == second["Message-ID"]
    assert first["Date"] != second["Date"]


async def test_a_file_that_is_too_large_is_told_and_not_attached(tmp_path: Path) -> None:
    large = volume(tmp_path, COUNTED, b"x" * 60_000, 2)
    async with listening(Inlet()) as inlet, listening(Inlet(), data_size_limit=50_000) as small, acting() as actor:
        ours = digester(inlet.port, attach=True, attach_limit=50_000)
        theirs = digester(small.port, attach=True)
        actor.answers["END"] = "552 5.3.4 Message too big"
        never = digester(actor.port, attach=True)
        outcomes = [await transport.put(large) for transport in (ours, theirs, never)]
        for transport in (ours, theirs, never):
            await transport.close()
    assert [outcome.verdict for outcome in outcomes] == [Verdict.TAKEN, Verdict.TAKEN, Verdict.TOO_LARGE]
    [mail], [other] = mails_of(inlet), mails_of(small)
    assert "The file shop-2.csv (60 kB) is too large to be attached; the limit is 50 kB." in text_of(mail)
    assert "The file shop-2.csv (60 kB) is not attached: the relay takes no mail that large." in text_of(other)
    assert not list(mail.iter_attachments())
    assert not list(other.iter_attachments())


async def test_a_period_without_events_is_told_where_one_is_made_of_it(tmp_path: Path) -> None:
    async with listening(Inlet()) as inlet:
        transport = digester(inlet.port, language="ru")
        outcome = await transport.put(structs.replace(volume(tmp_path, Tally(), b""), since=0, until=0))
        await transport.close()
    assert outcome.verdict is Verdict.TAKEN
    [mail] = mails_of(inlet)
    assert mail["Subject"].replace("\u00a0", " ") == "shop: 0 событий"
    assert "Ничего не произошло." in text_of(mail)
    assert '<html lang="ru">' in text_of(mail, "html")


async def test_what_it_does_not_carry_is_our_own_fault(tmp_path: Path) -> None:
    transport = digester(free_port(), attach=True)
    outcome = await transport.send(parcel())
    lost = await transport.put(structs.replace(volume(tmp_path, COUNTED), path=str(tmp_path / "gone")))
    assert outcome.verdict is lost.verdict is Verdict.FAILED
    assert outcome.ours
    assert lost.ours
    assert_told(outcome)
    assert_told(lost)


async def test_a_digest_that_is_called_off_leaves_the_transport_usable(tmp_path: Path) -> None:
    async with listening(Inlet()) as inlet:
        transport = digester(inlet.port)
        for seconds in (0, 0.001, 0.003, 0.01):
            task = asyncio.ensure_future(transport.put(volume(tmp_path, COUNTED)))
            await asyncio.sleep(seconds)
            task.cancel()
            await asyncio.wait([task])
        inlet.messages.clear()
        assert (await transport.put(volume(tmp_path, COUNTED, number=2))).verdict is Verdict.TAKEN
        await transport.close()
    assert len(inlet.messages) == 1


async def told(program: str, folder: Path, word: str) -> None:
    """Tell a Postfix to stop or start."""
    command = (program, "-c", str(folder / "conf"), word)
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


class TestPostfix:
    """A real Postfix as the relay."""

    pytestmark = POSTFIX

    async def test_a_digest_goes_over_tls_through_postfix_to_a_mailbox(
        self, programs: dict[str, str], tmp_path: Path
    ) -> None:
        tls = certificate(tmp_path, "127.0.0.1")
        ca = tls.read_text().partition("-----BEGIN PRIVATE")[0]
        more = f"smtpd_tls_cert_file = {tls}\nsmtpd_tls_security_level = encrypt"
        async with postfix(programs["postfix"], domains="shop.example", more=more) as server:
            transport = digester(server.port, tls="required", ca=ca, attach=True)
            assert await transport.probe() == Outcome(Verdict.TAKEN)
            for number in (1, 2):
                told = volume(tmp_path, COUNTED, b"id\r\n.\r\n" * 20_000, number)
                assert (await transport.put(told)).verdict is Verdict.TAKEN
            await transport.close()
            await server.until(lambda: len(server.delivered()) == 4)
            mails = list(map(opened, server.delivered()))
        assert len({mail["Message-ID"] for mail in mails}) == 2
        assert all("with ESMTPS" in mail["Received"] for mail in mails)
        assert {next(mail.iter_attachments()).get_payload(decode=True) for mail in mails} == {b"id\r\n.\r\n" * 20_000}

    async def test_mail_goes_on_when_postfix_is_back_and_its_disk_has_room(
        self, programs: dict[str, str], tmp_path: Path
    ) -> None:
        full = "queue_minfree = 900000000000000"
        async with postfix(programs["postfix"], domains="shop.example", more=full) as server:
            transport = digester(server.port)
            refused = await transport.put(volume(tmp_path, COUNTED))
            settings = server.folder / "conf/main.cf"
            settings.write_text(settings.read_text().replace(full, ""))
            await told(programs["postfix"], server.folder, "stop")
            down = await transport.put(volume(tmp_path, COUNTED))
            await told(programs["postfix"], server.folder, "start")
            taken = await transport.put(volume(tmp_path, COUNTED))
            await transport.close()
            await server.until(lambda: len(server.delivered()) == 2)
        assert refused.verdict is down.verdict is Verdict.FAILED
        assert "452 4.3.1 Insufficient system storage" in refused.detail
        assert down.detail.startswith("connect: ")
        assert taken.verdict is Verdict.TAKEN

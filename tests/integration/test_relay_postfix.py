"""A real Postfix sends through the relay: what arrives, and what stays in its queue."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.integration.postfixes import free_port, postfix
from tests.integration.relaying import (
    MESSAGE,
    Inlet,
    certificate,
    connected,
    links_in,
    listening,
    relaying,
    started,
    stuffed,
    way,
)

from aftersend.capture.rewrite import rewrite
from aftersend.capture.rewriting import plan_of

pytestmark = [
    pytest.mark.server("postfix"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Postfix can be started by root only"),
]

DATED = b"Date: Fri, 20 Nov 2026 12:00:00 +0000\r\n" + MESSAGE


def rewritten(recipient: str) -> bytes:
    """The message as it must arrive."""
    return rewrite(DATED, plan_of(way("default"), recipient=recipient), way("default").sign).message


async def test_a_message_goes_from_postfix_through_the_relay_to_postfix_byte_for_byte(
    programs: dict[str, str], tmp_path: Path
) -> None:
    tls = certificate(tmp_path, "relay.example")
    security = "smtp_tls_security_level = encrypt"
    async with (
        postfix(programs["postfix"], domains="example.org") as second,
        relaying(f"smtp://127.0.0.1:{second.port}", certificate=str(tls), require_tls=True) as relay,
        postfix(programs["postfix"], relay=f"[127.0.0.1]:{relay.port}", more=security) as first,
    ):
        async with connected(first.port) as client:
            assert "DSN" in await client.say("EHLO client.example")
            await client.say("MAIL FROM:<news@example.org> BODY=8BITMIME ENVID=Campaign+2B1 RET=HDRS")
            for name in ("alice", "bob"):
                assert (await client.say(f"RCPT TO:<{name}@example.org> NOTIFY=SUCCESS,FAILURE")).startswith("250")
            await client.say("DATA")
            assert (await client.say(stuffed(DATED))).startswith("250")
        await second.until(lambda: len(second.delivered()) >= 4)
        assert not first.waiting()
        mails = second.delivered()
    notices = [mail for mail in mails if b"report-type=delivery-status" in mail]
    assert len(notices) == 2
    assert all(b"Original-Envelope-Id: Campaign+1" in mail for mail in notices), "DSN came through the relay"
    for name in ("alice", "bob"):
        recipient = f"{name}@example.org"
        [mail] = [mail for mail in mails if f"Delivered-To: {recipient}".encode() in mail[:500]]
        assert mail.endswith(rewritten(recipient))
        head = mail[: -len(rewritten(recipient))]
        assert head.count(b"Received: ") == 3
        assert b"by relay.example (aftersend) with ESMTPS id" in head
        assert {link.recipient for link in links_in(mail)} == {recipient}


async def test_mail_stays_in_the_senders_queue_while_the_next_hop_is_down(programs: dict[str, str]) -> None:
    inlet = Inlet()
    inlet.port = free_port()
    async with (
        relaying(f"smtp://127.0.0.1:{inlet.port}") as relay,
        postfix(programs["postfix"], relay=f"[127.0.0.1]:{relay.port}") as first,
    ):
        async with connected(first.port) as client:
            assert (await client.send(DATED)).startswith("250")
        await first.until(lambda: "The next hop cannot be used now" in "".join(first.waiting()))
        async with listening(inlet):
            await first.until(lambda: bool(inlet.messages) and not first.waiting())
    assert len(inlet.messages) == 1
    assert inlet.messages[0][2].endswith(rewritten("alice@example.org"))


async def test_a_recipient_that_the_next_hop_refuses_bounces_with_its_words(programs: dict[str, str]) -> None:
    inlet = Inlet()
    inlet.answers["alice@example.org"] = "550 5.1.1 There is no Alice here"
    async with (
        listening(inlet),
        relaying(f"smtp://127.0.0.1:{inlet.port}") as relay,
        postfix(programs["postfix"], relay=f"[127.0.0.1]:{relay.port}") as first,
    ):
        async with connected(first.port) as client:
            assert (await client.send(DATED)).startswith("250")
        await first.until(lambda: bool(inlet.messages) and not first.waiting())
    [(sender, recipients, bounce)] = inlet.messages
    assert (sender, recipients) == ("<>", ["news@example.com"])
    assert b"550 5.1.1 There is no Alice here" in bounce
    assert not list(links_in(bounce)), "a bounce is not tracked"


async def test_a_relay_killed_while_it_hands_over_loses_nothing(programs: dict[str, str]) -> None:
    inlet = Inlet()
    inlet.delay = 1.0
    async with listening(inlet):
        process, port = await started(0, inlet)
        async with postfix(programs["postfix"], relay=f"[127.0.0.1]:{port}") as first:
            async with connected(first.port) as client:
                assert (await client.send(DATED)).startswith("250")
            await first.until(lambda: bool(inlet.options))
            process.send_signal(signal.SIGKILL)
            await process.wait()
            await first.until(lambda: "refused" in "".join(first.waiting()) or "lost" in "".join(first.waiting()))
            before = len(inlet.messages)
            process, _ = await started(port, inlet)
            await first.until(lambda: len(inlet.messages) > before and not first.waiting())
            process.kill()
            await process.wait()
    assert {content.endswith(rewritten("alice@example.org")) for _, _, content in inlet.messages} == {True}

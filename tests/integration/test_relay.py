"""The relay between real sockets: what is handed over, what is answered, and that nothing is lost on the way."""

from __future__ import annotations

import asyncio
import base64
import re
import signal
import ssl
from pathlib import Path

import pytest
from tests.integration.relaying import (
    BODY,
    KEY,
    MESSAGE,
    Inlet,
    certificate,
    connected,
    links_in,
    listening,
    make_relay,
    passing,
    relaying,
    server_context,
    settings_of,
    split_trace,
    started,
    stuffed,
    way,
)

from aftersend.capture.rewrite import rewrite
from aftersend.capture.rewriting import plan_of
from aftersend.capture.tokens import Purpose
from aftersend.core.consent import Level
from aftersend.core.errors import ConfigurationError
from aftersend.telemetry import Telemetry

# what is handed over


async def test_a_message_arrives_rewritten_and_otherwise_byte_for_byte() -> None:
    async with passing(Inlet()) as (client, inlet):
        assert await client.send(MESSAGE) == "250 2.0.0 Ok: queued as 1"
    [(sender, recipients, content)] = inlet.messages
    assert (sender, recipients) == ("news@example.com", ["alice@example.org"])
    trace, rest = split_trace(content)
    plan = plan_of(way("default"), recipient="alice@example.org")
    assert rest == rewrite(MESSAGE, plan, way("default").sign).message
    assert b"X-Aftersend" not in rest
    assert re.fullmatch(
        rb"Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n\tby relay\.example \(aftersend\) with ESMTP"
        rb" id [0-9a-f]{16}\r\n\tfor <alice@example\.org>;\r\n\t[A-Z][a-z]{2}, .* \+0000\r\n",
        trace,
    )
    found = list(links_in(rest))
    assert [link.target for link in found if link.purpose is Purpose.CLICK] == [
        "https://www.example.com/a?x=1&y=2",
        "https://www.example.com/b",
    ]
    assert {(link.recipient, link.campaign_id, link.message_id, link.tenant) for link in found} == {
        ("alice@example.org", "spring", "<m1@example.com>", 1)
    }


async def test_the_envelope_says_whom_the_links_are_for_unless_the_message_does() -> None:
    async with passing(Inlet()) as (client, inlet):
        await client.send(MESSAGE, to="archive@example.com")
        await client.send(b"X-Aftersend-Recipient: bob@example.org\r\n" + MESSAGE, to="x@example.com")
    for (_, _, content), whom in zip(inlet.messages, ("archive@example.com", "bob@example.org"), strict=True):
        assert {link.recipient for link in links_in(content)} == {whom}


async def test_a_bounce_is_handed_on_without_links_of_ours() -> None:
    async with passing(Inlet()) as (client, inlet):
        assert (await client.send(MESSAGE, sender="")).startswith("250")
    [(sender, _, content)] = inlet.messages
    assert sender == "<>"
    assert split_trace(content)[1] == MESSAGE.replace(b"X-Aftersend-Campaign: spring\r\n", b"")


async def test_a_message_without_html_changes_in_its_header_only() -> None:
    message = b"From: a@example.com\r\nTo: b@example.org\r\n\r\n.\r\nhttps://www.example.com\r\n\r\n"
    async with passing(Inlet(), unsubscribe=False) as (client, inlet):
        await client.send(message)
        await client.send(b"")
    assert [split_trace(content)[1] for _, _, content in inlet.messages] == [message, b""]


async def test_a_large_message_arrives_whole() -> None:
    body = BODY.replace(b"</body>", b"<!-- filler -->\r\n" * 150_000 + b"</body>")
    message = MESSAGE.replace(BODY, body)
    async with passing(Inlet(), unsubscribe=False) as (client, inlet):
        assert (await client.send(message)).startswith("250")
    _, rest = split_trace(inlet.messages[0][2])
    assert len(rest) > len(message)
    assert rest.count(b"<!-- filler -->\r\n") == 150_000
    assert len(list(links_in(rest))) == 3


async def test_the_next_hops_connection_serves_many_messages_and_is_replaced_when_it_ended() -> None:
    inlet = Inlet()
    async with passing(inlet, patience=0.5) as (client, inlet):
        for _ in range(3):
            assert (await client.send(MESSAGE)).startswith("250")
        assert len(inlet.sessions) == 1
        await asyncio.sleep(0.8)
        assert (await client.send(MESSAGE)).startswith("250")
    assert len(inlet.messages) == 4


# what is answered


async def test_a_next_hop_that_refuses_a_recipient_is_passed_back() -> None:
    async with passing(Inlet()) as (client, inlet):
        inlet.answers["RCPT"] = "550 5.1.1 There is nobody\x07 of that name"
        assert await client.send(MESSAGE) == "550 5.1.1 There is nobody  of that name"
        inlet.answers = {"DATA": "452 4.3.1 No room"}
        assert await client.send(MESSAGE) == "452 4.3.1 No room"
        inlet.answers = {"MAIL": "550 5.7.1 Not you"}
        assert await client.send(MESSAGE) == "550 5.7.1 Not you"
        inlet.answers = {"MAIL": "530 5.7.0 Authentication required"}
        assert (await client.send(MESSAGE)).startswith("451 4.3.0 The next hop said: 530")
        inlet.answers = {}
        assert (await client.send(MESSAGE)).startswith("250")
    assert len(inlet.messages) == 1


async def test_mail_has_to_wait_while_the_next_hop_is_down() -> None:
    inlet = Inlet()
    async with listening(inlet):
        pass
    async with relaying(f"smtp://127.0.0.1:{inlet.port}") as relay:
        async with connected(relay.port, greet=False) as client:
            await client.reply()
            assert (await client.say("EHLO client.example")).startswith("421 4.4.1 The next hop cannot be used now")
            assert await client.reply() == ""
        async with listening(inlet), connected(relay.port) as client:
            assert (await client.send(MESSAGE)).startswith("250")
        async with connected(relay.port) as client:
            assert (await client.send(MESSAGE)).startswith("451 4.4.1")
        async with listening(inlet), connected(relay.port) as client:
            assert (await client.send(MESSAGE)).startswith("250")
    assert len(inlet.messages) == 2


async def test_a_next_hop_that_hangs_is_given_up() -> None:
    inlet = Inlet()
    inlet.delay = 30
    async with passing(inlet, next_hop_timeout=1) as (client, inlet):
        assert (await client.send(MESSAGE)).startswith("451 4.4")
    assert not inlet.messages


async def test_a_further_recipient_is_to_be_sent_afterwards() -> None:
    async with passing(Inlet()) as (client, inlet):
        await client.say("MAIL FROM:<news@example.com>")
        assert (await client.say("RCPT TO:<alice@example.org>")).startswith("250")
        assert (await client.say("RCPT TO:<bob@example.org>")).startswith("452 4.5.3")
        await client.say("DATA")
        assert (await client.say(stuffed(MESSAGE))).startswith("250")
        assert (await client.send(MESSAGE, to="bob@example.org")).startswith("250")
    assert [recipients for _, recipients, _ in inlet.messages] == [["alice@example.org"], ["bob@example.org"]]


async def test_commands_may_come_all_at_once() -> None:
    async with passing(Inlet(), greet=False) as (client, inlet):
        said = b"EHLO c\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
        replies = [await client.reply(), await client.say(said)] + [await client.reply() for _ in range(3)]
        client.writer.write(stuffed(MESSAGE) + b"MAIL FROM:<>\r\nQUIT\r\n")
        replies += [await client.reply() for _ in range(3)]
        assert await client.reply() == ""
    assert [reply[:3] for reply in replies] == ["220", "250", "250", "250", "354", "250", "250", "221"]
    assert {"PIPELINING", "8BITMIME", "SMTPUTF8"} <= {line[4:] for line in replies[1].split("\n")}
    assert "CHUNKING" not in replies[1]
    assert "DSN" not in replies[1], "aiosmtpd has none"
    assert len(inlet.messages) == 1


@pytest.mark.parametrize(
    "smuggled",
    [
        b"a\n.\nMAIL FROM:<evil@example.com>\r\n",
        b"a\r\n.\nMAIL\r\n",
        b"a\n.\r\nMAIL\r\n",
        b"a\r.\r\n",
        b"\r\r\n",
        b"a\n",
    ],
)
async def test_a_bare_line_break_is_refused_and_ends_nothing(smuggled: bytes) -> None:
    async with passing(Inlet()) as (client, inlet):
        await client.say("MAIL FROM:<a@example.com>")
        await client.say("RCPT TO:<b@example.org>")
        await client.say("DATA")
        assert (await client.say(b"X: y\r\n\r\n" + smuggled + b"\r\n.\r\n")).startswith("521 5.5.2")
        assert await client.reply() == ""
        async with connected(client.port) as other:
            assert (await other.say(b"NOOP\n")).startswith("521 5.5.2")
    assert not inlet.messages


async def test_limits_are_kept() -> None:
    telemetry = Telemetry()
    inlet = Inlet()
    options = {"max_message_bytes": 65_536, "max_connections": 2, "timeout": 1, "max_held_bytes": 1 << 20}
    async with listening(inlet), relaying(f"smtp://127.0.0.1:{inlet.port}", telemetry, **options) as relay:
        async with connected(relay.port) as client, connected(relay.port) as other:
            async with connected(relay.port, greet=False) as third:
                assert (await third.reply()).startswith("421 4.3.2")
            assert (await client.say("MAIL FROM:<a@example.com> SIZE=65537")).startswith("552 5.3.4")
            assert (await client.send(b"X: y\r\n\r\n" + b"x" * 70_000 + b"\r\n")).startswith("552 5.3.4")
            exact = b"X: y\r\n\r\n" + b"x\r\n" * 21_842 + b"\r\n"
            assert len(exact) == 65_536
            assert (await client.send(exact)).startswith("250")
            assert (await client.say(b"NOOP " + b"x" * 20_000 + b"\r\n")).startswith("500 5.5.2")
            assert (await other.reply()).startswith("421 4.4.2")
        async with connected(relay.port) as client:
            replies = [await client.say("NONSENSE") for _ in range(20)]
            assert replies[-1].startswith("500")
            assert (await client.reply()).startswith("421 4.7.0")
        assert "aftersend_relay_held_bytes 0\n" in telemetry.text()
    assert len(inlet.messages) == 1


async def test_messages_in_hand_have_a_limit_together() -> None:
    inlet = Inlet()
    inlet.delay = 0.5
    options = {"max_held_bytes": 1 << 20}
    message = b"X: y\r\n\r\n" + b"x" * 70 + b"\r\n"
    message += b"y" * 600_000 + b"\r\n"
    async with listening(inlet, data_size_limit=None), relaying(f"smtp://127.0.0.1:{inlet.port}", **options) as relay:
        inlet.answers["DATA"] = "250 2.0.0 Ok"
        async with connected(relay.port) as one, connected(relay.port) as two:
            replies = await asyncio.gather(one.send(message), two.send(message))
            assert sorted(reply[:3] for reply in replies) in (["452", "500"], ["250", "452"])


async def test_a_message_that_goes_in_circles_is_refused_and_one_that_comes_again_is_not_written_again() -> None:
    async with passing(Inlet()) as (client, inlet):
        message = MESSAGE
        for _ in range(5):
            assert (await client.send(message)).startswith("250")
            message = inlet.messages[-1][2]
        assert (await client.send(message)).startswith("554 5.4.6")
        hops = b"Received: from a by b; now\r\n" * 50
        assert (await client.send(hops + MESSAGE)).startswith("554 5.4.6")
    contents = [content for _, _, content in inlet.messages]
    assert len({split_trace(content)[1] for content in contents[:1]}) == 1
    assert contents[4].endswith(split_trace(contents[0])[1])


async def test_a_message_signed_before_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    async with passing(Inlet(), telemetry=telemetry) as (client, _):
        for _ in range(3):
            await client.send(b"DKIM-Signature: v=1; a=rsa-sha256; b=x\r\n" + MESSAGE)
    assert len([record for record in caplog.records if "no longer holds" in record.message]) == 1
    assert 'aftersend_relay_notices_total{code="signed_before"} 3' in telemetry.text()


async def test_a_level_can_be_lowered_by_the_message_and_not_raised() -> None:
    inlet = Inlet()
    async with passing(inlet, level="anonymous") as (client, inlet):
        await client.send(b"X-Aftersend-Tracking: full\r\n" + MESSAGE)
        await client.send(b"X-Aftersend-Tracking: none\r\n" + MESSAGE)
    first, second = (list(links_in(content)) for _, _, content in inlet.messages)
    assert {link.level for link in first} == {Level.ANONYMOUS}
    assert not [link for link in second if link.purpose in (Purpose.CLICK, Purpose.OPEN)]


# TLS and keys


async def test_a_client_far_away_needs_tls_and_a_key(tmp_path: Path) -> None:
    path = certificate(tmp_path, "relay.example")
    trusting = ssl.create_default_context(cafile=str(path))
    inlet = Inlet()
    options = {"certificate": str(path), "clients": []}
    async with passing(inlet, **options) as (client, inlet):
        assert (await client.send(MESSAGE)).startswith("530 5.7.0")
        assert (await client.say("AUTH PLAIN")).startswith("538")
        await client.start_tls(trusting)
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("503"), "what was said before is forgotten"
        assert "AUTH PLAIN LOGIN" in await client.say("EHLO client.example")
        assert (await client.say(f"AUTH PLAIN {plain('wrong')}")).startswith("535")
        assert (await client.say("AUTH PLAIN")).startswith("334")
        assert (await client.say(plain(KEY))).startswith("235")
        assert (await client.send(MESSAGE)).startswith("250")
        async with connected(client.port) as other:
            await other.start_tls(trusting)
            await other.say("EHLO client.example")
            assert (await other.say("AUTH LOGIN")) == "334 " + base64.b64encode(b"Username:").decode()
            await other.say(base64.b64encode(b"anybody").decode())
            assert (await other.say(base64.b64encode(KEY.encode()).decode())).startswith("235")
    [(_, _, content)] = inlet.messages
    assert b"with ESMTPSA id" in split_trace(content)[0]
    assert {link.tenant for link in links_in(content)} == {2}, "the key's tenant"


async def test_tls_works_on_the_loop_that_serve_runs_on(tmp_path: Path) -> None:
    path = certificate(tmp_path, "relay.example")
    inlet = Inlet()
    async with listening(inlet):
        process, port = await started(0, inlet, str(path))
        async with connected(port) as client:
            await client.start_tls(ssl.create_default_context(cafile=str(path)))
            await client.say("EHLO client.example")
            assert (await client.say(f"AUTH PLAIN {plain(KEY)}")).startswith("235")
            assert (await client.send(MESSAGE)).startswith("250")
        process.kill()
        await process.wait()
    assert b"with ESMTPSA id" in split_trace(inlet.messages[0][2])[0]


async def test_wrong_passwords_end_the_session(tmp_path: Path) -> None:
    path = certificate(tmp_path, "relay.example")
    inlet = Inlet()
    async with passing(inlet, certificate=str(path)) as (client, inlet):
        await client.start_tls(ssl.create_default_context(cafile=str(path)))
        await client.say("EHLO client.example")
        replies = [(await client.say(f"AUTH PLAIN {plain('x')}"))[:3] for _ in range(3)]
        assert replies == ["535", "535", "421"]
        assert await client.reply() == ""


async def test_nothing_can_be_slipped_in_before_tls(tmp_path: Path) -> None:
    path = certificate(tmp_path, "relay.example")
    inlet = Inlet()
    async with passing(inlet, certificate=str(path)) as (client, inlet):
        assert (await client.say(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n")).startswith("503")
        assert await client.reply() == ""


async def test_the_next_hop_is_reached_over_tls_with_a_password(tmp_path: Path) -> None:
    path = certificate(tmp_path, "127.0.0.1")
    given = []

    def check(mechanism: str, user: bytes, password: bytes) -> bool:
        given.append((user, password))
        return password == b"pass word"

    inlet = Inlet()
    tls = {"tls_context": server_context(path), "require_starttls": True, "auth_required": True, "auth_callback": check}
    options = {"next_hop_tls": "verified", "next_hop_user": "me"}
    async with listening(inlet, **tls):
        target = f"smtp://127.0.0.1:{inlet.port}"
        trusted = options | {"next_hop_authorities": str(path), "next_hop_password": "pass word"}
        async with relaying(target, **trusted) as relay, connected(relay.port) as client:
            assert (await client.send(MESSAGE)).startswith("250")
        for wrong in (options | {"next_hop_password": "pass word"}, trusted | {"next_hop_password": "other"}):
            async with relaying(target, **wrong) as relay, connected(relay.port, greet=False) as client:
                await client.reply()
                reply = await client.say("EHLO client.example")
                assert reply.startswith("421 4.4.1")
                assert "pass word" not in reply
    assert len(inlet.messages) == 1
    assert (b"me", b"pass word") in given


async def test_a_next_hop_without_tls_is_not_used_where_tls_is_wanted() -> None:
    inlet = Inlet()
    async with passing(inlet, next_hop_tls="unverified", greet=False) as (client, inlet):
        await client.reply()
        assert "STARTTLS" in await client.say("EHLO client.example")
    assert not inlet.messages


def plain(password: str) -> str:
    return base64.b64encode(b"\0anybody\0" + password.encode()).decode()


# settings


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"next_hop": "http://127.0.0.1"}, "must begin with smtp://"),
        ({"next_hop": "smtp://u:p@127.0.0.1"}, "user name or password"),
        ({"next_hop_allow": []}, "loopback.; allow it with relay.next_hop_allow 127.0.0.1/32"),
        ({"next_hop_user": "me"}, "without TLS"),
        ({"clients": ["10.0.0.1/8"]}, "relay.clients"),
        ({"certificate": "/nowhere.pem"}, "relay.certificate: /nowhere.pem: no such file"),
        ({"require_tls": True}, "needs relay.certificate"),
    ],
)
async def test_settings_that_cannot_work_are_told_in_a_line(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        make_relay(settings_of(**{"next_hop": "smtp://127.0.0.1:2525", **options}))  # type: ignore[arg-type]


# the end of it


async def test_a_relay_that_stops_ends_what_it_has_begun() -> None:
    inlet = Inlet()
    inlet.delay = 0.5
    async with listening(inlet):
        relay = make_relay(settings_of(f"smtp://127.0.0.1:{inlet.port}"))
        await relay.start()
        async with connected(relay.port) as busy, connected(relay.port) as waiting:
            sent = asyncio.create_task(busy.send(MESSAGE))
            await asyncio.sleep(0.2)
            stopped = asyncio.create_task(relay.stop())
            assert (await waiting.reply()).startswith("421 4.3.2")
            assert (await sent).startswith("250")
            assert (await busy.reply()).startswith("421 4.3.2")
            await asyncio.wait_for(stopped, 5)
    assert len(inlet.messages) == 1


async def test_a_relay_killed_amid_a_message_has_accepted_nothing() -> None:
    inlet = Inlet()
    async with listening(inlet):
        port = 0
        for cut in (b"", stuffed(MESSAGE)[:200]):
            process, port = await started(port, inlet)
            async with connected(port) as client:
                for line in ("MAIL FROM:<a@example.com>", "RCPT TO:<alice@example.org>", "DATA"):
                    await client.say(line)
                client.writer.write(cut)
                await asyncio.sleep(0.1)
                process.send_signal(signal.SIGKILL)
                assert await client.reply() == "", "no answer, so the client keeps it"
            await process.wait()
        assert not inlet.messages
        process, port = await started(port, inlet)
        async with connected(port) as client:
            assert (await client.send(MESSAGE)).startswith("250")
        process.kill()
        await process.wait()
    assert len(inlet.messages) == 1

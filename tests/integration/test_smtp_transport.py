"""The SMTP transport against relays on this machine, the ill-behaved ones included."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult
from tests.integration.mailing import (
    LOOPBACK,
    NOW,
    RECIPIENTS,
    SENDER,
    Actor,
    acting,
    mailer,
    mails_of,
    opened,
    parcel,
)
from tests.integration.relaying import Inlet, certificate, listening, server_context

from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.event import Receipt
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.secret import Secret
from aftersend.dialects.canonical import Dialect as Canonical
from aftersend.dialects.pure360 import Dialect as Pure360
from aftersend.egress import Egress
from aftersend.testing.transports import OtherSide, TransportSuite, assert_told
from aftersend.transports import smtp
from aftersend.transports.smtp import Transport, connections, relay

PASSWORD = "correct horse"


class TestSmtp(TransportSuite):
    """`smtp://…`: what is no text arrives as a file."""

    module = smtp

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[OtherSide]:
        """A relay that takes large mails."""
        inlet = Inlet()
        async with listening(inlet, data_size_limit=1 << 26) as other:
            transport = mailer(other.port)

            async def bodies() -> list[bytes]:
                return [b"".join(part.get_content() for part in mail.iter_attachments()) for mail in mails_of(inlet)]

            async def vanish() -> None:
                access = transport._relay._connections._access
                access.target = access.target._replace(port=1)
                await transport.close()

            yield OtherSide(transport, bodies, vanish)
            await transport.close()


async def sent(transport: Transport, *numbers: int) -> list[Outcome]:
    """Parcels, sent one after the other; then the transport is closed."""
    try:
        return [await transport.send(parcel(number)) for number in numbers or (1,)]
    finally:
        await transport.close()


# What arrives


async def test_a_mail_says_who_wrote_it_and_that_no_machine_shall_answer() -> None:
    async with listening(Inlet()) as inlet:
        [outcome] = await sent(mailer(inlet.port, prefix="[events]"))
    assert outcome == Outcome(Verdict.TAKEN)
    [(sender, recipients, _)] = inlet.messages
    assert (sender, recipients) == (SENDER, list(RECIPIENTS))
    [mail] = mails_of(inlet)
    assert mail["From"] == f"aftersend <{SENDER}>"
    assert mail["To"] == ", ".join(RECIPIENTS)
    assert mail["Subject"] == "[events] shop 1-1"
    assert mail["Date"].datetime.timestamp() == NOW / 1e9
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["X-Auto-Response-Suppress"] == "All"
    assert mail["X-Aftersend-Tracking"] == "none"
    assert mail["Aftersend-Subscription"] == "shop"
    assert mail["Aftersend-Sequence"] == "1-1"
    assert mail.get_content().splitlines() == ["something happened"]


async def test_a_repeat_is_the_same_mail_and_another_parcel_is_another() -> None:
    async with listening(Inlet()) as inlet:
        await sent(mailer(inlet.port), 1, 1, 2)
    first, again, other = (content for _, _, content in inlet.messages)
    assert first == again
    assert opened(first)["Message-ID"] != opened(other)["Message-ID"]


async def test_the_mails_of_pure360_are_read_again_as_the_same_events() -> None:
    dialect = Pure360()
    told = b"type=CLICK&email=joe%40example.org&clickUrl=https%3A%2F%2Fshop.example%2F%C3%A9&Event_date=1767225600"
    [event] = dialect.decode(Receipt(told, NOW))
    [body] = dialect.encode([event], "email")
    async with listening(Inlet()) as inlet:
        transport = mailer(inlet.port, prefix="Notice:")
        outcome = await transport.send(parcel(1, body.data, body.content_type))
        await transport.close()
    assert outcome.verdict is Verdict.TAKEN, outcome
    [(_, _, content)] = inlet.messages
    assert opened(content)["Subject"] == "Notice: CLICK"
    [again] = dialect.decode(Receipt(content, NOW, form="email"))
    assert (again.id, again.type, again.recipient, again.url) == (event.id, event.type, event.recipient, event.url)


async def test_events_in_another_dialect_are_a_file_with_a_word_before_it() -> None:
    dialect = Canonical()
    [event] = dialect.decode(Receipt(b'{"type":"email.opened","recipient":"j@x.example"}', NOW))
    [body] = dialect.encode([event])
    async with listening(Inlet()) as inlet:
        transport = mailer(inlet.port)
        await transport.send(parcel(7, body.data, body.content_type))
        await transport.close()
    [mail] = mails_of(inlet)
    [file] = mail.iter_attachments()
    assert file.get_filename() == "events-7-7.json"
    assert file.get_content_type() == "application/json"
    assert file.get_content() == body.data
    assert mail.get_body().get_content().strip() == "What happened is in the attached file."


async def test_a_text_with_long_lines_dots_and_any_letter_arrives_as_it_was() -> None:
    texts = ["é" * 2_000, "." * 2_000, ".\n..\n.\n", "From here\n\n", "a\rb"]
    async with listening(Inlet()) as inlet:
        transport = mailer(inlet.port)
        for number, text in enumerate(texts):
            outcome = await transport.send(parcel(number, text.encode(), "text/plain; charset=utf-8"))
            assert outcome.verdict is Verdict.TAKEN, outcome
        await transport.close()
    heard = [mail.get_content() for mail in mails_of(inlet)]
    assert [text.split() for text in heard] == [text.split() for text in texts]
    assert heard[2].startswith(".\r\n..\r\n.\r\n")
    assert all(len(line) <= 998 for _, _, content in inlet.messages for line in content.split(b"\r\n"))


async def test_no_value_can_begin_a_field_or_a_command() -> None:
    evil = "x\r\nBcc: all@shop.example\r\n\r\n.\r\nMAIL FROM:<a@b>"
    fields = "Subject: =?utf-8?q?a=0d=0aBcc:_x?=\r\nBcc: all@shop.example\r\nX-Own: 1\r\nContent-Type: text/plain"
    mail = f"{fields}\r\n\r\nhello"
    async with listening(Inlet()) as inlet:
        transport = mailer(inlet.port, prefix=evil, subscription=evil)
        await transport.send(parcel(1, evil.encode()))
        await transport.send(parcel(2, mail.encode(), "message/rfc822"))
        await transport.close()
    assert len(inlet.messages) == 2
    for found in mails_of(inlet):
        assert "Bcc" not in found
        assert "X-Own" not in found
        assert found["Message-ID"].endswith("@shop.example>")
    assert all(recipients == list(RECIPIENTS) for _, recipients, _ in inlet.messages)


async def test_a_malformed_mail_of_a_dialect_is_refused_and_not_sent() -> None:
    bodies = [b"no header", b"Subject: a\r\n\r\nbare\nline", b"Subject: a\r\n\r\n" + b"x" * 999, b"\x00: a\r\n\r\nb"]
    async with listening(Inlet()) as inlet:
        transport = mailer(inlet.port)
        for body in bodies:
            outcome = await transport.send(parcel(1, body, "message/rfc822"))
            assert outcome.verdict is Verdict.REFUSED
            assert_told(outcome)
        await transport.close()
    assert not inlet.messages


async def test_addresses_beyond_ascii_need_a_relay_that_takes_them() -> None:
    to = ("юлия@почта.example", "ops@bücher.example")
    async with listening(Inlet()) as inlet, acting() as actor:
        [outcome] = await sent(mailer(inlet.port, recipients=to))
        [refused] = await sent(mailer(actor.port, recipients=to))
        [plain] = await sent(mailer(actor.port, recipients=to[1:]))
    assert outcome.verdict is Verdict.TAKEN, outcome
    assert inlet.messages[0][1] == ["юлия@xn--80a1acny.example", "ops@xn--bcher-kva.example"]
    assert "SMTPUTF8" in inlet.options[0]
    assert refused == Outcome(Verdict.FAILED, "sender: the relay does not take addresses beyond ASCII (SMTPUTF8)")
    assert plain.verdict is Verdict.TAKEN


# TLS and logging in


def trusting(folder: Path, name: str) -> tuple[ssl.SSLContext, str]:
    """A server's side of TLS, and the authority to trust it by."""
    path = certificate(folder, name)
    return server_context(path), path.read_text().partition("-----BEGIN PRIVATE")[0]


class Login:
    """Asks for the one password."""

    def __call__(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        return AuthResult(success=data.password == PASSWORD.encode(), handled=False)


async def test_starttls_and_a_password_come_before_any_mail(tmp_path: Path) -> None:
    context, ca = trusting(tmp_path, "127.0.0.1")
    options = {"tls_context": context, "require_starttls": True, "authenticator": Login(), "auth_required": True}
    async with listening(Inlet(), **options) as inlet:
        good = mailer(inlet.port, tls="required", ca=ca, user="shop", password=Secret(PASSWORD))
        bad = mailer(inlet.port, tls="required", ca=ca, user="shop", password=Secret("wrong horse"))
        none = mailer(inlet.port, tls="required", ca=ca)
        assert await good.probe() == Outcome(Verdict.TAKEN)
        outcomes = [*await sent(good), *await sent(bad), await bad.probe(), *await sent(none)]
        await bad.close()
    assert [outcome.verdict for outcome in outcomes] == [Verdict.TAKEN] + [Verdict.FAILED] * 3
    assert outcomes[1].detail.startswith("log in: 535 5.7.8")
    assert outcomes[3].detail.startswith(f"sender {SENDER}: 530 5.7.0")
    assert len(inlet.messages) == 1
    printed = f"{outcomes} {good!r} {good} {bad!r}"
    assert PASSWORD not in printed
    assert "wrong horse" not in printed


async def test_tls_from_the_start(tmp_path: Path) -> None:
    context, ca = trusting(tmp_path, "127.0.0.1")
    inlet = Inlet()
    async with listening_over_tls(inlet, context) as port:
        [outcome] = await sent(mailer(f"smtps://127.0.0.1:{port}", tls="required", ca=ca))
    assert outcome.verdict is Verdict.TAKEN, outcome
    assert len(inlet.messages) == 1


@asynccontextmanager
async def listening_over_tls(inlet: Inlet, context: ssl.SSLContext) -> AsyncIterator[int]:
    """A server that begins with TLS, in front of the inlet."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner = await asyncio.open_connection("127.0.0.1", inlet.port)
        await asyncio.gather(pump(reader, inner[1]), pump(inner[0], writer))

    async with listening(inlet):
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        yield server.sockets[0].getsockname()[1]
        server.close()
        await asyncio.sleep(0.01)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
    except (OSError, ssl.SSLError):
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize(("name", "trusted"), [("mail.other.example", True), ("127.0.0.1", False)])
async def test_a_relay_that_is_not_who_it_must_be_gets_nothing(
    scheme: str, name: str, trusted: bool, tmp_path: Path
) -> None:
    context, ca = trusting(tmp_path, name)
    inlet = Inlet()
    open_ = listening_over_tls(inlet, context) if scheme == "smtps" else starting_tls(inlet, context)
    async with open_ as port:
        [outcome] = await sent(mailer(f"{scheme}://127.0.0.1:{port}", tls="required", ca=ca if trusted else ""))
    assert outcome.verdict is Verdict.FAILED
    assert outcome.detail.startswith("TLS: "), outcome
    assert not outcome.ours
    assert not inlet.messages


@asynccontextmanager
async def starting_tls(inlet: Inlet, context: ssl.SSLContext) -> AsyncIterator[int]:
    async with listening(inlet, tls_context=context):
        yield inlet.port


async def test_a_relay_without_tls_hears_nothing_where_tls_is_required() -> None:
    async with acting() as actor:
        [outcome] = await sent(mailer(actor.port, tls="required"))
    assert outcome.detail == "STARTTLS: the relay does not offer it, and tls is required"
    assert [command.split()[0] for command in actor.commands] == ["EHLO"]


async def test_opportunistic_takes_any_certificate_and_none_at_all(tmp_path: Path) -> None:
    context, _ = trusting(tmp_path, "somebody.example")
    async with listening(Inlet(), tls_context=context, require_starttls=True) as inlet, acting() as actor:
        [any_] = await sent(mailer(inlet.port, tls="opportunistic"))
        [none] = await sent(mailer(actor.port, tls="opportunistic"))
    assert any_.verdict is none.verdict is Verdict.TAKEN


@pytest.mark.parametrize("tls", ["none", "opportunistic"])
async def test_mail_without_verified_tls_stays_in_networks_that_the_operator_opened(tls: str) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        return ["93.184.215.14"]

    egress = Egress(LOOPBACK.allowed, lookup=lookup)
    transport = mailer("smtp://relay.example:587", tls=tls, egress=egress)
    [outcome] = await sent(transport)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.ours
    assert outcome.detail.startswith("refused: without verified TLS mail goes only to networks opened")


def test_an_address_that_must_not_be_connected_to_is_refused_at_once() -> None:
    for url in ("smtp://10.0.0.1:587", "http://127.0.0.1", "smtp://u:p@relay.example", "smtp://relay.example:6379"):
        with pytest.raises(EgressError):
            mailer(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"recipients": ()}, "at least one"),
        ({"recipients": tuple(f"a{n}@x.example" for n in range(51))}, "at most 50"),
        ({"recipients": ("a@x.example\r\nDATA",)}, "not an address"),
        ({"recipients": ("a b@x.example",)}, "not an address"),
        ({"recipients": ("Ann <a@x.example>",)}, "not an address"),
        ({"sender": "events"}, "not an address"),
        ({"sender": "events@-x.example"}, "not an address"),
        ({"user": "a"}, "go together"),
        ({"user": "a", "password": Secret("b")}, "verified TLS only"),
        ({"url": "smtps://relay.example:465"}, "TLS from the start"),
        ({"tls": "required", "ca": "nonsense"}, "PEM"),
        ({"zone": "Mars/Olympus"}, "time zone"),
        ({"zone": "../etc/passwd"}, "time zone"),
        ({"timeout": 0}, "timeout"),
        ({"attach_limit": 1 << 40}, "attach_limit"),
        ({"hostname": "a b"}, "hostname"),
    ],
)
def test_options_that_cannot_work_are_told_in_one_line(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        mailer(**({"url": 2525} | options))
    assert str(error.value).isprintable()


# Refusals


async def test_a_refused_mail_is_refused_and_the_connection_stays_good() -> None:
    async with acting(END="554 5.7.1 That looks like spam") as actor:
        transport = mailer(actor.port)
        refused = await transport.send(parcel(1))
        del actor.answers["END"]
        taken = await transport.send(parcel(2))
        await transport.close()
    assert refused == Outcome(Verdict.REFUSED, "message: 554 5.7.1 That looks like spam", 554)
    assert taken.verdict is Verdict.TAKEN
    assert actor.connections == 1
    assert "RSET" in actor.commands


@pytest.mark.parametrize(
    ("answers", "verdict", "detail"),
    [
        ({"MAIL": "550 5.7.1 Not you"}, Verdict.FAILED, "sender events@shop.example: 550 5.7.1 Not you"),
        ({"MAIL": "552 5.3.4 Too large"}, Verdict.TOO_LARGE, "sender events@shop.example: 552 5.3.4 Too large"),
        ({"MAIL": "452 4.3.1 Insufficient system storage"}, Verdict.FAILED, "452 4.3.1 Insufficient system storage"),
        ({"RCPT": "550 5.1.1 Nobody"}, Verdict.FAILED, "2 of 2 recipients refused: ops@shop.example: 550 5.1.1 Nobody"),
        ({"DATA": "451 4.7.0 Later"}, Verdict.FAILED, "message: 451 4.7.0 Later"),
        ({"END": "452 4.3.1 Insufficient system storage"}, Verdict.FAILED, "message: 452 4.3.1 Insufficient"),
        ({"END": "552 5.3.4 Message too big"}, Verdict.TOO_LARGE, "message: 552 5.3.4 Message too big"),
        ({"END": "421 4.3.2 Shutting down"}, Verdict.FAILED, "message: 421 4.3.2 Shutting down"),
        ({"greeting": "554 5.7.1 Go away"}, Verdict.FAILED, "greeting: 554 5.7.1 Go away"),
        ({"greeting": "hello"}, Verdict.FAILED, "greeting: Malformed SMTP response line: hello"),
        ({"EHLO": "502 5.5.1 What?"}, Verdict.FAILED, "EHLO: 502 5.5.1 What?"),
        ({"MAIL": "250" + "x" * 70_000}, Verdict.FAILED, "events@shop.example: Response too long"),
    ],
)
async def test_what_the_relay_says_is_told_with_its_step(
    answers: dict[str, str], verdict: Verdict, detail: str
) -> None:
    async with acting(**answers) as actor:
        [outcome] = await sent(mailer(actor.port))
    assert outcome.verdict is verdict, outcome
    assert detail in outcome.detail
    assert not outcome.ours
    assert_told(outcome)
    assert not actor.messages


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("451 4.7.1 Greylisted, try again in 300 seconds", 300.0),
        ("451 4.7.1 Please come back in 00:05:00", 300.0),
        ("421 4.7.0 Too much mail; retry after 2 minutes", 120.0),
        ("450 4.2.0 wait 9999999 hours", None),
        ("450 4.2.0 wait 99 hours", 86_400.0),
        ("451 4.3.0 Try again later", None),
    ],
)
async def test_a_hint_when_to_come_back_is_heard(said: str, seconds: float | None) -> None:
    async with acting(MAIL=said) as actor:
        [outcome] = await sent(mailer(actor.port))
    assert outcome.verdict is Verdict.FAILED
    assert outcome.retry_after == seconds


async def test_one_bad_address_does_not_keep_a_mail_from_the_others() -> None:
    async with acting(**{"RCPT ops@shop.example": "550 5.1.1 No such user"}) as actor:
        [outcome] = await sent(mailer(actor.port))
    assert outcome == Outcome(Verdict.TAKEN, "1 of 2 recipients refused: ops@shop.example: 550 5.1.1 No such user")
    assert len(actor.messages) == 1


async def test_who_must_wait_gets_it_later_and_nobody_twice() -> None:
    async with acting(**{"RCPT ops@shop.example": "450 4.2.2 Mailbox full, try again in 60 seconds"}) as actor:
        transport = mailer(actor.port)
        first = await transport.send(parcel(1))
        again = await transport.send(parcel(1))
        del actor.answers["RCPT ops@shop.example"]
        before = len(actor.commands)
        last = await transport.send(parcel(1))
        await transport.close()
    assert first.verdict is again.verdict is Verdict.FAILED
    assert first.retry_after == 60.0
    assert first.detail.startswith("1 of 2 recipients refused: ops@shop.example: 450 4.2.2")
    assert last == Outcome(Verdict.TAKEN)
    asked = [command for command in actor.commands[before:] if command.startswith("RCPT")]
    assert asked == ["RCPT TO:<ops@shop.example>"]
    ids = {opened(message)["Message-ID"] for message in actor.messages}
    assert (len(actor.messages), len(ids)) == (2, 1)


async def test_a_password_that_the_relay_repeats_is_masked(tmp_path: Path) -> None:
    class Echo(Inlet):
        async def handle_MAIL(self, *_: Any) -> str:  # noqa: N802
            return f"550 5.7.1 {PASSWORD} is no good"

    context, ca = trusting(tmp_path, "127.0.0.1")
    async with listening(Echo(), tls_context=context, authenticator=Login()) as inlet:
        [outcome] = await sent(mailer(inlet.port, tls="required", ca=ca, user="shop", password=Secret(PASSWORD)))
    assert outcome.detail == "sender events@shop.example: 550 5.7.1 ******** is no good"


# Silence, cuts and restarts


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "END"])
async def test_silence_is_bounded_at_every_step(step: str) -> None:
    async with acting(**{step: ""}) as actor:
        transport = mailer(actor.port, timeout=0.15)
        async with asyncio.timeout(3):
            outcome = await transport.send(parcel(1))
        assert outcome.verdict is Verdict.FAILED
        assert "no answer within" in outcome.detail
        assert_told(outcome)
        del actor.answers[step]
        assert (await transport.send(parcel(1))).verdict is Verdict.TAKEN
        await transport.close()
    assert len(actor.messages) == 1


@pytest.mark.parametrize("step", ["greeting", "EHLO", "MAIL", "RCPT", "DATA", "END"])
async def test_a_connection_cut_at_any_step_loses_nothing(step: str) -> None:
    async with acting(**{step: "cut"}) as actor:
        transport = mailer(actor.port)
        outcome = await transport.send(parcel(1))
        assert outcome.verdict is Verdict.FAILED, outcome
        assert not outcome.ours
        assert_told(outcome)
        del actor.answers[step]
        assert (await transport.send(parcel(1))).verdict is Verdict.TAKEN
        await transport.close()
    assert len(actor.messages) == 1


async def test_connections_are_used_again_and_closed_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.1)
    async with acting() as actor:
        transport = mailer(actor.port)
        for number in range(3):
            assert (await transport.send(parcel(number))).verdict is Verdict.TAKEN
        assert actor.connections == 1
        async with asyncio.timeout(2):
            while "QUIT" not in actor.commands:
                await asyncio.sleep(0.02)
        assert (await transport.send(parcel(4))).verdict is Verdict.TAKEN
        assert actor.connections == 2
        await transport.close()


@pytest.mark.parametrize("farewell", ["cut", "421 4.4.2 Timeout, closing"])
async def test_a_connection_that_ended_meanwhile_is_replaced(farewell: str) -> None:
    async with acting() as actor:
        transport = mailer(actor.port)
        assert (await transport.send(parcel(1))).verdict is Verdict.TAKEN
        actor.answers["MAIL"] = farewell
        task = asyncio.ensure_future(transport.send(parcel(2)))
        while actor.connections < 2:
            await asyncio.sleep(0)
        del actor.answers["MAIL"]
        assert (await task).verdict is Verdict.TAKEN
        await transport.close()


async def test_a_relay_that_was_restarted_gets_the_next_mail() -> None:
    first = Actor()
    async with first:
        transport = mailer(first.port)
        assert (await transport.send(parcel(1))).verdict is Verdict.TAKEN
    down = await transport.send(parcel(2))
    assert down.verdict is Verdict.FAILED
    assert down.detail.startswith("connect: ")
    second = Actor()
    second.port = first.port
    async with second:
        assert (await transport.send(parcel(2))).verdict is Verdict.TAKEN
        await transport.close()
    assert len(second.messages) == 1


async def test_many_at_once_share_a_few_connections() -> None:
    async with acting() as actor:
        transport = mailer(actor.port)
        outcomes = await asyncio.gather(*(transport.send(parcel(number)) for number in range(20)))
        await transport.close()
    assert {outcome.verdict for outcome in outcomes} == {Verdict.TAKEN}
    assert actor.connections <= relay.CONNECTION_LIMIT
    assert len({opened(message)["Message-ID"] for message in actor.messages}) == 20


async def test_a_probe_asks_for_everybody_and_sends_nothing() -> None:
    async with acting(**{"RCPT lead@shop.example": "550 5.1.1 Nobody"}) as actor:
        transport = mailer(actor.port)
        refused = await transport.probe()
        del actor.answers["RCPT lead@shop.example"]
        taken = await transport.probe()
        await transport.close()
    assert refused == Outcome(Verdict.FAILED, "1 of 2 recipients refused: lead@shop.example: 550 5.1.1 Nobody")
    assert taken == Outcome(Verdict.TAKEN)
    assert not actor.messages
    assert "DATA" not in actor.commands


async def test_a_mail_larger_than_the_relay_takes_is_not_begun() -> None:
    async with acting(EHLO="250-actor.example\r\n250 SIZE 1000") as actor:
        transport = mailer(actor.port)
        outcome = await transport.send(parcel(1, b"x" * 2_000, "application/json"))
        await transport.close()
    assert outcome.verdict is Verdict.TOO_LARGE
    assert "the relay takes 1000" in outcome.detail
    assert not any(command.startswith("MAIL") for command in actor.commands)


async def test_nothing_listens_and_nobody_has_that_name() -> None:
    async def lookup(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with acting() as actor:
        port = actor.port
    [refused] = await sent(mailer(port))
    [nameless] = await sent(mailer("smtp://nowhere.example:587", tls="required", egress=Egress(lookup=lookup)))
    assert refused.detail.startswith("connect: ")
    assert nameless.detail == "name lookup: Name or service not known"
    assert not refused.ours
    assert not nameless.ours

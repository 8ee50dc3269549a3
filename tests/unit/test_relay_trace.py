"""The trace in a message: one Received field, and how often a message came by."""

from email import message_from_bytes, policy

from aftersend.capture.trace import hops, protocol_name, received

NOW = 1_795_000_000_000_000_000


def field(hostname: str = "relay.example", recipient: str = "alice@example.org", peer: str = "192.0.2.1") -> bytes:
    return received(
        helo="client.example",
        peer=peer,
        hostname=hostname,
        protocol="ESMTPS",
        id_="0badf00d0badf00d",
        recipient=recipient,
        now=NOW,
    )


def test_the_field_says_from_where_by_whom_how_and_when() -> None:
    assert message_from_bytes(field() + b"\r\n", policy=policy.SMTP)["Received"] == (
        "from client.example ([192.0.2.1])\tby relay.example (aftersend) with ESMTPS id 0badf00d0badf00d"
        "\tfor <alice@example.org>;\tWed, 18 Nov 2026 11:06:40 +0000"
    )
    assert b"([IPv6:2001:db8::1])" in field(peer="2001:db8::1")


def test_a_recipient_that_is_not_ascii_is_left_out() -> None:
    assert b"for" not in field(recipient="алиса@пример.рф")


def test_hops_are_counted_in_the_header_alone() -> None:
    message = field() + field("other.example") + b"Subject: x\r\n\r\n" + field() * 3
    assert hops(message, "relay.example") == (2, 1)
    assert hops(message, "RELAY.example") == (2, 1)
    assert hops(message, "relay") == (2, 0)
    assert hops(b"\r\n" + field(), "relay.example") == (0, 0)
    assert hops(field(), "relay.example") == (1, 1)


def test_the_protocol_has_its_registered_name() -> None:
    def name(**said: bool) -> str:
        return protocol_name(**{"extended": True, "encrypted": False, "authenticated": False, "utf8": False} | said)

    assert name(extended=False) == "SMTP"
    assert name() == "ESMTP"
    assert name(encrypted=True, authenticated=True) == "ESMTPSA"
    assert name(encrypted=True, utf8=True) == "UTF8SMTPS"

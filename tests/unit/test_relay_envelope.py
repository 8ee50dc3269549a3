"""What MAIL and RCPT say: addresses and parameters as they were written, and nothing that is not one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.capture.envelope import Refused, Reply, read_path


@pytest.mark.parametrize(
    ("argument", "address"),
    [
        (b"TO:<alice@example.org>", "alice@example.org"),
        (b"to: <Alice+Tag@Example.ORG>", "Alice+Tag@Example.ORG"),
        (b'TO:<"a b\\" > c"@example.org>', '"a b\\" > c"@example.org'),
        (b"TO:<@relay.example,@other.example:alice@example.org>", "alice@example.org"),
        (b"TO:<alice@[192.0.2.1]>", "alice@[192.0.2.1]"),
        (b"TO:<alice@[IPv6:2001:db8::1]>", "alice@[IPv6:2001:db8::1]"),
        (b"TO:<Postmaster>", "Postmaster"),
        ("TO:<алиса@пример.рф>".encode(), "алиса@пример.рф"),
        (b"TO:<!#$%&'*+-/=?^_`{|}~@example.org>", "!#$%&'*+-/=?^_`{|}~@example.org"),
    ],
)
def test_an_address_is_read_as_it_was_written(argument: bytes, address: str) -> None:
    assert read_path(argument, "TO").address == address


@pytest.mark.parametrize(
    ("argument", "code"),
    [
        (b"", 501),
        (b"TO:alice@example.org", 501),
        (b"FROM:<alice@example.org>", 501),
        (b"TO:<>", 553),
        (b"TO:<alice>", 553),
        (b"TO:<alice@>", 553),
        (b"TO:<alice@example.org", 501),
        (b"TO:<a@b@example.org>", 553),
        (b"TO:<alice@example.org>>", 501),
        (b"TO:<alice\x00@example.org>", 553),
        (b"TO:<ali\x7fce@example.org>", 553),
        (b"TO:<alice@example.org> NOTIFY=\x01", 501),
        (b"TO:<alice@example.org> NOTIFY=NEVER notify=NEVER", 501),
        (b"TO:<alice@example.org> =x", 501),
        (b"TO:<alice@example.org>NOTIFY=NEVER", 501),
        (b"TO:<" + b"a" * 600 + b"@example.org>", 553),
        (b"TO:<alice@example.org\xff>", 501),
    ],
)
def test_what_is_no_address_is_refused(argument: bytes, code: int) -> None:
    with pytest.raises(Refused) as refusal:
        read_path(argument, "TO")
    assert refusal.value.reply.code == code


def test_the_null_sender_is_a_sender_only() -> None:
    assert read_path(b"FROM:<> SIZE=10 ENVID=a+2Bb", "FROM") == ("", {"SIZE": "10", "ENVID": "a+2Bb"})


def test_the_value_of_a_parameter_keeps_its_case() -> None:
    path = read_path(b"TO:<a@example.org> notify=Success,FAILURE ORCPT=rfc822;Alice@Example.org", "TO")
    assert path.parameters == {"NOTIFY": "Success,FAILURE", "ORCPT": "rfc822;Alice@Example.org"}


@given(st.binary(max_size=80))
def test_no_argument_breaks_the_reader_or_can_hold_a_second_command(argument: bytes) -> None:
    try:
        path = read_path(b"TO:<" + argument, "TO")
    except Refused:
        return
    assert not any(ord(character) < 32 for character in path.address + "".join(path.parameters.values()))


@given(st.text(max_size=2_000))
def test_a_reply_is_lines_of_its_code_whatever_its_text(text: str) -> None:
    lines = Reply(550, text).line().split(b"\r\n")
    assert lines.pop() == b""
    assert 1 <= len(lines) <= 20
    assert all(line.startswith(b"550-") for line in lines[:-1])
    assert lines[-1].startswith(b"550 ")
    assert all(len(line) < 512 and line.decode().isprintable() for line in lines)

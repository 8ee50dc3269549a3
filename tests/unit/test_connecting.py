"""Connections to judged addresses, and whose fault it is when there is none."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from aftersend.core.errors import ConfigurationError
from aftersend.egress import Target, connecting
from aftersend.egress.connecting import Goodbyes, dial, is_ours, tls_context

HERE, ELSEWHERE = ip_address("127.0.0.1"), ip_address("127.0.0.2")


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    sock = socket.create_server((str(HERE), 0))
    yield sock
    sock.close()


async def test_the_first_address_that_takes_the_connection_gets_it(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    with await dial([ELSEWHERE, HERE], port) as sock:
        assert sock.getpeername() == (str(HERE), port)
        assert not sock.getblocking()


async def test_where_none_takes_it_the_last_fault_is_told(listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        await dial([ELSEWHERE, HERE], port)
    with pytest.raises(ConnectionError, match="no address"):
        await dial([], port)


async def test_an_address_that_says_nothing_is_given_up(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_LIMIT", 0.0)
    with pytest.raises(ConnectionError, match="no connection within 0 s"):
        await dial([HERE], listener.getsockname()[1])


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (OSError(errno.EMFILE, "too many open files"), True),
        (OSError(errno.ENETUNREACH, "network is unreachable"), True),
        (OSError(errno.ECONNREFUSED, "connection refused"), False),
        (TimeoutError(), False),
        (socket.gaierror(socket.EAI_AGAIN, "no name server answered"), True),
        (socket.gaierror(socket.EAI_NONAME, "no such name"), False),
    ],
)
def test_only_a_failure_on_our_side_is_ours(error: OSError, ours: bool) -> None:
    assert is_ours(error) is ours


def test_certificates_are_verified_by_the_systems_authorities_or_by_those_named() -> None:
    context = tls_context()
    assert context is tls_context()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    with pytest.raises(ConfigurationError, match="ca: "):
        tls_context("not a certificate")


async def test_a_goodbye_that_hangs_or_fails_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "GOODBYE_LIMIT", 0.01)
    closed: list[str] = []

    async def close() -> None:
        closed.append("well")

    async def fail() -> None:
        raise RuntimeError("broken")

    goodbyes = Goodbyes()
    for work in (close, fail, asyncio.Event().wait):
        goodbyes.say(work)
    await goodbyes.over()
    await goodbyes.over()
    assert closed == ["well"]


@pytest.mark.parametrize(
    ("host", "shown"), [("mail.example.com", "mail.example.com:25"), ("2001:db8::1", "[2001:db8::1]:25")]
)
def test_host_and_port_are_shown_as_they_stand_in_urls(host: str, shown: str) -> None:
    assert Target("smtp", host, 25).authority == shown

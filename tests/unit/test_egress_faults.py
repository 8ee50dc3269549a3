"""What the network or TLS did, as a person reads it."""

import errno
import os
import socket
import ssl

import pytest

from aftersend.egress.faults import why


def tls_error(said: str, **fields: str) -> ssl.SSLError:
    error = ssl.SSLError(1, said)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


@pytest.mark.parametrize("said", ["Connect call failed ('127.0.0.1', 587)", "Connection refused", ""])
def test_a_refused_connection_is_told_alike_whatever_the_loop_says(said: str) -> None:
    assert why(ConnectionRefusedError(errno.ECONNREFUSED, said)) == os.strerror(errno.ECONNREFUSED).lower()


def test_a_name_that_nobody_knows_is_told_as_the_resolver_does() -> None:
    assert why(socket.gaierror(socket.EAI_NONAME, "Name or service not known")) == "Name or service not known"


def test_certificates_are_told_by_what_is_wrong_with_them() -> None:
    error = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed (_ssl.c:1006)")
    error.verify_message = "self-signed certificate"
    assert why(error) == "TLS: self-signed certificate"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            tls_error("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", reason="WRONG_VERSION_NUMBER"),
            "TLS: what answers there does not speak TLS",
        ),
        (
            tls_error("[SSL] internal error (_ssl.c:1006)", reason="TLSV1_ALERT_UNKNOWN_CA"),
            "TLS: tlsv1 alert unknown ca",
        ),
        (tls_error("[SSL: BAD] it broke (_ssl.c:1006)"), "TLS: it broke"),
    ],
)
def test_no_line_of_a_librarys_source_is_told(error: ssl.SSLError, told: str) -> None:
    assert why(error) == told


def test_an_error_that_says_nothing_says_nothing() -> None:
    assert why(ConnectionResetError()) == ""
    assert why(TimeoutError()) == ""
    assert why(OSError("the connection was closed")) == "the connection was closed"

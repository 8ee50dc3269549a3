"""What file servers say and what operators paste, whatever it is: read, or refused in one line."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import asyncssh
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aftersend.core.errors import ConfigurationError
from aftersend.core.secret import Secret
from aftersend.transports import ftp, sftp
from aftersend.transports.ftp.control import Control, Reply, StepError
from aftersend.transports.sftp.keys import HostKeys, read_private_key

KEYS = [asyncssh.generate_private_key(kind) for kind in ("ssh-ed25519", "ecdsa-sha2-nistp256")]
LINES = [key.export_public_key().decode().strip() for key in KEYS]


def heard(data: bytes) -> Reply | StepError:
    """The reply in what a server sent before it went away."""

    async def hear() -> Reply | StepError:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        try:
            return await Control((reader, cast(Any, None)), 5.0, str).hear("step")
        except StepError as error:
            return error

    return asyncio.run(hear())


@pytest.mark.parametrize(
    ("data", "code", "text"),
    [
        (b"220 ready\r\n", 220, "ready"),
        (b"220 ready\n", 220, "ready"),
        (b"226\r\n", 226, ""),
        (b"220-a\r\n220 b\r\n", 220, "b"),
        (b"220-a\r\n  220 not yet\r\n221 nor yet\r\n220-nor now\r\n220 b\r\n", 220, "b"),
        (b"220-a\r\n220\r\n", 220, "a"),
        (b"213 12\r\n220 later\r\n", 213, "12"),
    ],
)
def test_a_reply_ends_with_the_line_that_has_its_code_and_a_blank(data: bytes, code: int, text: str) -> None:
    reply = heard(data)
    assert isinstance(reply, Reply)
    assert (reply.code, reply.text) == (code, text)


@given(
    st.lists(st.sampled_from([b"220-", b"220 ", b"22", b"\r\n", b"\n", b"\xff", b"\0", b"x" * 5_000, b"999 "])).map(
        b"".join
    )
)
@example(b"220-a\r\n" * 200)
@example(b"x" * 200_000)
def test_whatever_a_server_sends_is_a_reply_or_told_in_one_line(data: bytes) -> None:
    found = heard(data)
    if isinstance(found, StepError):
        assert str(found).isprintable()
        assert len(str(found)) < 500
    else:
        assert found.lines[0].startswith("220")


@given(st.text())
@example("\n".join(LINES))
def test_whatever_is_pasted_as_a_host_key_is_read_or_refused(text: str) -> None:
    try:
        HostKeys(text)
    except ConfigurationError as error:
        assert str(error).isprintable()


def test_a_server_is_asked_first_for_the_kinds_of_key_that_are_pinned() -> None:
    keys = HostKeys(f"# files.example:22 SSH-2.0\n[files.example]:22 {LINES[1]} somebody@somewhere\n")
    assert KEYS[1] in keys
    assert KEYS[0] not in keys
    assert keys.kinds[:2] == ["ecdsa-sha2-nistp256", "ssh-ed25519"]
    assert HostKeys("\n".join(LINES)).kinds[:2] == ["ssh-ed25519", "ecdsa-sha2-nistp256"]
    assert KEYS[1] in HostKeys(KEYS[1].get_fingerprint("sha256"))


@pytest.mark.parametrize("text", ["@cert-authority * " + LINES[0], "@revoked " + LINES[0], "MD5:00:11", "SHA256:abc"])
def test_what_is_no_key_of_one_server_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="host_key: "):
        HostKeys(text)


@given(st.text())
def test_whatever_is_pasted_as_a_private_key_is_refused_without_showing_it(text: str) -> None:
    for form in (text, f"-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----"):
        with pytest.raises(ConfigurationError) as caught:
            read_private_key(Secret(form), None)
        assert str(caught.value).isprintable()
        assert len(text) < 8 or text not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "by_ftp", "by_sftp"),
    [
        ("x://host", "", ""),
        ("x://host/", "", ""),
        ("x://host/a/b/", "a/b", "/a/b"),
        ("x://host/~/a", "a", "a"),
        ("x://host//a", "/a", "/a"),
        ("x://host/%C3%A9%20b", "é b", "/é b"),
    ],
)
def test_folders_are_named_as_curl_names_them(url: str, by_ftp: str, by_sftp: str) -> None:
    assert (ftp._folder(url), sftp._folder(url)) == (by_ftp, by_sftp)

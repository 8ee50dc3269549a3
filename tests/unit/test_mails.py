"""Mails as bytes: whatever the values, the same fields stand in the header, and lines end as they must."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core.errors import ConfigurationError
from aftersend.core.event import Event, Source
from aftersend.core.excerpts import clean_line
from aftersend.core.outcome import Parcel
from aftersend.core.own_mail import is_own_mail
from aftersend.transports.smtp.addresses import checked_address
from aftersend.transports.smtp.mails import (
    LINE_LIMIT,
    SUBJECT_LIMIT,
    Attachment,
    Letterhead,
    Picture,
    digest_mail,
    event_mail,
)

HEAD = Letterhead("shop", "events@shop.example", ("ops@shop.example",), "[x]")
NOW = 1_795_262_400 * 10**9
ANY = st.text(st.characters(codec="utf-8"), max_size=400)
FIELDS = ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "X-Auto-Response-Suppress"]
FIELDS += ["X-Aftersend-Tracking", "Aftersend-Subscription"]


def read(data: bytes) -> EmailMessage:
    """A mail that a relay would take, read."""
    assert data.endswith(b"\r\n")
    assert data.count(b"\r\n") == data.count(b"\n") == data.count(b"\r")
    assert max(map(len, data.split(b"\r\n"))) <= LINE_LIMIT
    return cast(EmailMessage, message_from_bytes(data, policy=default))


@settings(deadline=None)
@given(ANY, ANY, ANY, st.binary(max_size=300), st.sampled_from(["text/plain", "text/csv; charset=utf-8", "a\r\nB: c"]))
def test_no_value_changes_the_fields(name: str, prefix: str, sequence: str, body: bytes, type_: str) -> None:
    head = Letterhead(name, HEAD.sender, HEAD.recipients, prefix)
    mail = event_mail(head, Parcel("msg_1", body, type_, (("aftersend-sequence", sequence),)), NOW, "attached")
    found = read(mail.data)
    own = [field for field in found.keys() if field in FIELDS]  # noqa: SIM118
    assert own == [field for field in FIELDS if field in own]
    assert set(FIELDS) - set(own) <= {"Subject", "Aftersend-Subscription"}, "an empty value is left out"
    content = {"MIME-Version", "Content-Type", "Content-Transfer-Encoding"}
    assert set(found.keys()) <= {*FIELDS, *content, "Aftersend-Sequence"}
    if type_ != "text/plain":
        [file] = found.iter_attachments()
        assert file.get_payload(decode=True) == body


@settings(deadline=None)
@given(ANY, ANY, st.binary(max_size=2_000), ANY)
def test_a_digest_has_text_html_picture_and_file(text: str, html: str, data: bytes, name: str) -> None:
    attachment = Attachment("a.csv", "text/csv; charset=utf-8", data)
    mail = digest_mail(HEAD, "vol", name, NOW, text, html, Picture("c@x", b"\x89PNG" + data), attachment, ())
    found = read(mail.data)
    assert [part.get_content_type() for part in found.walk()] == [
        *("multipart/mixed", "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"),
        "text/csv",
    ]
    picture = next(part for part in found.walk() if part.get_content_type() == "image/png")
    assert picture["Content-ID"] == "<c@x>"
    assert picture.get_content_disposition() == "inline"
    [file] = found.iter_attachments()
    assert file.get_payload(decode=True) == data
    again = digest_mail(HEAD, "vol", name, NOW, text, html, Picture("c@x", b"\x89PNG" + data), attachment, ())
    assert again == mail


def test_a_subject_in_any_letters_is_told_and_cut() -> None:
    for text in ("Весна и лето " * 40, "plain " * 100, "=?utf-8?q?x?=", "😀" * 300):
        mail = event_mail(Letterhead("s", HEAD.sender, HEAD.recipients, text), Parcel("1", b"", "text/plain"), NOW, "")
        subject = read(mail.data)["Subject"]
        assert subject == clean_line(f"{text} s", SUBJECT_LIMIT)
        assert len(subject) <= 200


def test_our_mails_are_known_as_ours() -> None:
    mail = event_mail(HEAD, Parcel("msg_1", b"", "text/plain"), NOW, "")
    event = Event("1", "email.delivered", 0, Source("s", "canonical", "x"), message_id=read(mail.data)["Message-ID"])
    assert is_own_mail(event)
    assert mail.id == event.message_id


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ops@shop.example", "ops@shop.example"),
        (" Ops+x@SHOP.example ", "Ops+x@shop.example"),
        ("o'neill/a=b@shop.example", "o'neill/a=b@shop.example"),
        ("ops@bücher.example", "ops@xn--bcher-kva.example"),
        ("юлия@shop.example", "юлия@shop.example"),
    ],
)
def test_addresses_are_taken(text: str, address: str) -> None:
    assert checked_address(text, "sender") == address


@settings(deadline=None)
@given(ANY)
def test_an_address_says_nothing_but_an_address(text: str) -> None:
    for tried in (text, f"{text}@shop.example", f"ops@{text}", f"a@b.c{text}"):
        try:
            taken = checked_address(tried, "sender")
        except ConfigurationError as error:
            assert str(error).isprintable()
        else:
            assert not set(taken) & set(' <>\r\n\t,;:()[]\\"\0')
            assert taken.isprintable()
            assert taken.count("@") == 1

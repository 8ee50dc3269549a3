"""Mails as bytes: our own header fields, written so that no value can begin a field, and the parts below them.

`Auto-Submitted: auto-generated` (RFC 3834) keeps other machines from answering, `X-Auto-Response-Suppress` those that
know only Microsoft's field. There is no `Precedence`: RFC 3834 (3.1.8) does not recommend one, and filters read it as
advertising.
"""

from __future__ import annotations

import re
from base64 import encodebytes
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import blake2b

from msgspec import Struct

from aftersend.core.excerpts import clean_line
from aftersend.core.outcome import Parcel
from aftersend.core.own_mail import own_message_id
from aftersend.core.timestamps import SECOND
from aftersend.transports.smtp.addresses import domain_of
from aftersend.transports.smtp.relay import Mail

SUBJECT_LIMIT = 200
"""Characters of a subject; the rest is cut."""
LINE_LIMIT = 998
"""Octets of a line (RFC 5322, 2.1.1)."""

_KEPT = frozenset(
    ("subject", "mime-version", "content-type", "content-transfer-encoding", "content-language", "content-disposition")
)
"""Fields of a mail told by a dialect that go on; whom it is from and for is ours to say."""
_FIELD = re.compile(rb"([!-9;-~]{1,76}):((?:[^\r\n]|\r\n[ \t])*)\r\n")
_TYPE = re.compile(r"([a-z]+)/([a-z0-9.+-]+)(?:; ?charset=([A-Za-z0-9-]{1,40}))?")
_ENDINGS = {"json": "json", "x-ndjson": "ndjson", "csv": "csv", "xml": "xml", "plain": "txt", "html": "html"}
_BARE = re.compile(rb"\r\n?|\n")


class Letterhead(Struct, frozen=True):
    """What all mails of a subscription have in common."""

    subscription: str
    sender: str
    recipients: tuple[str, ...]
    prefix: str = ""
    """Stands before every subject."""

    @property
    def utf8(self) -> bool:
        """Whether an address is not ASCII."""
        return not "".join((self.sender, *self.recipients)).isascii()


class Attachment(Struct, frozen=True):
    """A file that goes with a mail."""

    name: str
    content_type: str
    data: bytes


class Picture(Struct, frozen=True):
    """A PNG that stands in the HTML."""

    cid: str
    data: bytes


def event_mail(head: Letterhead, parcel: Parcel, now: int, intro: str) -> Mail:
    """A parcel as a mail: a mail of its own (`message/rfc822`), a text, or a file with a word before it.

    Raises ValueError for a mail of its own that is malformed.
    """
    sequence = dict(parcel.headers).get("aftersend-sequence", "")
    subject = f"{head.subscription} {sequence}".strip()
    if parcel.content_type == "message/rfc822":
        subject, content = _told_mail(parcel.body)
    else:
        content = _flat(_content(parcel, intro, f"events-{sequence or 'late'}"), parcel.id)
    return _mail(head, parcel.id, subject, now, content, parcel.headers)


def digest_mail(
    head: Letterhead,
    id_: str,
    subject: str,
    now: int,
    text: str,
    html: str,
    picture: Picture | None,
    attachment: Attachment | None,
    fields: Sequence[tuple[str, str]],
) -> Mail:
    """A digest as a mail: plain text, and HTML with the picture in it; then the file."""
    message = EmailMessage(SMTP)
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    if picture is not None:
        parts = message.get_payload()
        assert isinstance(parts, list) and isinstance(parts[1], EmailMessage)
        parts[1].add_related(
            picture.data, "image", "png", cid=f"<{picture.cid}>", filename="chart.png", disposition="inline"
        )
    if attachment is not None:
        message.make_mixed()
        message.attach(_file(attachment))
    return _mail(head, id_, subject, now, _flat(message, id_), fields)


# Our own fields


def _mail(head: Letterhead, id_: str, subject: str, now: int, content: bytes, told: Sequence[tuple[str, str]]) -> Mail:
    message_id = own_message_id(id_, domain_of(head.sender))
    fields = {
        "From": f"aftersend <{head.sender}>",
        "To": ",\r\n ".join(head.recipients),
        "Subject": _subject(f"{head.prefix} {subject}"),
        "Date": format_datetime(datetime.fromtimestamp(now // SECOND, UTC)),
        "Message-ID": message_id,
        "Auto-Submitted": "auto-generated",
        "X-Auto-Response-Suppress": "All",
        "X-Aftersend-Tracking": "none",
        "Aftersend-Subscription": _plain(head.subscription),
        **{name.title(): _plain(value) for name, value in told if name.startswith("aftersend-")},
    }
    end = b"" if content.endswith(b"\r\n") else b"\r\n"
    return Mail(message_id, head.sender, head.recipients, _lines(fields) + content + end, head.utf8)


def _plain(text: str) -> str:
    return clean_line(text, SUBJECT_LIMIT).encode("ascii", "replace").decode()


def _lines(fields: Mapping[str, str]) -> bytes:
    written = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    assert written.count("\r\n") == written.count("\n") == written.count("\r")
    return written.encode()


def _subject(text: str) -> str:
    plain = clean_line(text, SUBJECT_LIMIT)
    if plain.isascii() and "=?" not in plain:
        return plain if len(plain) < 900 else plain[:900]
    return Header(plain, "utf-8", header_name="Subject").encode(linesep="\r\n")


# A mail that a dialect made


def _told_mail(body: bytes) -> tuple[str, bytes]:
    """Its subject, and the rest of it behind the fields that we keep."""
    head, gap, rest = body.partition(b"\r\n\r\n")
    kept = {name: value for name, value in _fields(head + b"\r\n") if name in _KEPT}
    if not gap or not rest.isascii() or any(len(line) > LINE_LIMIT for line in rest.split(b"\r\n")):
        raise ValueError("the mail that the dialect made has no text, or lines that no relay takes")
    if b"\n" in rest.replace(b"\r\n", b"") or b"\r" in rest.replace(b"\r\n", b""):
        raise ValueError("the mail that the dialect made has lines that end in a bare CR or LF")
    subject = kept.pop("subject", b"").decode("utf-8", "replace")
    lines = b"".join(b"%b:%b\r\n" % (name.title().encode(), value) for name, value in kept.items() if value.isascii())
    return subject.strip(), lines + b"\r\n" + rest


def _fields(head: bytes) -> Iterator[tuple[str, bytes]]:
    end = 0
    for field in _FIELD.finditer(head):
        if field.start() != end:
            break
        end = field.end()
        yield field[1].decode("ascii").lower(), field[2]
    if end != len(head):
        raise ValueError("the mail that the dialect made has a malformed header")


# Parts


def _content(parcel: Parcel, intro: str, name: str) -> EmailMessage:
    message = EmailMessage(SMTP)
    match = _TYPE.fullmatch(parcel.content_type.lower())
    kind, subtype, charset = match.groups() if match else ("application", "octet-stream", None)
    if kind == "text" and subtype == "plain" and charset in (None, "utf-8", "us-ascii"):
        _set_text(message, parcel.body)
        return message
    message.set_content(intro, cte="quoted-printable")
    message.make_mixed()
    known = subtype.rpartition("+")[2]
    type_ = f"{kind}/{subtype}" + (f"; charset={charset}" if charset else "")
    message.attach(_file(Attachment(f"{name}.{_ENDINGS.get(known, 'bin')}", type_, parcel.body)))
    return message


def _set_text(message: EmailMessage, body: bytes) -> None:
    text = _BARE.sub(b"\r\n", body)
    message["Content-Type"] = "text/plain; charset=utf-8"
    if text.isascii() and b"\0" not in text and max(map(len, text.split(b"\r\n"))) <= LINE_LIMIT:
        message["Content-Transfer-Encoding"] = "7bit"
        message.set_payload(text.decode("ascii"))
    else:
        message["Content-Transfer-Encoding"] = "base64"
        message.set_payload(encodebytes(text).decode("ascii"))


def _file(attachment: Attachment) -> EmailMessage:
    part = EmailMessage(SMTP)
    part["Content-Type"] = attachment.content_type
    part.add_header("Content-Disposition", "attachment", filename=attachment.name)
    part["Content-Transfer-Encoding"] = "base64"
    part.set_payload(encodebytes(attachment.data).decode("ascii"))
    return part


def _flat(message: EmailMessage, id_: str) -> bytes:
    """The message with boundaries that follow from its id: a repeat is the same bytes.

    `=_` stands in no line of base64 or quoted-printable, so a boundary never stands in a part either.
    """
    digest = blake2b(id_.encode(), digest_size=12).hexdigest()
    for number, part in enumerate(message.walk()):
        if part.is_multipart():
            part.set_boundary(f"=_{number}_{digest}")
    return message.as_bytes(policy=SMTP)

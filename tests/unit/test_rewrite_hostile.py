"""Hostile messages: whatever is repeated without end, the time stays in proportion to the length.

A message of 400 kB takes well under a second of work; what grew with the square of it would take minutes.
"""

import time
from base64 import b64encode

import pytest

from aftersend.capture.plan import Plan
from aftersend.capture.rewrite import rewrite

LENGTH = 400_000
LIMIT = 5.0
"""Seconds of CPU; enough for a slow machine."""
PLAN = Plan(tenant=1, domain=1, own_hosts=frozenset({"t.example.net"}), text=True, office=True, top=True)

PAGES = [
    "<",
    "<a",
    "<a ",
    '<a href="',
    "<a href='x\" ",
    "<a href=https://example.com/ >",
    '<a href="https://example.com/">',
    '<a href="https://example.com/" x',
    "<a href=x/",
    "<a =",
    "<a = ",
    "<a\t=\n",
    "<a b",
    "</",
    "</p ",
    "</p a='",
    "<!",
    "<!--",
    "<!-- -",
    "<!-- -->",
    "<!--[if mso]>",
    "<!--[if mso]><a href=x",
    "<!--[if mso]><![endif]-->",
    "<!--[if mso",
    "<style>",
    "<style></style",
    "<title>",
    "<?",
    "<!doctype ",
    "<p a=b=c=",
    '<p a="',
    "<p a='\">",
    "<body>",
    "</body>",
    "{{",
    "%%",
    "&amp",
    "&#",
    "https://example.com",
    "https://example.com/)",
    "https://)",
    "http://a.",
    " ",
    "\n",
    "=\n",
    "=3D",
    "=",
    "==",
    "-",
    "--b",
    "--b ",
    "\n--b",
    "\n--b\n",
    "\n--b\n\n",
    "\n--b\nContent-Type: multipart/mixed; boundary=b\n\n",
    "\n--b\nContent-Type: text/html\n\n<a href=https://example.com>",
]
HEADS = [
    "x",
    "X: y\n",
    "X: y\n ",
    "X: y\n \n",
    "To: a@example.org, ",
    "Content-Type: text/html; ",
    'Content-Type: text/html; a="',
    "Content-Type: text/html; a=\\",
    "X-Aftersend-Recipient: x\n",
]


def seconds(message: bytes) -> float:
    """How long rewriting a message works, signing left out."""
    start = time.process_time()
    rewrite(message, PLAN, lambda link: "https://t.example.net/c/AAEx")
    return time.process_time() - start


@pytest.mark.parametrize("piece", PAGES)
@pytest.mark.parametrize("start", ["", '<a href="', "<!--[if mso]>"])
def test_a_page_takes_time_in_proportion_to_its_length(piece: str, start: str) -> None:
    page = start.encode() + (piece * (LENGTH // len(piece))).encode()
    assert seconds(b"To: a@example.org\nContent-Type: text/html\n\n" + page) < LIMIT


@pytest.mark.parametrize("piece", ['<a href="https://example.com/">', '<a href="https://example.com/">\n', "=", "=\n"])
@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "8bit"])
def test_so_does_every_encoding(piece: str, encoding: str) -> None:
    page = (piece * (LENGTH // len(piece))).encode()
    if encoding == "base64":
        page = b64encode(page)
    if encoding == "quoted-printable" and len(piece) > 2:
        page = page.replace(b"=", b"=3D")
    head = f"To: a@example.org\nContent-Type: text/html\nContent-Transfer-Encoding: {encoding}\n\n"
    assert seconds(head.encode() + page) < LIMIT


@pytest.mark.parametrize("piece", PAGES)
def test_so_do_texts_and_multiparts(piece: str) -> None:
    body = (piece * (LENGTH // len(piece))).encode()
    for type_ in (b"text/plain", b"multipart/mixed; boundary=b"):
        assert seconds(b"To: a@example.org\nContent-Type: " + type_ + b"\n\n" + body) < LIMIT


@pytest.mark.parametrize("piece", HEADS)
def test_so_do_headers(piece: str) -> None:
    head = (piece * (LENGTH // len(piece))).encode()
    assert seconds(head + b"\n\nx") < LIMIT
    assert seconds(b"X: " + head + b"\n\nx") < LIMIT

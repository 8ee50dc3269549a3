"""Forms that are posted: urlencoded or multipart, small, and read leniently."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qs

from aftersend.capture.exchange import Receive

BODY_LIMIT = 16_384
"""Bytes of a body; a longer one is no form of ours."""
FIELDS_LIMIT = 200
BODY_SECONDS = 10.0
"""How long a body may take to arrive."""

_NAME = re.compile(rb'content-disposition:[^\r\n]*?;\s*name="?([^";\r\n]*)"?', re.IGNORECASE)
_BOUNDARY = re.compile(rb'boundary="?([^";]+)"?', re.IGNORECASE)
_BLANK_LINE = re.compile(rb"\r?\n\r?\n")

Form = dict[str, list[str]]


async def read_form(receive: Receive, headers: dict[bytes, bytes]) -> Form:
    """The fields of a body; none where it cannot be read, is too long or does not arrive."""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            body = await _body(receive)
    except TimeoutError:
        return {}
    content_type = headers.get(b"content-type", b"")
    if content_type.lower().startswith(b"multipart/form-data"):
        return _multipart(body, content_type)
    try:
        return parse_qs(body.decode("utf-8").strip(), keep_blank_values=True, max_num_fields=FIELDS_LIMIT)
    except ValueError:
        return {}


async def _body(receive: Receive) -> bytes:
    body = b""
    while len(body) <= BODY_LIMIT:
        message = await receive()
        if message["type"] != "http.request":
            return b""
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body if len(body) <= BODY_LIMIT else b""
    return b""


def _multipart(body: bytes, content_type: bytes) -> Form:
    boundary = _BOUNDARY.search(content_type)
    if boundary is None:
        return {}
    form: Form = {}
    for part in body.split(b"--" + boundary[1].strip())[1 : FIELDS_LIMIT + 1]:
        pieces = _BLANK_LINE.split(part, maxsplit=1)
        name = _NAME.search(pieces[0])
        if len(pieces) == 2 and name is not None:
            form.setdefault(name[1].decode("latin-1"), []).append(pieces[1].strip(b"\r\n").decode("utf-8", "replace"))
    return form


def is_one_click(form: Form) -> bool:
    """Whether a form says what RFC 8058 has mail programs say."""
    return "One-Click" in (value.strip() for value in form.get("List-Unsubscribe", ()))

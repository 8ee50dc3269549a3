"""What the tracking addresses answer: a redirect, a pixel, a small page.

Pages need no script and set no cookie; their one style is named by its hash in the policy. Nothing of an answer is
kept by caches, and the address of the page, which is a credential, is told to nobody.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape

from aftersend.capture.exchange import PIXEL, Send
from aftersend.capture.wording import WORDING, language_of

_STYLE = """
:root{color-scheme:light dark}
body{font:1.125rem/1.5 system-ui,sans-serif;margin:0;color:#1b1b1b;background:#fff;overflow-wrap:anywhere}
main{max-width:34rem;margin:0 auto;padding:2rem 1rem}
h1{font-size:1.6rem;line-height:1.25}
bdi{display:inline-block;max-width:100%}
fieldset{border:0;margin:0 0 1.5rem;padding:0;min-width:0}
legend{font-weight:600;padding:0 0 .35rem}
fieldset p{margin:0 0 .35rem}
label{display:flex;align-items:baseline;padding:.35rem 0}
input{flex:none;width:1.15rem;height:1.15rem;margin:0 .5rem 0 0;position:relative;top:.15rem}
button{font:inherit;font-weight:600;min-height:2.75rem;padding:.5rem 1.5rem;border:1px solid transparent;\
border-radius:.4rem;color:#fff;background:#0b57a4}
:focus-visible{outline:3px solid #0b57a4;outline-offset:3px}
@media(prefers-color-scheme:dark){body{color:#f2f2f2;background:#1b1b1b}button{color:#101010;background:#8ec5ff}\
:focus-visible{outline-color:#8ec5ff}}
"""
_STYLE_HASH = b64encode(sha256(_STYLE.encode()).digest())

_PRIVATE = [(b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer")]
_ON_PAGES = [
    *_PRIVATE,
    (b"content-type", b"text/html; charset=utf-8"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'sha256-" + _STYLE_HASH + b"'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-robots-tag", b"noindex"),
    (b"vary", b"accept-language"),
]
_HERE = "\0"
"""Where the person goes in a text that is still to be split."""

_NO_BODY = [*_PRIVATE, (b"content-length", b"0")]
_PIXEL_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        *_PRIVATE,
        (b"content-type", b"image/gif"),
        (b"content-length", str(len(PIXEL)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ],
}
_PIXEL_BODY = {"type": "http.response.body", "body": PIXEL}
_EMPTY_BODY = {"type": "http.response.body", "body": b""}


async def send_redirect(send: Send, target: str) -> None:
    """302 to an address that was checked (`targets.safe_target`)."""
    headers = [(b"location", target.encode("ascii")), *_NO_BODY]
    await send({"type": "http.response.start", "status": 302, "headers": headers})
    await send(_EMPTY_BODY)


async def send_pixel(send: Send) -> None:
    """The pixel."""
    await send(_PIXEL_START)
    await send(_PIXEL_BODY)


async def send_refusal(send: Send, allowed: bytes) -> None:
    """405 for a method that an address does not know."""
    headers = [(b"allow", allowed), *_NO_BODY]
    await send({"type": "http.response.start", "status": 405, "headers": headers})
    await send(_EMPTY_BODY)


class Page:
    """A page in the language that its reader asked for."""

    def __init__(self, accept_language: bytes) -> None:
        self.language = language_of(accept_language)
        self._words = WORDING[self.language]

    def say(self, key: str, **values: str) -> str:
        """Words as HTML; what is filled in is escaped, and so is a key that has none (the name of a channel)."""
        text = self._words.get(key)
        return escape(key.rpartition(".")[2] if text is None else text.format(**values))

    def message(self, name: str) -> str:
        """A page that says one thing."""
        return self.whole(name, f'<p role="status">{self.say(f"{name}.text")}</p>')

    def whole(self, name: str, content: str) -> str:
        """A page with a title and content."""
        title = self.say(f"{name}.title")
        return (
            f'<!doctype html>\n<html lang="{self.language}">\n<head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f"<title>{title}</title><style>{_STYLE}</style></head>\n"
            f"<body><main><h1>{title}</h1>\n{content}\n</main></body>\n</html>\n"
        )

    def form(self, name: str, content: str, fields: Sequence[tuple[str, str]]) -> str:
        """A page with a form that is posted to its own address."""
        hidden = "".join(f'<input type="hidden" name="{key}" value="{value}">' for key, value in fields)
        button = f'<button type="submit">{self.say(f"{name}.button")}</button>'
        return self.whole(name, f'<form method="post">{hidden}\n{content}\n{button}</form>')

    def lead(self, name: str, person: str) -> str:
        """The paragraph above a form, with the person where one is known."""
        masked = masked_person(person)
        if not masked:
            return f"<p>{self.say(f'{name}.text')}</p>"
        before, after = self.say(f"{name}.person", person=_HERE).split(_HERE)
        return f"<p>{before}<bdi>{escape(masked)}</bdi>{after}</p>"


async def send_page(send: Send, html: str, status: int = 200, *, head: bool = False, later: int = 0) -> None:
    """A page; its head alone for a HEAD request. `later`: seconds after which to come again."""
    body = html.encode()
    headers = [(b"content-length", str(len(body)).encode()), *_ON_PAGES]
    if later:
        headers.append((b"retry-after", str(later).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


def masked_person(person: str) -> str:
    """Enough of an address to know it by, not enough to tell it: `a…@example.org`, `…4567`."""
    name, at, domain = person.rpartition("@")
    if at and name:
        return f"{name[0]}…@{domain}"
    return f"…{person[-4:]}" if len(person) > 6 else ""

"""HTML as bytes: where the addresses of links stand, and where a pixel may go.

The grammar is that of the HTML standard's tokenizer, as possessive regular expressions: they step over whole tags and
never back, so the time is linear in the length whatever the input. Nothing becomes a tree, and nothing is written back.
Two things are left out that no mail needs: scripts that write scripts in comments, and raw text inside SVG.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_SPACE = rb"[\t\n\f\r ]"
_NAME = rb"[^\t\n\f\r />][^\t\n\f\r />=]*+"
_VALUE = rb"""(?:"[^"]*+"|'[^']*+'|(?=>)|[^\t\n\f\r >"'][^\t\n\f\r >]*+)"""
_ATTRIBUTES = (
    rb"(?:[\t\n\f\r /]++|"
    + _NAME
    + rb"(?:"
    + _SPACE
    + rb"*+="
    + _SPACE
    + rb"*+"
    + _VALUE
    + rb"|(?!"
    + _SPACE
    + rb"*+=)))*+"
)
_END = rb"(?=[\t\n\f\r />])"
# Most tags are plain: every value in double quotes, right after the name. They need fewer steps.
_PLAIN = rb"""(?:[\t\n\f\r ][^<>"'=]*+(?:(?<=[a-zA-Z0-9])="[^"]*+"[^<>"'=]*+)*+)?+>"""


def _any_case(names: bytes) -> bytes:
    """Names as a pattern that tells by the first letter; an ignored case would cost three times that."""
    return re.sub(rb"[a-z]", lambda letter: rb"[%b%b]" % (letter[0], letter[0].upper()), names)


def _skip(noted: bytes) -> re.Pattern[bytes]:
    """Text, and every tag but those to be noted, up to the first of these or the end; the most frequent come first."""
    rest = rb"(?:[a-zA-Z0-9:]*+" + _PLAIN + rb"|[^\t\n\f\r />]*+" + _ATTRIBUTES + rb">)"
    tags = (
        rb"/[ac-gi-zAC-GI-Z][^<>\"'=]*+>",
        rb"(?!(?:" + noted + rb")" + _END + rb")[a-zA-Z]" + rest,
        rb"/(?:(?!" + _CLOSING + _END + rb")[a-zA-Z]" + rest + rb"|>|(?![a-zA-Z>])[^>]*+>)",
        rb"!--(?!" + _SPACE + rb"*+\[if)(?:-?>|[^-]*+(?:-(?!-!?>)[^-]*+)*+--!?>)",
        rb"(?:!(?!--)|\?)[^>]*+>",
        rb"(?![a-zA-Z/!?])",
    )
    return re.compile(rb"[^<]*+(?:<(?:" + rb"|".join(tags) + rb")[^<]*+)*+")


_RAW_TEXT = (b"script", b"style", b"title", b"textarea", b"xmp", b"iframe", b"noembed", b"noframes", b"plaintext")
_CLOSING = _any_case(b"(?:body|head)")
_NOTED = rb"a|area|s(?:cript|tyle)|t(?:itle|extarea)|xmp|iframe|no(?:embed|frames)|plaintext"
_PAGE_SKIP = _skip(_any_case(_NOTED + rb"|body|h(?:ead|tml)"))
_OFFICE_SKIP = _skip(_any_case(_NOTED) + rb"|[vV]:[a-zA-Z]+")
_TAG = re.compile(rb"<(/?[a-zA-Z][^\t\n\f\r />]*+)(" + _ATTRIBUTES + rb")>")
_ATTRIBUTE = re.compile(
    rb"(" + _NAME + rb")(?:" + _SPACE + rb"*+=" + _SPACE + rb"""*+(?:"([^"]*+)"|'([^']*+)'|([^\t\n\f\r >]*+)))?"""
)
# The link of most mails: plain, as above, and so taken in one step.
_PLAIN_LINK = re.compile(
    rb"<[aA](?:[rR][eE][aA])?+"
    + _SPACE
    + rb"""++(?:(?![hH][rR][eE][fF]=)[a-zA-Z-]++="[^"]*+"[\t\n\f\r ]*+)*+[hH][rR][eE][fF]="([^"]*+)\""""
    + rb"""[^<>"'=]*+(?:(?<=[a-zA-Z0-9])="[^"]*+"[^<>"'=]*+)*+>"""
)
_COMMENT_END = re.compile(rb"--!?>")
_CONDITION = re.compile(rb"<!--" + _SPACE + rb"*+\[if[^\]>]*+\]>")
_CONDITION_END = b"<![endif]"
_RAW_TEXT_END = {name: re.compile(rb"</(?i:" + name + rb")" + _END) for name in _RAW_TEXT}
_LINKS = frozenset((b"a", b"area"))
_START = re.compile(rb"(?:\xef\xbb\xbf)?+" + _SPACE + rb"*+(?:<!(?i:doctype)[^>]*+>)?+")


class Href(NamedTuple):
    """The value of a link's `href`, between its quotes."""

    start: int
    end: int
    quoted: bool
    off: bool
    """Whether the tag says `tracking="off"`."""


@dataclass(slots=True)
class Page:
    """What a scan found, as offsets."""

    hrefs: list[Href] = field(default_factory=list)
    """In the order of the source."""
    top: int = 0
    """Where a pixel is the first thing that is shown."""
    bottom: int | None = None
    """Where it is the last, or None where the source ends inside a tag, comment or script."""


def scan(data: bytes, *, office: bool = False) -> Page:
    """The links of a page in any encoding that holds ASCII; with `office` those in conditional comments too."""
    page = Page()
    start = _START.match(data)
    marks = {b"": start.end() if start else 0}
    at = 0
    while True:
        skipped = _PAGE_SKIP.match(data, at)
        at = skipped.end() if skipped else at
        if at >= len(data):
            page.bottom = len(data)
            break
        if data.startswith(b"<!--", at):
            end = _comment_end(data, at)
            if office:
                page.hrefs += _office_links(data, at, end)
        else:
            end = _tag(data, at, len(data), page.hrefs, marks)
        if end < 0:
            break
        at = end
    page.top = next(marks[name] for name in (b"body", b"/head", b"html", b"") if name in marks)
    page.bottom = marks.get(b"/body", page.bottom)
    return page


def _tag(data: bytes, at: int, end: int, hrefs: list[Href], marks: dict[bytes, int]) -> int:
    """Take note of one tag; returns where the text goes on, or -1 where it never does."""
    plain = _PLAIN_LINK.match(data, at, end)
    if plain and b"racking" not in plain[0].lower():
        hrefs.append(Href(plain.start(1), plain.end(1), True, False))
        return plain.end()
    tag = _TAG.match(data, at, end)
    if tag is None:
        return -1
    name = tag[1].lower()
    if name in _LINKS or name.startswith(b"v:"):
        hrefs += _hrefs(data, *tag.span(2))
    elif name in _RAW_TEXT_END:
        closing = _RAW_TEXT_END[name].search(data, tag.end(), end) if name != b"plaintext" else None
        return closing.start() if closing else -1
    elif name == b"/body":
        marks[name] = at
    else:
        marks.setdefault(name, tag.end())
    return tag.end()


def _hrefs(data: bytes, start: int, end: int) -> Iterator[Href]:
    """The first `href` of a tag's attributes."""
    found: re.Match[bytes] | None = None
    off = None
    for attribute in _ATTRIBUTE.finditer(data, start, end):
        name = attribute[1].lower()
        if name == b"href":
            found = found or attribute
        elif name == b"tracking" and off is None:
            off = (attribute[attribute.lastindex or 1]).strip().lower() == b"off"
    if found and found.lastindex != 1:
        group = found.lastindex or 1
        yield Href(*found.span(group), group != 4, bool(off))


def _office_links(data: bytes, at: int, end: int) -> list[Href]:
    """The links of a conditional comment that Outlook shows."""
    condition = _CONDITION.match(data, at)
    if condition is None or end < 0:
        return []
    stop = data.find(_CONDITION_END, condition.end(), end)
    stop = end if stop < 0 else stop
    hrefs: list[Href] = []
    at = condition.end()
    while 0 <= at < stop:
        skipped = _OFFICE_SKIP.match(data, at, stop)
        at = skipped.end() if skipped else stop
        if at < stop:
            at = _tag(data, at, stop, hrefs, {})
    return hrefs


def _comment_end(data: bytes, at: int) -> int:
    """Where a comment is over, or -1."""
    if data.startswith((b"<!-->", b"<!--->"), at):
        return data.index(b">", at) + 1
    end = _COMMENT_END.search(data, at + 4)
    return end.end() if end else -1

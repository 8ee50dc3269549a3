"""Addresses of links: read as browsers read them, and which of them are left alone."""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape, unescape
from html.entities import html5
from typing import NamedTuple

from aftersend.capture.links import ADDRESS_LIMIT
from aftersend.capture.targets import target_host
from aftersend.capture.tokens import LinkError, Purpose

# Browsers drop these wherever they stand in an address, and white space around it.
_DROPPED = re.compile(r"[\t\n\r]+")
_AROUND = "".join(map(chr, range(33)))
_REFERENCE = re.compile(r"&(?:#(?:[0-9]{1,100}|[xX][0-9a-fA-F]{1,100});?|([a-zA-Z][a-zA-Z0-9]{1,31})(;|=)?)")
_TEMPLATE = re.compile(r"\{\{|\{%|\[\[|\*\||\$\{|%%[^%\s]{1,100}%%")
# The address of most links, in which nothing of all this can be.
_PLAIN = re.compile(
    r"https?://([a-z0-9-]++(?:\.[a-z0-9-]++)*+)(?:[/?#](?:[\w.~:/?#@!&'()+,;=-]++|%[0-9a-fA-F]{2})*+)?+", re.ASCII
)
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):")


PAGES = {
    "aftersend:unsubscribe": Purpose.UNSUBSCRIBE,
    "aftersend:confirm": Purpose.CONFIRM,
    "aftersend:preferences": Purpose.PREFERENCES,
}
"""What a message writes where a link to one of our own pages shall stand."""


class Judged(NamedTuple):
    """An address and, where it is left alone, why."""

    target: str
    reason: str = ""
    """off, empty, fragment, template, relative, scheme, unsafe, own, listed, charset, too_long, too_many.

    Or `page`: the target is a key of PAGES.
    """


def judge(text: str, own: Collection[str], listed: Collection[str]) -> Judged:
    """What a link's address means; `own` and `listed` are hosts in lower case, the listed ones with all below them."""
    plain = _PLAIN.fullmatch(text) if len(text) <= ADDRESS_LIMIT else None
    return Judged(text, _claim(plain[1], own, listed)) if plain else _judge_closely(text, own, listed)


def _judge_closely(text: str, own: Collection[str], listed: Collection[str]) -> Judged:
    target = _DROPPED.sub("", text).strip(_AROUND)
    if not target or target[0] == "#":
        return Judged(target, "fragment" if target else "empty")
    if _TEMPLATE.search(target):
        return Judged(target, "template")
    scheme = _SCHEME.match(target)
    if scheme is None:
        return Judged(target, "relative")
    if scheme[1].lower() not in ("http", "https"):
        return Judged(target.lower(), "page") if target.lower() in PAGES else Judged(target, "scheme")
    if len(target) > ADDRESS_LIMIT:
        return Judged(target, "too_long")
    try:
        host = target_host(target)
    except LinkError:
        return Judged(target, "unsafe")
    return Judged(target, _claim(host, own, listed))


def _claim(host: str, own: Collection[str], listed: Collection[str]) -> str:
    if host in own:
        return "own"
    while host and listed:
        if host in listed:
            return "listed"
        host = host.partition(".")[2]
    return ""


def read_attribute(value: str) -> str:
    """The text of an attribute's value: references decoded by the rule for attributes, where `&copy=1` is none."""
    if value.count("&") == value.count("&amp;"):
        return value.replace("&amp;", "&")
    return _REFERENCE.sub(_decoded, value)


def write_attribute(text: str, *, quoted: bool) -> str:
    """Text as the value of an attribute, with quotes around it where it stands without and needs them."""
    value = escape(text)
    return value if quoted or not _NEEDS_QUOTES.search(value) else f'"{value}"'


_NEEDS_QUOTES = re.compile(r"[\s=`]|/\Z|\A\Z")


def _decoded(match: re.Match[str]) -> str:
    name, end = match[1], match[2]
    if name is None:
        return unescape(match[0])
    if end == ";":
        return html5.get(name + ";", match[0])
    return match[0] if end else html5.get(name, match[0])

"""XML from strangers, read within limits and without entities; and values made into XML again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lxml import etree

from aftersend.core.event import Rejected

Element = etree._Element  # lxml gives its element class no public name

BYTES_LIMIT = 16 * 1024 * 1024
TAGS_LIMIT = 1_000_000
DEPTH_LIMIT = 32
"""How deep the value of one element may nest."""
ATTRIBUTES_LIMIT = 64
"""Of one element: lxml's time to read them grows with the square of their number."""
REPAIR_LIMIT = 256 * 1024
"""Larger documents are not repaired."""

_parser = etree.XMLParser(
    encoding="utf-8",
    resolve_entities=False,
    no_network=True,
    huge_tree=False,
    load_dtd=False,
    remove_comments=True,
    remove_pis=True,
)
_ENCODING = re.compile(rb"""\s*<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")
_CODECS = {b"iso-8859-1": "latin-1", b"windows-1252": "cp1252"}
_CACHE_LIMIT = 4096
_names: dict[Any, str] = {}

_START = (
    r"A-Za-z_\xC0-\xD6\xD8-\xF6\xF8-\u02FF\u0370-\u037D\u037F-\u1FFF\u200C\u200D\u2070-\u218F\u2C00-\u2FEF"
    r"\u3001-\uD7FF\uF900-\uFDCF\uFDF0-\uFFFD\U00010000-\U000EFFFF"
)
_NAME = re.compile(rf"[{_START}][{_START}\-.0-9\xB7\u0300-\u036F\u203F\u2040]{{0,199}}")
_UNSPEAKABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class TooDeepError(ValueError):
    """The element nests too deeply."""


class TooManyAttributesError(ValueError):
    """The element has too many attributes."""


def parse_xml(body: bytes) -> Element | Rejected:
    """The root of a document in UTF-8, UTF-16, Latin-1 or Windows-1252, or why it was refused. Never raises.

    Wrong end tags are put right where they can mean only one thing; a DOCTYPE is refused before anything is parsed.
    """
    if len(body) > BYTES_LIMIT or body.count(b"<") > TAGS_LIMIT:
        return Rejected("too_large", f"more than {BYTES_LIMIT} bytes or {TAGS_LIMIT} tags", None, body)
    if not body.strip():
        return Rejected("empty_body", "the body is empty")
    try:
        text = _utf8(body)
    except UnicodeDecodeError as error:
        return Rejected("invalid_utf8", f"byte {error.start} is not in the document's encoding", None, body)
    except LookupError as error:
        return Rejected("invalid_encoding", f"the encoding {error} is not read; send UTF-8", None, body)
    if _has_doctype(text):
        return Rejected("doctype", "documents with a DOCTYPE are refused", None, body)
    return _parse(text, body)


def _utf8(body: bytes) -> bytes:
    """Raises UnicodeDecodeError, LookupError."""
    if body.startswith((b"\xff\xfe", b"\xfe\xff")):
        return body.decode("utf-16").encode()
    named = _ENCODING.match(body[:200])
    name = named[1].lower() if named else b"utf-8"
    if name in (b"utf-8", b"us-ascii", b"ascii"):
        body.decode()
        return body.removeprefix(b"\xef\xbb\xbf")
    if name not in _CODECS:
        raise LookupError(name.decode())
    return body.decode(_CODECS[name]).encode()


def _has_doctype(text: bytes) -> bool:
    """Looks where a DOCTYPE may stand: before the first element, among comments and instructions."""
    at = 0
    while (at := text.find(b"<", at)) >= 0:
        if text[at : at + 9].upper() == b"<!DOCTYPE":
            return True
        end = b"-->" if text.startswith(b"<!--", at) else b"?>" if text.startswith(b"<?", at) else b""
        if not end or (at := text.find(end, at)) < 0:
            return False
    return False


def _parse(text: bytes, body: bytes) -> Element | Rejected:
    try:
        return etree.fromstring(text, _parser)
    except etree.XMLSyntaxError as error:
        fault = Rejected("invalid_xml", str(error).replace("\n", " ")[:200], None, body)
    repaired = _repaired(text.decode()) if len(text) <= REPAIR_LIMIT else None
    if repaired is None:
        return fault
    try:
        return etree.fromstring(repaired.encode(), _parser)
    except etree.XMLSyntaxError:
        return fault


def _repaired(text: str) -> str | None:
    """The document with wrong end tags put right, or None where that would be a guess."""
    parts: list[str] = []
    stack: list[str] = []
    done = at = 0
    leaf = False
    while (at := text.find("<", at)) >= 0:
        end = text.find(_end_of(text, at), at)
        if end < 0:
            return None
        tag = text[at + 1 : end]
        if tag[:1] == "/":
            if not stack or not _may_close(tag[1:].strip(), stack, leaf):
                return None
            parts += text[done:at], f"</{stack.pop()}>"
            done, leaf = end + 1, False
        elif tag[:1] not in ("!", "?") and tag[-1:] != "/":
            stack.append(tag.split(None, 1)[0] if tag.strip() else "")
            leaf = True
        at = end
    return None if stack or not parts else "".join(parts) + text[done:]


def _end_of(text: str, at: int) -> str:
    if text.startswith("<![CDATA[", at):
        return "]]>"
    return "-->" if text.startswith("<!--", at) else "?>" if text.startswith("<?", at) else ">"


def _may_close(name: str, stack: list[str], leaf: bool) -> bool:
    """Whether an end tag can only have meant the innermost open element: it differs in case, or closes a mere text."""
    if name.lower() == stack[-1].lower():
        return True
    return leaf and name.lower() not in [open_name.lower() for open_name in stack[-DEPTH_LIMIT:]]


def local_name(tag: Any) -> str:
    """A tag or attribute without its namespace."""
    name = _names.get(tag)
    if name is None:
        name = str(tag).rpartition("}")[2]
        if len(_names) < _CACHE_LIMIT:
            _names[tag] = name
    return name


def value_of(element: Element, depth: int = 1) -> Any:
    """An element as text, or as an object of its elements, its `@` attributes and its `#text`.

    What stands twice becomes a list. Raises TooDeepError, TooManyAttributesError.
    """
    if depth > DEPTH_LIMIT:
        raise TooDeepError
    value: dict[str, Any] = attributes_of(element) if element.keys() else {}
    if not value and not len(element):
        return element.text or ""
    texts = [element.text or ""]
    for child in element:
        add(value, local_name(child.tag), value_of(child, depth + 1))
        texts.append(child.tail or "")
    text = "".join(texts).strip()
    return {**value, "#text": text} if text else value


def attributes_of(element: Element) -> dict[str, str]:
    """An element's attributes, each with a leading `@`. Raises TooManyAttributesError."""
    if len(element.keys()) > ATTRIBUTES_LIMIT:
        raise TooManyAttributesError
    return {f"@{local_name(name)}": str(text) for name, text in element.items()}


def add(values: dict[str, Any], name: str, value: Any) -> None:
    """Put a value under its name, into a list where one stands there already."""
    if name not in values:
        values[name] = value
    elif isinstance(values[name], list):
        values[name].append(value)
    else:
        values[name] = [values[name], value]


def is_name(text: str) -> bool:
    """Whether an element may be called so (without a prefix)."""
    return _NAME.fullmatch(text) is not None


def written(name: str, value: Any, depth: int = 1) -> str:
    """What `value_of` read, as an element again, never self-closed; what no XML could carry is left out."""
    if value is None or depth > DEPTH_LIMIT + 1 or not is_name(name):
        return ""
    if isinstance(value, list):
        return "".join([written(name, one, depth + isinstance(one, list)) for one in value])
    if isinstance(value, dict):
        inner = "".join([written(key, one, depth + 1) for key, one in value.items()])
        return f"<{name}{attributes(value)}>{escaped(_plain(value.get('#text', '')))}{inner}</{name}>"
    return f"<{name}>{escaped(_plain(value))}</{name}>"


def attributes(values: Mapping[str, Any]) -> str:
    """The `@` members as attributes, with a blank before each."""
    found = [(name[1:], value) for name, value in values.items() if name[:1] == "@" and is_name(name[1:])]
    return "".join([f' {name}="{_quoted(_plain(value))}"' for name, value in found if name.lower() != "xmlns"])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)


def escaped(text: str) -> str:
    """Text fit to stand in an element; characters that XML cannot carry become U+FFFD."""
    if text.isprintable() and "&" not in text and "<" not in text and ">" not in text:
        return text
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#13;")
    return _UNSPEAKABLE.sub("\ufffd", text)


def _quoted(text: str) -> str:
    return escaped(text).replace('"', "&quot;").replace("\n", "&#10;").replace("\t", "&#9;")

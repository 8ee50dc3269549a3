"""Rewriting a message before it is sent: its links, a pixel, and the header of a one-click unsubscribe.

Outside the addresses of the links, the pixels and the header fields named here not one byte changes (`transfer` says
what that means in each encoding). Parts that are signed, encrypted, attached or malformed stay whole. The DKIM
signature has to be made afterwards.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable

from msgspec import Struct

from aftersend.capture.about import PREFIX, about, value_of
from aftersend.capture.charsets import Edit, Reading, read_body
from aftersend.capture.hrefs import PAGES, judge, read_attribute, write_attribute
from aftersend.capture.html import Href, scan
from aftersend.capture.links import ADDRESS_LIMIT, Link
from aftersend.capture.message import AMP, HTML, TEXT, Message, Part, read_message
from aftersend.capture.plan import CLIPPED_PAST, LINK_LIMIT, NOTICES, UNSUBSCRIBE_LIMIT, Notice, Plan, Rewritten, Sign
from aftersend.capture.tokens import LinkError, Purpose
from aftersend.capture.transfer import LINE_LIMIT, Body, ByteEdit, LineRule, read_transfer, spliced
from aftersend.core.consent import Level
from aftersend.core.errors import UsageError

TOP, BOTTOM = 1, 2
"""Places of the two pixels."""

_HREF_LIMIT = 8_192
_ONE_CLICK = "List-Unsubscribe=One-Click"
_TEXT_LINK = re.compile(rb"https?+://[!#-;=?-~]++", re.IGNORECASE)
_PUNCTUATION = ".,;:!?'*_~|"
_PUNCTUATION_LIMIT = 8
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_PIXELS = {
    HTML: '<img src="{}" width="1" height="1" alt="">',
    AMP: '<amp-img src="{}" width="1" height="1" layout="fixed" alt=""></amp-img>',
}


class _Pixel(Struct, frozen=True, gc=False):
    start: int
    place: int
    purpose: Purpose = Purpose.OPEN


def rewrite(message: bytes, plan: Plan, sign: Sign) -> Rewritten:
    """The message with its links, pixels and headers. Raises what `sign` raises, but for `too_long`."""
    found = read_message(message)
    work = _Work(plan, sign, found)
    if found.head_end < 0:
        return Rewritten(message, warnings=work.warnings())
    edits = work.head()
    for part in found.parts:
        body = work.part(message[part.start : part.end], part)
        if body is not None:
            edits.append((part.start, part.end, body))
    if edits and any(field.name == b"dkim-signature" for field in found.fields):
        work.note("signed_before")
    result = spliced(message, edits)
    return Rewritten(result, len(result) - len(message), work.links, work.pixels, dict(work.skipped), work.warnings())


class _Work:
    """One message while it is rewritten."""

    def __init__(self, plan: Plan, sign: Sign, found: Message) -> None:
        self.plan = plan
        self.sign = sign
        self.found = found
        self.link, notes = about(found.fields, plan)
        self.tracks = self.link.level > Level.NONE
        self.clicks = self.tracks and plan.clicks
        self.links = self.pixels = 0
        self.skipped: Counter[str] = Counter()
        self._notes = dict.fromkeys(found.notes + notes)
        self._seen: set[str] = set()

    def note(self, code: str) -> None:
        self._notes[code] = None

    def warnings(self) -> tuple[Notice, ...]:
        return tuple(Notice(code, NOTICES[code]) for code in self._notes)

    def head(self) -> list[ByteEdit]:
        """Our own fields out, those of the unsubscribe in."""
        at, newline = self.found.head_end, self.found.newline
        edits = [(field.start, field.end, b"") for field in self.found.fields if field.name.startswith(PREFIX)]
        lines = self._unsubscribe() if self.plan.unsubscribe and self.link.recipient else []
        if lines:
            edits.append((at, at, b"".join([line.encode("ascii") + newline for line in lines])))
            self.note("sign_after")
        return edits

    def _unsubscribe(self) -> list[str]:
        """The two fields of RFC 8058, where the message has none yet."""
        names = {field.name for field in self.found.fields}
        if b"list-unsubscribe" in names:
            return []
        address = self._address(Purpose.UNSUBSCRIBE)
        field = f"List-Unsubscribe: <{address}>"
        fault = _unsubscribe_fault(address, field, value_of(self.found.fields, b"list-unsubscribe-post") or _ONE_CLICK)
        if fault:
            self.note(fault)
            return []
        return [field] if b"list-unsubscribe-post" in names else [field, f"List-Unsubscribe-Post: {_ONE_CLICK}"]

    def part(self, raw: bytes, part: Part) -> bytes | None:
        """The raw body with its links and pixels, or None where it stays as it is."""
        if part.type == TEXT and not (self.plan.text and self.clicks):
            return None
        body = read_transfer(raw, part.encoding)
        if body is None:
            self.note("malformed_mime")
            return None
        reading = read_body(body.content, part.charset)
        if reading is None or (reading.text is not None and part.encoding in ("7bit", "8bit")):
            self.note("unknown_charset")
            return None
        return self._changed(body, part, reading)

    def _changed(self, body: Body, part: Part, reading: Reading) -> bytes | None:
        links, pixels = self.links, self.pixels
        rule = LineRule(reading.content) if part.encoding in ("7bit", "8bit") else None
        edits = self._text_edits(reading, rule) if part.type == TEXT else self._html_edits(reading, part.type, rule)
        if not edits:
            return None
        changes = reading.edits(edits)
        result = body.changed(changes)
        if result is None:
            self.note("malformed_mime")
            self.links, self.pixels = links, pixels
        elif part.type != TEXT and len(reading.content) + _growth(changes) > CLIPPED_PAST:
            self.note("large")
        return result

    def _html_edits(self, reading: Reading, type_: str, rule: LineRule | None) -> list[Edit]:
        page = scan(reading.scanned, office=self.plan.office)
        edits: list[Edit] = []
        for spot in self._spots(page.hrefs, type_, page.top, page.bottom):
            if isinstance(spot, _Pixel):
                edits += self._pixel(spot, type_, rule)
                continue
            address = self._click("off" if spot.off else "", reading, spot.start, spot.end, html=True)
            if address:
                edits += self._linked(spot.start, spot.end, write_attribute(address, quoted=spot.quoted), rule)
        return edits

    def _spots(self, hrefs: list[Href], type_: str, top: int, bottom: int | None) -> Iterable[Href | _Pixel]:
        """Links and pixels in the order of the source; pixels only in the first part of its type."""
        if type_ in self._seen or not self.tracks:
            return hrefs
        self._seen.add(type_)
        pixels = [_Pixel(top, TOP)] if self.plan.top else []
        if self.plan.bottom and bottom is None:
            self.note("no_place")
        elif self.plan.bottom and bottom is not None:
            pixels.append(_Pixel(bottom, BOTTOM))
        if self.plan.reading and bottom is not None:
            pixels.append(_Pixel(bottom, BOTTOM, Purpose.READ))
        return sorted([*pixels, *hrefs], key=_start) if pixels else hrefs

    def _text_edits(self, reading: Reading, rule: LineRule | None) -> list[Edit]:
        edits: list[Edit] = []
        for match in _TEXT_LINK.finditer(reading.scanned):
            start, end = match.start(), match.start() + _length_of_link(match[0])
            # An address that goes on in other letters is one that was not found whole.
            reason = "" if reading.scanned[match.end() : match.end() + 1].isascii() else "charset"
            address = self._click(reason, reading, start, end)
            if address:
                edits += self._linked(start, end, address, rule)
        return edits

    def _linked(self, start: int, end: int, text: str, rule: LineRule | None) -> list[Edit]:
        if rule and not rule.fits(start, end, len(text)):
            self.skipped["too_long"] += 1
            return []
        self.links += 1
        return [Edit(start, end, text)]

    def _click(self, reason: str, reading: Reading, start: int, end: int, *, html: bool = False) -> str:
        """The address that takes the place of a link's, or nothing where it is left alone: then it is counted."""
        target = address = ""
        if not reason:
            target, reason = self._target(reading, start, end, html)
        if reason == "page" and self.link.recipient:
            address = self._address(PAGES[target])
        elif not self.clicks:
            return ""
        elif not reason:
            address = self._address(Purpose.CLICK, self.links + 1, target)
        if not address:
            self.skipped[reason or "too_long"] += 1
        return address

    def _target(self, reading: Reading, start: int, end: int, html: bool) -> tuple[str, str]:
        if end - start > _HREF_LIMIT:
            return "", "too_long"
        if self.links >= LINK_LIMIT:
            return "", "too_many"
        value = reading.value(start, end)
        if value is None:
            return "", "charset"
        return judge(read_attribute(value) if html else value, self.plan.own_hosts, self.plan.untracked)

    def _pixel(self, spot: _Pixel, type_: str, rule: LineRule | None) -> list[Edit]:
        address = self._address(spot.purpose, spot.place)
        pixel = _PIXELS[type_].format(write_attribute(address, quoted=True))
        if not address or (rule and len(pixel) > LINE_LIMIT):
            self.note("pixel_too_long")
            return []
        if rule and not rule.fits(spot.start, spot.start, len(pixel)):
            newline = self.found.newline.decode()
            pixel = f"{newline}{pixel}{newline}"
        self.pixels += 1
        return [Edit(spot.start, spot.start, pixel)]

    def _address(self, purpose: Purpose, place: int = 0, target: str = "") -> str:
        """A signed address, or nothing where it would be too long."""
        about = self.link
        link = Link(
            purpose,
            about.level,
            about.tenant,
            about.domain,
            about.recipient,
            about.message_id,
            about.campaign_id,
            about.list_id,
            place,
            target,
        )
        try:
            address = self.sign(link)
        except LinkError as error:
            if error.reason != "too_long":
                raise
            return ""
        if not (address.isascii() and address.isprintable()):
            raise UsageError("a signed address must be printable ASCII")
        return address if len(address) <= ADDRESS_LIMIT else ""


def _start(spot: Href | _Pixel) -> int:
    return spot.start


def _growth(changes: Iterable[ByteEdit]) -> int:
    return sum(len(new) - (end - start) for start, end, new in changes)


def _unsubscribe_fault(address: str, field: str, post: str) -> str:
    if not address or len(field) >= UNSUBSCRIBE_LIMIT:
        return "unsubscribe_too_long"
    if not address.startswith("https://"):
        return "unsubscribe_not_https"
    return "unsubscribe_refused" if post != _ONE_CLICK else ""


def _length_of_link(link: bytes) -> int:
    """How much of it is the address, and not the sentence around it."""
    if len(link) > ADDRESS_LIMIT:
        return len(link)
    text = link.decode("ascii")
    for _ in range(_PUNCTUATION_LIMIT):
        text = text.rstrip(_PUNCTUATION)
        last = text[-1]
        if last not in _BRACKETS or text.count(_BRACKETS[last]) >= text.count(last):
            break
        text = text[:-1]
    return len(text)

"""A digest as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aftersend.transports.smtp.digest import Digest
from aftersend.transports.smtp.wording import Wording

_BAR = 24
"""Characters of the longest bar."""


def plain_text(digest: Digest, words: Wording) -> str:
    """The whole digest, in lines that no mail program breaks."""
    return "\n".join(_lines(digest, words)) + "\n"


def _lines(digest: Digest, words: Wording) -> Iterator[str]:
    yield words.counted(digest.count, "event")
    if digest.period:
        yield f"{words['received']}: {digest.period} ({digest.zone})"
    if not digest.count:
        yield from ("", words["nothing"])
    if digest.rows:
        yield from _headed(words["by_type"])
        rows = [(row.label, words.number(row.count), words.share(row.count, digest.count)) for row in digest.rows]
        yield from _columns([*rows, (words["total"], words.number(digest.count), "")])
    if digest.bars:
        yield from _headed(words["by_hour" if digest.hourly else "by_day"])
        yield from _bars(digest, words)
    if digest.outside:
        yield words["outside"].format(words.counted(digest.outside, "event"))
    if digest.failures:
        yield from _headed(words["failures"])
        width = max(len(words.number(count)) for _, count in digest.failures)
        yield from (f"{words.number(count):>{width}}  {text}" for text, count in digest.failures)
    if digest.note:
        yield from ("", digest.note)
    yield from ("", "-- ", words["footer"].format(digest.subscription), _numbers(digest, words))


def _numbers(digest: Digest, words: Wording) -> str:
    return words["numbers"].format(*map(words.number, digest.numbers)) + "."


def _headed(title: str) -> Iterator[str]:
    yield from ("", title, "-" * len(title))


def _columns(rows: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    for label, number, share in rows:
        yield f"{label:<{first}}  {number:>{second}}  {share:>{third}}".rstrip()


def _bars(digest: Digest, words: Wording) -> Iterator[str]:
    most = digest.highest.total or 1
    label = max(len(bar.name) for bar in digest.bars)
    width = len(words.number(most))
    for bar in digest.bars:
        drawn = "▇" * max(round(_BAR * bar.total / most), 1 if bar.total else 0)
        yield f"{bar.name:<{label}}  {words.number(bar.total):>{width}}  {drawn}".rstrip()

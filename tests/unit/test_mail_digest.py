"""What a digest shows of a tally, in words, as HTML and as a chart."""

from __future__ import annotations

import re
from datetime import datetime
from html.parser import HTMLParser
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.core.outcome import Tally, Volume
from aftersend.core.taxonomy import CHANNELS, ROWS
from aftersend.core.timestamps import SECOND, format_time, parse_time
from aftersend.transports.smtp import chart, drawing
from aftersend.transports.smtp.digest import BARS_LIMIT, GREY, Digest, digest_of
from aftersend.transports.smtp.page import page
from aftersend.transports.smtp.plain import plain_text
from aftersend.transports.smtp.wording import NO_BREAK, WORDINGS, Wording

ENGLISH, RUSSIAN = WORDINGS["en"], WORDINGS["ru"]
TYPES = [row.type.replace("*", channel) for row in ROWS for channel in (*CHANNELS, "max")]
VOID = frozenset(("meta", "img", "br"))


def tallied(hours: dict[str, dict[str, int]], failures: dict[str, int] | None = None) -> Tally:
    tally = Tally(hours=hours, failures=failures or {})
    for types in hours.values():
        for type_, count in types.items():
            tally.types[type_] = tally.types.get(type_, 0) + count
            tally.count += count
    return tally


def shown(tally: Tally, words: Wording = ENGLISH, zone: str = "UTC", since: str = "2026-11-21T00:03:00Z") -> Digest:
    volume = Volume(
        id="v",
        name="f.csv",
        path="/f",
        size=1,
        content_type="text/csv",
        epoch=1,
        first_sequence=1,
        last_sequence=tally.count,
        since=parse_time(since),
        until=parse_time("2026-11-21T23:58:00Z"),
        tally=tally,
    )
    return digest_of(volume, "shop", ZoneInfo(zone), zone, words)


def hour(number: int) -> str:
    return format_time((parse_time("2026-11-21T00:00:00Z") // SECOND + number * 3600) * SECOND)[:13]


# Numbers and times


@pytest.mark.parametrize(
    ("words", "value", "said"),
    [
        (ENGLISH, 1, f"1{NO_BREAK}event"),
        (ENGLISH, 1_234_567, f"1,234,567{NO_BREAK}events"),
        (RUSSIAN, 1, f"1{NO_BREAK}событие"),
        (RUSSIAN, 3, f"3{NO_BREAK}события"),
        (RUSSIAN, 12_011, f"12{NO_BREAK}011{NO_BREAK}событий"),
        (RUSSIAN, 21, f"21{NO_BREAK}событие"),
        (RUSSIAN, 113, f"113{NO_BREAK}событий"),
    ],
)
def test_numbers_are_written_as_people_write_them(words: Wording, value: int, said: str) -> None:
    assert words.counted(value, "event") == said


def test_shares_and_sizes_are_short() -> None:
    assert ENGLISH.share(1, 3) == "33.3%"
    assert ENGLISH.share(1, 100_000) == "<0.1%"
    assert ENGLISH.share(0, 0) == "0.0%"
    assert RUSSIAN.share(1, 3) == f"33,3{NO_BREAK}%"
    sizes = {999: "999 bytes", 1_500: "1.5 kB", 999_600: "1.0 MB", 48_000_000: "48 MB", 10**13: "10000 GB"}
    assert {size: ENGLISH.size(size).replace(NO_BREAK, " ") for size in sizes} == sizes


def test_a_day_is_told_once() -> None:
    start, end = datetime(2026, 11, 21, 0, 3), datetime(2026, 11, 21, 23, 58)  # noqa: DTZ001
    later = datetime(2026, 11, 22, 1, 0)  # noqa: DTZ001
    said = [ENGLISH.period(start, end), ENGLISH.period(start, start), ENGLISH.period(start, later)]
    assert [text.replace(NO_BREAK, " ") for text in said] == [
        "Saturday, 21 November 2026, 00:03 – 23:58",
        "Saturday, 21 November 2026, 00:03",
        "21 November 2026, 00:03 – 22 November 2026, 01:00",
    ]
    assert RUSSIAN.period(start, start).replace(NO_BREAK, " ") == "суббота, 21 ноября 2026, 00:03"


@pytest.mark.parametrize("words", WORDINGS.values(), ids=WORDINGS)
def test_every_type_has_words(words: Wording) -> None:
    for type_ in TYPES:
        said = words.type(type_)
        assert said
        assert "_" not in said
        if words is RUSSIAN and not type_.startswith(("popup", "segment", "promocode", "profile", "record", "web")):
            assert re.search("[а-яё]", said), type_


@pytest.mark.parametrize("words", WORDINGS.values(), ids=WORDINGS)
def test_both_languages_say_the_same_things(words: Wording) -> None:
    assert words.texts.keys() == ENGLISH.texts.keys()
    assert words.plurals.keys() == ENGLISH.plurals.keys()
    places = {key: re.findall(r"\{\d\}", text) for key, text in words.texts.items()}
    assert {key: sorted(found) for key, found in places.items()} == {
        key: sorted(re.findall(r"\{\d\}", text)) for key, text in ENGLISH.texts.items()
    }


# What is shown


def test_hours_without_events_are_bars_too() -> None:
    digest = shown(tallied({hour(0): {"email.opened": 3}, hour(3): {"email.clicked": 1}}))
    assert digest.hourly
    assert [(bar.label, bar.total) for bar in digest.bars] == [("00:00", 3), ("01:00", 0), ("02:00", 0), ("03:00", 1)]
    assert digest.outside == 0


def test_hours_and_days_are_those_of_the_zone() -> None:
    tally = tallied({hour(number): {"email.opened": 1} for number in (0, 22, 23)})
    digest = shown(tally, zone="Asia/Kolkata")
    assert [bar.label for bar in digest.bars[:2]] == ["05:30", "06:30"]
    assert "05:33 – 22 November 2026, 05:28" in digest.period.replace(NO_BREAK, " ")


def test_many_hours_are_days_and_no_more_than_people_can_look_at() -> None:
    tally = tallied({hour(number): {"email.opened": 2} for number in range(0, 24 * 90, 6)})
    digest = shown(tally)
    assert not digest.hourly
    assert len(digest.bars) == BARS_LIMIT
    assert digest.outside == tally.count - sum(bar.total for bar in digest.bars)
    assert len(chart.labelled(digest)) <= chart.LABELS_LIMIT


def test_strays_do_not_squeeze_the_day() -> None:
    day = {hour(number): {"email.opened": 100} for number in range(24)}
    digest = shown(tallied(day | {hour(-24 * 20): {"email.opened": 3}, hour(24 * 6): {"email.opened": 2}}))
    assert digest.hourly
    assert [bar.total for bar in digest.bars] == [100] * 24
    assert digest.outside == 5
    assert "5\u00a0events outside of the bars" in plain_text(digest, ENGLISH)


def test_quiet_hours_at_the_ends_are_no_strays() -> None:
    hours = {hour(number): {"email.opened": 1 if number < 20 else 1_000} for number in range(24 * 5)}
    digest = shown(tallied(hours))
    assert len(digest.bars) == 5
    assert digest.outside == 0


def test_one_hour_alone_needs_no_chart() -> None:
    assert shown(tallied({hour(1): {"email.opened": 3}})).bars == []


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(TYPES), st.integers(1, 10**9), min_size=1, max_size=60))
def test_nothing_is_left_out_of_the_sums(types: dict[str, int]) -> None:
    digest = shown(tallied({hour(0): types, hour(1): types}))
    assert sum(row.count for row in digest.rows) == digest.count
    assert sum(row.count for row in digest.series) == digest.count
    assert sum(bar.total for bar in digest.bars) == digest.count
    colours = [row.colour for row in digest.series]
    assert len(set(colours)) == len(colours)
    assert {row.colour for row in digest.rows} <= {*colours, GREY}
    assert plain_text(digest, ENGLISH)
    Page(page(digest, RUSSIAN, ""))


# HTML


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps what could load something."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.heads: list[dict[str, str | None]] = []
        self.language: str | None = None
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "background", "srcset")]
        if tag == "html":
            self.language = given["lang"]
        if tag == "img":
            self.images.append(given)
        if tag == "th":
            self.heads.append(given)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_loads_nothing_and_can_be_heard() -> None:
    digest = shown(tallied({hour(0): {"email.opened": 3}, hour(1): {"email.opened": 1}}, {"550 no": 2}), RUSSIAN)
    html = page(digest, RUSSIAN, "chart@aftersend")
    found = Page(html)
    assert found.language == "ru"
    assert found.loads == ["cid:chart@aftersend"]
    assert not re.search(r"url\(|@import|<script|https?:", html)
    assert found.images[0]["alt"] == (
        "Столбцы событий по часам. Больше всего, 3\u00a0события, начиная с 21\u00a0ноя, 00:00; всего 4\u00a0события."
    )
    assert all(head["scope"] in ("col", "row") for head in found.heads)
    assert "prefers-color-scheme: dark" in html


def test_without_the_extra_the_bars_are_a_table() -> None:
    digest = shown(tallied({hour(0): {"email.opened": 3}, hour(1): {"email.opened": 1, "email.clicked": 2}}))
    found = Page(page(digest, ENGLISH, ""))
    assert not found.images
    assert not found.loads


@settings(deadline=None)
@given(st.text(max_size=300), st.from_regex("[a-z0-9_]{1,40}", fullmatch=True))
def test_what_strangers_say_stays_text(said: str, channel: str) -> None:
    said += "<img src=x onerror=alert(1)>\r\n\x1b[31m\u202e"
    digest = shown(tallied({hour(0): {f"{channel}.opened": 3}, hour(1): {}}, {said: 1}))
    html = page(digest, ENGLISH, "")
    assert not Page(html).images
    assert "\x1b" not in html
    assert all("\x1b" not in line and "\u202e" not in line for line in plain_text(digest, ENGLISH).splitlines())


# The chart


async def test_a_chart_is_drawn_small_and_beside_the_process() -> None:
    pytest.importorskip("vl_convert")
    digest = shown(tallied({hour(number): {"email.opened": number + 1} for number in range(24)}))
    picture = await chart.draw(chart.spec_of(digest, ENGLISH))
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
    assert 2_000 < len(picture) < 60_000
    assert drawing.packed(picture) == picture
    width = int.from_bytes(picture[16:20], "big")
    assert chart.WIDTH * drawing.SCALE <= width <= 1.2 * chart.WIDTH * drawing.SCALE


async def test_a_chart_that_cannot_be_drawn_or_takes_too_long_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vl_convert")
    assert await chart.draw({"mark": "no such mark"}) is None
    monkeypatch.setattr(chart, "SECONDS", 0.01)
    assert await chart.draw({"mark": "bar"}) is None
    monkeypatch.setattr(chart.sys, "executable", "/nowhere/python")
    assert await chart.draw({"mark": "bar"}) is None


def test_the_chart_loads_nothing() -> None:
    digest = shown(tallied({hour(0): {"email.opened": 3}, hour(1): {"email.opened": 1}}))
    text = msgspec.json.encode(chart.spec_of(digest, RUSSIAN)).decode()
    assert '"url"' not in text
    assert text.count("http") == 1, "the schema's name"

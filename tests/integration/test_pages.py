"""The pages for people, in a real browser: by keyboard alone, as a screen reader hears them, narrow, light and dark."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.integration.chromium import Heard, Tab, browser
from tests.integration.tracking import HALON_KEY, Tracker, tracker

from aftersend.capture.halon_links import HalonLink, HalonLinks
from aftersend.capture.tokens import Purpose
from aftersend.capture.visits import Choices, TrackingDomain
from aftersend.capture.wording import WORDING
from aftersend.core.consent import Level, person_key

pytestmark = [pytest.mark.server("chromium"), pytest.mark.slow]

LISTS = {"offers": "Special <offers>", "news": "News", "long": "Donaudampfschifffahrtsgesellschaftskapitän" * 3}
PERSON = "alice@example.org"
PICTURES = os.environ.get("AFTERSEND_PICTURES")
"""A folder to keep the pictures in, to look at."""
CONTRAST = """
(() => {
  const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = numbers(color).map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const color = getComputedStyle(e).backgroundColor, parts = numbers(color);
      if (parts.length === 3 || parts[3] > 0) return color;
    }
    throw new Error("nothing is behind " + element.outerHTML);
  };
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter(own)
    .map((e) => [e.tagName, ratio(getComputedStyle(e).color, behind(e))]);
})()
"""
OUTLINE = """
(() => {
  const style = getComputedStyle(document.activeElement), body = getComputedStyle(document.body);
  return [style.outlineStyle, parseFloat(style.outlineWidth), style.outlineColor, body.backgroundColor];
})()
"""


class Stand(NamedTuple):
    tracked: Tracker
    tab: Tab

    async def open(self, purpose: Purpose, **fields: object) -> str:
        url = self.tracked.url + self.tracked.link(purpose, **fields)
        await self.tab.go(url)
        return url

    async def picture(self, name: str) -> None:
        if PICTURES:
            await self.tab.picture(Path(PICTURES) / f"{name}.png")


@pytest.fixture
async def stand(programs: dict[str, str], tmp_path: Path) -> AsyncIterator[Stand]:
    async with tracker(tmp_path) as tracked, browser(programs["chromium"], tmp_path / "browser") as tab:
        choices = Choices(LISTS, ("email", "sms"))
        tracked.domains["127.0.0.1"] = TrackingDomain("127.0.0.1", "acme", HalonLinks({1: HALON_KEY}), choices)
        yield Stand(tracked, tab)


def named(heard: list[Heard], role: str) -> list[str]:
    return [one.name for one in heard if one.role == role]


@pytest.mark.parametrize("language", WORDING)
async def test_the_unsubscribe_page_is_read_and_used_without_a_mouse(stand: Stand, language: str) -> None:
    tab, words = stand.tab, WORDING[language]
    await tab.prefer(language=language, width=320)
    await stand.open(Purpose.UNSUBSCRIBE)
    heard = await tab.heard()
    assert await tab.evaluate("document.documentElement.lang") == language
    assert await tab.evaluate("document.title") == words["unsubscribe.title"]
    assert next(one for one in heard if one.role == "heading").states["level"] == 1
    assert named(heard, "heading") == [words["unsubscribe.title"]]
    assert named(heard, "button") == [words["unsubscribe.button"]]
    assert len(named(heard, "main")) == 1
    text = await tab.evaluate("document.querySelector('p').innerText")
    assert text.replace("\n", "") == words["unsubscribe.person"].format(person="a…@example.org")
    await stand.picture(f"unsubscribe-{language}")
    await tab.press("Tab")
    assert (await tab.focused()).role == "button", "the first thing that the keyboard comes to"
    await tab.press("Enter", leaves=True)
    assert named(await tab.heard(), "heading") == [words["unsubscribed.title"]]
    assert await tab.evaluate("document.title") == words["unsubscribed.title"], "what is read out first says the result"
    (said,) = [one for one in await tab.heard() if one.role == "status"]
    assert said.states["live"] == "polite"
    await stand.picture(f"unsubscribed-{language}")
    (event,) = await stand.tracked.events()
    assert (event.type, event.recipient, event.extra["method"]) == ("email.unsubscribed", PERSON, "page")


@pytest.mark.parametrize("language", WORDING)
async def test_preferences_are_chosen_and_saved_without_a_mouse(stand: Stand, language: str) -> None:
    tab, words = stand.tab, WORDING[language]
    await tab.prefer(language=language, width=320)
    url = await stand.open(Purpose.PREFERENCES)
    heard = await tab.heard()
    assert await tab.evaluate("document.documentElement.lang") == language
    assert named(heard, "heading") == [words["preferences.title"]]
    assert named(heard, "group") == [words[f"preferences.{name}"] for name in ("lists", "channels", "level")]
    assert named(heard, "checkbox") == [*LISTS.values(), words["channel.email"], words["channel.sms"]]
    levels = [words[f"preferences.{name}"] for name in ("full", "anonymous", "none")]
    assert named(heard, "radio") == levels
    boxes = [one for one in heard if one.role == "checkbox"]
    hint = words["preferences.lists.hint"]
    assert [one.states["description"] for one in boxes] == [hint, hint, hint, "", ""]
    assert [one.states["checked"] for one in heard if one.role == "radio"] == ["true", "false", "false"]
    await stand.picture(f"preferences-{language}")
    passed = []
    for step in range(7):
        await tab.press("Tab")
        passed.append((await tab.focused()).name)
        if step in (1, 4):
            await tab.press("Space")
        if step == 5:
            await tab.press("ArrowDown")
    assert passed == [
        *LISTS.values(),
        words["channel.email"],
        words["channel.sms"],
        levels[0],
        words["preferences.button"],
    ]
    await tab.press("Enter", leaves=True)
    assert named(await tab.heard(), "heading") == [words["saved.title"]]
    found = [(event.type, event.list_id, event.extra.get("level")) for event in await stand.tracked.events()]
    assert found == [
        ("email.unsubscribed", "news", None),
        ("sms.unsubscribed", None, None),
        ("other", "news", "anonymous"),
    ]
    assert stand.tracked.people.level("acme", person_key("acme", PERSON)) is Level.ANONYMOUS
    await tab.go(url)
    checked = [one.name for one in await tab.heard() if one.states.get("checked") == "true"]
    assert checked == [levels[1]], "what was chosen stands there the next time"
    await tab.press("Tab")
    await tab.press("Tab", shift=True)
    assert await tab.evaluate("document.activeElement === document.body"), "the keyboard is caught nowhere"


@pytest.mark.parametrize("language", WORDING)
async def test_a_confirmation_that_was_fetched_ahead_has_a_button(stand: Stand, language: str) -> None:
    tab, words = stand.tab, WORDING[language]
    await tab.prefer(language=language, width=320)
    await tab.call("Network.enable")
    await tab.call("Network.setExtraHTTPHeaders", headers={"Purpose": "prefetch"})
    await stand.open(Purpose.CONFIRM)
    assert await stand.tracked.events() == []
    assert named(await tab.heard(), "heading") == [words["confirm.title"]]
    await tab.press("Tab")
    assert (await tab.focused()).name == words["confirm.button"]
    await tab.press("Space", leaves=True)
    assert named(await tab.heard(), "heading") == [words["confirmed.title"]]
    assert [event.type for event in await stand.tracked.events()] == ["email.subscription_confirmed"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("language", WORDING)
async def test_every_page_is_readable_on_a_narrow_screen_in_light_and_dark(
    stand: Stand, language: str, scheme: str
) -> None:
    tab, tracked = stand.tab, stand.tracked
    await tab.prefer(language=language, width=320, scheme=scheme)
    long = {"recipient": "x@" + "a-very-long-name." * 8 + "example"}
    halon = HalonLinks({1: HALON_KEY}).seal(HalonLink("bob@example.org", "<m2@mail.example.com>"), 1)
    paths = [
        tracked.link(Purpose.UNSUBSCRIBE),
        tracked.link(Purpose.UNSUBSCRIBE, **long),
        tracked.link(Purpose.UNSUBSCRIBE, recipient="+4915112345678"),
        tracked.link(Purpose.PREFERENCES),
        tracked.link(Purpose.PREFERENCES, **long),
        tracked.link(Purpose.CONFIRM),
        f"/u/{halon}",
        "/c/AAEAAAAA",
        tracked.link(target="javascript:x"),
    ]
    for number, path in enumerate(paths):
        await tab.go(tracked.url + path)
        widths = await tab.evaluate("[document.documentElement.scrollWidth, innerWidth, visualViewport.scale]")
        assert widths == [320, 320, 1], path
        contrasts = await tab.evaluate(CONTRAST)
        assert len(contrasts) >= 2
        assert [(tag, ratio) for tag, ratio in contrasts if ratio < 4.5] == [], path
        assert await tab.evaluate("document.querySelectorAll('h1').length") == 1
        assert await tab.evaluate("document.documentElement.lang") == language
        await stand.picture(f"narrow-{language}-{scheme}-{number}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_where_the_keyboard_is_can_be_seen_and_a_finger_hits_the_button(stand: Stand, scheme: str) -> None:
    tab = stand.tab
    await tab.prefer(width=320, scheme=scheme)
    await stand.open(Purpose.PREFERENCES)
    for _ in range(7):
        await tab.press("Tab")
        style, width, color, background = await tab.evaluate(OUTLINE)
        assert (style, width >= 2, color != background) == ("solid", True, True)
    await stand.picture(f"focus-{scheme}")
    size = await tab.evaluate("(({width, height}) => [width, height])(document.activeElement.getBoundingClientRect())")
    assert min(size) >= 44
    rows = await tab.evaluate("[...document.querySelectorAll('label')].map((e) => e.getBoundingClientRect().height)")
    assert min(rows) >= 24

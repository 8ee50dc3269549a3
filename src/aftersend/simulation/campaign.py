"""A simulated campaign: people, messages and what happens to them. The same seed tells the same story."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from msgspec import Struct

from aftersend.core.timestamps import MILLISECOND, SECOND


class Person(Struct, frozen=True, gc=False):
    """Somebody who gets messages."""

    address: str
    profile: str
    agent: str
    ip: str
    country: str
    city: str


class Happening(Struct, frozen=True, gc=False):
    """One thing that happened to a message."""

    what: str
    """sent, delivered, hard_bounced, soft_bounced, opened, clicked, unsubscribed or complained."""
    time: int
    """ns since 1970, UTC; whole seconds, which is all that some vendors tell."""
    id: str
    """What a vendor calls the event: a UUID."""
    message: str
    campaign: str
    person: Person
    url: str = ""


_FIRST_NAMES = (
    "ada",
    "ben",
    "carla",
    "david",
    "elena",
    "farid",
    "greta",
    "hiro",
    "ines",
    "jonas",
    "kira",
    "liam",
    "mona",
    "noor",
    "olga",
    "pavel",
    "ruth",
    "sven",
)
_LAST_NAMES = (
    "adams",
    "becker",
    "costa",
    "dubois",
    "evans",
    "fischer",
    "garcia",
    "haddad",
    "ivanov",
    "jensen",
    "kowalski",
    "lopez",
    "meyer",
    "novak",
)
_PROVIDERS = ("mail", "inbox", "post", "letters", "webmail", "box", "mailbox", "home", "online", "fastpost")
_SYLLABLES = ("ba", "co", "di", "fel", "gra", "hin", "jo", "kel", "lum", "mer", "nor", "pix", "qua", "ros", "tev")
_PLACES = (("DE", "Berlin"), ("FR", "Lyon"), ("GB", "Leeds"), ("RU", "Moscow"), ("US", "Austin"), ("BR", "Recife"))
_SECTIONS = ("deals", "news", "shoes", "garden", "travel", "books", "kitchen", "account")
_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.{1}.{2} Safari/537",
    "Mozilla/5.0 (Linux; Android 1{3}; Pixel {3}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{0}.0.{1}.{2} Mobile",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 1{3}_{3} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E{2}",
    "Mozilla/5.0 (X11; Linux x86_64; rv:{0}.0) Gecko/20100101 Firefox/{0}.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/{0}.{3}.{2} (KHTML, like Gecko)",
)


def campaign(messages: int, seed: int, start: int, name: str = "973") -> Iterator[list[Happening]]:
    """Each message's happenings in order, the first ones at `start` (ns since 1970, UTC)."""
    chance = Random(seed)  # noqa: S311
    for number in range(messages):
        yield list(_story(chance, person(chance), start + number // 1_000 * SECOND, name))


def hits(count: int, seed: int, start: int, campaigns: int = 100) -> Iterator[Happening]:
    """Opens, clicks (a third) and unsubscriptions (a hundredth), each of another person, a ms apart."""
    chance = Random(seed)  # noqa: S311
    for number in range(count):
        lot = chance.random()
        what = "clicked" if lot < 0.33 else "unsubscribed" if lot > 0.99 else "opened"
        time = start + number * MILLISECOND
        message, name = f"{chance.getrandbits(96):024x}", str(chance.randrange(campaigns))
        yield _happening(chance, what, time, message, name, person(chance))


def person(chance: Random) -> Person:
    """Somebody with an address, a browser and a place."""
    country, city = chance.choice(_PLACES)
    return Person(
        f"{chance.choice(_FIRST_NAMES)}.{chance.choice(_LAST_NAMES)}{chance.randrange(10_000)}@{_host(chance)}",
        f"{chance.getrandbits(96):024x}",
        chance.choice(_AGENTS).format(
            *[chance.randrange(*span) for span in ((90, 140), (4000, 7000), (10, 200), (3, 9))]
        ),
        ".".join([str(chance.randrange(1, 255)) for _ in range(4)]),
        country,
        city,
    )


def _host(chance: Random) -> str:
    if chance.random() < 0.7:
        return f"{chance.choice(_PROVIDERS)}.example"
    return "".join(chance.choices(_SYLLABLES, k=3)) + ".example"


def _story(chance: Random, who: Person, start: int, name: str) -> Iterator[Happening]:
    message, time = f"{chance.getrandbits(96):024x}", start
    for what in _course(chance):
        yield _happening(chance, what, time, message, name, who)
        time += chance.randrange(1, 90) * SECOND


def _course(chance: Random) -> Iterator[str]:
    """What happens to one message, in order."""
    yield "sent"
    lot = chance.random()
    if lot < 0.05:
        yield "hard_bounced" if lot < 0.02 else "soft_bounced"
        return
    yield "delivered"
    opens = chance.choice((0, 0, 0, 1, 1, 2, 3))
    for number in range(opens):
        yield "opened"
        if chance.random() < 0.3 and number == 0:
            yield "clicked"
    if opens and lot > 0.98:
        yield "complained" if lot > 0.997 else "unsubscribed"


def _happening(chance: Random, what: str, time: int, message: str, name: str, who: Person) -> Happening:
    bits = f"{chance.getrandbits(128):032x}"
    id_ = f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"
    url = _url(chance, name) if what == "clicked" else ""
    return Happening(what, time, id_, message, name, who, url)


def _url(chance: Random, name: str) -> str:
    section = chance.choice(_SECTIONS)
    return f"https://shop.example/{section}/{chance.randrange(100_000)}?utm_campaign={name}&r={chance.getrandbits(48):012x}"

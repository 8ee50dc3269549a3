"""Who did it, judged at once: each rule by the case that it is for, and what is kept of a hit that stands apart."""

from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from aftersend.core.errors import ConfigurationError
from aftersend.core.event import Actor, Event, Geo, Source
from aftersend.core.hits import Signals, Treatment, noted, signals_of, treated
from aftersend.core.identity import make_id
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.directory import BotEntry, Directory, read_directory
from aftersend.pipeline.networks import Networks
from aftersend.pipeline.verdict import is_own, read_rules

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/143.0.0.0 Safari/537.36"
)
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
GMAIL = (
    "Mozilla/5.0 (Windows; U; Windows NT 5.1; de; rv:1.9.0.7) Gecko/2009021910 Firefox/3.0.7 "
    "(via ggpht.com GoogleImageProxy)"
)
GMAIL_AHEAD = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/42.0.2311.135 Safari/537.36 Edge/12.246 Mozilla/5.0"
)
LISTS = {"mail_gateways": ["192.0.2.0/24", "2001:db8:1::/48"], "apple_private_relay": ["198.51.100.0/24"]}
RULES = read_rules(networks=LISTS)
NOW = 1_770_000_000 * SECOND

CASES: dict[str, list[tuple[Signals, str]]] = {
    "empty_agent": [(Signals("clicked", ""), "machine")],
    "apple_mail_privacy": [(Signals("opened", "Mozilla/5.0"), "machine")],
    "gmail_prefetch": [(Signals("opened", GMAIL_AHEAD), "machine")],
    "provider_prefetch": [
        (Signals("opened", "Mozilla/5.0 (compatible; YandexImageResizer/2.0; +http://yandex.com/bots)"), "machine")
    ],
    "image_proxy": [
        (Signals("opened", GMAIL), "proxy"),
        (Signals("opened", "YahooMailProxy; https://help.yahoo.com/kb/yahoo-mail-proxy-SLN28749.html"), "proxy"),
        (Signals("opened", "Mail.RU Image Proxy"), "proxy"),
    ],
    "unfurler": [
        (Signals("clicked", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)"), "machine"),
        (Signals("clicked", "WhatsApp/2.23.20.0"), "machine"),
        (Signals("clicked", "TelegramBot (like TwitterBot)"), "machine"),
        (Signals("clicked", "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5"), "machine"),
        (Signals("clicked", "facebookexternalhit/1.1"), "machine"),
    ],
    "scanner": [(Signals("clicked", "Mozilla/5.0 (Windows NT 10.0) Barracuda Sentinel (EE)"), "machine")],
    "crawler": [(Signals("clicked", "bitlybot/3.0 (+http://bit.ly/)"), "machine")],
    "program": [
        (Signals("clicked", "python-requests/2.32.3"), "machine"),
        (Signals("clicked", "curl/8.5.0"), "machine"),
        (Signals("clicked", "Go-http-client/1.1"), "machine"),
    ],
    "head_request": [(Signals("clicked", CHROME, method="HEAD"), "machine")],
    "prefetch_header": [
        (Signals("clicked", CHROME, headers={"sec-purpose": "prefetch;prerender"}), "machine"),
        (Signals("clicked", CHROME, headers={"purpose": "Prefetch"}), "machine"),
        (Signals("clicked", SAFARI, headers={"x-purpose": "preview"}), "machine"),
        (Signals("clicked", CHROME, headers={"x-moz": "prefetch"}), "machine"),
    ],
    "too_soon": [(Signals("opened", CHROME, since_sent=1.4), "machine")],
    "mail_gateway_click": [
        (Signals("clicked", CHROME, "40.93.195.7"), "machine"),
        (Signals("clicked", CHROME, "192.0.2.200"), "machine"),
        (Signals("clicked", CHROME, "2001:db8:1:2::3"), "machine"),
    ],
    "mail_gateway_open": [(Signals("opened", CHROME, "104.47.11.12"), "proxy")],
    "apple_relay_open": [(Signals("opened", SAFARI, "198.51.100.9"), "machine")],
    "outdated_browser": [
        (Signals("clicked", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/41.0.2272.96"), "unknown")
    ],
    "browser": [(Signals("clicked", CHROME), "human"), (Signals("opened", SAFARI), "human")],
    "mail_program": [(Signals("opened", "Microsoft Office/16.0 (Microsoft Outlook 16.0.17328; Pro)"), "human")],
}


@pytest.mark.parametrize(
    ("name", "signals", "kind"), [(name, *case) for name, cases in CASES.items() for case in cases]
)
def test_each_rule_knows_its_case(name: str, signals: Signals, kind: str) -> None:
    actor = RULES.judge(signals)
    assert actor.kind == kind
    assert name in actor.reasons
    assert actor.ruleset == RULES.ruleset


def test_every_rule_has_a_case_here_and_says_what_it_is_for() -> None:
    assert [rule.name for rule in RULES.book.at_once] == list(CASES)
    assert all(rule.case.endswith(".") for rule in (*RULES.book.at_once, *RULES.book.settled))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("signals", "kind", "reasons"),
    [
        (Signals("clicked", CHROME, "198.51.100.9"), "human", ["browser"]),  # relayed clicks are people's
        (Signals("clicked", CHROME, since_sent=2.0), "human", ["browser"]),
        (Signals("clicked", CHROME, method="GET", headers={"sec-purpose": ""}), "human", ["browser"]),
        (Signals("clicked", CHROME + " Securla/1.0"), "human", ["browser"]),
        (Signals("clicked", CHROME + " securlax Javanese"), "human", ["browser"]),
        (Signals("opened", "Mozilla/5.0 "), "unknown", []),
        (Signals("opened", None), "unknown", []),
        (Signals("opened", "SomeMailer/1"), "unknown", []),
        (Signals("clicked", CHROME, "no address"), "human", ["browser"]),
    ],
)
def test_what_only_resembles_a_case_is_none(signals: Signals, kind: str, reasons: list[str]) -> None:
    assert RULES.judge(signals) == Actor(kind, reasons, RULES.ruleset)


def test_the_gravest_kind_wins_and_all_of_its_rules_are_the_reasons() -> None:
    actor = RULES.judge(Signals("clicked", "curl/8.0", method="HEAD", headers={"purpose": "prefetch"}))
    assert actor == Actor("machine", ["program", "head_request", "prefetch_header"], RULES.ruleset)


@given(some.text(), some.text(), some.text(), some.sampled_from(["opened", "clicked", "read"]))
def test_nothing_that_arrives_breaks_the_judge(agent: str, ip: str, method: str, what: str) -> None:
    actor = RULES.judge(Signals(what, agent, ip, method, {"purpose": agent}, -1.0))
    assert actor.kind in ("human", "proxy", "machine", "unknown")


@given(some.text(max_size=40))
def test_a_remembered_agent_is_judged_as_it_was_the_first_time(agent: str) -> None:
    assert RULES.judge(Signals("clicked", agent)) == read_rules(networks=LISTS).judge(Signals("clicked", agent))


def test_the_memory_of_agents_stays_bounded() -> None:
    rules = read_rules()
    for number in range(20_000):
        rules.judge(Signals("opened", f"agent {number}"))
    assert len(rules._by_agent) <= 8_192
    for number in range(10_000):
        rules.judge(Signals("opened", "x" * number))
    assert len(rules._by_shape) <= 8_192


def test_agents_that_differ_in_their_digits_alone_are_told_apart() -> None:
    agent = "Mozilla/5.0 (X11) Chrome/{} Safari/537.36"
    kinds = [(version, RULES.judge(Signals("clicked", agent.format(version))).reasons) for version in (99, 41, 140, 42)]
    assert kinds == [
        (version, read_rules(networks=LISTS).judge(Signals("clicked", agent.format(version))).reasons)
        for version in (99, 41, 140, 42)
    ]
    assert kinds[0][1] == ["browser"] != kinds[1][1]


# --- the rules as data

BOOK = """
settle_seconds = 900
[[at_once]]
name = "a"
case = "A."
kind = "machine"
agent_is = ["x"]
"""


def test_the_version_follows_from_what_the_rules_say_and_not_from_how_it_is_written() -> None:
    version = read_rules(BOOK.encode()).ruleset
    assert version.startswith("aftersend-")
    assert read_rules(b"# words\n" + BOOK.encode()).ruleset == version
    assert read_rules(BOOK.replace('"x"', '"y"').encode()).ruleset != version
    assert read_rules(BOOK.encode(), {"own": ["192.0.2.0/24"]}).ruleset != version


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOOK + BOOK.partition("900")[2], "two are called 'a'"),
        (BOOK.replace("machine", "robot"), "robot"),
        (BOOK.replace("agent_is", "agent_si"), "agent_si"),
        (BOOK + '[networks]\nn = ["10.0.0.1/8"]', "network list 'n': 10.0.0.1/8 has host bits set"),
        ("settle_seconds = [", "rules: "),
        (
            BOOK + '[[settled]]\nname = "b"\ncase = "B."\nwhat = ["clicked"]\nof = "message"\ncount = "links"\n'
            "at_least = 3\nwithin_seconds = 841.0",
            "'b' looks farther back than settle_seconds allows (840 s)",
        ),
    ],
)
def test_rules_that_cannot_be_used_are_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        read_rules(text.encode())
    assert said in str(told.value)
    assert "\n" not in str(told.value)


# --- networks


def test_an_address_is_in_every_list_that_holds_it() -> None:
    networks = Networks({"wide": ["10.0.0.0/8"], "small": ["10.1.0.0/16", "10.1.0.0/24"], "six": ["2001:db8::/32"]})
    assert networks.names("10.1.0.5") == {"wide", "small"}
    assert networks.names("10.1.255.255") == {"wide", "small"}
    assert networks.names("10.2.0.0") == {"wide"}
    assert networks.names("11.0.0.0") == networks.names("9.255.255.255") == frozenset()
    assert networks.names("::ffff:10.2.0.1") == {"wide"}
    assert networks.names("2001:db8:ffff::1") == {"six"}
    assert networks.names("2001:db9::") == frozenset()
    assert Networks({}).names("10.0.0.1") == frozenset()


@given(some.ip_addresses(v=4), some.lists(some.tuples(some.ip_addresses(v=4), some.integers(0, 32)), max_size=8))
def test_the_lists_agree_with_looking_at_each_network(address: object, parts: list[tuple[object, int]]) -> None:
    lists = {str(number): [str(ip_network((ip, size), strict=False))] for number, (ip, size) in enumerate(parts)}
    expected = {name for name, (network,) in lists.items() if address in ip_network(network)}
    assert Networks(lists).names(str(address)) == expected


# --- events and their signals


def hit(**fields: object) -> Event:
    fields = {"user_agent": CHROME, "ip": "203.0.113.9", "type": "email.clicked"} | fields
    return Event(id=make_id(NOW, b"1"), time=NOW, source=Source("t", "aftersend", "click"), **fields)  # type: ignore[arg-type]


def test_a_hit_that_was_kept_is_judged_as_on_arrival() -> None:
    signals = Signals("clicked", CHROME, "203.0.113.9", "HEAD", {"purpose": "prefetch", "cookie": "x"}, 1.0)
    again = signals_of(hit(extra=noted(signals)))
    assert again == msgspec.structs.replace(signals, headers={"purpose": "prefetch"})
    assert RULES.judge(again) == RULES.judge(signals)


def test_a_hit_without_anything_unusual_notes_nothing() -> None:
    assert noted(Signals("clicked", CHROME, "203.0.113.9", "GET")) == {}


def test_what_a_vendor_says_in_its_extra_is_no_signal() -> None:
    own = hit(extra={"signals": {"method": "HEAD"}})
    told = msgspec.structs.replace(own, source=Source("v", "canonical", "click"))
    assert signals_of(told).method == ""


def test_only_hits_that_nobody_has_judged_are_judged() -> None:
    assert RULES.judged(hit()).actor == Actor("human", ["browser"], RULES.ruleset)
    vendors = hit(actor=Actor("machine", ["theirs"]))
    assert RULES.judged(vendors) is vendors
    delivered = hit(type="email.delivered")
    assert RULES.judged(delivered) is delivered
    assert not is_own(Actor("machine", [], "theirs"))


# --- the directory of bots

DIRECTORY = b"""
[[entries]]
agent = "UptimeMonitor"
do = "ignore"
note = "our own"
[[entries]]
network = "192.0.2.0/24"
do = "without_address"
[[entries]]
agent = "OfficeScanner"
do = "without_agent"
[[entries]]
network = "2001:db8::/32"
do = "block"
"""


def test_the_directory_says_what_is_done_with_agents_and_networks() -> None:
    directory = read_directory(DIRECTORY)
    assert directory.treatment("Mozilla/5.0 uptimemonitor/2.1", None) is Treatment.IGNORE
    assert directory.treatment("UptimeMonitors", None) is Treatment.NOTHING
    assert directory.treatment("OfficeScanner 1", "192.0.2.7") == Treatment.WITHOUT_AGENT | Treatment.WITHOUT_ADDRESS
    assert directory.treatment(CHROME, "2001:db8::1") is Treatment.BLOCK
    assert directory.treatment(CHROME, "203.0.113.1") is Treatment.NOTHING
    assert directory.treatment("", None) is Directory().treatment(None, "x") is Treatment.NOTHING


def test_a_hit_keeps_what_its_treatment_leaves() -> None:
    whole = hit(geo=Geo("DE"))
    assert treated(whole, Treatment.NOTHING) is whole
    bare = treated(whole, Treatment.WITHOUT_ADDRESS | Treatment.WITHOUT_AGENT)
    assert bare == msgspec.structs.replace(whole, ip=None, geo=None, user_agent=None)
    assert treated(whole, Treatment.WITHOUT_AGENT) == msgspec.structs.replace(whole, user_agent=None)
    assert treated(whole, Treatment.IGNORE) is treated(whole, Treatment.BLOCK | Treatment.WITHOUT_AGENT) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b'[[entries]]\ndo = "ignore"', "entry 1: give either an agent or a network"),
        (b'[[entries]]\ndo = "ignore"\nagent = "a"\nnetwork = "::/0"', "entry 1: give either"),
        (b'[[entries]]\ndo = "forget"\nagent = "a"', "forget"),
        (b'[[entries]]\ndo = "ignore"\nnetwork = "nowhere"', "nowhere"),
        (b"\xff", "directory of bots"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused_in_one_line(data: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError) as told:
        read_directory(data)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_large_directory_is_asked_as_quickly_as_a_small_one() -> None:
    entries = [BotEntry(do="ignore", network=f"10.{number // 256}.{number % 256}.0/24") for number in range(1_139)]
    directory = Directory(entries)
    assert directory.treatment(None, "10.4.114.9") is Treatment.IGNORE
    assert directory.treatment(None, "10.4.115.9") is Treatment.NOTHING

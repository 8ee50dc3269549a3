"""Who did it, judged as a hit arrives: by its agent, its request and where it comes from. The rules are data."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, structs

from aftersend.core.errors import ConfigurationError
from aftersend.core.event import Actor, Event
from aftersend.core.hits import PREFETCH_HEADERS, Signals, note_of, signals_of, what_of
from aftersend.pipeline.networks import NONE, Networks

RULES_FILE = "verdict_rules.toml"
RULESET_PREFIX = "aftersend-"

GRAVITY = {"human": 0, "unknown": 1, "proxy": 2, "machine": 3}
"""The kinds of actor; of several the gravest holds."""

SETTLING_MARGIN = 60.0
"""Seconds between the last moment at which a hit can be judged anew and its settling; the verdict is kept by then."""

AGENT_CHARACTERS = 1_024
"""What is looked at of an agent."""
_REMEMBERED = 8_192
"""Agents, and actors, that are remembered; past it the memory starts anew."""

_ONE_DIGIT = bytes.maketrans(b"123456789", b"0" * 9)
_Candidates = tuple[int, ...]
"""Rules by their places in the book: few agents differ in them, so what is thought of one is thought of thousands."""

Kind = Literal["human", "proxy", "machine", "unknown"]
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,62}$")]


class Rule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What speaks for a kind of actor as a hit arrives; all conditions that are given must hold."""

    name: Name
    case: str
    """What happens there, in a sentence."""
    kind: Kind
    what: frozenset[str] = frozenset()
    """Only these hits; empty: all."""
    agent_is: tuple[str, ...] = ()
    agent_begins: tuple[str, ...] = ()
    agent_ends: tuple[str, ...] = ()
    agent_has: tuple[str, ...] = ()
    """Whole words of the agent, whatever their case: `curl` is not in `securla`."""
    method: tuple[str, ...] = ()
    header_has: tuple[str, ...] = ()
    """Words in one of the prefetch headers."""
    networks: tuple[str, ...] = ()
    """Names of lists; one that nobody gave is empty."""
    within_seconds: float | None = None
    """Of the sending."""


class SettledRule(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What speaks for a machine once other hits are seen beside it."""

    name: Name
    case: str
    what: frozenset[str]
    of: Literal["message", "visitor"]
    """Whose hits are looked at together: those on one message to one person, or those of one address and agent."""
    count: Literal["links", "recipients"]
    at_least: Annotated[int, Meta(ge=2, le=1_000)]
    """How many different ones."""
    within_seconds: Annotated[float, Meta(gt=0)]
    share: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Of the links that the campaign is known to have; 0: that does not matter."""


class RuleBook(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All rules and the networks that they name."""

    settle_seconds: Annotated[float, Meta(ge=SETTLING_MARGIN + 1, le=86_400)]
    """After so long no later hit changes what is thought of one."""
    at_once: tuple[Rule, ...]
    settled: tuple[SettledRule, ...] = ()
    networks: dict[str, tuple[str, ...]] = {}


def read_rules(data: bytes | None = None, networks: Mapping[str, Sequence[str]] | None = None) -> Rules:
    """The rules of a TOML file, or (None) the ones that come along; `networks` adds to or replaces its lists.

    Raises ConfigurationError, naming what is wrong.
    """
    if data is None:
        data = files(__package__).joinpath(RULES_FILE).read_bytes()
    try:
        book = msgspec.toml.decode(data, type=RuleBook)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"rules: {error}") from None
    given = {name: tuple(items) for name, items in (networks or {}).items()}
    return Rules(structs.replace(book, networks=book.networks | given))


class Rules:
    """A rule book at work."""

    def __init__(self, book: RuleBook) -> None:
        _check(book)
        self.book = book
        self.ruleset = ruleset_of(book)
        self._networks = Networks(book.networks)
        self._tests = [_agent_test(rule) for rule in book.at_once]
        digital = [_looks_at_digits(rule) for rule in book.at_once]
        self._digital = [number for number, is_digital in enumerate(digital) if is_digital]
        self._others = [number for number, is_digital in enumerate(digital) if not is_digital]
        self._by_agent: dict[str | None, _Candidates] = {}
        self._by_shape: dict[bytes | None, _Candidates] = {}
        self._actors: dict[tuple[str, ...], Actor] = {}
        self._plain: dict[tuple[str, _Candidates, frozenset[str]], Actor] = {}

    def judge(self, signals: Signals) -> Actor:
        """Who probably did it; `unknown` without a reason where no rule holds."""
        names = NONE if signals.ip is None else self._networks.names(signals.ip)
        held = [rule for rule in self._rules(self._candidates(signals.agent)) if _holds(rule, signals, names)]
        key = tuple([rule.name for rule in held])
        actor = self._actors.get(key)
        if actor is None:
            actor = self._actors[key] = self._actor(held)
        return actor

    def judged(self, event: Event) -> Event:
        """A hit that says who did it; other events, and those whose source says so itself, as they are."""
        if event.actor is not None or not (what := what_of(event)):
            return event
        if note_of(event):
            return structs.replace(event, actor=self.judge(signals_of(event)))
        return structs.replace(event, actor=self._judge_plain(what, event.user_agent, event.ip))

    def _judge_plain(self, what: str, agent: str | None, ip: str | None) -> Actor:
        """As `judge`, where nothing is known but agent and address; those that look alike are judged once."""
        key = (what, self._candidates(agent), NONE if ip is None else self._networks.names(ip))
        actor = self._plain.get(key)
        if actor is None:
            if len(self._plain) >= _REMEMBERED:
                self._plain.clear()
            actor = self._plain[key] = self.judge(Signals(what, agent, ip))
        return actor

    def machine(self, reasons: Iterable[str]) -> Actor:
        """A machine, known by settled rules."""
        return Actor("machine", list(reasons), self.ruleset)

    def _actor(self, held: Sequence[Rule]) -> Actor:
        if len(self._actors) >= _REMEMBERED:
            self._actors.clear()
        kind = max((rule.kind for rule in held), key=GRAVITY.__getitem__, default="unknown")
        return Actor(kind, [rule.name for rule in held if rule.kind == kind], self.ruleset)

    def _candidates(self, agent: str | None) -> _Candidates:
        """The rules that this agent does not rule out."""
        agent = agent[:AGENT_CHARACTERS] if agent else agent
        found = self._by_agent.get(agent)
        if found is None:
            if len(self._by_agent) >= _REMEMBERED:
                self._by_agent.clear()
            found = tuple(sorted((*self._of_shape(agent), *self._passing(self._digital, agent))))
            self._by_agent[agent] = found
        return found

    def _of_shape(self, agent: str | None) -> _Candidates:
        """The rules that look at no digits. Agents differ in their versions: few are left where all digits are one.

        Together with the test before the pattern (`_agent_test`) a new agent costs 4 µs instead of 25.
        """
        # As bytes, because a text's `translate` takes ten times as long.
        shape = agent.encode("utf-8", "surrogatepass").translate(_ONE_DIGIT) if agent is not None else None
        found = self._by_shape.get(shape)
        if found is None:
            if len(self._by_shape) >= _REMEMBERED:
                self._by_shape.clear()
            found = self._by_shape[shape] = self._passing(self._others, agent)
        return found

    def _passing(self, numbers: Sequence[int], agent: str | None) -> _Candidates:
        """Those of these rules that an agent does not rule out."""
        folded, tests = agent.casefold() if agent else "", self._tests
        return tuple([number for number in numbers if (test := tests[number]) is None or test(agent, folded)])

    def _rules(self, candidates: _Candidates) -> Iterator[Rule]:
        for number in candidates:
            yield self.book.at_once[number]


def is_own(actor: Actor) -> bool:
    """Whether the verdict is ours, and not the word of whoever sent the event."""
    return actor.ruleset is not None and actor.ruleset.startswith(RULESET_PREFIX)


def ruleset_of(book: RuleBook) -> str:
    """The version of a rule book: it follows from what the rules say, networks included; comments do not count."""
    content = msgspec.json.encode(msgspec.to_builtins(book, order="deterministic"), order="deterministic")
    return RULESET_PREFIX + blake2b(content, digest_size=5).hexdigest()


def _check(book: RuleBook) -> None:
    names = [rule.name for rule in book.at_once] + [rule.name for rule in book.settled]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"rules: two are called {name!r}")
    for rule in book.settled:
        if rule.within_seconds > book.settle_seconds - SETTLING_MARGIN:
            limit = book.settle_seconds - SETTLING_MARGIN
            raise ConfigurationError(
                f"rules: {rule.name!r} looks farther back than settle_seconds allows ({limit:g} s)"
            )


def _looks_at_digits(rule: Rule) -> bool:
    parts = (*rule.agent_is, *rule.agent_begins, *rule.agent_ends, *rule.agent_has)
    return any(character.isdigit() for part in parts for character in part)


def _agent_test(rule: Rule) -> Callable[[str | None, str], bool] | None:
    """Whether an agent (given as it is, and case-folded) is what the rule names; None: the rule does not look at it."""
    conditions = (rule.agent_is, rule.agent_begins, rule.agent_ends, rule.agent_has)
    if not any(conditions):
        return None
    words = whole_words(rule.agent_has)
    folded_words = [word.casefold() for word in rule.agent_has]

    def test(agent: str | None, folded: str) -> bool:
        return agent is not None and (
            (not rule.agent_is or agent in rule.agent_is)
            and (not rule.agent_begins or agent.startswith(rule.agent_begins))
            and (not rule.agent_ends or agent.endswith(rule.agent_ends))
            # Looking for each word anywhere first spares nearly every agent the pattern.
            and (not words or (any(map(folded.__contains__, folded_words)) and words.search(agent) is not None))
        )

    return test


def whole_words(words: Sequence[str]) -> re.Pattern[str] | None:
    """Finds any of these as a whole word, whatever its case; None where there are none."""
    if not words:
        return None
    either = "|".join(re.escape(word) for word in words)
    return re.compile(rf"(?<![a-z0-9])(?:{either})(?![a-z0-9])", re.IGNORECASE)


def _holds(rule: Rule, signals: Signals, names: frozenset[str]) -> bool:
    """Whether a rule holds whose agent is right."""
    return (
        (not rule.what or signals.what in rule.what)
        and (not rule.method or signals.method in rule.method)
        and (not rule.networks or not names.isdisjoint(rule.networks))
        and (not rule.header_has or _says(signals.headers, rule.header_has))
        and (
            rule.within_seconds is None
            or (signals.since_sent is not None and 0 <= signals.since_sent < rule.within_seconds)
        )
    )


def _says(headers: Mapping[str, str], words: Sequence[str]) -> bool:
    values = [headers[name].lower() for name in PREFETCH_HEADERS if name in headers]
    return any(word in value for value in values for word in words)

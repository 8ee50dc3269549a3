"""The operator's directory of agents and networks whose hits are to be treated apart: ignored, stripped or blocked.

A verdict marks a hit and keeps it; an entry here is an order to keep less. It is for what an operator knows and the
rules do not: a monitor of the own house, a gateway whose hits nobody wants to see.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from aftersend.core.errors import ConfigurationError
from aftersend.core.hits import Treatment
from aftersend.pipeline.networks import Networks
from aftersend.pipeline.verdict import AGENT_CHARACTERS, whole_words

TREATMENTS = {
    "ignore": Treatment.IGNORE,
    "without_agent": Treatment.WITHOUT_AGENT,
    "without_address": Treatment.WITHOUT_ADDRESS,
    "block": Treatment.BLOCK,
}
"""What an entry can ask for."""

ENTRIES_LIMIT = 20_000

_REMEMBERED = 8_192
"""Agents whose treatment is remembered; past it the memory starts anew."""


class BotEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An agent or a network, and what is done with its hits."""

    do: Literal["ignore", "without_agent", "without_address", "block"]
    agent: Annotated[str, Meta(max_length=256)] = ""
    """Whole words of the agent, whatever their case."""
    network: str = ""
    """A network (CIDR) or one address."""
    note: str = ""
    """Why it stands here, for a person."""


class _File(Struct, forbid_unknown_fields=True):
    entries: Annotated[list[BotEntry], Meta(max_length=ENTRIES_LIMIT)] = []


def read_directory(data: bytes) -> Directory:
    """The directory in a TOML file: `[[entries]]` with `do` and one of `agent` and `network`.

    Raises ConfigurationError, naming the entry.
    """
    try:
        file = msgspec.toml.decode(data, type=_File)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"directory of bots: {error}") from None
    return Directory(file.entries)


class Directory:
    """The entries at work. Made once, then only asked."""

    def __init__(self, entries: Sequence[BotEntry] = ()) -> None:
        for number, entry in enumerate(entries, 1):
            if bool(entry.agent) == bool(entry.network):
                raise ConfigurationError(f"directory of bots, entry {number}: give either an agent or a network")
        self._agents = [
            (treatment, whole_words([entry.agent for entry in entries if entry.agent and entry.do == name]))
            for name, treatment in TREATMENTS.items()
        ]
        self._networks = Networks(
            {name: [item.network for item in entries if item.network and item.do == name] for name in TREATMENTS}
        )
        self._by_agent: dict[str, Treatment] = {}

    def treatment(self, agent: str | None, ip: str | None) -> Treatment:
        """What is to be done with a hit of this agent from this address; what several entries say adds up."""
        treatment = self._of_agent(agent[:AGENT_CHARACTERS]) if agent else Treatment.NOTHING
        if ip is not None:
            for name in self._networks.names(ip):
                treatment |= TREATMENTS[name]
        return treatment

    def _of_agent(self, agent: str) -> Treatment:
        found = self._by_agent.get(agent)
        if found is None:
            if len(self._by_agent) >= _REMEMBERED:
                self._by_agent.clear()
            found = Treatment.NOTHING
            for treatment, words in self._agents:
                if words is not None and words.search(agent):
                    found |= treatment
            self._by_agent[agent] = found
        return found

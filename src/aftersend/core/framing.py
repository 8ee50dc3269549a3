"""How a dialect's events become one file: what stands before, between and behind them.

A dialect whose bodies are JSON arrays needs to say nothing. Any other that can be told in files has a method

    def framing(self, form: str) -> Framing | None:

which says how; None: this form cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from msgspec import Struct

from aftersend.core.errors import ConfigurationError, EncodeError
from aftersend.core.event import Body, Event
from aftersend.core.rotation import DEFAULT_NAME

EVERY_COMPRESSION = ("none", "gzip", "zstd", "zip")


class Sheet(Struct, frozen=True):
    """What one file is for."""

    since: int
    """The period of its events: beginning …"""
    until: int
    """… and end (ns since 1970, UTC)."""
    zone: str = "UTC"
    """The time zone that the period is of."""
    type: str = ""
    """What kind of events it holds (`Framing.type_of`); empty: any."""


class Pen(Protocol):
    """Writes one file. What it writes depends on the events and their order alone, never on when they come."""

    def head(self) -> bytes:
        """What stands before the first event."""
        ...

    def tell(self, event: Event) -> bytes:
        """An event, with what stands between it and the one before; where this raises, the pen is as it was before."""
        ...

    def foot(self) -> bytes:
        """What stands behind the last event."""
        ...


class Framing(Struct, frozen=True, kw_only=True):
    """How files of a form are made."""

    content_type: str
    ending: str
    """Of the name, with its dot: `.json`."""
    pen: Callable[[Sheet], Pen]
    """Takes up a new file."""
    name: str = DEFAULT_NAME
    """What the vendor calls such files (`core.rotation.Rotation.name`)."""
    max_events: int = 0
    """Most events that the vendor reads from one file; 0: any number."""
    compressions: tuple[str, ...] = EVERY_COMPRESSION
    """What the vendor reads."""
    type_of: Callable[[Event], str] | None = None
    """Where each kind of event has a file of its own: the kind (letters, digits, `_`), of a few tens in all.

    All files of a period go out one after the other before the cursor moves past any of them.
    """


class Joined:
    """A pen for events that stand one behind the other with the same bytes between any two."""

    __slots__ = ("_between", "_foot", "_head", "_item", "_lead")

    def __init__(
        self, item: Callable[[Event], bytes], head: bytes = b"", between: bytes = b"", foot: bytes = b""
    ) -> None:
        self._item = item
        self._head, self._between, self._foot = head, between, foot
        self._lead = b""

    def head(self) -> bytes:
        """Before the first."""
        return self._head

    def tell(self, event: Event) -> bytes:
        """An event, behind the bytes between two where it is not the first."""
        told = self._lead + self._item(event)
        self._lead = self._between
        return told

    def foot(self) -> bytes:
        """Behind the last."""
        return self._foot


def json_array(item: Callable[[Event], bytes]) -> Callable[[Sheet], Pen]:
    """Pens that write one JSON array, an event a line; an empty one is `[]`."""
    return lambda sheet: Joined(item, b"[", b",\n", b"]\n")


def lines(item: Callable[[Event], bytes]) -> Callable[[Sheet], Pen]:
    """Pens that write what ends in a line break by itself."""
    return lambda sheet: Joined(item)


class _Dialect(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def singles(self) -> frozenset[str]: ...

    def encode(self, events: Sequence[Event], form: str = "") -> list[Body]: ...


def framing_of(dialect: _Dialect, form: str) -> Framing:
    """How files of a dialect's form are made. Raises ConfigurationError where there are none."""
    own: Any = getattr(dialect, "framing", None)
    framing: Framing | None = own(form) if own is not None else _array_framing(dialect, form)
    if framing is None:
        shown = f"{dialect.name}/{form}" if form else dialect.name
        raise ConfigurationError(f"{shown} is told event by event, not in files; choose another form or dialect")
    return framing


def _array_framing(dialect: _Dialect, form: str) -> Framing | None:
    if form in dialect.singles:
        return None

    def item(event: Event) -> bytes:
        (body,) = dialect.encode((event,), form)
        data = body.data
        if data[:1] != b"[" or data[-1:] != b"]":
            raise EncodeError(f"{dialect.name} does not tell events as a JSON array")
        return data[1:-1]

    return Framing(content_type="application/json", ending=".json", pen=json_array(item))

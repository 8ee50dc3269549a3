"""A text that must not be seen: masked wherever it is printed, sealed where it is stored."""

from __future__ import annotations

from typing import Any

MASK = "********"


class Secret:
    """A secret text; `reveal()` is the only way to it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def mask(value: Any) -> Any:
    """An `enc_hook` for msgspec that prints secrets as a mask."""
    if isinstance(value, Secret):
        return MASK
    raise TypeError(f"cannot print {type(value).__name__}")


def read_secret(type_: type, value: Any) -> Any:
    """A `dec_hook` for msgspec that reads secrets from plain text."""
    if type_ is Secret and isinstance(value, str):
        return Secret(value)
    raise TypeError(f"cannot read {type_.__name__}")

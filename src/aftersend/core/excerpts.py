"""What the other side said, fit for people: one short line of printable characters, without our secrets."""

from __future__ import annotations

from collections.abc import Sequence

from aftersend.core.secret import MASK, Secret

EXCERPT_LIMIT = 200
"""Characters of what the other side said that are kept."""


def one_line(said: object, secrets: Sequence[Secret | None] = ()) -> str:
    """The beginning of a text as one printable line; secrets are masked, in case it echoes them."""
    text = str(said)[: EXCERPT_LIMIT * 20]
    for secret in secrets:
        if secret is not None and secret.reveal():
            text = text.replace(secret.reveal(), MASK)
    return _printable(text[: EXCERPT_LIMIT * 4])[:EXCERPT_LIMIT]


def clean_line(text: str, limit: int) -> str:
    """A text as one printable line; one that is cut ends in `…`."""
    plain = _printable(text[: limit * 4])
    return plain if len(plain) <= limit else plain[: limit - 1] + "…"


def _printable(text: str) -> str:
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())

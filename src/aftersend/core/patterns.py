"""Regular expressions of strangers, kept to forms that cannot run away.

Python's engine tries alternatives one after the other, so that groups and several repeats multiply: `(a|a)(a|a)…` or
`a*a*a*b` hold up the whole process for minutes. Without groups and with one such repeat an alternative takes at most
the square of the text's length; possessive repeats (`\\s*+`) never give back and are free.
"""

from __future__ import annotations

import re
import warnings

from aftersend.core.errors import ConfigurationError

PATTERN_LIMIT = 200
ALTERNATIVE_LIMIT = 4
TEXT_LIMIT = 1_024
"""How many characters of a text are looked at."""

_TOKEN = re.compile(
    r"\\." r"|\[\^?\]?(?:\\.|[^\]\\])*\]" r"|(?P<repeat>[*+?]|\{(?:\d+,?\d*|,\d*)\})(?P<manner>[+?]?)" r"|.", re.DOTALL
)
_IGNORE_CASE = "(?i)"


def compile_pattern(text: str) -> re.Pattern[str]:
    """A pattern to search with in the first `TEXT_LIMIT` characters of a text. Raises ConfigurationError.

    `.*` at either end says nothing to a search and is left out; `(?i)` in front ignores case.
    """
    flags = re.IGNORECASE if text.startswith(_IGNORE_CASE) else re.NOFLAG
    bare = _without_ends(text.removeprefix(_IGNORE_CASE))
    fault = _fault(bare)
    if fault:
        raise ConfigurationError(f"the pattern {text[:PATTERN_LIMIT]!r} {fault}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(bare, flags)
    except (re.error, Warning) as error:
        raise ConfigurationError(f"the pattern {text!r} cannot be read: {error}") from None


def _without_ends(text: str) -> str:
    text = text.removeprefix(".*")
    return text if text.endswith("\\.*") else text.removesuffix(".*")


def _fault(text: str) -> str:
    if len(text) > PATTERN_LIMIT:
        return f"is longer than {PATTERN_LIMIT} characters"
    alternatives, repeats = 1, 0
    for token in _TOKEN.finditer(text):
        if token[0] in ("(", ")"):
            return "holds a group; write it without parentheses"
        if token[0] == "|":
            alternatives, repeats = alternatives + 1, 0
        if token["repeat"] and token["manner"] != "+":
            repeats += 1
        if repeats > 1:
            return "repeats more than once in one alternative; write the others possessive, such as \\s*+"
    return f"has more than {ALTERNATIVE_LIMIT} alternatives" if alternatives > ALTERNATIVE_LIMIT else ""

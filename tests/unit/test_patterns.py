"""Patterns of strangers: the usual ones work, the ones that run away are refused."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.errors import ConfigurationError
from aftersend.core.patterns import ALTERNATIVE_LIMIT, PATTERN_LIMIT, TEXT_LIMIT, compile_pattern


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("OK", "it is OK"),
        (".*OK.*", '{\n"status":"OK"}'),
        ("^OK$", "OK"),
        ("(?i)ok", "OK"),
        (r'"status":\s*"ok"', '{"status": "ok"}'),
        (r"<s>\s*+OK\s*</s>", "<s> OK </s>"),
        ("accepted|queued", "queued"),
        (r"\(done\)", "(done)"),
        ("[()]", "("),
        (r"^\{", "{}"),
        (r"OK\.*", "OK"),
        ("", ""),
    ],
)
def test_a_usual_pattern_is_found(pattern: str, text: str) -> None:
    assert compile_pattern(pattern).search(text)


def test_the_dots_at_the_end_belong_to_an_escape() -> None:
    assert not compile_pattern(r"OK\.*$").search("OKx")


@pytest.mark.parametrize(
    "pattern",
    [
        *("(a+)+$", "(a|a)(a|a)", "a*a*b", "a?a?aa", "a{1,9}a{,9}b", "a+?a+?b", r"\s*x\s*"),
        *("[", "[[]", "*", r"\1", "x" * 201, "|".join("abcde")),
    ],
)
def test_a_pattern_that_runs_away_or_cannot_be_read_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^the pattern "):
        compile_pattern(pattern)


@given(st.text(st.sampled_from("ab.*+?{}[]|\\1,^$-"), max_size=12))
def test_what_is_accepted_ends_soon(pattern: str) -> None:
    try:
        compiled = compile_pattern(pattern)
    except ConfigurationError:
        return
    started = time.process_time()
    compiled.search("a" * TEXT_LIMIT)
    assert time.process_time() - started < 0.5


def test_the_worst_that_is_accepted_ends_soon() -> None:
    worst = "|".join(["a?+a*?[a]?+b"] * ALTERNATIVE_LIMIT)
    assert len(worst) <= PATTERN_LIMIT
    started = time.process_time()
    assert not compile_pattern(worst).search("a" * TEXT_LIMIT)
    assert time.process_time() - started < 0.5

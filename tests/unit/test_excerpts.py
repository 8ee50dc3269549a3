"""What a stranger said is safe to show."""

from __future__ import annotations

from aftersend.core.excerpts import clean_line, one_line
from aftersend.core.secret import Secret


def test_what_the_other_side_said_is_one_line_without_our_secrets() -> None:
    assert one_line("user x\nsecret\thunter2\x00 wrong", [Secret("hunter2"), None]) == "user x secret ******** wrong"
    assert len(one_line("x" * 100_000)) == 200


def test_a_line_that_is_cut_says_so() -> None:
    assert clean_line("a\tb\n c", 5) == "a b c"
    assert clean_line("a b c d", 5) == "a b …"
    assert clean_line("\x00" * 1_000, 5) == ""

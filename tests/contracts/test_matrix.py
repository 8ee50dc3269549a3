"""The measure of what survives between vendors measures what it says."""

from pathlib import Path

import pytest

from aftersend.rack import dialects
from aftersend.testing.matrix import FIELDS, Passage, passages

FIXTURES = Path(__file__).parents[1] / "fixtures" / "dialects"


@pytest.fixture(scope="module")
def found() -> list[Passage]:
    return passages(dialects(), FIXTURES)


def test_canonical_json_keeps_every_field_of_every_vendor(found: list[Passage]) -> None:
    for passage in found:
        if passage.spoken == "canonical":
            assert passage.told == passage.events, passage.heard
            assert all(kept == there for kept, there in passage.kept.values()), passage
            assert not passage.unspoken


def test_what_is_told_keeps_its_type_in_every_vendors_words(found: list[Passage]) -> None:
    for passage in found:
        kept, there = passage.kept.get("type", (0, 0))
        assert (kept, there) == (passage.told, passage.told), (passage.heard, passage.spoken)


def test_what_is_told_keeps_its_message_in_every_vendors_words(found: list[Passage]) -> None:
    for passage in found:
        kept, there = passage.kept.get("message_id", (0, 0))
        assert kept == there, (passage.heard, passage.spoken)


def test_a_word_without_a_counterpart_is_named(found: list[Passage]) -> None:
    (passage,) = [item for item in found if (item.heard, item.spoken) == ("pure360", "halon")]
    assert "SMSOPTOUT" in passage.unspoken
    assert "CLICK" not in passage.unspoken
    assert passage.told < passage.events


def test_counts_stay_within_what_there_was(found: list[Passage]) -> None:
    for passage in found:
        assert set(passage.kept) <= set(FIELDS)
        assert all(0 <= kept <= there <= passage.told for kept, there in passage.kept.values())

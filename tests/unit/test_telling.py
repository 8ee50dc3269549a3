"""One answer's worth of events: whole, in order, no larger than it may be, and nothing left out in silence."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aftersend.contracts import Dialect
from aftersend.core.errors import ConflictError
from aftersend.core.event import Source
from aftersend.dialects import canonical, cloudevents, halon, pure360
from aftersend.testing.stores import event, events
from aftersend.web.telling import Telling

FORMS: list[tuple[Dialect, str, bool]] = [
    (canonical.Dialect(), "", True),
    (canonical.Dialect(), "", False),
    (cloudevents.Dialect(), "batched", False),
    (cloudevents.Dialect(), "structured", False),
    (halon.Dialect(), "", False),
    (pure360.Dialect(), "http", False),
    (pure360.Dialect(), "csv", False),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(FORMS), st.integers(1, 60), st.integers(1, 20_000))
def test_what_fits_is_a_run_from_the_first_on(form: tuple[Dialect, str, bool], count: int, most: int) -> None:
    dialect, name, in_lines = form
    telling = Telling(dialect, name, most, in_lines=in_lines)
    told = telling.fit(events(0, count))
    assert 1 <= told <= count
    assert told == 1 or len(telling.data) <= most
    alone = Telling(dialect, name, 1 << 30, in_lines=in_lines)
    alone.fit(events(0, told))
    assert (alone.data, alone.content_type) == (telling.data, telling.content_type)


def test_canonical_events_stand_one_a_line() -> None:
    telling = Telling(canonical.Dialect(), "", 1_000_000, in_lines=True)
    assert telling.fit(events(0, 3)) == 3
    assert [msgspec.json.decode(line)["source"]["id"] for line in telling.data.splitlines()] == ["0", "1", "2"]
    assert telling.content_type == "application/x-ndjson"


def test_the_run_ends_before_an_event_without_a_word_and_one_that_comes_first_is_told() -> None:
    telling = Telling(halon.Dialect(), "", 1_000_000, in_lines=False)
    source = Source("shop", "canonical", "profile.merged")
    without = msgspec.structs.replace(event(9), type="profile.merged", source=source)
    assert telling.fit([*events(0, 2), without, event(3)]) == 2
    with pytest.raises(ConflictError, match=r"halon has no word for the next event, profile\.merged; ask for another"):
        telling.fit([without, event(3)])

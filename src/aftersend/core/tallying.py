"""Counting events: by type, by hour, by what other mail servers said, and the sum of their ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from aftersend.core.event import Event, Failure
from aftersend.core.outcome import FAILURES_LIMIT, HOURS_LIMIT, Tally
from aftersend.core.timestamps import SECOND, format_time

TEXT_LIMIT = 120
"""Characters of a failure's text."""

_HOUR = 3_600 * SECOND


def tally_of(events: Sequence[Event]) -> Tally:
    """What a run of events says."""
    tally = Tally()
    add(tally, events)
    return tally


def add(tally: Tally, events: Sequence[Event]) -> None:
    """Count a run of events in; hours and failures past their limits are left out, types and ids never."""
    count_ids(tally, events)
    for (hour, type_), count in Counter([(event.time // _HOUR, event.type) for event in events]).items():
        label = format_time(hour * _HOUR)[:13]
        if label in tally.hours or len(tally.hours) < HOURS_LIMIT:
            types = tally.hours.setdefault(label, {})
            types[type_] = types.get(type_, 0) + count
    for text, count in Counter(_texts(events)).items():
        if text in tally.failures or len(tally.failures) < FAILURES_LIMIT:
            tally.failures[text] = tally.failures.get(text, 0) + count


def count_ids(tally: Tally, events: Sequence[Event]) -> None:
    """Count only what a manifest says: how many, of which types, with which ids."""
    tally.count += len(events)
    for type_, count in Counter([event.type for event in events]).items():
        tally.types[type_] = tally.types.get(type_, 0) + count
    tally.ids_sum += sum([int(event.id.replace("-", ""), 16) for event in events])
    tally.ids_sum %= 1 << 128


def _texts(events: Sequence[Event]) -> Iterable[str]:
    for event in events:
        if event.failure is not None:
            text = _text(event.failure)
            if text:
                yield text


def _text(failure: Failure) -> str:
    said = failure.reply or failure.detail or failure.category or failure.class_ or ""
    if failure.status and not said.startswith(failure.status) and f" {failure.status}" not in said:
        said = f"{failure.status} {said}"
    return " ".join(said[: 4 * TEXT_LIMIT].split())[:TEXT_LIMIT]


def counted_together(tallies: Iterable[Tally]) -> Tally:
    """What several tallies say together of that which a manifest says."""
    whole = Tally()
    for tally in tallies:
        whole.count += tally.count
        whole.ids_sum = (whole.ids_sum + tally.ids_sum) % (1 << 128)
        for type_, count in tally.types.items():
            whole.types[type_] = whole.types.get(type_, 0) + count
    return whole

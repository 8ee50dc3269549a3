"""Converting: bytes of one dialect to bytes of another, as `aftersend convert` does it, without input and output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from statistics import median

from aftersend.bench.readings import Reading, Report, Row, Scale, stopwatch
from aftersend.bench.reference import bare_rate
from aftersend.contracts import Dialect
from aftersend.core.event import Body, Event, Receipt
from aftersend.rack import find_dialect
from aftersend.simulation.campaign import Happening, hits
from aftersend.simulation.vendors import tell

JSON = ("activatepro", "altcraft", "canonical", "halon")
MEDIAN = Row("convert JSON: median of all pairs", "events", 80_000, 150_000)

_NOW = 1_770_000_000_000_000_000
_BATCH = 500
_EVENTS = 50_000


def json_dialects(scale: Scale, report: Report) -> Iterator[Reading]:
    """Each pair of the JSON dialects, and their median."""
    rates, count, reference = [], 0, bare_rate()
    for source, target in permutations(JSON, 2):
        row = Row(f"convert {source} → {target}", "events", 80_000, 150_000)
        reading = _measured(row, source, target, scale, report)
        rates.append(reading.value)
        count += reading.count
        yield reading
    yield Reading(MEDIAN, median(rates), count, (reference + bare_rate()) / 2)


def xml(scale: Scale, report: Report) -> Iterator[Reading]:
    """MessageGears' XML, read and spoken."""
    for source, target in (("messagegears", "canonical"), ("canonical", "messagegears")):
        row = Row(f"convert {source} → {target}", "events", 20_000, 40_000)
        yield _measured(row, source, target, scale, report)


def forms(scale: Scale, report: Report) -> Iterator[Reading]:
    """Pure360's form bodies, one event each, read and spoken."""
    for source, target in (("pure360", "canonical"), ("canonical", "pure360")):
        row = Row(f"convert {source} → {target}", "events", 40_000, 80_000)
        yield _measured(row, source, target, scale, report)


def _measured(row: Row, source: str, target: str, scale: Scale, report: Report) -> Reading:
    report(row.name)
    reads, speaks = find_dialect(source)[0], find_dialect(target)[0]
    bodies = corpus(source)
    rounds = max(1, scale.of(_EVENTS) // (2 * _BATCH))
    reference = bare_rate()
    with stopwatch() as watch:
        count = sum(_converted(reads, speaks, bodies) for _ in range(rounds))
    return Reading(row, watch.rate(count), count, (reference + bare_rate()) / 2)


def corpus(dialect: str) -> list[Body]:
    """Two batches of opens, clicks and unsubscriptions in a vendor's words; of ActivatePro four of each person."""
    happenings = list(hits(2 * _BATCH, 7, _NOW))
    if dialect == "activatepro":
        happenings = [_of_one_person(happenings, number) for number in range(2 * _BATCH)]
    halves: Sequence[Sequence[Happening]] = (happenings[:_BATCH], happenings[_BATCH:])
    return [body for half in halves for body in tell(dialect, half)]


def _of_one_person(happenings: Sequence[Happening], number: int) -> Happening:
    item = happenings[number]
    return Happening(
        item.what, item.time, item.id, item.message, item.campaign, happenings[number // 4 * 4].person, item.url
    )


def _converted(source: Dialect, target: Dialect, bodies: Sequence[Body]) -> int:
    """How many events were told; runs of one batch are told together, as `convert` does."""
    waiting: list[Event] = []
    count = 0
    word: Callable[[Event], str | None] = target.word
    for body in bodies:
        found = source.decode(Receipt(body.data, _NOW, content_type=body.content_type))
        waiting += [item for item in found if type(item) is Event and word(item) is not None]
        if len(waiting) >= _BATCH:
            count += sum(told.count for told in target.encode(waiting))
            waiting = []
    return count + sum(told.count for told in target.encode(waiting))

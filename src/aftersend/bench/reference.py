"""The bare loop that every rate is compared with: the same kind of events decoded and encoded, and nothing else."""

from __future__ import annotations

from functools import cache

import msgspec

from aftersend.bench.readings import stopwatch
from aftersend.core.canonical import Spoken
from aftersend.core.event import Event, Receipt
from aftersend.dialects.canonical import Dialect
from aftersend.simulation.campaign import hits
from aftersend.simulation.vendors import tell

_EVENTS = 500
_ROUNDS = 100
_NOW = 1_770_000_000_000_000_000
_decode = msgspec.json.Decoder(list[Spoken]).decode
_encode = msgspec.json.Encoder().encode


@cache
def _body() -> bytes:
    (body,) = tell("canonical", list(hits(_EVENTS, 1, _NOW)))
    dialect = Dialect()
    (spoken,) = dialect.encode([item for item in dialect.decode(Receipt(body.data, _NOW)) if isinstance(item, Event)])
    return spoken.data


def bare_rate() -> float:
    """Events a CPU-second that msgspec alone decodes and encodes, now, in this process (about 0.1 s)."""
    body = _body()
    with stopwatch() as watch:
        for _ in range(_ROUNDS):
            _encode(_decode(body))
    return watch.rate(_EVENTS * _ROUNDS)

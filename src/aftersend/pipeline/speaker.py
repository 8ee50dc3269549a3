"""Telling events in a dialect once, however many subscriptions want the same ones told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from aftersend.core.event import Body, Event
from aftersend.pipeline.voice import Voice

_KEPT_BYTES = 16_000_000
"""Bytes of bodies kept for the next subscription that wants them."""


class Speaker:
    """Encodes runs of events and remembers the last ones."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], list[Body]] = OrderedDict()
        self._bytes = 0

    def bodies(self, voice: Voice, positions: Sequence[int], events: Sequence[Event]) -> list[Body]:
        """The bodies of a run of events; `positions` name them in the log."""
        if len(events) < 2:
            return voice.encode(events)
        key = (voice, *positions)
        bodies = self._kept.get(key)
        if bodies is None:
            bodies = voice.encode(events)
            self._keep(key, bodies)
        return bodies

    def _keep(self, key: tuple[object, ...], bodies: list[Body]) -> None:
        self._kept[key] = bodies
        self._bytes += sum(body.size for body in bodies)
        while self._bytes > _KEPT_BYTES and self._kept:
            _, old = self._kept.popitem(last=False)
            self._bytes -= sum(body.size for body in old)

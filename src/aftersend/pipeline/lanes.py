"""Delivery without order: a batch goes out in lanes by recipient, several requests at once."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from zlib import crc32

from msgspec import Struct

from aftersend.contracts import Transport
from aftersend.core.event import Body
from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.ranges import ranges
from aftersend.pipeline.shipment import DisabledError, Run, Standing, parcel_of
from aftersend.pipeline.voice import Voice


class LaneResult(Struct):
    """What became of one lane."""

    left: Run
    """Not sent: the receiver failed."""
    refused: Run
    """Refused singly."""
    taken: bool
    """Whether anything was taken."""
    failure: Outcome | None = None


class Lanes:
    """Sends the lanes of a batch; the events of one recipient stay in order."""

    def __init__(self, subscription: str, concurrency: int, voice: Voice, transport: Transport) -> None:
        self._subscription = subscription
        self._concurrency = concurrency
        self._voice = voice
        self._transport = transport

    def split(self, line: Run) -> list[Run]:
        """The line in lanes."""
        lanes: dict[int, Run] = {}
        for item in line:
            lane = crc32((item[1].recipient or item[1].id).encode()) % self._concurrency
            lanes.setdefault(lane, []).append(item)
        return list(lanes.values())

    async def send(self, lanes: list[Run], epoch: int, numbers: dict[int, int], standing: Standing) -> list[LaneResult]:
        """Send all lanes at once. Raises DisabledError where the receiver wants nothing any more."""
        return await asyncio.gather(*(self._send_lane(lane, epoch, numbers, standing) for lane in lanes))

    async def _send_lane(self, lane: Run, epoch: int, numbers: dict[int, int], standing: Standing) -> LaneResult:
        result = LaneResult([], [], False)
        queue = deque([lane])
        while queue:
            part = queue.popleft()
            bodies = self._voice.encode([event for _, event in part])
            if len(bodies) > 1:
                queue.extendleft(reversed(_cut(part, bodies)))
                continue
            sequence = ranges([numbers[position] for position, _ in part])
            outcome = await self._transport.send(parcel_of(self._subscription, epoch, sequence, bodies[0]))
            standing.requests += 1
            if outcome.verdict is Verdict.GONE:
                raise DisabledError(outcome.detail or "the receiver answered 410 (gone)")
            if outcome.verdict is Verdict.FAILED:
                result.left = [item for rest in (part, *queue) for item in rest]
                result.failure = outcome
                return result
            _judge(part, outcome, queue, result)
        return result


def _judge(part: Run, outcome: Outcome, queue: deque[Run], result: LaneResult) -> None:
    if outcome.verdict in (Verdict.TAKEN, Verdict.PARTLY):
        failed = set(outcome.failed)
        named = [item for item in part if item[1].id in failed or item[1].source.id in failed]
        result.refused.extend(named)
        result.taken = result.taken or len(named) < len(part)
    elif len(part) > 1:
        middle = len(part) // 2
        queue.extendleft([part[middle:], part[:middle]])
    else:
        result.refused.extend(part)


def _cut(part: Run, bodies: Sequence[Body]) -> list[Run]:
    pieces, start = [], 0
    for body in bodies:
        pieces.append(part[start : start + body.count])
        start += body.count
    return pieces

"""What every transport that carries pieces must hold: each event arrives with its bytes, its id and in its order.

Bind it by a subclass that opens the transport with a consumer on the other side (needs pytest-asyncio in `auto` mode):

    class TestKafka(PieceSuite):
        module = kafka

        @asynccontextmanager
        async def connected(self):
            ...
            yield Queue(transport, arrived, vanish, secrets=("hunter2",))
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import groupby
from types import ModuleType
from typing import Any, ClassVar

from msgspec import Struct

from aftersend.contracts import Transport
from aftersend.core.outcome import Outcome, Parcel, Piece, Verdict
from aftersend.testing.transports import assert_told

KEYS = 7

_BODIES = (
    b'{"id":"1"}',
    '{"recipient":"zoë@example.com","url":"https://example.com/?a=1&b=😀"}'.encode(),
    '<?xml version="1.0" encoding="UTF-8"?>\n<a>é\r\n\t</a>'.encode(),
    '{"user_agent":"\uffff\ufffe"}'.encode(),
    b"\r\n.\r\n",
    bytes(range(256)),
    b"control \x01\x08\x0b characters",
)


class Arrived(Struct, frozen=True):
    """A message as a consumer sees it."""

    id: str
    type: str
    body: bytes
    content_type: str
    key: str | None = None
    """What the queue keeps order for, in its own words; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A transport of pieces with the other side of it in the hands of a test."""

    transport: Transport
    arrived: Callable[[], Awaitable[list[Arrived]]]
    """What has arrived since the queue was made, in order of arrival, repeats included unless the queue drops them."""
    vanish: Callable[[], Awaitable[None]]
    """From now on nobody is there."""
    secrets: tuple[str, ...] = ()
    """Passwords and tokens that the transport was opened with."""


def piece(number: int, body: bytes = b"{}", key: str = "", content_type: str = "application/json") -> Piece:
    """A piece by its number; without a key, the number is its key."""
    id_ = f"00000000-0000-8000-8000-{number:012}"
    return Piece(id_, key or f"person-{number}@example.com", "email.clicked", body, content_type)


def parcel_of(pieces: Iterable[Piece], id_: str = "") -> Parcel:
    """A parcel of pieces; the same first piece makes the same id."""
    kept = tuple(pieces)
    return Parcel(id_ or f"parcel-{kept[0].id}", b"", "", pieces=kept)


def ids(arrived: Iterable[Arrived]) -> list[str]:
    """The ids, in order."""
    return [one.id for one in arrived]


class PieceSuite:
    """The contract of a transport that carries pieces."""

    module: ClassVar[ModuleType]
    large: ClassVar[int] = 200_000
    """Bytes of a body that is taken."""
    too_large: ClassVar[int]
    """Bytes of a body that is not."""
    many: ClassVar[int] = 600
    """Pieces that order is looked for in."""

    def connected(self) -> AbstractAsyncContextManager[Queue]:
        """The transport, connected to a real queue that holds nothing yet."""
        raise NotImplementedError

    def test_the_name_is_the_name_of_the_file(self) -> None:
        transport: Any = self.module.Transport
        assert transport.name == self.module.__name__.rpartition(".")[2]
        assert transport.schemes
        assert transport.brokered

    async def test_pieces_arrive_unchanged_with_what_is_known_of_them(self) -> None:
        pieces = [piece(number, body, content_type="text/plain") for number, body in enumerate(_BODIES)]
        async with self.connected() as queue:
            assert queue.transport.carries == "pieces"
            outcome = await queue.transport.send(parcel_of(pieces))
            assert outcome == Outcome(Verdict.TAKEN)
            arrived = sorted(await queue.arrived(), key=lambda one: one.id)
        assert [(one.id, one.body, one.type, one.content_type) for one in arrived] == [
            (one.id, one.body, one.type, one.content_type) for one in pieces
        ]

    async def test_order_is_kept_for_each_key(self) -> None:
        pieces = [piece(number, b'{"n":%d}' % number, f"key {number % KEYS}") for number in range(self.many)]
        async with self.connected() as queue:
            for start in (0, self.many // 2):
                sent = parcel_of(pieces[start : start + self.many // 2])
                assert (await queue.transport.send(sent)).verdict is Verdict.TAKEN
            arrived = await queue.arrived()
        assert len(arrived) == self.many
        for number in range(KEYS):
            wanted = [one.id for one in pieces[number::KEYS]]
            assert [id_ for id_ in ids(arrived) if id_ in set(wanted)] == wanted

    async def test_the_same_person_has_the_same_key_and_no_other_has_it(self) -> None:
        people = ["ann@example.com", "bob@example.com", "Zoë 😀 " + "z" * 300]
        pieces = [piece(number, key=people[number % 3]) for number in range(30)]
        async with self.connected() as queue:
            assert (await queue.transport.send(parcel_of(pieces))).verdict is Verdict.TAKEN
            keys = {one.id: one.key for one in await queue.arrived()}
        assert len(keys) == 30
        if None not in keys.values():
            by_person = [{keys[one.id] for one in pieces[start::3]} for start in range(3)]
            assert [len(found) for found in by_person] == [1, 1, 1]
            assert len(set.union(*by_person)) == 3

    async def test_what_is_sent_again_has_the_same_ids(self) -> None:
        pieces = [piece(number) for number in range(25)]
        async with self.connected() as queue:
            for _ in range(2):
                assert (await queue.transport.send(parcel_of(pieces))).verdict is Verdict.TAKEN
            arrived = await queue.arrived()
        once = sorted(one.id for one in pieces)
        assert sorted(ids(arrived)) in (once, sorted(once * 2))

    async def test_a_large_piece_is_taken_among_small_ones(self) -> None:
        pieces = [piece(1), piece(2, b'"' + b"x" * self.large + b'"'), piece(3)]
        async with self.connected() as queue:
            assert (await queue.transport.send(parcel_of(pieces))).verdict is Verdict.TAKEN
            assert {one.id: one.body for one in await queue.arrived()} == {one.id: one.body for one in pieces}

    async def test_a_piece_that_is_too_large_is_the_only_one_refused(self) -> None:
        pieces = [piece(1), piece(2, b'"' + b"x" * self.too_large + b'"'), piece(3)]
        async with self.connected() as queue:
            outcome = await queue.transport.send(parcel_of(pieces))
            assert_told(outcome)
            if outcome.verdict is Verdict.TOO_LARGE:
                outcomes = [await queue.transport.send(parcel_of([one], f"single {one.id}")) for one in pieces]
                assert [one.verdict for one in outcomes] == [Verdict.TAKEN, Verdict.PARTLY, Verdict.TAKEN]
                outcome = outcomes[1]
            assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, (pieces[1].id,))
            assert {one.id for one in await queue.arrived()} == {pieces[0].id, pieces[2].id}

    async def test_looking_whether_it_would_work_tells_nothing(self) -> None:
        async with self.connected() as queue:
            assert (await queue.transport.probe()).verdict is Verdict.TAKEN
            assert await queue.arrived() == []

    async def test_nobody_there_is_a_failure_told_in_one_line(self) -> None:
        async with self.connected() as queue:
            assert (await queue.transport.send(parcel_of([piece(1)]))).verdict is Verdict.TAKEN
            await queue.vanish()
            for outcome in (await queue.transport.send(parcel_of([piece(2)])), await queue.transport.probe()):
                assert outcome.verdict is Verdict.FAILED
                assert not outcome.ours
                assert_told(outcome)
                for secret in queue.secrets:
                    assert secret not in outcome.detail

    async def test_a_send_that_is_called_off_leaves_the_transport_usable(self) -> None:
        pieces = [piece(number, key="one person") for number in range(self.many // 3)]
        async with self.connected() as queue:
            for turns in (0, 1, 2, 3, 5, 8, 13, 40):
                task = asyncio.ensure_future(queue.transport.send(parcel_of(pieces)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled() or task.result().verdict is Verdict.TAKEN
            assert (await queue.transport.send(parcel_of(pieces))).verdict is Verdict.TAKEN
            arrived = ids(await queue.arrived())
        assert set(arrived) == {one.id for one in pieces}
        assert [id_ for id_, _ in groupby(arrived)][-1] == pieces[-1].id

    async def test_closing_twice_is_closing_and_it_opens_again(self) -> None:
        async with self.connected() as queue:
            await queue.transport.close()
            assert (await queue.transport.send(parcel_of([piece(1)]))).verdict is Verdict.TAKEN
            await queue.transport.close()
            await queue.transport.close()
            assert ids(await queue.arrived()) == [piece(1).id]

    async def test_secrets_are_never_printed(self) -> None:
        async with self.connected() as queue:
            assert queue.secrets, "open the transport with a secret"
            await queue.transport.probe()
            for secret in queue.secrets:
                assert secret not in repr(queue.transport)
                assert secret not in str(queue.transport)

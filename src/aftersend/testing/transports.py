"""What every transport must hold: bytes arrive unchanged and in order, and nothing that happens outside raises.

Bind it by a subclass that opens the transport with the other side of it (needs pytest-asyncio in `auto` mode):

    class TestHttp(TransportSuite):
        module = http

        @asynccontextmanager
        async def connected(self):
            ...
            yield OtherSide(transport, bodies, vanish)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

from aftersend.contracts import Transport
from aftersend.core.outcome import Outcome, Parcel, Verdict

DETAIL_LIMIT = 600
"""Characters of the longest detail."""

_ALL_BYTES = bytes(range(256))


@dataclass(frozen=True, slots=True)
class OtherSide:
    """A transport with the other side of it in the hands of a test."""

    transport: Transport
    bodies: Callable[[], Awaitable[list[bytes]]]
    """What has arrived, in order."""
    vanish: Callable[[], Awaitable[None]]
    """From now on nobody is there."""


def parcel(number: int, body: bytes) -> Parcel:
    """A parcel by its number."""
    return Parcel(f"parcel-{number}", body, "application/octet-stream")


def assert_told(outcome: Outcome) -> None:
    """A failure is told in one printable line of bounded length."""
    assert outcome.detail
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= DETAIL_LIMIT


class TransportSuite:
    """The contract of a transport."""

    module: ClassVar[ModuleType]

    def connected(self) -> AbstractAsyncContextManager[OtherSide]:
        """The transport, connected to a real other side."""
        raise NotImplementedError

    def test_the_name_is_the_name_of_the_file(self) -> None:
        transport: Any = self.module.Transport
        assert transport.name == self.module.__name__.rpartition(".")[2]

    async def test_bytes_arrive_unchanged_and_in_order(self) -> None:
        bodies = [b"{}", _ALL_BYTES, b"\r\n.\r\n", b"x" * 1_500_000, "é€😀".encode()]
        async with self.connected() as other:
            for number, body in enumerate(bodies):
                outcome = await other.transport.send(parcel(number, body))
                assert outcome.verdict is Verdict.TAKEN, outcome
            assert await other.bodies() == bodies

    async def test_a_parcel_may_be_sent_again(self) -> None:
        async with self.connected() as other:
            for _ in range(2):
                assert (await other.transport.send(parcel(1, b"again"))).verdict is Verdict.TAKEN
            assert await other.bodies() in ([b"again"], [b"again", b"again"])

    async def test_nobody_there_is_a_failure_told_in_one_line(self) -> None:
        async with self.connected() as other:
            await other.vanish()
            outcome = await other.transport.send(parcel(1, b"lost"))
            assert outcome.verdict is Verdict.FAILED
            assert not outcome.ours
            assert_told(outcome)

    async def test_a_send_that_is_called_off_leaves_the_transport_usable(self) -> None:
        async with self.connected() as other:
            for turns in range(4):
                task = asyncio.ensure_future(other.transport.send(parcel(turns, b"called off")))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
            assert (await other.transport.send(parcel(9, b"on time"))).verdict is Verdict.TAKEN
            assert (await other.bodies())[-1] == b"on time"

    async def test_closing_twice_is_closing(self) -> None:
        async with self.connected() as other:
            await other.transport.close()
            await other.transport.close()

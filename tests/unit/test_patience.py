"""A failure costs a wait; days of nothing but failure end the line; our own faults never do."""

import asyncio

import pytest

from aftersend.core.outcome import Outcome, Verdict
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.patience import Patience
from aftersend.pipeline.shipment import DisabledError, Standing

FAILED = Outcome(Verdict.FAILED, "530 not logged in")


class Clock:
    now = 1_000 * SECOND

    def __call__(self) -> int:
        return self.now


def patience(**fields: object) -> tuple[Patience, Standing, Clock]:
    standing, clock = Standing(), Clock()
    subscription = Subscription(name="x", retry=(5, 30), disable_after=60.0, **fields)  # type: ignore[arg-type]
    return Patience(subscription, standing, clock, lambda: 0.5), standing, clock


def test_waits_follow_the_list_and_are_never_shorter_than_asked_for() -> None:
    kept, standing, clock = patience()
    assert [kept.failed(FAILED) for _ in range(3)] == [5, 30, 30]
    assert kept.failed(Outcome(Verdict.FAILED, "421 in a while", retry_after=90)) == 90
    assert (standing.failures, standing.detail) == (4, "421 in a while")
    assert standing.next_try_at == clock.now + 90 * SECOND
    assert not kept.breaks()
    kept.failed(FAILED)
    assert kept.breaks()
    assert standing.breaker == "open"


def test_nothing_but_failure_ends_the_line() -> None:
    kept, _, clock = patience()
    kept.failed(FAILED)
    clock.now += 61 * SECOND
    with pytest.raises(DisabledError, match="nothing but failure for 60 s: 530 not logged in"):
        kept.failed(FAILED)


def test_a_success_in_between_begins_anew() -> None:
    kept, standing, clock = patience()
    kept.failed(FAILED)
    standing.recovered()
    clock.now += 61 * SECOND
    assert kept.failed(FAILED) == 5


def test_our_own_faults_never_end_it() -> None:
    kept, _, clock = patience()
    for _ in range(3):
        clock.now += 3_600 * SECOND
        kept.failed(Outcome(Verdict.FAILED, "the disk is full", ours=True))


async def test_an_operator_need_not_wait() -> None:
    kept, _, _ = patience()
    waiting = asyncio.create_task(kept.wait(60))
    await asyncio.sleep(0)
    kept.nudge()
    async with asyncio.timeout(1):
        await waiting

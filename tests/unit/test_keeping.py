"""A connection is kept between two uses, and never after something went wrong on it."""

from __future__ import annotations

import asyncio

import pytest

from aftersend.egress.keeping import Kept


class Line:
    """A connection that says what was done to it."""

    def __init__(self) -> None:
        self.ends: list[str] = []
        self.answers = True

    async def is_alive(self) -> bool:
        return self.answers

    async def close(self) -> None:
        self.ends.append("closed")

    def drop(self) -> None:
        self.ends.append("dropped")


class Lines:
    """All that were opened."""

    def __init__(self) -> None:
        self.opened: list[Line] = []

    async def open(self) -> Line:
        self.opened.append(Line())
        return self.opened[-1]


async def test_the_next_use_has_the_same_connection_while_it_answers() -> None:
    lines, kept = Lines(), Kept[Line](60)
    for _ in range(3):
        async with kept.use(lines.open):
            pass
    assert len(lines.opened) == 1
    lines.opened[0].answers = False
    async with kept.use(lines.open) as line:
        assert line is lines.opened[1]
    assert lines.opened[0].ends == ["dropped"]
    await kept.close()
    await kept.close()
    assert lines.opened[1].ends == ["closed"]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError])
async def test_what_goes_wrong_ends_the_connection(error: type[BaseException]) -> None:
    lines, kept = Lines(), Kept[Line](60)
    with pytest.raises(error):
        async with kept.use(lines.open):
            raise error
    assert lines.opened[0].ends == ["dropped"]
    async with kept.use(lines.open) as line:
        assert line is lines.opened[1]
    await kept.close()


async def test_one_uses_it_at_a_time() -> None:
    lines, kept, users = Lines(), Kept[Line](60), 0

    async def use() -> None:
        nonlocal users
        async with kept.use(lines.open):
            users += 1
            assert users == 1
            await asyncio.sleep(0)
            users -= 1

    await asyncio.gather(*(use() for _ in range(5)))
    assert len(lines.opened) == 1
    await kept.close()


async def test_nobody_uses_it_for_a_while_and_it_is_let_go() -> None:
    lines, kept = Lines(), Kept[Line](0.01)
    async with kept.use(lines.open):
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.03)
    assert lines.opened[0].ends == ["dropped"]

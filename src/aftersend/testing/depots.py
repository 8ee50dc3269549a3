"""What every transport that carries files must hold: a file is there whole under its name, or not at all.

Bind it by a subclass that opens the depot with the other side of it (needs pytest-asyncio in `auto` mode):

    class TestFtp(DepotSuite):
        module = ftp

        @asynccontextmanager
        async def connected(self):
            ...
            yield Shelf(depot, files, vanish, reappear, refuse, secrets=("hunter2",))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, Protocol

import pytest
from msgspec import structs

from aftersend.contracts import Depot, Transport
from aftersend.core.outcome import Outcome, Parcel, Tally, Verdict, Volume
from aftersend.testing.transports import assert_told

_ALL_BYTES = bytes(range(256))
_LARGE = 24_000_000
"""Bytes of a file that takes a while."""


class DepotTransport(Transport, Depot, Protocol):
    """A transport that carries files."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """A depot with the other side of it in the hands of a test."""

    depot: DepotTransport
    files: Callable[[], Awaitable[dict[str, bytes]]]
    """Every file of the folder with its bytes, hidden and half ones too; works also while nobody is there."""
    vanish: Callable[[], Awaitable[None]]
    """From now on nobody is there; what is under way is cut."""
    reappear: Callable[[], Awaitable[None]]
    """They are there again, with the files that they had."""
    refuse: Callable[[], Awaitable[None]]
    """From now on a file of more than 100,000 bytes is refused, at its beginning or amid it."""
    secrets: tuple[str, ...] = ()
    """Passwords, keys and phrases that the depot was opened with."""


def volume(folder: Path, name: str, data: bytes) -> Volume:
    """A file of these bytes on our side; the same name and bytes make the same volume."""
    digest = blake2b(name.encode() + b"\n" + data, digest_size=15).hexdigest()
    path = folder / f"{digest}.file"
    path.write_bytes(data)
    return Volume(
        id=f"vol_{digest}",
        name=name,
        path=str(path),
        size=len(data),
        content_type="application/json",
        epoch=1,
        first_sequence=1,
        last_sequence=1,
        since=0,
        until=0,
        tally=Tally(),
    )


def is_taken_by_a_consumer(found: str, name: str) -> bool:
    """Whether a consumer that looks for files such as `name` would take `found` for one.

    Consumers list `*`, by the beginning of the name, or by its end; a listing may show hidden files as well.
    """
    ending = name[name.index(".") :] if "." in name else name
    return not found.startswith(".") or fnmatch(found, f"*{ending}") or fnmatch(found, f"{name[:8]}*")


@asynccontextmanager
async def _watched(shelf: Shelf, name: str) -> AsyncIterator[list[bytes]]:
    """What a consumer gets under a name meanwhile; that it finds nothing else to take is checked."""
    seen: list[bytes] = []

    async def look() -> None:
        while True:
            for found, data in (await shelf.files()).items():
                if found == name:
                    seen.append(data)
                else:
                    assert not is_taken_by_a_consumer(found, name), f"{found} can be taken for {name}"
            await asyncio.sleep(0.001)

    watch = asyncio.create_task(look())
    try:
        yield seen
    finally:
        watch.cancel()
        await asyncio.wait([watch])
    if not watch.cancelled():
        watch.result()


async def _begun(shelf: Shelf, put: asyncio.Task[Outcome]) -> None:
    """Returns when something of the file is there."""
    async with asyncio.timeout(10):
        while not put.done() and not await shelf.files():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


class DepotSuite:
    """The contract of a transport that carries files."""

    module: ClassVar[ModuleType]

    def connected(self) -> AbstractAsyncContextManager[Shelf]:
        """The depot, with an empty folder on a real other side."""
        raise NotImplementedError

    def test_the_name_is_the_name_of_the_file(self) -> None:
        transport: Any = self.module.Transport
        assert transport.name == self.module.__name__.rpartition(".")[2]

    async def test_it_carries_volumes_and_no_parcels(self) -> None:
        async with self.connected() as shelf:
            assert shelf.depot.carries == "volumes"
            outcome = await shelf.depot.send(Parcel("p", b"{}", "application/json"))
            assert outcome.verdict is Verdict.FAILED
            assert outcome.ours
            assert_told(outcome)
            assert await shelf.files() == {}

    async def test_files_arrive_whole_under_their_names(self, tmp_path: Path) -> None:
        told = {"empty.json": b"", "one.json": b"[]", "bytes.json.gz": _ALL_BYTES * 3, "l-1.2_3.csv": b"\r\n" * 900_000}
        async with self.connected() as shelf:
            for name, data in told.items():
                outcome = await shelf.depot.put(volume(tmp_path, name, data))
                assert outcome.verdict is Verdict.TAKEN, outcome
            assert await shelf.files() == told

    @pytest.mark.parametrize("again", [b"the same", b"less", b"more of it than before"])
    async def test_a_file_put_again_replaces_itself(self, tmp_path: Path, again: bytes) -> None:
        async with self.connected() as shelf:
            for data in (b"the same", again):
                assert (await shelf.depot.put(volume(tmp_path, "day.csv", data))).verdict is Verdict.TAKEN
            assert await shelf.files() == {"day.csv": again}

    @pytest.mark.parametrize("before", [None, b"yesterday's"])
    async def test_nothing_is_to_be_taken_while_it_is_under_way(self, tmp_path: Path, before: bytes | None) -> None:
        data = _ALL_BYTES * (_LARGE // 256)
        async with self.connected() as shelf:
            if before is not None:
                await shelf.depot.put(volume(tmp_path, "events-1.json", before))
            async with _watched(shelf, "events-1.json") as seen:
                outcome = await shelf.depot.put(volume(tmp_path, "events-1.json", data))
            assert outcome.verdict is Verdict.TAKEN, outcome
            assert all(found in (before, data) for found in seen), "a consumer found half a file"
            assert await shelf.files() == {"events-1.json": data}

    async def test_a_cut_upload_leaves_nothing_and_goes_through_later(self, tmp_path: Path) -> None:
        data = _ALL_BYTES * (_LARGE // 256)
        whole = volume(tmp_path, "cut.json", data)
        async with self.connected() as shelf:
            under_way = asyncio.create_task(shelf.depot.put(whole))
            await _begun(shelf, under_way)
            await shelf.vanish()
            outcome = await under_way
            if outcome.verdict is not Verdict.TAKEN:
                assert outcome.verdict is Verdict.FAILED
                assert_told(outcome)
                assert not [name for name in await shelf.files() if is_taken_by_a_consumer(name, "cut.json")]
            await shelf.reappear()
            outcome = await shelf.depot.put(whole)
            assert outcome.verdict is Verdict.TAKEN, outcome
            assert await shelf.files() == {"cut.json": data}

    async def test_a_refused_upload_leaves_nothing_and_is_told_in_one_line(self, tmp_path: Path) -> None:
        refused = volume(tmp_path, "refused.json", _ALL_BYTES * 8_000)
        async with self.connected() as shelf:
            await shelf.refuse()
            outcome = await shelf.depot.put(refused)
            assert outcome.verdict is Verdict.FAILED, outcome
            assert_told(outcome)
            assert not [name for name in await shelf.files() if is_taken_by_a_consumer(name, "refused.json")]

    async def test_nobody_there_is_a_failure_told_in_one_line(self, tmp_path: Path) -> None:
        async with self.connected() as shelf:
            await shelf.vanish()
            outcome = await shelf.depot.put(volume(tmp_path, "lost.json", b"[]"))
            assert outcome.verdict is Verdict.FAILED
            assert not outcome.ours
            assert_told(outcome)
            await shelf.reappear()
            assert (await shelf.depot.put(volume(tmp_path, "found.json", b"[]"))).verdict is Verdict.TAKEN

    async def test_a_file_that_is_not_here_any_more_is_our_own_fault(self, tmp_path: Path) -> None:
        lost = structs.replace(volume(tmp_path, "gone.json", b"[]"), path=str(tmp_path / "gone"))
        async with self.connected() as shelf:
            outcome = await shelf.depot.put(lost)
            assert outcome.verdict is Verdict.FAILED
            assert outcome.ours
            assert_told(outcome)
            assert "gone.json" not in await shelf.files()

    async def test_a_put_that_is_called_off_leaves_the_depot_usable(self, tmp_path: Path) -> None:
        data = _ALL_BYTES * 20_000
        called_off = volume(tmp_path, "off.json", data)
        async with self.connected() as shelf:
            for turns in (0, 1, 2, 5, 20):
                task = asyncio.ensure_future(shelf.depot.put(called_off))
                for _ in range(turns):
                    await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait([task])
                found = (await shelf.files()).get("off.json")
                assert found in (None, data)
            assert (await shelf.depot.put(volume(tmp_path, "on.json", b"on time"))).verdict is Verdict.TAKEN
            assert (await shelf.files())["on.json"] == b"on time"

    async def test_a_probe_says_that_it_would_work_and_leaves_nothing(self) -> None:
        async with self.connected() as shelf:
            outcome = await shelf.depot.probe()
            assert outcome.verdict is Verdict.TAKEN, outcome
            assert await shelf.files() == {}

    async def test_a_probe_says_in_one_line_what_would_fail(self) -> None:
        async with self.connected() as shelf:
            await shelf.vanish()
            outcome = await shelf.depot.probe()
            assert outcome.verdict is Verdict.FAILED
            assert_told(outcome)

    async def test_closing_twice_is_closing(self, tmp_path: Path) -> None:
        async with self.connected() as shelf:
            await shelf.depot.put(volume(tmp_path, "last.json", b"[]"))
            await shelf.depot.close()
            await shelf.depot.close()

    async def test_secrets_are_never_printed(self, tmp_path: Path) -> None:
        async with self.connected() as shelf:
            told: list[Outcome] = [await shelf.depot.put(volume(tmp_path, "a.json", b"[]"))]
            await shelf.vanish()
            told += [await shelf.depot.put(volume(tmp_path, "b.json", b"[]")), await shelf.depot.probe()]
            printed = f"{shelf.depot!r} {shelf.depot} {told}"
            assert not [secret for secret in shelf.secrets if secret in printed]

"""The folder holds the contract of a depot."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aftersend.testing.depots import DepotSuite, Shelf
from aftersend.transports import folder


class TestFolder(DepotSuite):
    """`file:///…`, whose other side is the disk."""

    module = folder

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Shelf]:
        """A folder that can be moved away, and files that may not grow as they wish."""
        with TemporaryDirectory() as root:
            place, away = Path(root, "in"), Path(root, "away")
            place.mkdir()

            def read() -> dict[str, bytes]:
                found = place if place.is_dir() else away
                kept = {}
                for path in found.iterdir():
                    try:
                        kept[path.name] = path.read_bytes()
                    except FileNotFoundError:  # renamed meanwhile
                        continue
                return kept

            async def files() -> dict[str, bytes]:
                return await asyncio.to_thread(read)

            async def vanish() -> None:
                place.rename(away)

            async def reappear() -> None:
                away.rename(place)

            async def refuse() -> None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))

            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            depot = folder.Transport(url=place.as_uri(), folders=(Path(root),))
            try:
                yield Shelf(depot, files, vanish, reappear, refuse)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                await depot.close()

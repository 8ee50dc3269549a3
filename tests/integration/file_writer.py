"""A process that tells a store in files until all of it is told, or it is killed: see `test_files_kill.py`.

    python file_writer.py DATA TARGET WHERE NUMBER [EVENTS]

EVENTS is how many a file has. WHERE it kills itself, at the NUMBERth time that it comes there: `writing` (amid a file),
`finishing` (before the plan is written down), `planned` (before the file is handed over), `put` (before that is noted),
`noted` (before the files are removed). Anything else: nowhere. It prints `begun`, each fault that it meets, and
`all` when everything is told; then it waits for its input to end.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.integration.filing import NOW, events, house

from aftersend.core.rotation import Rotation
from aftersend.core.timestamps import SECOND
from aftersend.pipeline.draft import Draft
from aftersend.pipeline.ledger import Ledger
from aftersend.pipeline.outbox import Outbox
from aftersend.transports.folder import Transport

COUNT = 6_000
EVENTS = 1_500
HOUR = 3_600 * SECOND
PLACES = {
    "writing": (Draft, "add", True),
    "finishing": (Outbox, "commit", False),
    "planned": (Outbox, "commit", True),
    "put": (Ledger, "settle", False),
    "noted": (Outbox, "clear", False),
}


def die_at(where: str, number: int) -> None:
    """Let the process be killed when it comes there."""
    if where not in PLACES:
        return
    owner, name, after = PLACES[where]
    inner: Callable[..., Any] = getattr(owner, name)
    left = [number]

    def come(*given: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            if after:
                inner(*given)
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*given)

    setattr(owner, name, come)


async def fill(data: Path) -> None:
    """A store of events: some of one hour, the rest of the next, and one that ends that."""
    async with house(data) as home:
        for start in range(0, COUNT, 1_000):
            await home.keep(*events(start, start + 1_000, NOW + HOUR * (start >= COUNT // 2)))


async def tell(data: Path, target: Path, most: int) -> None:
    """Tell everything."""
    rotation = Rotation(max_events=most, format="ndjson")
    async with house(data) as home:
        home.now = NOW + 5 * HOUR
        async with home.filing(Transport(url=target.as_uri(), folders=(target,)), file=rotation) as filer:
            print("begun", flush=True)
            told = ""
            while home.ledger.cursor("sub_x").sequence < COUNT or home.outbox() != ["names.json"]:
                if filer.standing.failures and filer.standing.detail != told:
                    told = filer.standing.detail
                    print(told, flush=True)
                await asyncio.sleep(0.005)
    print("all", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    die_at(sys.argv[3], int(sys.argv[4]))
    asyncio.run(tell(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[5]) if sys.argv[5:] else EVENTS))

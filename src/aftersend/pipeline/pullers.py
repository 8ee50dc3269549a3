"""The pullers of all subscriptions, each made when it is first asked for and let go when nobody pulls any more."""

from __future__ import annotations

from aftersend.core.timestamps import SECOND
from aftersend.pipeline.pull import House, Puller

IDLE_SECONDS = 600
"""A subscription that nobody has pulled for so long is not kept in memory."""

SWEEP_SECONDS = 60
"""Between two looks for such."""


class Pulls:
    """Finds the puller of a subscription."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._pullers: dict[str, Puller] = {}
        self._swept_at = 0

    def of(self, subscription: str) -> Puller:
        """The puller of a subscription's id. Raises NotFoundError."""
        puller = self._pullers.get(subscription)
        if puller is None:
            self._sweep()
            puller = self._pullers[subscription] = Puller(self._house.record_of(subscription), self._house)
        return puller

    def _sweep(self) -> None:
        now = self._house.clock()
        if now - self._swept_at < SWEEP_SECONDS * SECOND:
            return
        self._swept_at = now
        since = now - IDLE_SECONDS * SECOND
        for id_ in [id_ for id_, puller in self._pullers.items() if puller.is_unused(since)]:
            self._pullers.pop(id_).leave()

    async def drop(self, subscription: str) -> None:
        """Let go of a subscription."""
        puller = self._pullers.pop(subscription, None)
        if puller is not None:
            await puller.close()

    async def close(self) -> None:
        """Let go of all; what is under way is finished first."""
        for id_ in list(self._pullers):
            await self.drop(id_)

    def look_anew(self, subscription: str) -> None:
        """A subscription, or what is beside its line, was changed."""
        if subscription in self._pullers:
            self._pullers[subscription].look_anew()

    def standing(self, subscription: str) -> dict[str, int]:
        """How many leases are out."""
        puller = self._pullers.get(subscription)
        return puller.standing() if puller else {}

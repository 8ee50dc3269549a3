"""What becomes of the pieces of one parcel that a queue takes one by one, over all the tries of that parcel.

A queue that is nearly full takes the first pieces of a parcel and refuses the rest, try after try. So a try goes on
where the one before it stopped: at the first piece that was not taken. What the queue took behind that piece is sent
again, in order and with the same ids, because a consumer that goes by the order must see the later word last.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from aftersend.core.outcome import Outcome, Parcel, Piece, Verdict

PARCEL_LIMIT = 64
"""Parcels that are remembered between two tries; the oldest is forgotten, and begins anew."""

_TAKEN = Outcome(Verdict.TAKEN)


class Fault(Struct, frozen=True):
    """Why a piece was not taken."""

    detail: str
    is_final: bool = False
    """The queue will not have this piece; otherwise it was not the time."""


class Handover:
    """The pieces of one parcel on their way."""

    def __init__(self, parcel: Parcel) -> None:
        self._parcel = parcel
        self._done = 0
        self._refused: dict[str, str] = {}

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Those that are still to be told, in order."""
        return self._parcel.pieces[self._done :]

    def settle(self, faults: Mapping[str, Fault]) -> Outcome:
        """What this try means for the parcel; `faults` are of `pieces`, by id; a piece without one was taken."""
        for index, piece in enumerate(self.pieces):
            fault = faults.get(piece.id)
            if fault is None:
                continue
            if not fault.is_final:
                self._done += index
                return Outcome(Verdict.FAILED, fault.detail)
            self._refused[piece.id] = fault.detail
        self._done = len(self._parcel.pieces)
        return self._outcome()

    def _outcome(self) -> Outcome:
        if not self._refused:
            return _TAKEN
        id_, detail = next(iter(self._refused.items()))
        others = f" (and {len(self._refused) - 1} more)" if len(self._refused) > 1 else ""
        return Outcome(Verdict.PARTLY, f"{id_}{others}: {detail}", failed=tuple(self._refused))


class Handovers:
    """The parcels of one transport that were not taken whole yet."""

    def __init__(self) -> None:
        self._known: dict[str, Handover] = {}

    def take_up(self, parcel: Parcel) -> Handover:
        """The handover of a parcel, as its last try left it."""
        handover = self._known.pop(parcel.id, None) or Handover(parcel)
        self._known[parcel.id] = handover
        while len(self._known) > PARCEL_LIMIT:
            del self._known[next(iter(self._known))]
        return handover

    def settle(self, parcel: Parcel, faults: Mapping[str, Fault]) -> Outcome:
        """What a try means for its parcel; one that is through is forgotten."""
        outcome = self.take_up(parcel).settle(faults)
        if outcome.verdict is not Verdict.FAILED:
            del self._known[parcel.id]
        return outcome

"""What becomes of the pieces of a parcel over all its tries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.handover import PARCEL_LIMIT, Fault, Handovers
from aftersend.core.outcome import Parcel, Piece, Verdict

FULL = Fault("the queue is full")
POISON = Fault("too large", is_final=True)


def parcel(*ids: str, id_: str = "p") -> Parcel:
    return Parcel(id_, b"", "", pieces=tuple(Piece(one, "key", "email.opened", b"{}", "") for one in ids))


def waiting(handovers: Handovers, of: Parcel) -> str:
    return "".join(piece.id for piece in handovers.take_up(of).pieces)


def test_a_parcel_without_a_fault_is_taken() -> None:
    assert Handovers().settle(parcel("a", "b"), {}).verdict is Verdict.TAKEN


def test_a_refused_piece_is_named_and_the_others_are_taken() -> None:
    outcome = Handovers().settle(parcel("a", "b", "c"), {"b": POISON, "c": POISON})
    assert (outcome.verdict, outcome.failed) == (Verdict.PARTLY, ("b", "c"))
    assert outcome.detail == "b (and 1 more): too large"


def test_the_next_try_begins_with_the_first_piece_that_was_not_taken() -> None:
    handovers, sent = Handovers(), parcel("a", "b", "c", "d")
    assert handovers.settle(sent, {"c": FULL}).verdict is Verdict.FAILED
    assert waiting(handovers, sent) == "cd"
    assert handovers.settle(sent, {}).verdict is Verdict.TAKEN
    assert waiting(handovers, sent) == "abcd"


def test_a_piece_refused_in_an_earlier_try_is_still_named_at_the_end() -> None:
    handovers, sent = Handovers(), parcel("a", "b", "c")
    handovers.settle(sent, {"a": POISON, "b": FULL})
    assert handovers.settle(sent, {}).failed == ("a",)


def test_only_so_many_parcels_are_remembered() -> None:
    handovers = Handovers()
    for number in range(PARCEL_LIMIT + 1):
        handovers.settle(parcel("a", "b", id_=str(number)), {"b": FULL})
    assert waiting(handovers, parcel("a", "b", id_="0")) == "ab"
    assert waiting(handovers, parcel("a", "b", id_=str(PARCEL_LIMIT))) == "b"


@given(st.lists(st.lists(st.sampled_from([None, FULL, POISON]), min_size=8, max_size=8), max_size=6))
def test_no_piece_is_ever_lost_between_two_tries(tries: list[list[Fault | None]]) -> None:
    handovers, sent, taken = Handovers(), parcel(*"abcdefgh"), set[str]()
    for plan in tries:
        pieces = handovers.take_up(sent).pieces
        faults = {piece.id: fault for piece, fault in zip(pieces, plan, strict=False) if fault}
        taken |= {piece.id for piece in pieces} - faults.keys()
        outcome = handovers.settle(sent, faults)
        if outcome.verdict is not Verdict.FAILED:
            assert taken | set(outcome.failed) == set("abcdefgh")
            return

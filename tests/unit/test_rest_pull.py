"""The way out that waits to be asked: it sends nothing, and says so."""

import pytest

from aftersend.core.errors import ConfigurationError
from aftersend.core.options import build
from aftersend.core.outcome import Parcel, Verdict
from aftersend.transports import rest_pull


async def test_nothing_is_sent() -> None:
    transport = build(rest_pull.Transport, {}, "transport rest_pull")
    assert (transport.name, transport.carries, transport.lease) == ("rest_pull", "nothing", 60)
    assert (await transport.probe()).verdict is Verdict.TAKEN
    outcome = await transport.send(Parcel("id", b"{}", "application/json"))
    assert (outcome.verdict, outcome.ours) == (Verdict.FAILED, True)
    assert "pulls" in outcome.detail
    for _ in range(2):
        await transport.close()


@pytest.mark.parametrize("lease", [0, 43_201])
def test_a_lease_is_no_shorter_and_no_longer_than_leases_are(lease: int) -> None:
    with pytest.raises(ConfigurationError, match=f"lease is 1 to 43200 seconds, not {lease}"):
        build(rest_pull.Transport, {"lease": lease}, "transport rest_pull")

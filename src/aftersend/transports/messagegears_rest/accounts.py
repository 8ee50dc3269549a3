"""Who may fetch: AccountId and ApiKey, as subscriptions hold them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest

from aftersend.core.errors import AccessError, UsageError
from aftersend.core.registry import Subscription
from aftersend.transports.messagegears_rest import Transport

WRONG_SECONDS = 1.0
"""How long the answer to wrong credentials takes."""
WAITING_LIMIT = 64
"""Wrong answers that wait at the same time; one more is given at once."""


class Accounts:
    """The subscriptions that can be logged in to."""

    def __init__(
        self, subscriptions: Callable[[], Iterable[Subscription]], open_transport: Callable[[Subscription], object]
    ) -> None:
        """`subscriptions` gives the registered ones as they now are, and `open_transport` what one of them says."""
        self._subscriptions = subscriptions
        self._open_transport = open_transport
        self._waiting = 0

    def check(self, subscription: Subscription, transport: Transport) -> None:
        """Raises UsageError for an account that another subscription has already, with the same key."""
        mine = _digest(transport.account_id, transport.api_key.reveal())
        others = [other for other in self._subscriptions() if other.id != subscription.id]
        if any(compare_digest(mine, self._wanted(other)) for other in others):
            raise UsageError("api_key: another subscription has this account and key; give this one a key of its own")

    async def admit(self, fields: Mapping[str, str]) -> Subscription:
        """The subscription that a request may read. Raises AccessError; for wrong credentials, after a second."""
        found = self._find(fields.get("AccountId", ""), fields.get("ApiKey", ""))
        if found is None:
            await self._slow_down()
            raise AccessError("AccountId or ApiKey is missing or wrong.")
        if found.state not in ("active", "gap"):
            raise AccessError(f"The account is {found.state}.")
        return found

    def _find(self, account_id: str, api_key: str) -> Subscription | None:
        """Looks at all of them, so that the time tells nothing."""
        given = _digest(account_id, api_key)
        found = None
        for subscription in self._subscriptions():
            if subscription.transport != Transport.name:
                continue
            found = subscription if compare_digest(given, self._wanted(subscription)) else found
        return found

    def _wanted(self, subscription: Subscription) -> bytes:
        """What admits to a subscription; nothing does to one whose options cannot be used any more."""
        try:
            transport = self._open_transport(subscription)
        except UsageError:
            return b""
        if not isinstance(transport, Transport):
            return b""
        return _digest(transport.account_id, transport.api_key.reveal())

    async def _slow_down(self) -> None:
        if self._waiting >= WAITING_LIMIT:
            return
        self._waiting += 1
        try:
            await asyncio.sleep(WRONG_SECONDS)
        finally:
            self._waiting -= 1


def _digest(account_id: str, api_key: str) -> bytes:
    return sha256(f"{account_id}\0{api_key}".encode("utf-8", "replace")).digest()

"""Puts together the ways in which vendors' clients fetch events: Pure360's SOAP, MessageGears' web service."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from aftersend.capture.clients import ClientAddresses
from aftersend.config import Config
from aftersend.contracts import Clock, Cursors, Leases, Log, Transport
from aftersend.core.errors import UsageError
from aftersend.core.registry import Subscription
from aftersend.dialects import messagegears, pure360
from aftersend.dialects.messagegears.rest import Rest
from aftersend.pipeline.selection import Selection
from aftersend.pipeline.words import Words
from aftersend.rack import dialect_of
from aftersend.telemetry import Telemetry
from aftersend.transports.messagegears_rest import Transport as MessageGearsRest
from aftersend.transports.messagegears_rest.service import WebService
from aftersend.transports.soap_pull import Transport as SoapPull
from aftersend.transports.soap_pull.door import Door, is_soap
from aftersend.transports.soap_pull.facade import Facade, Rows
from aftersend.transports.soap_pull.session import Logins

App = Callable[..., Any]

log = logging.getLogger("aftersend.pulled")


class Pulled:
    """Subscriptions that Deliveries tells nothing: their clients come and ask, each at the vendor's own address."""

    def __init__(
        self,
        *,
        store: Log,
        log_of: Callable[[Subscription], Log],
        cursors: Cursors,
        leases: Leases,
        open_transport: Callable[[Subscription], Transport],
        config: Config,
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        self._open_transport = open_transport
        self._records: dict[str, Subscription] = {}
        self._logins = Logins()
        self._words = Words(
            log_of=log_of, cursors=cursors, leases=leases, find_dialect=dialect_of, clock=clock, chance=os.urandom
        )
        rows = Rows(pure360.Dialect().word, pure360.told_meta, pure360.csv_lines)
        facade = Facade(
            logins=self._logins, words=self._words, rows=rows, clock=clock, chance=os.urandom, telemetry=telemetry
        )
        self._soap = Door(facade, base=config.public_url, address_of=ClientAddresses(config.trusted_proxies))
        self._messagegears = WebService(
            log=store,
            subscriptions=self._records.values,
            open_transport=open_transport,
            select=lambda subscription: Selection(subscription).wants,
            vendor=Rest(),
            clock=clock,
            telemetry=telemetry,
        )

    def app_for(self, path: str) -> App | None:
        """What serves a path, if it is a vendor's."""
        if is_soap(path):
            return self._soap
        return self._messagegears if path.startswith("/3.1/") else None

    def check(self, subscription: Subscription, transport: Transport) -> None:
        """Raises UsageError for a subscription whose clients could not be told from another's, or not be served."""
        if isinstance(transport, SoapPull):
            if dialect_of(subscription)[0].name != pure360.Dialect.name:
                raise UsageError("clients of soap_pull understand pure360 alone; set dialect to pure360")
            self._logins.check(subscription, transport)
        if isinstance(transport, MessageGearsRest):
            if dialect_of(subscription)[0].name != messagegears.Dialect.name:
                raise UsageError(
                    "clients of messagegears_rest understand messagegears alone; set dialect to messagegears"
                )
            self._messagegears.check(subscription, transport)

    # --- as Deliveries knows it

    async def place(self, subscription: Subscription) -> None:
        """A subscription is as its record now says: let its clients in, or no more."""
        if subscription.transport not in (SoapPull.name, MessageGearsRest.name):
            self.drop(subscription.id)
            return
        self._records[subscription.id] = subscription
        try:
            transport = self._open_transport(subscription)
            if isinstance(transport, SoapPull):
                self._logins.put(subscription, transport)
                await self._words.open(subscription)
        except UsageError as error:
            log.warning("%s cannot be pulled: %s", subscription.name, error)

    def drop(self, id_: str) -> None:
        """A subscription is gone."""
        self._records.pop(id_, None)
        self._logins.remove(id_)
        self._words.close(id_)

    def standing(self, subscription: Subscription) -> dict[str, Any]:
        """How its clients do; nothing for others."""
        if subscription.transport == MessageGearsRest.name:
            # It is asked for days, and has no place in the log that could be behind.
            return {"behind": 0}
        return self._words.standing(subscription)

    def holding(self, own: Mapping[str, int]) -> dict[str, int]:
        """The positions that retention must not pass, where `own` are those of all subscriptions' own cursors.

        Cursors by words stand in the place of a subscription's own, which never moves; days are read as long as they
        are there. What is kept to be had again has a name with a `/`.
        """
        return {id_: place for id_, place in own.items() if id_ not in self._records} | self._words.holding()

    async def flush(self) -> None:
        """Write down how far everything is looked through. Raises StoreError."""
        await self._words.flush()

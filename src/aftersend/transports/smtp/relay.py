"""The mail relay that our mails are handed to, one transaction a mail, and what its answers mean for a mail.

One bad address does not keep a mail from the others. Who has it does not get it again when it is repeated for those who
must wait; that is remembered in memory, so after a restart a repeat goes to all of them, with the same Message-ID.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from msgspec import Struct

from aftersend.core.excerpts import one_line
from aftersend.core.outcome import Outcome, Verdict
from aftersend.transports.smtp.answers import TOO_LARGE, Answer, failed, refused_content
from aftersend.transports.smtp.connections import Access, Connection, Connections, Fault, failure

CONNECTION_LIMIT = 4
"""Connections at once; a mail that finds none free waits for one."""
SERVED_LIMIT = 100
"""Mails that only some recipients have, remembered so that a repeat goes to the others alone."""

TAKEN = Outcome(Verdict.TAKEN)

Refusals = list[tuple[str, Answer]]
"""Who was refused, and why."""


class Mail(Struct, frozen=True):
    """A mail and its envelope; its lines end in CRLF and nothing else."""

    id: str
    """Its Message-ID."""
    sender: str
    recipients: tuple[str, ...]
    data: bytes
    utf8: bool = False
    """Whether an address before the `@` is not ASCII, so that the relay must offer SMTPUTF8."""


class _StaleError(Exception):
    """A kept connection had been closed by the other side."""


class Relay:
    """Hands mails over. Never raises for what the other side or the network does."""

    def __init__(self, access: Access) -> None:
        self._connections = Connections(access)
        self._slots = asyncio.Semaphore(CONNECTION_LIMIT)
        self._served: dict[str, set[str]] = {}

    async def submit(self, mail: Mail) -> Outcome:
        """Hand a mail over to the recipients that do not have it yet."""
        try:
            async with self._slots:
                return await self._submit(mail)
        except Fault as fault:
            return fault.outcome

    async def probe(self, sender: str, recipients: Sequence[str], *, utf8: bool) -> Outcome:
        """Connect, log in, and ask whether the sender and every recipient would be taken; no mail is sent."""
        try:
            async with self._slots:
                connection = await self._connections.open()
                return await self._over(connection, self._ask(connection, sender, recipients, utf8))
        except Fault as fault:
            return fault.outcome

    def close(self) -> None:
        """Let go of connections."""
        self._connections.close()

    async def _submit(self, mail: Mail) -> Outcome:
        connection = self._connections.kept()
        if connection is not None:
            try:
                return await self._over(connection, self._transact(connection, mail))
            except _StaleError:
                pass
        connection = await self._connections.open()
        return await self._over(connection, self._transact(connection, mail))

    async def _over(self, connection: Connection, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Do something over a connection; it is kept where that went to its end, else closed."""
        try:
            outcome = await work
        except BaseException:
            connection.client.close()
            raise
        self._connections.keep(connection)
        return outcome

    # --- one mail

    async def _transact(self, connection: Connection, mail: Mail) -> Outcome:
        limit = connection.size_limit
        if limit and len(mail.data) > limit:
            return Outcome(Verdict.TOO_LARGE, f"message: {len(mail.data)} bytes; the relay takes {limit}")
        served = self._served.get(mail.id, set())
        waiting = [recipient for recipient in mail.recipients if recipient not in served]
        accepted, refused = await _envelope(connection, mail, waiting)
        if accepted:
            fault = await _content(connection, mail)
            if fault is not None:
                return fault
        return self._verdict(mail, served.union(accepted), refused)

    def _verdict(self, mail: Mail, served: set[str], refused: Refusals) -> Outcome:
        passing = [(name, answer) for name, answer in refused if not answer.final]
        if served and not passing:
            self._served.pop(mail.id, None)
            return Outcome(Verdict.TAKEN, _told(refused, mail)) if refused else TAKEN
        if served:
            self._remember(mail.id, served)
        name, answer = (passing or refused)[0]
        outcome = failed(f"recipient {one_line(name)}", answer)
        return Outcome(Verdict.FAILED, _told(refused, mail), outcome.status, outcome.retry_after)

    def _remember(self, id_: str, served: set[str]) -> None:
        self._served.pop(id_, None)
        if len(self._served) >= SERVED_LIMIT:
            del self._served[next(iter(self._served))]
        self._served[id_] = served

    async def _ask(self, connection: Connection, sender: str, recipients: Sequence[str], utf8: bool) -> Outcome:
        mail = Mail("", sender, tuple(recipients), b"", utf8)
        accepted, refused = await _envelope(connection, mail, recipients)
        if accepted:
            await connection.reset()
        return Outcome(Verdict.FAILED, _told(refused, mail)) if refused else TAKEN


async def _envelope(connection: Connection, mail: Mail, recipients: Sequence[str]) -> tuple[list[str], Refusals]:
    """Who is accepted, and who is not. Raises Fault for the sender, and _StaleError."""
    await _begin(connection, mail)
    accepted: list[str] = []
    refused: Refusals = []
    for recipient in recipients:
        step = f"recipient {one_line(recipient)}"
        answer = await connection.say(step, b"RCPT", b"TO:<%b>" % recipient.encode())
        if answer.code == 421:
            raise Fault(failed(step, answer))
        if answer.positive:
            accepted.append(recipient)
        else:
            refused.append((recipient, answer))
    if not accepted:
        await connection.reset()
    return accepted, refused


async def _begin(connection: Connection, mail: Mail) -> None:
    step = f"sender {one_line(mail.sender)}"
    words = (b"MAIL", b"FROM:<%b>" % mail.sender.encode(), *_parameters(connection, mail))
    try:
        answer = await connection.say(step, *words)
    except Fault:
        if connection.uses and not connection.is_open:
            raise _StaleError from None
        raise
    if connection.uses and answer.code == 421:
        raise _StaleError
    if not answer.positive:
        # The sender is the same for all mails, so a refusal says nothing about this one, unless it is its size.
        raise Fault((refused_content if answer.code == TOO_LARGE else failed)(step, answer))


def _parameters(connection: Connection, mail: Mail) -> list[bytes]:
    """What MAIL says besides the sender. Raises Fault where the relay does not offer what the mail needs."""
    if mail.utf8 and not connection.offers("smtputf8"):
        raise failure("sender: the relay does not take addresses beyond ASCII (SMTPUTF8)")
    size = [b"SIZE=%d" % len(mail.data)] if mail.data and connection.offers("size") else []
    return [*size, b"SMTPUTF8", b"BODY=8BITMIME"] if mail.utf8 else size


async def _content(connection: Connection, mail: Mail) -> Outcome | None:
    """The mail itself; None: it was taken."""
    answer = await connection.say("message", b"DATA")
    if answer.code == 354:
        answer = await connection.write(mail.data)
    if answer.code == 250:
        return None
    await connection.reset()
    return refused_content("message", answer)


def _told(refused: Refusals, mail: Mail) -> str:
    """Who did not get it, and why; the first three by name."""
    shown = "; ".join(f"{one_line(name)[:80]}: {str(answer)[:100]}" for name, answer in refused[:3])
    more = f"; and {len(refused) - 3} more" if len(refused) > 3 else ""
    return f"{len(refused)} of {len(mail.recipients)} recipients refused: {shown}{more}"

"""Logins of SOAP clients: whose they are, how long they last, and what slows those down who guess passwords."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from hmac import compare_digest
from ipaddress import IPv6Address, ip_address

from msgspec import Struct

from aftersend.contracts import Clock
from aftersend.core.errors import ConflictError
from aftersend.core.registry import Subscription
from aftersend.core.timestamps import SECOND
from aftersend.transports.soap_pull import Transport

SESSIONS_LIMIT = 4_096
"""Sessions at a time; past it the one that was idle longest is forgotten."""
SESSIONS_OF_USER = 64
"""The same, of one user."""
IDLE_LIMIT = 3_600 * SECOND
"""How long a session lasts without a call."""

MISSES_ALLOWED = 5
"""Wrong passwords for one user, or from one address, that are answered at once."""
MISSES_WINDOW = 600 * SECOND
"""How long they are remembered."""
DELAY_SECONDS = 2.0
"""How long a login waits after that."""
WAITING_LIMIT = 256
WAITING_OF_ONE = 4
"""Logins that wait at a time, in all and of one user or address; one more is refused unread."""
REMEMBERED_LIMIT = 8_192
"""Users and addresses that are remembered; past it the oldest is forgotten."""


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


class Login(Struct, frozen=True):
    """Who logs in by a name, and what for."""

    subscription: Subscription
    transport: Transport

    @property
    def fingerprint(self) -> bytes:
        """Changes with the password."""
        return _digest(self.transport.password.reveal())


class Logins:
    """The logins of all subscriptions, by their names, which are unique in the instance."""

    def __init__(self) -> None:
        self._logins: dict[str, Login] = {}

    def find(self, user: str) -> Login | None:
        """The login of a name."""
        return self._logins.get(user)

    def check(self, subscription: Subscription, transport: Transport) -> None:
        """Raises ConflictError where another subscription has the name."""
        found = self._logins.get(transport.user)
        if found is not None and found.subscription.id != subscription.id:
            raise ConflictError("user: another subscription's clients log in by that name; choose another one")

    def put(self, subscription: Subscription, transport: Transport) -> None:
        """Let a subscription's clients log in, as its record now says. Raises ConflictError."""
        self.check(subscription, transport)
        self.remove(subscription.id)
        self._logins[transport.user] = Login(subscription, transport)

    def remove(self, subscription: str) -> None:
        """Let a subscription's (id) clients log in no more."""
        for user in [user for user, login in self._logins.items() if login.subscription.id == subscription]:
            del self._logins[user]


class Session(Struct):
    """A client that has logged in."""

    user: str
    subscription: str
    fingerprint: bytes
    consumer: str
    """What its batches are marked with; tells nothing of its id."""
    seen_at: int


class Sessions:
    """The sessions, by their ids, in the order of their last calls."""

    def __init__(self, clock: Clock, chance: Callable[[int], bytes]) -> None:
        self._clock = clock
        self._chance = chance
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()

    def open(self, login: Login) -> str:
        """A new session's id: 32 hex digits."""
        id_ = self._chance(16).hex()
        key = _digest(id_)
        user = login.transport.user
        own = [other for other, session in self._sessions.items() if session.user == user]
        for other in own[: len(own) + 1 - SESSIONS_OF_USER] if len(own) >= SESSIONS_OF_USER else ():
            del self._sessions[other]
        self._sessions[key] = Session(user, login.subscription.id, login.fingerprint, key.hex()[:16], self._clock())
        if len(self._sessions) > SESSIONS_LIMIT:
            self._sessions.popitem(last=False)
        return id_

    def find(self, id_: str, logins: Logins) -> tuple[Session, Login] | None:
        """A session that still holds: its login is there, with the password that it was opened with."""
        self._expire()
        key = _digest(id_)
        session = self._sessions.get(key)
        login = logins.find(session.user) if session is not None else None
        if session is None or login is None or login.subscription.id != session.subscription:
            return None
        if not compare_digest(login.fingerprint, session.fingerprint):
            return None
        session.seen_at = self._clock()
        self._sessions.move_to_end(key)
        return session, login

    def close(self, id_: str) -> None:
        """End a session."""
        self._sessions.pop(_digest(id_), None)

    def _expire(self) -> None:
        before = self._clock() - IDLE_LIMIT
        while self._sessions and next(iter(self._sessions.values())).seen_at <= before:
            self._sessions.popitem(last=False)


class Guard:
    """Slows down who guesses passwords: by the user whose they are, and by the address that they come from."""

    def __init__(self, clock: Clock, delay: float = DELAY_SECONDS) -> None:
        self._clock = clock
        self._delay = delay
        self._misses: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._waiting: Counter[str] = Counter()

    async def admit(self, user: str, address: str) -> bool:
        """Wait where passwords were guessed before; False: too many wait, and this login may not be tried now."""
        slowed = [key for key in _keys(user, address) if self._count(key) >= MISSES_ALLOWED]
        if not slowed:
            return True
        if self._waiting.total() >= WAITING_LIMIT or any(self._waiting[key] >= WAITING_OF_ONE for key in slowed):
            return False
        # Counted under one of them, so that the total is that of those who wait.
        self._waiting[slowed[0]] += 1
        try:
            await asyncio.sleep(self._delay)
        finally:
            self._waiting[slowed[0]] -= 1
            self._waiting += Counter()
        return True

    def miss(self, user: str, address: str) -> None:
        """A password was wrong."""
        now = self._clock()
        for key in _keys(user, address):
            since = self._misses[key][0] if self._count(key) else now
            self._misses[key] = (since, self._count(key) + 1)
            if len(self._misses) > REMEMBERED_LIMIT:
                self._misses.popitem(last=False)

    def _count(self, key: str) -> int:
        since, count = self._misses.get(key, (0, 0))
        return count if count and self._clock() - since < MISSES_WINDOW else 0


def _keys(user: str, address: str) -> tuple[str, str]:
    """An IPv6 customer has a /64 of addresses and counts once."""
    try:
        parsed = ip_address(address)
    except ValueError:
        parsed = None
    if isinstance(parsed, IPv6Address):
        address = str(parsed.ipv4_mapped or int(parsed) >> 64)
    return f"user {_digest(user).hex()}", f"address {address[:100]}"


def is_password(login: Login | None, password: str) -> bool:
    """Whether a password is the login's; where there is none, as long is spent."""
    own = login.fingerprint if login is not None else bytes(16)
    return compare_digest(_digest(password), own) and login is not None

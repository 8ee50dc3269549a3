"""What a call does: log in and out, change the role, get a batch, report on one; everything else is not allowed."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from msgspec import Struct

from aftersend.contracts import Clock
from aftersend.core.errors import StoreError
from aftersend.core.event import Event
from aftersend.core.registry import Subscription
from aftersend.telemetry import Telemetry
from aftersend.transports.soap_pull.beans import batch_bean, login_beans, role_of
from aftersend.transports.soap_pull.session import Guard, Login, Logins, Session, Sessions, is_password
from aftersend.transports.soap_pull.wire import Call

BATCH_LIMIT = 10_000
BATCH_USUAL = 1_000
"""Events of a batch: at most, and where no number is asked for."""
DATA_LIMIT = 32_000_000
"""Characters of rows in a batch; one that would have more is shorter."""
FIELDS_LIMIT = 100
"""Custom fields that may be asked for."""
FIELD_LIMIT = 100
"""Characters of a custom field's name."""

_PORTION = 500
"""Events told at once; then others get their turn."""
_FIELD = re.compile(r'[^",\x00-\x1f\x7f]+')
_YES, _NO = ("Y", "YES", "TRUE", "1"), ("N", "NO", "FALSE", "0")


class Puller(Protocol):
    """A subscription's events by words, for the time of one request."""

    @property
    def words(self) -> Sequence[str]:
        """All words that can be asked for."""
        ...

    async def gather(self, words: Sequence[str], limit: int) -> Any:
        """The oldest unread events of words."""
        ...

    async def recall(self, number: int, consumer: str, span: int) -> Any:
        """The last batch again."""
        ...

    async def read(self, batch: Any, keep: int) -> None:
        """A batch is read."""
        ...

    async def reserve(self, batch: Any, consumer: str, span: int) -> None:
        """A batch is in somebody's hand."""
        ...

    async def acknowledge(self, consumer: str, keep: int) -> int:
        """What somebody has in hand is read."""
        ...

    async def rest(self) -> None:
        """Nothing was taken."""
        ...


class Words(Protocol):
    """The pullers of all subscriptions."""

    def taking(self, subscription: Subscription) -> AbstractAsyncContextManager[Puller]:
        """A subscription's puller, for one request at a time."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """How the dialect tells events in rows."""

    word: Callable[[Event], str | None]
    """The dialect's word for an event."""
    meta: Callable[[Sequence[str], Sequence[str]], dict[str, str]]
    """The columns of words, with custom fields."""
    lines: Callable[[Sequence[Event], Mapping[str, str]], list[str]]
    """A row for each event, with its line end."""


class RefusalError(Exception):
    """The call is answered with an error of the vendor's."""

    def __init__(self, kind: str, data: str | dict[str, str]) -> None:
        super().__init__(kind)
        self.kind = kind
        self.data = data


def _not_allowed(reason: str = "") -> RefusalError:
    return RefusalError("security", f"action not allowed{': ' if reason else ''}{reason}")


def _invalid(field: str, text: str) -> RefusalError:
    return RefusalError("validation", {field: text})


class Order(Struct, frozen=True):
    """What a `getBatch` asks for."""

    words: tuple[str, ...]
    """Empty: all."""
    limit: int
    how: str
    """read, reserve or look."""
    custom: tuple[str, ...]
    is_plain: bool
    recall: int
    """Which of the batches before is wanted again; 0: a new one."""


class Facade:
    """Answers calls."""

    def __init__(
        self,
        *,
        logins: Logins,
        words: Words,
        rows: Rows,
        clock: Clock,
        chance: Callable[[int], bytes],
        telemetry: Telemetry,
        guard: Guard | None = None,
    ) -> None:
        self._logins = logins
        self._words = words
        self._rows = rows
        self._clock = clock
        self._sessions = Sessions(clock, chance)
        self._guard = guard or Guard(clock)
        self._count = telemetry.count

    async def answer(self, call: Call, address: str) -> dict[str, Any]:
        """The result of a call from an address."""
        try:
            data = await self._process(call, address)
            result = "success"
        except RefusalError as refusal:
            result, data = f"bean_exception_{refusal.kind}", refusal.data
        except StoreError as error:
            result, data = "bean_exception_system", str(error)
        self._count("soap_calls_total", result=result)
        return {"result": result} if data is None else {"result": result, "resultData": data}

    async def _process(self, call: Call, address: str) -> Any:
        match call.facade, call.process:
            case "bus_facade_context", "login":
                return await self._login(_values(call), address)
            case "bus_facade_context", "switchRole":
                return self._switch_role(call)
            case "bus_facade_context", "logout":
                self._sessions.close(call.context)
                return None
            case "bus_facade_eventNotification", "getBatch":
                return await self._get_batch(call)
            case "bus_facade_eventNotification", "processBatchReport":
                return await self._report(call)
        raise _not_allowed()

    # --- bus_facade_context

    async def _login(self, values: Mapping[str, Any], address: str) -> dict[str, Any]:
        user, password = _text(values, "userName"), values.get("password")
        if not user:
            raise _invalid("userName", "Please enter a valid user name")
        if not password or not isinstance(password, str):
            raise _invalid("password", "Please enter a valid password")
        if not await self._guard.admit(user, address):
            raise RefusalError("system", "too many logins are being tried; try again in a while")
        login = self._logins.find(user)
        if not is_password(login, password) or login is None:
            self._guard.miss(user, address)
            self._count("soap_logins_refused_total")
            raise RefusalError("security", "The user name or the password is not valid")
        return login_beans(login, self._sessions.open(login), self._clock())

    def _session(self, call: Call) -> tuple[Session, Login]:
        found = self._sessions.find(call.context, self._logins)
        if found is None:
            raise RefusalError("security", "Context not found: it has expired or never was; please log in")
        return found

    def _switch_role(self, call: Call) -> dict[str, Any]:
        _, login = self._session(call)
        role = _text(_values(call), "currentRoleKey")
        if role != role_of(login):
            raise _not_allowed("this login has one role, the one that it has now")
        return login_beans(login, call.context, self._clock())

    # --- bus_facade_eventNotification

    async def _get_batch(self, call: Call) -> dict[str, Any]:
        session, login = self._session(call)
        subscription, transport = login.subscription, login.transport
        if subscription.state not in ("active", "gap"):
            raise _not_allowed(f"the subscription is {subscription.state}")
        async with self._words.taking(subscription) as puller:
            order = read_order(_values(call), puller.words)
            if order.recall:
                batch = await puller.recall(order.recall, session.consumer, transport.lease)
                if batch is None:
                    raise _invalid("recall", "there is no such batch, or its time is over")
                lines, meta = await self._lines(batch.events, order)
                return _bean(lines, batch.events, meta, order, transport.order)
            await puller.acknowledge(session.consumer, transport.recall)
            batch = await puller.gather(order.words or puller.words, order.limit)
            lines, meta = await self._lines(batch.events, order)
            batch = batch.first(len(lines))
            if order.how == "read" and lines:
                await puller.read(batch, transport.recall)
            elif order.how == "reserve" and lines:
                await puller.reserve(batch, session.consumer, transport.lease)
            else:
                await puller.rest()
        self._count("soap_events_total", len(lines))
        return _bean(lines, batch.events, meta, order, transport.order)

    async def _lines(self, events: Sequence[Event], order: Order) -> tuple[list[str], dict[str, str]]:
        """Rows of the oldest of these events, as many as an answer may have, and the columns of their types."""
        words = [self._rows.word(event) or "" for event in events]
        meta = self._rows.meta(tuple(dict.fromkeys(words)), order.custom)
        lines: list[str] = []
        size = 0
        for start in range(0, len(events), _PORTION):
            portion = self._rows.lines(events[start : start + _PORTION], meta)
            size += sum(map(len, portion))
            if size > DATA_LIMIT and lines:
                break
            lines += portion
            await asyncio.sleep(0)
        return lines, {word: meta[word] for word in dict.fromkeys(reversed(words[: len(lines)]))}

    async def _report(self, call: Call) -> None:
        session, login = self._session(call)
        async with self._words.taking(login.subscription) as puller:
            await puller.acknowledge(session.consumer, login.transport.recall)


def _bean(
    lines: Sequence[str], events: Sequence[Event], meta: Mapping[str, str], order: Order, direction: str
) -> dict[str, Any]:
    """The rows in the order of their events' times."""
    places = sorted(range(len(lines)), key=lambda place: events[place].time)
    text = "".join([lines[place] for place in (reversed(places) if direction == "newest" else places)])
    if not order.is_plain:
        text = b64encode(text.encode("utf-8", "replace")).decode()
    return batch_bean(len(lines), meta, text)


def read_order(values: Mapping[str, Any], known: Sequence[str]) -> Order:
    """What the parameters of a `getBatch` ask for. Raises RefusalError."""
    words = tuple(dict.fromkeys(name.upper() for name in _list(values, "notificationTypes")))
    unknown = [word for word in words if word not in known or not word.isalpha()]
    if unknown:
        shown = ", ".join(word for word in known if word.isalpha())
        raise _invalid("notificationTypes", f"there is no type {unknown[0][:60]!r}; there are: {shown}")
    custom = tuple(_list(values, "customFieldNames"))
    if len(custom) > FIELDS_LIMIT or any(len(name) > FIELD_LIMIT or not _FIELD.fullmatch(name) for name in custom):
        raise _invalid("customFieldNames", f"at most {FIELDS_LIMIT} names of at most {FIELD_LIMIT} characters")
    encoding = _text(values, "encoding").lower() or "base64"
    if encoding not in ("plain", "base64"):
        raise _invalid("encoding", "plain or base64")
    return Order(words, _limit(values), _how(values), custom, encoding == "plain", _recall(values))


def _limit(values: Mapping[str, Any]) -> int:
    text = _text(values, "maxNotifications")
    if not text:
        return BATCH_USUAL
    if not re.fullmatch(r"[0-9]{1,15}(\.0+)?", text) or not float(text):
        raise _invalid("maxNotifications", f"a number from 1 to {BATCH_LIMIT}")
    return min(int(float(text)), BATCH_LIMIT)


def _how(values: Mapping[str, Any]) -> str:
    """A batch is read unless something else is said; what is read at once need not be reserved."""
    read, reserved = _indicator(values, "markAsReadInd"), _indicator(values, "markAsProcessingInd")
    if reserved and not read:
        return "reserve"
    return "look" if read is False else "read"


def _recall(values: Mapping[str, Any]) -> int:
    text = _text(values, "recall").upper()
    if text in ("", *_NO):
        return 0
    if text in _YES:
        return 1
    if not re.fullmatch("[0-9]{1,3}", text):
        raise _invalid("recall", "Y for the last batch, 2 for the one before it")
    return int(text)


def _indicator(values: Mapping[str, Any], name: str) -> bool | None:
    text = _text(values, name).upper()
    if text and text not in (*_YES, *_NO):
        raise _invalid(name, "Y or N")
    return text in _YES if text else None


def _values(call: Call) -> dict[str, Any]:
    """The parameters, which clients put in either place."""
    return {**call.entity, **{name: value for name, value in call.data.items() if value}}


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value.strip() if isinstance(value, str) else ""


def _list(values: Mapping[str, Any], name: str) -> list[str]:
    """Texts of a list, of an object's values, or between commas."""
    value = values.get(name)
    items = value.split(",") if isinstance(value, str) else list(value.values()) if isinstance(value, dict) else value
    return [text for item in items or () if isinstance(item, str) and (text := item.strip())]

"""Events as Amazon SQS messages, one by one in requests of ten: standard and FIFO queues of whoever owns them.

The body is the text that the dialect tells and nothing around it. Queues at Amazon's own addresses need no listing:
their names are fixed, spoken to over TLS only, and what they lead to is judged like any address. Everything else that
speaks SQS must be listed as a broker, and is judged too. Nothing is taken from the surroundings (proxies, profiles,
endpoints) but the machine's own identity, and that only where the option says so.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from msgspec import Struct, structs

from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.excerpts import one_line
from aftersend.core.handover import Fault, Handovers
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Verdict
from aftersend.core.secret import Secret
from aftersend.egress import CONNECT_LIMIT, Egress
from aftersend.egress.connecting import Goodbyes
from aftersend.egress.faults import why
from aftersend.egress.resolving import GuardedResolver
from aftersend.transports.sqs.messages import BATCH_BYTES, Message, message_of, requests_of

REQUESTS_AT_ONCE = 16
LANE = 50
"""Messages of a FIFO queue for which another lane of requests is opened: fewer would fill no request."""
IDLE_LIMIT = 300.0
"""Seconds that unused connections are kept."""

_AMAZON = re.compile(r"(?:sqs(?:-fips)?\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._-]+)*/[A-Za-z0-9_-]{1,80}(\.fifo)?")
_NOWHERE = (None, None, os.devnull, None)
_ALONE = {"profile": (None, None, None, None), "config_file": _NOWHERE, "credentials_file": _NOWHERE}
"""Settings of a session that reads no profile, from neither files nor variables."""
_ABOUT_CONTENT = frozenset(("InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"))
"""Answers that blame a message, not the queue or us."""


class _Try:
    """What became of the messages of one try."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}
        self.taken: set[str] = set()
        self.is_ours = False

    def fail(self, messages: Sequence[Message], detail: str, *, is_final: bool = False) -> None:
        """None of these was taken."""
        self.faults |= {one.piece.id: Fault(detail, is_final) for one in messages}

    def is_stopped(self, messages: Sequence[Message]) -> bool:
        """Whether any of these was not taken, for the moment."""
        return any(one.piece.id in self.faults and not self.faults[one.piece.id].is_final for one in messages)


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """A queue of Amazon SQS."""

    name: ClassVar[str] = "sqs"
    schemes: ClassVar[tuple[str, ...]] = ("https", "http")
    brokered: ClassVar[bool] = True

    url: str = option(help="The queue: https://sqs.eu-west-1.amazonaws.com/123456789012/events, or …/events.fifo.")
    timeout: float = option(15.0, help="Seconds for all the requests of a parcel together.")
    access_key: str = option("", help="The id of the access key to sign with.")
    secret_key: Secret | None = option(None, help="The secret of the access key.", secret=True)
    session_token: Secret | None = option(None, help="The token of temporary credentials.", secret=True)
    identity: Literal["given", "machine"] = option(
        "given", help="Sign with the key given here, or (machine) as whoever aftersend's machine is at Amazon."
    )
    region: str = option("", help="The region, where the address does not say it.")

    egress: Egress = field(repr=False)
    _endpoint: str = field(init=False, repr=False)
    _region: str = field(init=False, repr=False)
    _is_fifo: bool = field(init=False, repr=False)
    _handovers: Handovers = field(init=False, repr=False, default_factory=Handovers)
    _opening: asyncio.Lock = field(init=False, repr=False, default_factory=asyncio.Lock)
    _client: Any = field(init=False, repr=False, default=None)
    _idle: asyncio.TimerHandle | None = field(init=False, repr=False, default=None)
    _goodbyes: Goodbyes = field(init=False, repr=False, default_factory=Goodbyes)

    def __post_init__(self) -> None:
        """Raises EgressError for an address that is refused and ConfigurationError for anything else."""
        _library()
        self._check_address()
        self._check_options()

    @property
    def carries(self) -> Literal["pieces"]:
        """A message an event."""
        return "pieces"

    async def probe(self) -> Outcome:
        """Ask for the queue's properties; not being allowed to is good enough, for sending is another right."""
        errors = _library().exceptions
        try:
            async with asyncio.timeout(self.timeout):
                client = await self._opened()
                await client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["MaximumMessageSize"])
        except TimeoutError:
            return Outcome(Verdict.FAILED, f"no answer within {self.timeout:g} s")
        except errors.ClientError as error:
            if _code(error) in ("AccessDenied", "AccessDeniedException"):
                return Outcome(Verdict.TAKEN, "the queue answers; whether it takes messages shows when one is sent")
            return Outcome(Verdict.FAILED, self._told(error))
        except (errors.BotoCoreError, OSError) as error:
            return Outcome(Verdict.FAILED, self._told(error), ours=_is_ours(error))
        return Outcome(Verdict.TAKEN)

    async def send(self, parcel: Parcel) -> Outcome:
        """Send the pieces in requests of ten, several at once; of a FIFO queue, one after the other for each key."""
        attempt = _Try()
        messages = [message_of(one, is_fifo=self._is_fifo) for one in self._handovers.take_up(parcel).pieces]
        fitting = [one for one in messages if one.size <= BATCH_BYTES]
        attempt.fail(
            [one for one in messages if one.size > BATCH_BYTES], f"larger than {BATCH_BYTES} bytes", is_final=True
        )
        failure = await self._bounded(fitting, attempt)
        attempt.fail([one for one in fitting if not _is_answered(one, attempt)], failure or "not answered")
        outcome = self._handovers.settle(parcel, attempt.faults)
        return structs.replace(outcome, ours=True) if attempt.is_ours else outcome

    async def close(self) -> None:
        """Close the connections."""
        if self._idle is not None:
            self._idle.cancel()
        self._rest()
        await self._goodbyes.over()

    # --- requests

    def _lanes(self, messages: Sequence[Message]) -> list[list[list[Message]]]:
        """Requests that may go at once; those of one lane go one after the other."""
        if not self._is_fifo:
            return [[request] for request in requests_of(messages)]
        count = max(1, min(REQUESTS_AT_ONCE, len(messages) // LANE))
        lanes: list[list[Message]] = [[] for _ in range(count)]
        for one in messages:
            lanes[int(one.entry["MessageGroupId"][:8], 16) % count].append(one)
        return [list(requests_of(lane)) for lane in lanes if lane]

    async def _bounded(self, messages: Sequence[Message], attempt: _Try) -> str:
        """Send within the time limit: what went wrong in one line, or nothing."""
        try:
            async with asyncio.timeout(self.timeout):
                client = await self._opened()
                limit = asyncio.Semaphore(REQUESTS_AT_ONCE)
                lanes = [self._send_lane(client, lane, attempt, limit) for lane in self._lanes(messages)]
                await asyncio.gather(*lanes)
        except TimeoutError:
            return f"no answer within {self.timeout:g} s"
        except (_library().exceptions.BotoCoreError, OSError) as error:
            return self._told(error)
        return ""

    async def _send_lane(
        self, client: Any, lane: Sequence[list[Message]], attempt: _Try, limit: asyncio.Semaphore
    ) -> None:
        for request in lane:
            async with limit:
                await self._send_request(client, request, attempt)
            if attempt.is_stopped(request):
                return

    async def _send_request(self, client: Any, messages: list[Message], attempt: _Try) -> None:
        errors = _library().exceptions
        entries = [{"Id": str(number), **one.entry} for number, one in enumerate(messages)]
        try:
            answer = await client.send_message_batch(QueueUrl=self.url, Entries=entries)
        except errors.ClientError as error:
            await self._refused(client, messages, attempt, error)
        except (errors.BotoCoreError, OSError) as error:
            attempt.is_ours = attempt.is_ours or _is_ours(error)
            attempt.fail(messages, self._told(error))
        else:
            _note(answer, messages, attempt)

    async def _refused(self, client: Any, messages: list[Message], attempt: _Try, error: Exception) -> None:
        """A request is refused whole: where a message is to blame, find it."""
        is_about_content = _code(error) in _ABOUT_CONTENT
        if not is_about_content or len(messages) == 1:
            attempt.fail(messages, self._told(error), is_final=is_about_content)
            return
        for one in messages:
            await self._send_request(client, [one], attempt)
            if attempt.is_stopped([one]):
                return

    # --- connections

    async def _opened(self) -> Any:
        async with self._opening:
            if self._client is None:
                self._client = await self._open()
            self._keep()
            return self._client

    async def _open(self) -> Any:
        resolver = GuardedResolver(self.egress)
        given: dict[str, Any] = {}
        session = import_module("aiobotocore.session").AioSession(None if self.identity == "machine" else _ALONE)
        if self.secret_key is not None:
            given = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key.reveal()}
            given["aws_session_token"] = self.session_token.reveal() if self.session_token else None
        config = _library().AioConfig(
            connect_timeout=min(CONNECT_LIMIT, self.timeout),
            read_timeout=self.timeout,
            retries={"total_max_attempts": 1},
            max_pool_connections=REQUESTS_AT_ONCE,
            proxies={},
            # A fifth of the time of a request; what could be wrong is answered by Amazon as well.
            parameter_validation=False,
            ignore_configured_endpoint_urls=True,
            connector_args={"resolver": resolver, "use_dns_cache": False, "socket_factory": resolver.socket},
            warm_up_loader_caches=True,
        )
        opening = session.create_client(
            "sqs", region_name=self._region, endpoint_url=self._endpoint, verify=True, config=config, **given
        )
        return await opening.__aenter__()

    def _rest(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            self._goodbyes.say(client.close)

    def _keep(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        self._idle = asyncio.get_running_loop().call_later(IDLE_LIMIT + self.timeout, self._rest)

    def _told(self, error: BaseException) -> str:
        said = one_line(_in_words(error), (self.secret_key, self.session_token))
        return said or f"no answer ({type(error).__name__})"

    # --- options

    def _check_address(self) -> None:
        target = self.egress.check_url(self.url, self.schemes)
        scheme, host, port = target
        parts = urlsplit(self.url)
        path = _PATH.fullmatch(parts.path)
        if not path or parts.query or parts.fragment:
            raise ConfigurationError("url: the whole URL of a queue, its name at the end")
        self._is_fifo = path[1] is not None
        amazon = _AMAZON.fullmatch(host)
        if amazon and (scheme, port) != ("https", 443):
            raise ConfigurationError("url: Amazon's queues are spoken to over https://, on its usual port")
        if not amazon:
            self.egress.check_broker(host, port)
        self._region = self.region or (amazon and (amazon[1] or amazon[2])) or "us-east-1"
        self._endpoint = f"{scheme}://{target.authority}"

    def _check_options(self) -> None:
        check_timeout(self.timeout)
        is_given = bool(self.access_key and self.secret_key)
        if self.identity == "given" and not is_given:
            raise ConfigurationError("access_key, secret_key: both are needed, or the option identity = machine")
        if self.identity == "machine" and (self.access_key or self.secret_key or self.session_token):
            raise ConfigurationError("identity: with machine, no key may be given")
        if not re.fullmatch(r"[a-z0-9-]{1,40}", self._region):
            raise ConfigurationError(f"region: {self.region!r} is none")


def _note(answer: dict[str, Any], messages: Sequence[Message], attempt: _Try) -> None:
    """What an answer says of each message."""
    attempt.taken.update(messages[int(one["Id"])].piece.id for one in answer.get("Successful", ()))
    for one in answer.get("Failed", ()):
        detail = one_line(f"{one.get('Code', '')}: {one.get('Message', '')}")
        attempt.fail([messages[int(one["Id"])]], detail, is_final=bool(one.get("SenderFault")))


def _is_answered(message: Message, attempt: _Try) -> bool:
    return message.piece.id in attempt.taken or message.piece.id in attempt.faults


def _code(error: Any) -> str:
    """Amazon's word for an error, without the family that older ones are spelt with."""
    return str(error.response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def _in_words(error: Any) -> object:
    """What SQS or the network says, without what the library says around it."""
    answer = (getattr(error, "response", None) or {}).get("Error", {})
    if answer.get("Code"):
        return f"answered {answer['Code']}: {answer.get('Message') or 'is that an SQS queue?'}"
    cause = getattr(error, "kwargs", {}).get("error")
    cause = getattr(cause, "os_error", cause)
    return why(cause) if isinstance(cause, OSError) else error


def _is_ours(error: Any) -> bool:
    return isinstance(getattr(error, "kwargs", {}).get("error"), EgressError)


class _Library(Struct, frozen=True):
    """What is used of the libraries."""

    AioConfig: Any
    exceptions: Any


@cache
def _library() -> _Library:
    try:
        config = import_module("aiobotocore.config")
        return _Library(config.AioConfig, import_module("botocore.exceptions"))
    except ImportError:
        raise ConfigurationError(
            "the transport sqs needs aiobotocore; install it with: pip install 'aftersend[sqs]'"
        ) from None


_proof: type[Contract] = Transport

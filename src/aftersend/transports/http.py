"""Parcels as HTTP POST requests, signed as Standard Webhooks.

Only addresses that the guard judged are connected to, redirects are not followed, and nothing of the environment
(proxies, cookies, netrc) is used. One time limit covers connecting, headers and body of the answer.
"""

from __future__ import annotations

import io
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Literal

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from aftersend import __version__
from aftersend.contracts import Clock
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import AftersendError, ConfigurationError, EgressError
from aftersend.core.excerpts import one_line
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Acknowledgement, Outcome, Parcel, Verdict
from aftersend.core.patterns import TEXT_LIMIT, compile_pattern
from aftersend.core.secret import MASK, Secret
from aftersend.core.signing import Signer
from aftersend.core.timestamps import SECOND
from aftersend.egress import CONNECT_LIMIT, Egress
from aftersend.egress.connecting import is_ours, tls_context
from aftersend.egress.faults import why
from aftersend.egress.resolving import GuardedResolver

ANSWER_LIMIT = 65_536
"""Bytes of an answer's body that are read; then it is cut and the connection closed."""
HEADER_LIMIT = 64
"""How many headers an answer may have."""
LINE_LIMIT = 8_190
CONNECTION_LIMIT = 512
"""Connections at once, to all receivers together; a parcel that finds none free waits within its own time limit."""
IDLE_LIMIT = 15.0
"""Seconds that an unused connection is kept."""
RETRY_AFTER_LIMIT = 86_400.0

_SINGLE_WRITE_LIMIT = 1 << 20
_VERDICTS = {400: Verdict.REFUSED, 422: Verdict.REFUSED, 413: Verdict.TOO_LARGE, 410: Verdict.GONE}
_TAKEN = {status: Outcome(Verdict.TAKEN, "", status) for status in range(200, 300)}
_FRAMING = frozenset(
    (
        *("host", "content-length", "content-type", "transfer-encoding", "connection", "keep-alive", "upgrade", "te"),
        *("trailer", "expect", "proxy-authorization", "webhook-id", "webhook-timestamp", "webhook-signature"),
    )
)
"""What a user's headers may not touch: how a request is framed, and what we sign."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e\t]{0,4096}")
_STATUSES = re.compile(r"2xx|[1-5][0-9][0-9]")
_ANY_SUCCESS = Acknowledgement()
_decode_object = msgspec.json.Decoder(dict[str, Any]).decode


class Reply(msgspec.Struct, frozen=True):
    """What came back for a request."""

    status: int = 0
    """0: nothing came back."""
    body: bytes = b""
    location: str = ""
    retry_after: str = ""
    cut: bool = False
    """The body was longer than is read."""
    fault: str = ""
    """What went wrong on the way, in one line; empty: a whole answer came."""
    ours: bool = False
    """The fault is our own and says nothing about the receiver."""


class HttpClient:
    """The connections of one process, shared by its HTTP transports. Make it inside the running loop."""

    def __init__(
        self, egress: Egress, *, connections: int = CONNECTION_LIMIT, tls: ssl.SSLContext | None = None
    ) -> None:
        self.egress = egress
        self._tls = tls
        resolver = GuardedResolver(egress)
        connector = aiohttp.TCPConnector(
            resolver=resolver,
            use_dns_cache=False,
            socket_factory=resolver.socket,
            limit=connections,
            keepalive_timeout=IDLE_LIMIT,
            ssl=tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_headers=HEADER_LIMIT,
            max_line_size=LINE_LIMIT,
            max_field_size=LINE_LIMIT,
        )

    async def post(self, url: URL, headers: CIMultiDict[str], body: bytes, timeout: aiohttp.ClientTimeout) -> Reply:
        """Send a request and read the answer. Never raises for what the other side or the network does."""
        data = body if len(body) < _SINGLE_WRITE_LIMIT else io.BytesIO(body)
        try:
            response = await self._session.post(url, data=data, headers=headers, timeout=timeout, allow_redirects=False)
        except (aiohttp.ClientError, OSError, EgressError, ValueError) as error:
            return _no_answer(error, timeout)
        return await _read(response, timeout)

    async def touch(self, url: URL) -> tuple[str, bool]:
        """Connect and let go: what went wrong in one line, or nothing, and whether that is our own fault."""
        context = (self._tls or tls_context()) if url.scheme == "https" else None
        try:
            _, writer = await self.egress.connect(url.host or "", url.port or 0, context)
        except EgressError as error:
            return str(error), True
        except ssl.SSLError as error:
            return one_line(why(error)), False
        except OSError as error:
            step = "name lookup" if isinstance(error, socket.gaierror) else "connect"
            return f"{step}: {url.host}: {one_line(why(error) or 'no connection')}", False
        writer.close()
        return "", False

    def poster(self, url: str, timeout: float = 15.0) -> Callable[[dict[str, str], bytes], Awaitable[Reply]]:
        """A function that posts headers and a body to one address. Raises EgressError for an address refused."""
        parsed, base, limits = _checked_url(self.egress, url), _base_headers({}), _limits(timeout)

        async def post(headers: dict[str, str], body: bytes) -> Reply:
            return await self.post(parsed, CIMultiDict({**base, **headers}), body, limits)

        return post

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


def _limits(timeout: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_LIMIT, timeout))


async def _read(response: aiohttp.ClientResponse, timeout: aiohttp.ClientTimeout) -> Reply:
    content = response.content
    parts, size, fault = [], 0, ""
    try:
        while size <= ANSWER_LIMIT and not content.at_eof():
            part = await content.readany()
            size += len(part)
            parts.append(part)
    except TimeoutError:
        fault = f"the body of the answer did not end within {timeout.total:g} s"
    except (aiohttp.ClientError, OSError):
        fault = "the connection broke off within the body of the answer"
    if fault or size > ANSWER_LIMIT:
        response.close()
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    headers = response.headers
    return Reply(
        response.status,
        body[:ANSWER_LIMIT],
        headers.get("Location", ""),
        headers.get("Retry-After", ""),
        size > ANSWER_LIMIT,
        fault,
    )


def _no_answer(error: Exception, timeout: aiohttp.ClientTimeout) -> Reply:
    """What to tell about a request that got no answer, and whether that is our own fault."""
    if isinstance(error, EgressError):
        return Reply(fault=str(error), ours=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return _no_name(error)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return Reply(fault=f"connect: no connection within {timeout.sock_connect:g} s")
    if isinstance(error, TimeoutError):
        return Reply(fault=f"no answer within {timeout.total:g} s")
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return Reply(fault=one_line(why(error.certificate_error)))
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        step = "" if isinstance(cause, ssl.SSLError) else "connect: "
        return Reply(fault=f"{step}{one_line(why(cause))}", ours=is_ours(cause))
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return Reply(fault="the connection was closed before an answer came")
    if isinstance(error, OSError):
        return Reply(fault=f"the connection broke: {one_line(why(error))}", ours=is_ours(error))
    if isinstance(error, aiohttp.ClientResponseError):
        return Reply(fault=f"what came back is not HTTP: {one_line(error.message)}")
    return Reply(fault=f"the request cannot be sent: {one_line(error)}", ours=isinstance(error, ValueError))


def _no_name(error: aiohttp.ClientConnectorDNSError) -> Reply:
    cause = error.os_error
    return Reply(fault=f"name lookup: {error.host}: {one_line(cause.strerror or cause)}", ours=is_ours(cause))


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Requests (POST), signed as Standard Webhooks."""

    name: ClassVar[str] = "http"
    schemes: ClassVar[tuple[str, ...]] = ("https", "http")
    brokered: ClassVar[bool] = False

    url: str = option(help="Where parcels are posted to: http:// or https://, without a user name or password.")
    timeout: float = option(15.0, help="Seconds for connecting, headers and body of the answer together.")
    headers: Mapping[str, str | Secret] = field(
        default_factory=dict,
        metadata={"help": "Headers sent along, such as Authorization; the values are masked.", "secret": True},
    )
    signing_secrets: tuple[Secret, ...] = option(
        (), help="Secrets to sign with, the newest first: whsec_… (HMAC) or whsk_… (ed25519).", secret=True
    )
    acknowledgement: Acknowledgement = option(
        _ANY_SUCCESS, help="What the answer must be for a parcel to count as taken."
    )

    client: HttpClient = field(repr=False)
    clock: Clock = field(repr=False)
    _url: URL = field(init=False, repr=False)
    _base: CIMultiDict[str] = field(init=False, repr=False)
    _limits: aiohttp.ClientTimeout = field(init=False, repr=False)
    _signer: Signer | None = field(init=False, repr=False)
    _status: int | None = field(init=False, repr=False)
    _pattern: re.Pattern[str] | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises EgressError for an address that is refused and ConfigurationError for anything else."""
        self._url = _checked_url(self.client.egress, self.url)
        self._base = _base_headers(self.headers)
        check_timeout(self.timeout)
        self._limits = _limits(self.timeout)
        self._signer = Signer(secret.reveal() for secret in self.signing_secrets) if self.signing_secrets else None
        wanted = self.acknowledgement
        if not _STATUSES.fullmatch(wanted.statuses):
            raise ConfigurationError(f"acknowledgement: {wanted.statuses!r} is neither 2xx nor one status such as 200")
        self._status = None if wanted.statuses == "2xx" else int(wanted.statuses)
        self._pattern = None if wanted.body is None else compile_pattern(wanted.body)

    @property
    def carries(self) -> Literal["parcels"]:
        """A batch a request."""
        return "parcels"

    async def probe(self) -> Outcome:
        """Connect, with TLS where it is used; nothing is posted."""
        fault, ours = await self.client.touch(self._url)
        return Outcome(Verdict.FAILED, fault, ours=ours) if fault else _TAKEN[200]

    async def send(self, parcel: Parcel) -> Outcome:
        """Post a parcel. Never raises for what the other side or the network does."""
        try:
            headers = self._headers(parcel)
        except AftersendError as error:
            return Outcome(Verdict.FAILED, str(error), ours=True)
        reply = await self.client.post(self._url, headers, parcel.body, self._limits)
        return self._outcome(reply)

    async def close(self) -> None:
        """Nothing: the connections belong to the client, which all endpoints share."""

    def _headers(self, parcel: Parcel) -> CIMultiDict[str]:
        timestamp = self.clock() // SECOND
        headers = self._base.copy()
        for name, value in parcel.headers:
            headers[name] = value
        headers["Content-Type"] = parcel.content_type
        headers["webhook-id"] = parcel.id
        headers["webhook-timestamp"] = str(timestamp)
        if self._signer is not None:
            headers["webhook-signature"] = self._signer.sign(parcel.id, timestamp, parcel.body)
        return headers

    def _outcome(self, reply: Reply) -> Outcome:
        status = reply.status
        if not status:
            return Outcome(Verdict.FAILED, reply.fault, ours=reply.ours)
        if 200 <= status < 300 or status == self._status:
            return self._success(reply)
        return Outcome(
            _VERDICTS.get(status, Verdict.FAILED),
            self._told(reply),
            status,
            retry_after=_seconds(reply.retry_after, self.clock() // SECOND) if reply.retry_after else None,
        )

    def _success(self, reply: Reply) -> Outcome:
        status = reply.status
        if reply.fault:
            return Outcome(Verdict.FAILED, f"answered {status}, but {reply.fault}", status)
        if status in (200, 207):
            outcome = _partly(reply)
            if outcome is not None:
                return outcome
        if self._status is not None and status != self._status:
            return Outcome(Verdict.REFUSED, f"{self._told(reply)}; taken only with status {self._status}", status)
        if self._pattern is not None and not self._pattern.search(reply.body.decode("utf-8", "replace")[:TEXT_LIMIT]):
            wanted = self.acknowledgement.body
            return Outcome(Verdict.REFUSED, f"{self._told(reply)}; taken only with a body like {wanted!r}", status)
        return _TAKEN.get(status) or Outcome(Verdict.TAKEN, "", status)

    def _told(self, reply: Reply) -> str:
        """What the other side said, with our own secrets masked in case it echoes them."""
        if 300 <= reply.status < 400 and reply.location:
            return f"answered {reply.status}, redirecting to {one_line(reply.location)} (never followed)"
        if not reply.body:
            return f"answered {reply.status}"
        text = reply.body.decode("utf-8", "replace")
        for value in self.headers.values():
            if isinstance(value, Secret):
                text = text.replace(value.reveal(), MASK)
        return f"answered {reply.status}: {one_line(text)}"


def _checked_url(egress: Egress, text: str) -> URL:
    target = egress.check_url(text)
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if (url.scheme, url.host, url.port) != target:
        raise EgressError(f"refused: {one_line(text)!r} can be read in two ways")
    return url.with_fragment(None)


def _base_headers(given: Mapping[str, str | Secret]) -> CIMultiDict[str]:
    headers = CIMultiDict({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": f"aftersend/{__version__}"})
    for name, value in given.items():
        text = value.reveal() if isinstance(value, Secret) else value
        if name.lower() in _FRAMING or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError(f"headers: {name!r} cannot be set")
        if not _HEADER_VALUE.fullmatch(text):
            raise ConfigurationError(f"headers: the value of {name!r} holds something else than printable ASCII")
        headers[name] = text
    return headers


def _partly(reply: Reply) -> Outcome | None:
    """What an answer that may name failed events means; None: it names none."""
    if b'"failed"' not in reply.body and reply.status == 200:
        return None
    if reply.cut:
        return Outcome(Verdict.TOO_LARGE, f"the answer is longer than {ANSWER_LIMIT} bytes", reply.status)
    try:
        failed = _decode_object(reply.body).get("failed")
    except msgspec.DecodeError:
        failed = None
    if not isinstance(failed, list):
        if reply.status == 200:
            return None
        return Outcome(Verdict.FAILED, 'answered 207 without {"failed": [ids]}', reply.status)
    named = [item.get("id") if isinstance(item, dict) else item for item in failed]
    ids = tuple(id_ for id_ in named if isinstance(id_, str))
    if len(ids) < len(named):
        return Outcome(Verdict.FAILED, f"answered {reply.status}, but not all of `failed` are ids", reply.status)
    if not ids:
        return None
    return Outcome(Verdict.PARTLY, f"{len(ids)} events were not taken", reply.status, failed=ids)


def _seconds(text: str, now: int) -> float | None:
    """`Retry-After` as seconds from now, at most a day; None where it cannot be read."""
    text = text.strip()
    if text.isascii() and text.isdecimal() and len(text) < 16:
        return min(float(text), RETRY_AFTER_LIMIT)
    try:
        wait = parsedate_to_datetime(text).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(wait, 0.0), RETRY_AFTER_LIMIT)


_proof: type[Contract] = Transport

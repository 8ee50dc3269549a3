"""Files by FTP and FTPS.

A file is uploaded under a name of its own beginning with a dot, its size is compared, then it is renamed: under its
real name it is whole or absent. An upload that broke off goes on where it stopped: the same id is the same bytes, and
the last stretch is sent anew, so that what the server had not written yet does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import BinaryIO, ClassVar, Literal
from urllib.parse import unquote_to_bytes

from aftersend.contracts import Depot
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Verdict, Volume
from aftersend.core.secret import MASK, Secret
from aftersend.egress import Egress, Target
from aftersend.egress.keeping import Kept
from aftersend.transports.ftp.control import StepError
from aftersend.transports.ftp.security import make_context
from aftersend.transports.ftp.session import Place, ResumeError, Session

OVERLAP = 1 << 20
"""Bytes that are sent again when an upload goes on."""
DETAIL_LIMIT = 500
IDLE_LIMIT = 15.0
"""Seconds that an unused connection is kept."""
IMPLICIT_PORT = 990

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}")
_ANONYMOUS = frozenset(("anonymous", "ftp"))
_TAKEN = Outcome(Verdict.TAKEN)
_PROBE = ".aftersend-probe.part"


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Files in a folder on an FTP or FTPS server."""

    name: ClassVar[str] = "ftp"
    schemes: ClassVar[tuple[str, ...]] = ("ftp", "ftps")
    brokered: ClassVar[bool] = False

    url: str = option(
        help="Where files go: ftp://host/folder or ftps://host:port/folder, from the folder that the login leads to on."
    )
    user: str = option(help="Who logs in; `anonymous` where no account is wanted.")
    password: Secret | None = option(None, help="The user's password.", secret=True)
    tls: Literal["auto", "explicit", "implicit"] = option(
        "auto",
        help="explicit: ask for TLS before logging in; implicit: TLS from the first byte on. auto: ftps:// is implicit "
        "on port 990 and explicit on others, ftp:// is without TLS.",
    )
    ca: str = option("", help="Certificates (PEM) that the server's must be signed by, in place of the system's.")
    timeout: float = option(15.0, help="Seconds for each step: connecting, a reply, the next 256 kB of a file.")

    egress: Egress = field(repr=False)
    _place: Place = field(init=False, repr=False)
    _kept: Kept[Session] = field(init=False, repr=False, default_factory=lambda: Kept(IDLE_LIMIT))

    def __post_init__(self) -> None:
        """Raises EgressError for an address that is refused and ConfigurationError for anything else."""
        target = self.egress.check_url(self.url, self.schemes)
        check_timeout(self.timeout)
        self._place = self._checked_place(target)

    def _checked_place(self, target: Target) -> Place:
        manner = self._manner(target)
        if self.ca and not manner:
            raise ConfigurationError("ca: this connection is without TLS; write ftps:// or set tls to explicit")
        return Place(
            host=target.host,
            port=target.port,
            folder=_folder(self.url),
            user=_checked_user(self.user),
            password=_checked_password(self.password, self.user),
            context=make_context(self.ca) if manner else None,
            implicit=manner == "implicit",
            limit=self.timeout,
        )

    def _manner(self, target: Target) -> str:
        """implicit, explicit, or nothing for a connection in the clear."""
        if self.tls != "auto":
            return self.tls
        if target.scheme == "ftp":
            return ""
        return "implicit" if target.port == IMPLICIT_PORT else "explicit"

    @property
    def carries(self) -> Literal["volumes"]:
        """Files."""
        return "volumes"

    async def send(self, parcel: Parcel) -> Outcome:
        """Nothing: only files are taken."""
        return Outcome(Verdict.FAILED, "the transport ftp takes whole files, not single parcels", ours=True)

    async def put(self, volume: Volume) -> Outcome:
        """Upload a file, check its size and give it its name. Never raises for what the other side does."""
        if not _NAME.fullmatch(volume.name):
            return Outcome(Verdict.FAILED, f"{volume.name!r} cannot be the name of a file", ours=True)
        try:
            file = open(volume.path, "rb")  # noqa: ASYNC230, PTH123, SIM115
        except OSError as error:
            return Outcome(Verdict.FAILED, f"the file on this side cannot be read: {error.strerror}", ours=True)
        with file:
            return await self._attempt(lambda session: _upload(session, volume, file))

    async def probe(self) -> Outcome:
        """Log in, then upload, rename and delete an empty file."""
        return await self._attempt(_try)

    async def close(self) -> None:
        """Say goodbye, if there is a connection."""
        await self._kept.close()

    async def _attempt(self, work: Callable[[Session], Awaitable[None]]) -> Outcome:
        try:
            async with self._kept.use(self._open) as session:
                await work(session)
        except EgressError as error:
            return Outcome(Verdict.FAILED, str(error), ours=True)
        except StepError as error:
            status = error.reply.code if error.reply is not None else None
            detail = str(error)[:DETAIL_LIMIT]
            return Outcome(Verdict.FAILED, detail, status, retry_after=error.retry_after, ours=error.ours)
        return _TAKEN

    async def _open(self) -> Session:
        return await Session.open(self._place, self.egress, self._masked)

    def _masked(self, text: str) -> str:
        password = self.password.reveal() if self.password is not None else ""
        return text.replace(password, MASK) if password else text


async def _upload(session: Session, volume: Volume, file: BinaryIO) -> None:
    part = volume.hidden_name
    reached = await session.size(part)
    start = _start(reached, volume.size) if session.resumes else 0
    try:
        await _store(session, part, file, volume.size, start, reached)
    except ResumeError:
        await _store(session, part, file, volume.size, 0, reached)
    arrived = await session.size(part)
    if arrived not in (None, volume.size):
        raise StepError("upload", f"the server has {arrived} of {volume.size} bytes")
    await session.rename(part, volume.name)


async def _store(session: Session, part: str, file: BinaryIO, size: int, start: int, reached: int | None) -> None:
    if not start and reached is not None:
        await session.remove(part)
    await session.store(part, file, start, size)


async def _try(session: Session) -> None:
    """Whether files can be uploaded and renamed; none is left."""
    done = ".aftersend-probe.done"
    await session.store(_PROBE, None)
    await session.rename(_PROBE, done)
    await session.remove(done)


def _start(reached: int | None, size: int) -> int:
    """Where an upload goes on."""
    return max(0, reached - OVERLAP) if reached is not None and reached <= size else 0


def _folder(url: str) -> str:
    """The path of a URL: from the login's folder on, from the root with two slashes. Raises ConfigurationError."""
    path = url.partition("://")[2].partition("/")[2]
    if "?" in url or "#" in url:
        raise ConfigurationError("url: write ? and # in a folder's name as %3F and %23")
    try:
        folder = unquote_to_bytes(path.removeprefix("~/")).decode()
    except UnicodeDecodeError:
        folder = "\0"
    if not folder.isprintable():
        raise ConfigurationError("url: the folder's name holds something else than printable text")
    return folder.rstrip("/") or ("/" if folder else "")


def _checked_user(user: str) -> str:
    if not user.isprintable() or not user.strip():
        raise ConfigurationError("user: a name is wanted; write anonymous where no account is")
    return user


def _checked_password(password: Secret | None, user: str) -> Secret | None:
    if password is None:
        return Secret("anonymous@") if user in _ANONYMOUS else None
    text = password.reveal()
    if any(character in text for character in "\r\n\0") or text.encode("utf-8", "ignore").decode() != text:
        raise ConfigurationError("password: it holds a line break or another character that cannot be sent")
    return password


_proof: type[Contract] = Transport
_depot: type[Depot] = Transport

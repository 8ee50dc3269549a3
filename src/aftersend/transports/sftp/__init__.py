"""Files by SFTP, to a server whose host key is known.

A file is uploaded under a name of its own beginning with a dot, synced where the server can, its size is compared,
then it is renamed: under its real name it is whole or absent. An upload that broke off goes on where it stopped: the
same id is the same bytes, and what the server had not answered for is sent anew.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal
from urllib.parse import unquote_to_bytes

from aftersend.contracts import Depot
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError, EgressError
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Verdict, Volume
from aftersend.core.secret import Secret
from aftersend.egress import Egress, Target
from aftersend.egress.keeping import Kept
from aftersend.transports.sftp.place import Place, StepError

if TYPE_CHECKING:
    from aftersend.transports.sftp.session import Session

DETAIL_LIMIT = 500
IDLE_LIMIT = 15.0
"""Seconds that an unused connection is kept."""

_NAME = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,255}")
_MODE = re.compile(r"0?[4-7][0-7]{2}")
_TAKEN = Outcome(Verdict.TAKEN)
_PROBE = ".aftersend-probe.part"
_PROBE_DONE = ".aftersend-probe.done"


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Files in a folder on an SFTP server."""

    name: ClassVar[str] = "sftp"
    schemes: ClassVar[tuple[str, ...]] = ("sftp",)
    brokered: ClassVar[bool] = False

    url: str = option(
        help="Where files go: sftp://host/folder from the server's root on, sftp://host/~/folder from the folder that "
        "the login leads to, sftp://host for that folder itself."
    )
    user: str = option(help="Who logs in.")
    host_key: str = option(
        "",
        help="By what the server is known: the line that `ssh-keyscan -t ed25519 HOST` prints, or SHA256:…; several "
        "on lines of their own. Without it a test tells what the server shows, and nothing is sent.",
    )
    password: Secret | None = option(None, help="The user's password.", secret=True)
    private_key: Secret | None = option(
        None, help="The key to log in with, as its file holds it: -----BEGIN OPENSSH PRIVATE KEY-----…", secret=True
    )
    passphrase: Secret | None = option(None, help="What opens the private key.", secret=True)
    mode: str = option("", help="Who may read the files, as octal digits such as 0640; empty: as the server does.")
    timeout: float = option(15.0, help="Seconds for each step: logging in, an answer, the next 256 kB of a file.")

    egress: Egress = field(repr=False)
    _place: Place = field(init=False, repr=False)
    _mode: int | None = field(init=False, repr=False)
    _kept: Kept[Any] = field(init=False, repr=False, default_factory=lambda: Kept(IDLE_LIMIT))

    def __post_init__(self) -> None:
        """Raises EgressError for an address that is refused and ConfigurationError for anything else."""
        target = self.egress.check_url(self.url, self.schemes)
        check_timeout(self.timeout)
        if not self.user.strip() or not self.user.isprintable():
            raise ConfigurationError("user: a name is wanted")
        if self.password is None and self.private_key is None:
            raise ConfigurationError("password or private_key is missing: one of them is wanted to log in with")
        self._mode = _read_mode(self.mode)
        self._place = self._checked_place(target)

    def _checked_place(self, target: Target) -> Place:
        # The library takes a quarter of a second to import, and few commands need it.
        from aftersend.transports.sftp.keys import HostKeys, read_private_key

        return Place(
            host=target.host,
            port=target.port,
            folder=_folder(self.url),
            user=self.user,
            password=self.password,
            passphrase=self.passphrase,
            key=read_private_key(self.private_key, self.passphrase) if self.private_key is not None else None,
            host_keys=HostKeys(self.host_key),
            limit=self.timeout,
        )

    @property
    def carries(self) -> Literal["volumes"]:
        """Files."""
        return "volumes"

    async def send(self, parcel: Parcel) -> Outcome:
        """Nothing: only files are taken."""
        return Outcome(Verdict.FAILED, "the transport sftp takes whole files, not single parcels", ours=True)

    async def put(self, volume: Volume) -> Outcome:
        """Upload a file, check its size and give it its name. Never raises for what the other side does."""
        if not _NAME.fullmatch(volume.name):
            return Outcome(Verdict.FAILED, f"{volume.name!r} cannot be the name of a file", ours=True)
        try:
            file = open(volume.path, "rb")  # noqa: ASYNC230, PTH123, SIM115
        except OSError as error:
            return Outcome(Verdict.FAILED, f"the file on this side cannot be read: {error.strerror}", ours=True)
        with file:
            return await self._attempt(
                lambda session: session.upload(volume.hidden_name, volume.name, self._mode, file, volume.size)
            )

    async def probe(self) -> Outcome:
        """Log in, then create, rename and delete an empty file."""
        return await self._attempt(lambda session: session.rehearse(_PROBE, _PROBE_DONE, self._mode))

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
            return Outcome(Verdict.FAILED, str(error)[:DETAIL_LIMIT], ours=error.ours)
        return _TAKEN

    async def _open(self) -> Session:
        # The library takes a quarter of a second to import.
        from aftersend.transports.sftp.session import Session

        return await Session.open(self._place, self.egress)


def _read_mode(text: str) -> int | None:
    if not text:
        return None
    if not _MODE.fullmatch(text):
        raise ConfigurationError(f"mode: {text!r} is not octal digits from 0400 to 0777, such as 0640")
    return int(text, 8)


def _folder(url: str) -> str:
    """The path of a URL. Raises ConfigurationError."""
    if "?" in url or "#" in url:
        raise ConfigurationError("url: write ? and # in a folder's name as %3F and %23")
    path = url.partition("://")[2].partition("/")[2]
    try:
        folder = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        folder = "\0"
    if not folder.isprintable():
        raise ConfigurationError("url: the folder's name holds something else than printable text")
    if folder == "~" or folder.startswith("~/"):
        return folder[2:].rstrip("/")
    return f"/{folder.strip('/')}" if folder else ""


_proof: type[Contract] = Transport
_depot: type[Depot] = Transport

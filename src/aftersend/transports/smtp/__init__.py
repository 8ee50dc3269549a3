"""Mail through an SMTP relay: one mail an event or a batch, or a digest of many.

The relay's certificate is checked against its name, whether TLS begins at once (smtps) or after STARTTLS. What the
relay says of the sender, a recipient or our password says nothing about events: the cursor stands and it is tried
again. Only what it says of a mail's content can refuse an event.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal
from zoneinfo import ZoneInfo

from msgspec import structs

from aftersend.contracts import Clock
from aftersend.contracts import Depot as DepotContract
from aftersend.contracts import Transport as Contract
from aftersend.core.errors import ConfigurationError
from aftersend.core.excerpts import clean_line
from aftersend.core.options import check_timeout, option
from aftersend.core.outcome import Outcome, Parcel, Verdict, Volume
from aftersend.core.rotation import Rotation
from aftersend.core.secret import Secret
from aftersend.egress import Egress, Target
from aftersend.egress.connecting import tls_context
from aftersend.transports.smtp import chart, page, plain
from aftersend.transports.smtp.addresses import checked_address
from aftersend.transports.smtp.connections import Access
from aftersend.transports.smtp.digest import Digest, digest_of
from aftersend.transports.smtp.mails import Attachment, Letterhead, Picture, digest_mail, event_mail
from aftersend.transports.smtp.relay import Mail, Relay
from aftersend.transports.smtp.wording import WORDINGS, Wording

RECIPIENT_LIMIT = 50
ATTACHMENT_LIMIT = 20_000_000
"""Bytes of a file that can be attached at the most: in a mail it grows by a third, and few relays take more."""

THREAD_PAST = 256 << 10
"""Bytes of a parcel that is written as a mail beside the event loop, so that no click waits for it."""

_HOSTNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")


@dataclass(slots=True, kw_only=True, eq=False)
class Transport:
    """Mails through a relay: one an event, or digests."""

    name: ClassVar[str] = "smtp"
    schemes: ClassVar[tuple[str, ...]] = ("smtp", "smtps")
    brokered: ClassVar[bool] = False

    url: str = option(help="The relay: smtp://HOST:587 (STARTTLS) or smtps://HOST:465 (TLS at once).")
    sender: str = option(help="Address that the mails are from; bounces of them go there.")
    recipients: tuple[str, ...] = option(help=f"Addresses that get every mail; at most {RECIPIENT_LIMIT}.")
    mode: Literal["digest", "events"] = option(
        "digest", help="digest: a summary of each file of events; events: a mail for each event or batch."
    )
    user: str = option("", help="User name for the relay; empty: none is given.")
    password: Secret | None = option(None, help="Its password; it is sent over verified TLS only.", secret=True)
    tls: Literal["required", "opportunistic", "none"] = option(
        "required",
        help="required: a certificate for that host; opportunistic: any, where TLS is offered; none. The last two "
        "only to networks opened with --egress-allow.",
    )
    ca: str = option("", help="Authorities (PEM text) for the relay's certificate; empty: those of the system.")
    hostname: str = option("", help="What we call ourselves at the relay; empty: our address.")
    prefix: str = option("", help="Stands before every subject, e.g. [events].")
    language: Literal["en", "ru"] = option("en", help="The language of digests.")
    zone: str = option("", help="Time zone of digests, e.g. Europe/Berlin; empty: as of the files, else UTC.")
    attach: bool = option(False, help="Attach the file of events to its digest.")
    attach_limit: int = option(5_000_000, help="Bytes of a file past which the digest says that it was too large.")
    timeout: float = option(15.0, help="Seconds for each step: connecting, TLS, logging in, every answer.")

    egress: Egress = field(repr=False)
    clock: Clock = field(repr=False)
    subscription: str = field(default="", repr=False)
    rotation: Rotation | None = field(default=None, repr=False)
    _words: Wording = field(init=False, repr=False)
    _zone: ZoneInfo = field(init=False, repr=False)
    _head: Letterhead = field(init=False, repr=False)
    _relay: Relay = field(init=False, repr=False)
    _kept: tuple[str, Mail] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        """Raises EgressError for an address that is refused and ConfigurationError for anything else."""
        target = self.egress.check_url(self.url, self.schemes)
        self._check_encryption(target)
        if self.hostname and not _HOSTNAME.fullmatch(self.hostname):
            raise ConfigurationError(f"hostname: {self.hostname[:100]!r} is not a host name")
        check_timeout(self.timeout)
        if not 0 <= self.attach_limit <= ATTACHMENT_LIMIT:
            raise ConfigurationError(f"attach_limit: at most {ATTACHMENT_LIMIT} bytes")
        self._words = WORDINGS[self.language]
        self._zone = _zone(self.zone or (self.rotation.zone if self.rotation else "UTC"))
        self._head = Letterhead(
            clean_line(self.subscription or "events", 100),
            checked_address(self.sender, "sender"),
            _checked_recipients(self.recipients),
            clean_line(self.prefix, 60),
        )
        self._relay = Relay(self._access(target))

    @property
    def carries(self) -> Literal["parcels", "volumes"]:
        """Files of events become digests, batches become mails."""
        return "volumes" if self.mode == "digest" else "parcels"

    async def probe(self) -> Outcome:
        """Connect, log in, and ask whether the sender and every recipient would be taken."""
        return await self._relay.probe(self._head.sender, self._head.recipients, utf8=self._head.utf8)

    async def send(self, parcel: Parcel) -> Outcome:
        """Hand a parcel over as a mail."""
        if self.mode == "digest":
            return Outcome(Verdict.FAILED, "a digest is made of files, not of single parcels", ours=True)
        try:
            if len(parcel.body) < THREAD_PAST:
                mail = self._event_mail(parcel)
            else:
                mail = await asyncio.to_thread(self._event_mail, parcel)
        except ValueError as error:
            return Outcome(Verdict.REFUSED, str(error), ours=True)
        return await self._relay.submit(mail)

    def _event_mail(self, parcel: Parcel) -> Mail:
        return event_mail(self._head, parcel, self.clock(), self._words["intro"])

    async def put(self, volume: Volume) -> Outcome:
        """Hand over the digest of a file; where the relay finds it too large, without the file."""
        try:
            outcome = await self._relay.submit(await self._mail(volume, attach=self.attach))
            if outcome.verdict is Verdict.TOO_LARGE and self.attach:
                self._kept = None
                outcome = await self._relay.submit(await self._mail(volume, attach=False))
        except OSError as error:
            return Outcome(Verdict.FAILED, f"{volume.path} cannot be read: {error.strerror}", ours=True)
        if outcome.verdict is not Verdict.FAILED:
            self._kept = None
        return outcome

    async def close(self) -> None:
        """Let go of connections."""
        self._relay.close()

    # --- options

    def _check_encryption(self, target: Target) -> None:
        if bool(self.user) != bool(self.password):
            raise ConfigurationError("user and password go together")
        if target.scheme == "smtps" and self.tls != "required":
            raise ConfigurationError("tls: smtps:// is TLS from the start, with a certificate that is checked")
        if self.tls != "required" and self.password:
            raise ConfigurationError("tls: a password is sent over verified TLS only; set tls to required")

    def _access(self, target: Target) -> Access:
        return Access(
            target=target,
            egress=self.egress,
            tls=self.tls,
            context=tls_context(self.ca) if self.tls == "required" else _lenient_context(),
            user=self.user,
            password=self.password,
            hostname=self.hostname,
            timeout=self.timeout,
        )

    # --- digests

    async def _mail(self, volume: Volume, *, attach: bool) -> Mail:
        """The digest of a volume; the last one is kept, so that a repeat is the same mail."""
        if self._kept is not None and self._kept[0] == volume.id:
            return self._kept[1]
        attachment = await asyncio.to_thread(_attachment, volume) if attach and self._fits(volume) else None
        digest = await asyncio.to_thread(self._digest, volume, attachment)
        picture = await self._picture(volume, digest)
        mail = await asyncio.to_thread(self._written, volume, digest, picture, attachment)
        self._kept = (volume.id, mail)
        return mail

    def _digest(self, volume: Volume, attachment: Attachment | None) -> Digest:
        digest = digest_of(volume, self._head.subscription, self._zone, self._zone.key, self._words)
        return structs.replace(digest, note=self._note(volume, attachment))

    def _written(self, volume: Volume, digest: Digest, picture: Picture | None, attachment: Attachment | None) -> Mail:
        return digest_mail(
            self._head,
            volume.id,
            self._subject(digest),
            self.clock(),
            plain.plain_text(digest, self._words),
            page.page(digest, self._words, picture.cid if picture else ""),
            picture,
            attachment,
            _fields(volume),
        )

    def _subject(self, digest: Digest) -> str:
        counted = self._words.counted(digest.count, "event")
        return f"{digest.subscription}: {counted}" + (f", {digest.period}" if digest.period else "")

    async def _picture(self, volume: Volume, digest: Digest) -> Picture | None:
        if not digest.bars or not chart.can_draw():
            return None
        drawn = await chart.draw(chart.spec_of(digest, self._words))
        return Picture(f"chart.{volume.epoch}.{volume.first_sequence}@aftersend", drawn) if drawn else None

    def _fits(self, volume: Volume) -> bool:
        return volume.size <= self.attach_limit

    def _note(self, volume: Volume, attachment: Attachment | None) -> str:
        """What became of the file, where one was wanted."""
        words, size = self._words, self._words.size(volume.size)
        if attachment is not None:
            return words["attached"].format(volume.name, size)
        if not self.attach:
            return ""
        if not self._fits(volume):
            return words["too_large"].format(volume.name, size, words.size(self.attach_limit))
        return words["refused"].format(volume.name, size)


def _fields(volume: Volume) -> Sequence[tuple[str, str]]:
    return (
        ("aftersend-epoch", str(volume.epoch)),
        ("aftersend-sequence", f"{volume.first_sequence}-{volume.last_sequence}"),
    )


def _attachment(volume: Volume) -> Attachment:
    with Path(volume.path).open("rb") as file:
        return Attachment(volume.name, volume.content_type, file.read(ATTACHMENT_LIMIT))


def _checked_recipients(recipients: Sequence[str]) -> tuple[str, ...]:
    checked = tuple(dict.fromkeys(checked_address(text, "recipients") for text in recipients))
    if not 0 < len(checked) <= RECIPIENT_LIMIT:
        raise ConfigurationError(f"recipients: at least one and at most {RECIPIENT_LIMIT} addresses")
    return checked


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(f"zone: there is no time zone {name[:64]!r}; one is Europe/Berlin") from None


@cache
def _lenient_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


_proof: type[Contract] = Transport
_depot_proof: type[DepotContract] = Transport

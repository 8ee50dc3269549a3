"""The settings of the SMTP relay: the `[relay]` table of aftersend.toml."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from aftersend.core.event import DEFAULT_TENANT
from aftersend.core.secret import Secret

Seconds = Annotated[float, Meta(ge=1, le=600)]


class RelaySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How mail comes in, what is done with it and where it goes on to; `RELAY_HELP` tells each in a sentence."""

    listen: str = ""
    hostname: str = ""
    certificate: str = ""
    certificate_key: str = ""
    require_tls: bool = False
    clients: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    max_message_bytes: Annotated[int, Meta(ge=65_536, le=1 << 30)] = 25 << 20
    max_connections: Annotated[int, Meta(ge=1, le=10_000)] = 100
    max_held_bytes: Annotated[int, Meta(ge=1 << 20)] = 256 << 20
    timeout: Seconds = 300.0

    next_hop: str = ""
    next_hop_tls: Literal["verified", "unverified", "none"] = "verified"
    next_hop_authorities: str = ""
    next_hop_user: str = ""
    next_hop_password: Secret = Secret("")
    next_hop_allow: tuple[str, ...] = ()
    next_hop_timeout: Seconds = 300.0

    tenant: str = DEFAULT_TENANT
    domain: str = ""
    level: Literal["none", "anonymous", "full"] = "full"
    clicks: bool = True
    text: bool = False
    office: bool = False
    top: bool = False
    bottom: bool = True
    reading: bool = False
    unsubscribe: bool = True
    untracked: tuple[str, ...] = ()


RELAY_HELP = {
    "listen": "Host and port that mail comes in by, e.g. 127.0.0.1:2525; empty: no relay.",
    "hostname": "The name that the relay gives itself; empty: the tracking domain.",
    "certificate": "File with the certificate chain (PEM) for STARTTLS; empty: none is offered.",
    "certificate_key": "File with its private key (PEM); empty: it is in the certificate's file.",
    "require_tls": "Take mail over TLS only.",
    "clients": "Networks (CIDR) that may send without a key; everybody else needs TLS and a key of ours as password.",
    "max_message_bytes": "Bytes of a message; a larger one is refused for good (552).",
    "max_connections": "Connections at once; a further one is told to come again (421).",
    "max_held_bytes": "Bytes of all messages in hand; past it a message is told to come again (452). "
    "The memory taken is about four times as much.",
    "timeout": "Seconds that a client may be silent, and that a part of a message may take.",
    "next_hop": "Where every message is handed on to: smtp://HOST:PORT, or smtps:// for TLS from the start.",
    "next_hop_tls": "verified: STARTTLS and a certificate for that host; unverified: any certificate; none: no TLS.",
    "next_hop_authorities": "File with the authorities (PEM) that the next hop's certificate is checked against; "
    "empty: those of the system.",
    "next_hop_user": "User name for the next hop; empty: none is given.",
    "next_hop_password": "Its password; better in the environment: AFTERSEND_RELAY_NEXT_HOP_PASSWORD.",
    "next_hop_allow": "Networks (CIDR) that the next hop may be in besides public ones, e.g. 127.0.0.0/8.",
    "next_hop_timeout": "Seconds for the whole hand-over; keep it below what your mail server waits for an answer.",
    "tenant": "Whose mail it is, where it comes without a key; else the key's.",
    "domain": "The tracking domain whose addresses are written.",
    "level": "The most that is tracked: none, anonymous or full; a message can lower it.",
    "clicks": "Rewrite links.",
    "text": "Links of the text part too.",
    "office": "Links in conditional comments too, which only Outlook shows.",
    "top": "A pixel at the top.",
    "bottom": "A pixel at the bottom.",
    "reading": "A picture that measures how long a message stays open (reading_time); ask people first.",
    "unsubscribe": "Add List-Unsubscribe for one click (RFC 8058) where the message has none.",
    "untracked": "Domains that links lead to directly; so for all below them.",
}

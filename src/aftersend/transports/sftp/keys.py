"""Keys for SSH as an operator pastes them: the server's that are trusted, and the one to log in with."""

from __future__ import annotations

import base64
import re
import struct

import asyncssh

from aftersend.core.errors import ConfigurationError
from aftersend.core.secret import Secret

HOST_KEY_LIMIT = 16
"""Keys of one server."""
KEY_LIMIT = 8_192
"""Characters of a private key."""
ROUND_LIMIT = 256
"""Rounds that a passphrase is stretched by (ssh-keygen -a): each holds up the whole process for about 7 ms."""

_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_KIND = re.compile(r"(?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]+")
_ARMOUR = re.compile(r"-----BEGIN OPENSSH PRIVATE KEY-----(.*?)-----END OPENSSH PRIVATE KEY-----", re.DOTALL)
_MAGIC = b"openssh-key-v1\0"

KINDS = (
    *("ssh-ed25519", "ssh-ed448", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    *("rsa-sha2-512", "rsa-sha2-256"),
)
"""Kinds of signatures that a server may prove itself with, the best first."""


class HostKeys:
    """The keys by which a server is known."""

    def __init__(self, text: str) -> None:
        """Lines as `ssh-keyscan` prints them, lines of public keys, or SHA256 fingerprints.

        Raises ConfigurationError.
        """
        lines = [line.strip() for line in text.splitlines()]
        wanted = [line for line in lines if line and not line.startswith("#")]
        if len(wanted) > HOST_KEY_LIMIT:
            raise ConfigurationError(f"host_key: more than {HOST_KEY_LIMIT} keys")
        keys = [_public_key(line) for line in wanted if not _FINGERPRINT.fullmatch(line)]
        named = [line for line in wanted if _FINGERPRINT.fullmatch(line)]
        self.fingerprints = frozenset((*named, *(key.get_fingerprint("sha256") for key in keys)))
        offered = {kind.decode() for key in keys for kind in key.sig_algorithms}
        self.kinds = sorted(KINDS, key=lambda kind: kind not in offered)
        """What is asked of the server: first what is known of it; any other key it shows can then be told."""

    def __contains__(self, key: asyncssh.SSHKey) -> bool:
        return key.get_fingerprint("sha256") in self.fingerprints

    def fault(self, shown: asyncssh.SSHKey) -> str:
        """Why a key that was shown is not accepted, with what to do."""
        told = f"{shown.get_algorithm()} {shown.get_fingerprint('sha256')}"
        if not self.fingerprints:
            return f"none is pinned; the server shows {told}: ask its operator whether that is right, then set host_key"
        return f"the server shows {told}, which is not the one in host_key: it was changed, or somebody stands between"


def _public_key(line: str) -> asyncssh.SSHKey:
    """A key of a line such as `[host] ssh-ed25519 AAAA… [comment]`."""
    words = line.split() if not line.startswith("@") else []
    number = next((number for number, word in enumerate(words[:2]) if _KIND.fullmatch(word)), len(words))
    try:
        return asyncssh.import_public_key(" ".join(words[number : number + 2]))
    except ValueError:
        raise ConfigurationError(
            f"host_key: {line[:80]!r} is neither a public key (a line of ssh-keyscan) nor a fingerprint (SHA256:…)"
        ) from None


def read_private_key(secret: Secret, passphrase: Secret | None) -> asyncssh.SSHKey:
    """The key to log in with. Raises ConfigurationError."""
    text = secret.reveal().strip()
    if len(text) > KEY_LIMIT:
        raise ConfigurationError(f"private_key: it is longer than {KEY_LIMIT} characters")
    if "BEGIN ENCRYPTED PRIVATE KEY" in text:
        raise ConfigurationError("private_key: this form cannot be read; convert the key with: ssh-keygen -p -f FILE")
    if _rounds(text) > ROUND_LIMIT:
        raise ConfigurationError(f"private_key: its passphrase is stretched by more than {ROUND_LIMIT} rounds")
    try:
        return asyncssh.import_private_key(text, passphrase.reveal() if passphrase is not None else None)
    except asyncssh.KeyEncryptionError as error:
        reason = f"the passphrase does not open it ({error})" if passphrase is not None else str(error)
    except ValueError:
        reason = "it is not a private key (-----BEGIN OPENSSH PRIVATE KEY-----), or is locked and wants passphrase"
    raise ConfigurationError(f"private_key: {reason}")


def _rounds(text: str) -> int:
    """How often the passphrase of a key in OpenSSH's form is stretched."""
    armour = _ARMOUR.search(text)
    try:
        data = base64.b64decode(armour[1]) if armour else b""
        options = _fields(data.removeprefix(_MAGIC), 3)[2]
        return int.from_bytes(_fields(options, 1)[1], "big")
    except (ValueError, struct.error):
        return 0


def _fields(data: bytes, count: int) -> list[bytes]:
    """The first strings of a structure, and what comes after them."""
    found = []
    for _ in range(count):
        (length,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    return [*found, data]

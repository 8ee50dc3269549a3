"""Where files go by SFTP, and why a step on the way failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct

from aftersend.core.excerpts import one_line
from aftersend.core.secret import Secret

if TYPE_CHECKING:
    from asyncssh import SSHKey

    from aftersend.transports.sftp.keys import HostKeys


class Place(Struct, frozen=True):
    """Where files go, and who brings them."""

    host: str
    port: int
    folder: str
    """Empty: where the login leads."""
    user: str
    password: Secret | None
    passphrase: Secret | None
    key: SSHKey | None
    host_keys: HostKeys
    limit: float
    """Seconds that each step has."""

    def masked(self, text: str) -> str:
        """Text of the other side as one printable line, without our secrets in case it echoes them."""
        return one_line(text, (self.password, self.passphrase))

    def path(self, name: str) -> str:
        """Where a file of the folder is."""
        return f"{self.folder.rstrip('/')}/{name}" if self.folder else name


class StepError(Exception):
    """A step that failed, in words for a person."""

    def __init__(self, step: str, said: str, *, ours: bool = False) -> None:
        super().__init__(f"{step}: {said}")
        self.ours = ours

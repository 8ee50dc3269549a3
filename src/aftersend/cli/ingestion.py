"""`aftersend ingest`: files into the log, through the API of the instance."""

from __future__ import annotations

import json as json_codec
import time
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from io import BufferedReader
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from aftersend.cli import DONE, PARTLY
from aftersend.cli.client import Client, Reply, check, connected
from aftersend.cli.files import STANDARD_INPUT, UNPACKING_FAULTS, check_files, opened, unpacked
from aftersend.cli.output import Progress, hint, print_json, progress, say
from aftersend.cli.parameters import HERE, AsJson, Target
from aftersend.cli.pieces import Piece, TooLargeError, bodies, pieces
from aftersend.contracts import Dialect
from aftersend.core.errors import AftersendError, UsageError
from aftersend.core.event import Receipt
from aftersend.rack import find_dialect

_SHOWN = 20
"""How many rejected events are told one by one; the others are counted."""
_LISTED = 1_000
"""How many rejected events an answer of the API names at most."""
_PATIENCE = 60
"""How often, a second apart, a busy instance is asked again."""


def ingest(
    *files: str,
    as_: Annotated[str, Parameter(name="--as", help="The dialect of the files, as `halon` or `pure360/csv`.")],
    source: Annotated[
        str, Parameter(show_default=False, help="The source the events come from; without it one named as the dialect.")
    ] = "",
    target: Target = HERE,
    json: AsJson = False,
) -> int:
    """Take files into the log, packed with gzip, zstd or zip or not; `-` is standard input.

    Safe to repeat: what is in the log already counts as duplicate. What cannot be read goes to quarantine, and the exit
    code is 3.
    """
    if not files:
        raise UsageError("name the files: aftersend ingest --as DIALECT FILE…")
    dialect, form = find_dialect(as_)
    check_files(files)
    with connected(target) as client:
        headers = _headers(client, source, target.tenant)
        work = _Ingestion(client, dialect, form, headers)
        with progress("ingest", _size(files)) as bar:
            for name in files:
                work.file(name, bar)
    work.tell(as_json=json)
    return PARTLY if work.rejected else DONE


def _headers(client: Client, source: str, tenant: str) -> dict[str, str]:
    """What the instance must know besides the bytes. Raises errors for a source or tenant that is not there."""
    if source:
        tenant = client.call("GET", f"/v1/sources/{source}")["tenant"]
    elif tenant and tenant not in {item["name"] for item in client.call("GET", "/v1/tenants")}:
        raise UsageError(f"there is no tenant {tenant!r}; `aftersend tenants list` shows them")
    named = {"aftersend-source": source, "aftersend-tenant": tenant}
    return {name: value for name, value in named.items() if value}


def _size(files: tuple[str, ...]) -> int | None:
    return None if STANDARD_INPUT in files else sum(Path(name).stat().st_size for name in files)


def _digest(file: BufferedReader) -> str:
    """SHA-256 of the whole file, which is read from its beginning again; of nothing for a stream."""
    if not file.seekable():
        return ""
    digest = sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0)
    return digest.hexdigest()


class _Ingestion:
    """One run, over all files."""

    def __init__(self, client: Client, dialect: Dialect, form: str, headers: dict[str, str]) -> None:
        self._client = client
        self._dialect = dialect
        self._form = form
        self._headers = headers
        self._done_bytes = 0
        self.accepted = self.duplicates = self.rejected = 0
        self._reasons: Counter[str] = Counter()
        self._examples: list[str] = []

    def file(self, name: str, bar: Progress) -> None:
        """Take one file in; each body is named by the file's digest and its number, so that a repeat is one."""
        with opened(name) as file:
            digest = _digest(file)
            for number, (body, lines) in enumerate(self._bodies(name, file)):
                key = f"{digest or sha256(body).hexdigest()}/{number}"
                self._take(name, self._send(body, {"idempotency-key": key, "aftersend-file": key}), lines)
                if file.seekable():
                    bar(self._done_bytes + file.tell(), f"{self.accepted + self.duplicates} events")
            self._done_bytes += file.tell() if file.seekable() else 0

    def _bodies(self, name: str, file: BufferedReader) -> Iterator[tuple[bytes, int]]:
        """The bodies of a file, each with how many events are lost with it at the least."""
        try:
            for content in unpacked(file):
                for piece in pieces(content, self._dialect, self._form):
                    receipt = Receipt(piece.body, time.time_ns(), self._form)
                    for body in bodies(piece, self._dialect, receipt):
                        yield body, _lines(piece)
        except TooLargeError as error:
            self._reject(name, "too_large", str(error))
        except UNPACKING_FAULTS as error:
            self._reject(name, "unreadable_file", str(error))

    def _send(self, body: bytes, headers: dict[str, str]) -> Reply:
        form = f"/{self._form}" if self._form else ""
        for _ in range(_PATIENCE):
            reply = self._client.send(
                "POST", f"/v1/events/{self._dialect.name}{form}", body, {**self._headers, **headers}
            )
            if reply.status != 503:
                return reply
            time.sleep(1)
        raise AftersendError(f"the instance is busy: {_said(reply)}; {self._counts()} so far, begin again later")

    def _take(self, name: str, reply: Reply, lines: int) -> None:
        if reply.status in (400, 413):
            self._reject(name, _said(reply, "error"), _said(reply), lines)
            return
        try:
            check(reply)
        except AftersendError as error:
            raise AftersendError(f"{error}; {self._counts()} so far, the same command goes on from there") from None
        said = json_codec.loads(reply.body)
        self.accepted += said["accepted"]
        self.duplicates += said["duplicates"]
        for item in said["rejected"]:
            self._reject(name, item["reason"], item["detail"])
        untold = lines - said["accepted"] - said["duplicates"] - len(said["rejected"])
        if len(said["rejected"]) >= _LISTED and untold > 0:
            self._reject(name, "rejected", f"{untold} more in the same piece", untold)

    def _reject(self, name: str, reason: str, detail: str, count: int = 1) -> None:
        self.rejected += count
        self._reasons[reason] += count
        if len(self._examples) < _SHOWN:
            self._examples.append(f"{name}: {reason}: {detail}")

    def _counts(self) -> str:
        return f"{self.accepted} accepted, {self.duplicates} duplicate, {self.rejected} rejected"

    def tell(self, *, as_json: bool) -> None:
        """Say what became of everything."""
        if as_json:
            counts: dict[str, Any] = {"accepted": self.accepted, "duplicates": self.duplicates}
            print_json({**counts, "rejected": self.rejected, "reasons": dict(self._reasons)})
            return
        for line in self._examples:
            hint(" ".join(line.split()))
        if self.rejected > len(self._examples):
            hint("There are more; `aftersend quarantine list` shows what was kept of them.")
        say(self._counts())


def _lines(piece: Piece) -> int:
    return sum(bool(line.strip()) for line in piece.body.split(b"\n")) if piece.lines else 1


def _said(reply: Reply, name: str = "detail") -> str:
    try:
        return str(json_codec.loads(reply.body)[name])
    except (ValueError, KeyError, TypeError):
        return f"answered {reply.status}"

"""Files into folders of this machine: only into listed ones, whatever links are put in the way."""

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from aftersend.core.errors import ConfigurationError
from aftersend.core.outcome import Verdict
from aftersend.testing.depots import volume
from aftersend.transports import folder
from aftersend.transports.folder import Transport


def opened(place: Path, root: Path | None = None, **options: str) -> Transport:
    return Transport(url=place.as_uri(), folders=(root or place,), **options)


@pytest.mark.parametrize(
    "url",
    [
        *("", "/srv/events", "file:events", "file://host/srv", "ftp://host/srv", "file:///srv/../etc", "file:///a%00b"),
        *("file:///srv?x=1", "file:///srv#x", "file:///srv/%2e%2e/etc", "file:///a%0Ab"),
    ],
)
def test_what_is_no_folder_of_this_machine_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^url: [^\n]*$"):
        Transport(url=url, folders=(Path("/"),))


def test_a_folder_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    for inside, listed in (("in", "other"), ("in", "in/deeper"), ("inner", "in")):
        (tmp_path / inside).mkdir(exist_ok=True)
        with pytest.raises(ConfigurationError, match="is in none of the folders that are listed"):
            opened(tmp_path / inside, tmp_path / listed)


def test_without_the_setting_no_folder_is_written_to(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="needs the setting `folders`"):
        Transport(url=tmp_path.as_uri())


def test_a_link_out_of_the_listed_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(ConfigurationError, match="is in none"):
        opened(tmp_path / "root" / "link", tmp_path / "root")


def test_a_link_that_stays_within_them_is_followed(tmp_path: Path) -> None:
    (tmp_path / "root" / "real").mkdir(parents=True)
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root" / "real")
    (tmp_path / "alias").symlink_to(tmp_path / "root")
    assert opened(tmp_path / "root" / "link", tmp_path / "alias").carries == "volumes"


async def test_a_link_that_was_put_there_later_is_refused(tmp_path: Path) -> None:
    place, outside = tmp_path / "root" / "in", tmp_path / "outside"
    place.mkdir(parents=True)
    outside.mkdir()
    depot = opened(place, tmp_path / "root")
    place.rmdir()
    place.symlink_to(outside)
    outcome = await depot.put(volume(tmp_path, "a.json", b"[]"))
    assert outcome.verdict is Verdict.FAILED
    assert "is in none of the folders" in outcome.detail
    assert not list(outside.iterdir())


async def test_a_link_that_is_put_there_at_the_last_moment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, outside = tmp_path / "root" / "in", tmp_path / "outside"
    place.mkdir(parents=True)
    outside.mkdir()
    depot = opened(place, tmp_path / "root")
    judged = Transport._allowed

    def swap(transport: Transport) -> Path:
        found = judged(transport)
        place.rmdir()
        place.symlink_to(outside)
        return found

    monkeypatch.setattr(Transport, "_allowed", swap)
    outcome = await depot.put(volume(tmp_path, "a.json", b"[]"))
    assert outcome.verdict is Verdict.FAILED
    assert "the folder cannot be opened" in outcome.detail
    assert not list(outside.iterdir())


async def test_a_link_under_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    place, victim = tmp_path / "in", tmp_path / "victim"
    place.mkdir()
    victim.write_bytes(b"mine")
    (place / "a.json").symlink_to(victim)
    assert (await opened(place).put(volume(tmp_path, "a.json", b"[]"))).verdict is Verdict.TAKEN
    assert victim.read_bytes() == b"mine"
    assert not (place / "a.json").is_symlink()
    assert (place / "a.json").read_bytes() == b"[]"


@pytest.mark.parametrize("name", ["../a.json", "/etc/a.json", ".a.json", "in/a.json"])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    outcome = await opened(tmp_path).put(volume(tmp_path, name, b"[]"))
    assert outcome.verdict is Verdict.FAILED
    assert outcome.ours


@pytest.mark.parametrize("mode", ["0640", "0600", "644", "0444"])
async def test_files_have_the_mode_that_was_asked_for(tmp_path: Path, mode: str) -> None:
    place = tmp_path / "in"
    place.mkdir()
    before = os.umask(0o077)
    try:
        assert (await opened(place, mode=mode).put(volume(tmp_path, "a.json", b"[]"))).verdict is Verdict.TAKEN
    finally:
        os.umask(before)
    assert (place / "a.json").stat().st_mode & 0o7777 == int(mode, 8)


@pytest.mark.parametrize("mode", ["", "rw-r--r--", "9", "0100", "07777", "-644"])
def test_a_mode_that_is_none_is_refused(tmp_path: Path, mode: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^mode: "):
        opened(tmp_path, mode=mode)


async def test_a_copy_that_broke_off_before_is_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "in"
    place.mkdir()
    depot, whole = opened(place), volume(tmp_path, "a.json", b"[1]")

    def die(*given: object, **named: object) -> None:
        raise KeyboardInterrupt  # as little is cleaned up as by a kill

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(os, "rename", die)
        patched.setattr(os, "unlink", lambda *given, **named: None)
        depot._put(whole, folder._Copy())
    assert [path.name[:11] for path in place.iterdir()] == [".aftersend-"]
    assert (await depot.put(whole)).verdict is Verdict.TAKEN
    assert [path.name for path in place.iterdir()] == ["a.json"]


async def test_a_disk_that_hangs_is_a_failure_and_is_asked_nothing_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "in"
    place.mkdir()
    go_on = threading.Event()
    sync = os.fsync

    def hang(handle: int) -> None:
        go_on.wait(10)
        sync(handle)

    monkeypatch.setattr(os, "fsync", hang)
    monkeypatch.setattr(folder, "STALL_SECONDS", 0.05)
    depot, whole = opened(place), volume(tmp_path, "a.json", b"[1]")
    outcome = await depot.put(whole)
    assert outcome.verdict is Verdict.FAILED
    assert "took nothing for 0.05 s" in outcome.detail
    assert "has not ended" in (await depot.put(whole)).detail
    go_on.set()
    async with asyncio.timeout(5):
        while "has not ended" in (outcome := await depot.put(whole)).detail:
            await asyncio.sleep(0.01)
    assert outcome.verdict is Verdict.TAKEN


@pytest.mark.parametrize(
    ("number", "ours"), [(errno.ENOSPC, False), (errno.EDQUOT, False), (errno.EROFS, False), (errno.EMFILE, True)]
)
async def test_what_the_disk_says_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ours: bool
) -> None:
    place = tmp_path / "in"
    place.mkdir()

    def refuse(*given: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "sendfile", refuse)
    outcome = await opened(place).put(volume(tmp_path, "a.json", b"[1]"))
    assert (outcome.verdict, outcome.ours) == (Verdict.FAILED, ours)
    assert outcome.detail == f"{place}: a.json cannot be written: {os.strerror(number).lower()}"
    assert not list(place.iterdir())


async def test_a_copy_of_another_length_than_it_should_have_is_not_shown(tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    whole = volume(tmp_path, "a.json", b"[1]")
    Path(whole.path).write_bytes(b"[")
    outcome = await opened(place).put(whole)
    assert outcome.verdict is Verdict.FAILED
    assert outcome.ours
    assert not list(place.iterdir())

"""The keyring: what it derives, seals and refuses."""

import hmac
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aftersend.core.errors import StoreError
from aftersend.keyring import Keyring


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a keyring may lie."""
    return tmp_path / "keyring.json"


def test_a_keyring_is_made_once_for_its_owner_alone(path: Path) -> None:
    made = Keyring.open(path, create=True)
    assert path.stat().st_mode & 0o777 == 0o600
    assert Keyring.open(path, create=True).active_id == made.active_id
    assert [file.name for file in path.parent.iterdir()] == ["keyring.json"]


def test_a_missing_keyring_is_told_in_one_line(path: Path) -> None:
    with pytest.raises(StoreError, match=r"there is no keyring .*keyring\.json; put it back .*`aftersend init`"):
        Keyring.open(path)


def test_a_keyring_that_others_can_read_is_refused(path: Path) -> None:
    Keyring.open(path, create=True)
    path.chmod(0o640)
    with pytest.raises(StoreError, match=r"open to others \(mode 0640\); `chmod 600 "):
        Keyring.open(path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"keys": []}', '{"keys": [{"id": "a"}]}', "\xff", "retired", "not base64", "short"]
)
def test_a_damaged_keyring_is_refused_in_one_line(path: Path, content: str) -> None:
    Keyring.open(path, create=True)
    good = path.read_text()
    material = good.split('"material": "')[1].split('"')[0]
    changed = {
        "retired": good.replace('"active"', '"retired"'),
        "not base64": good.replace(material, "*" * 44),
        "short": good.replace(material, "c2hvcnQ="),
    }
    path.write_bytes(changed.get(content, content).encode("latin-1"))
    with pytest.raises(StoreError, match=r"^the keyring [^\n]* is damaged; put it back from the backup$"):
        Keyring.open(path)


def test_a_folder_in_its_place_is_told_in_one_line(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be read: is a directory"):
        Keyring.open(path)


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be"):
        Keyring.open(tmp_path / "file" / "keyring.json", create=True)


@given(st.text(), st.text())
def test_what_was_sealed_is_opened_with_the_same_context_only(text: str, context: str) -> None:
    sealed = MADE.seal(text, context)
    assert MADE.unseal(sealed, context) == text
    assert sealed.isascii()
    with pytest.raises(StoreError, match="damaged, or was moved"):
        MADE.unseal(sealed, context + "x")


def test_two_seals_of_one_text_differ() -> None:
    assert MADE.seal("secret", "") != MADE.seal("secret", "")


def test_a_changed_character_is_noticed() -> None:
    sealed = MADE.seal("eight by", "here")
    assert not sealed.endswith("="), "then every bit of every character means something"
    for index in range(sealed.rindex(".") + 1, len(sealed)):
        other = "A" if sealed[index] != "A" else "B"
        with pytest.raises(StoreError, match="here: a sealed secret is damaged"):
            MADE.unseal(sealed[:index] + other + sealed[index + 1 :], "here")


@pytest.mark.parametrize("sealed", ["", "s1", "s1.x", "s2.a.b", "plain text", "s1.00000000.AAAA"])
def test_garbage_is_not_opened(sealed: str) -> None:
    with pytest.raises(StoreError):
        MADE.unseal(sealed, "here")


def test_rotation_keeps_the_old_keys(path: Path) -> None:
    keyring = Keyring.open(path, create=True)
    old, sealed, link = keyring.active_id, keyring.seal("secret", ""), keyring.link_key("click")
    new = keyring.rotate()
    again = Keyring.open(path)
    assert [(key.id, key.state) for key in again.keys] == [(old, "retired"), (new, "active")]
    assert again.active_id == new != old
    assert again.unseal(sealed, "") == "secret"
    assert again.link_key("click", old) == link != again.link_key("click")
    assert again.seal("x", "").startswith(f"s1.{new}.")


def test_every_purpose_has_a_key_of_its_own() -> None:
    keys = {MADE.link_key(purpose) for purpose in ("click", "open", "unsubscribe")} | {MADE.derive("at-rest", "00" * 4)}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)


def test_derived_keys_never_change() -> None:
    """HKDF-SHA256, RFC 5869, without salt: one round by hand."""
    extracted = hmac.digest(bytes(32), bytes(32), "sha256")
    assert MADE.link_key("click") == hmac.digest(extracted, b"link/click\x01", "sha256")


def test_a_key_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match="lacks key 12345678"):
        MADE.link_key("click", "12345678")


def test_fingerprints_tell_keys_apart_and_not_the_keys(path: Path) -> None:
    keyring = Keyring.open(path, create=True)
    keyring.rotate()
    prints = keyring.fingerprints()
    assert list(prints) == [key.id for key in keyring.keys]
    assert len(set(prints.values())) == 2
    assert not any(key.material[:8] in repr(key) for key in keyring.keys)


def make_keyring() -> Keyring:
    """A keyring whose one key, 00000000, is all zeros; its nonces are random."""
    drawn = iter([bytes(32), bytes(4)])
    with tempfile.TemporaryDirectory() as folder:
        return Keyring.open(
            Path(folder) / "keyring.json",
            create=True,
            clock=lambda: 0,
            chance=lambda count: next(drawn, None) or os.urandom(count),
        )


MADE = make_keyring()

"""Every file of the sample collection has its place, its bytes as they were, and a test that uses it."""

import importlib.util
from functools import cache, reduce
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import msgspec
import pytest

from aftersend.testing.dialects import read_fixtures

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
KINDS = {
    "documented": "documented",
    "completed": "documented",
    "composed": "composed",
    "captured": "composed",
    "inferred": "inferred",
}
"""The kinds, and what `expected.jsonl` calls them."""


class Sample(msgspec.Struct, forbid_unknown_fields=True):
    """One line of `samples.jsonl`."""

    sample: str
    kind: str
    file: str
    sha256: str
    tests: list[str]
    later: str = ""


SAMPLES = [
    msgspec.json.decode(line, type=Sample) for line in (FIXTURES / "samples.jsonl").read_bytes().splitlines() if line
]
EXPECTED = {
    fixture.sample: (f"dialects/{folder.name}/{fixture.file}", fixture.kind)
    for folder in (FIXTURES / "dialects").iterdir()
    for fixture in read_fixtures(folder)
    if fixture.sample
}


@cache
def module(file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location("named_" + Path(file).stem, ROOT / file)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_every_sample_is_listed_once_and_in_order() -> None:
    names = [sample.sample for sample in SAMPLES]
    assert names == sorted(set(names))


def test_every_foreign_file_and_every_payload_of_the_collection_is_listed_where_it_stands() -> None:
    foreign = {
        path.relative_to(FIXTURES / "foreign").as_posix()
        for path in (FIXTURES / "foreign").rglob("*")
        if path.is_file()
    }
    here = {name: f"foreign/{name}" for name in foreign} | {name: file for name, (file, _) in EXPECTED.items()}
    assert here == {sample.sample: sample.file for sample in SAMPLES}


def test_every_sample_has_the_bytes_it_came_with() -> None:
    changed = [
        sample.file for sample in SAMPLES if sha256((FIXTURES / sample.file).read_bytes()).hexdigest() != sample.sha256
    ]
    assert not changed


def test_a_payload_is_of_the_same_kind_in_both_lists() -> None:
    assert {sample.kind for sample in SAMPLES} <= KINDS.keys()
    said = {sample.sample: KINDS[sample.kind] for sample in SAMPLES if sample.sample in EXPECTED}
    assert said == {name: kind for name, (_, kind) in EXPECTED.items()}


@pytest.mark.parametrize("test", sorted({test for sample in SAMPLES for test in sample.tests}))
def test_every_named_test_exists(test: str) -> None:
    file, *names = test.split("::")
    assert callable(reduce(getattr, names, module(file)))


def test_every_sample_has_a_test() -> None:
    assert not [sample.sample for sample in SAMPLES if not sample.tests]

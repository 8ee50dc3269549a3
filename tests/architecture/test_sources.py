"""The sources stay small, and each says in its first line what it is."""

import ast
from collections.abc import Iterator
from pathlib import Path
from statistics import median

FUNCTION_LINES = 10
FILE_LINES = 150


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """The functions of a module, those that only state a contract (`...`) left out."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_stub(node):
            yield node


def is_stub(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function has no body but `...`."""
    last = node.body[-1]
    return isinstance(last, ast.Expr) and isinstance(last.value, ast.Constant) and last.value.value is ...


def length(path: Path) -> int:
    """How many lines a file has."""
    return len(path.read_bytes().splitlines())


def test_every_module_begins_with_its_caption(files: list[Path], root: Path) -> None:
    modules = [path for path in files if path.suffix == ".py"]
    bare = [str(path.relative_to(root)) for path in modules if not path.read_bytes().startswith(b'"""')]
    assert not bare, f"a module's first line says what it is, in a docstring: {bare}"


def test_functions_are_short(modules: list[Path]) -> None:
    lengths = sorted(node.end_lineno - node.lineno + 1 for path in modules for node in functions(path))
    assert median(lengths) <= FUNCTION_LINES, (
        f"{len(lengths)} functions: median {median(lengths)} lines (limit {FUNCTION_LINES}), longest {lengths[-5:]}"
    )


def test_files_are_short(modules: list[Path], root: Path) -> None:
    lengths = {str(path.relative_to(root)): length(path) for path in modules if length(path) > 1}
    middle = median(lengths.values())
    longest = sorted(lengths.items(), key=lambda item: item[1])[-5:]
    assert middle <= FILE_LINES, f"{len(lengths)} files: median {middle} lines (limit {FILE_LINES}), longest {longest}"

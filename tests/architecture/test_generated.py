"""Pages that are made from the code say what the code says now.

`aftersend.pages.PAGES` names each page with the function that writes it; a page so made says `<!-- generated` on its
first line, so that none is left behind.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path


def makers() -> Mapping[str, Callable[[], str]]:
    """Each generated page's path in the project, with what makes it."""
    if importlib.util.find_spec("aftersend.pages") is None:
        return {}
    made: Mapping[str, Callable[[], str]] = importlib.import_module("aftersend.pages").PAGES
    return made


def test_every_generated_page_is_fresh(root: Path) -> None:
    stale = [path for path, make in makers().items() if (root / path).read_text() != make()]
    assert not stale, f"write them anew: {stale}"


def test_every_page_that_says_so_is_generated(pages: list[Path], root: Path) -> None:
    marked = {str(page.relative_to(root)) for page in pages if page.read_text().startswith("<!-- generated")}
    assert marked == set(makers())

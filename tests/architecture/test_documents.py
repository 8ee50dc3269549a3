"""What people read is complete: links lead somewhere, commands exist, decisions are listed."""

import re
from pathlib import Path

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|<img[^>]* src=\"([^\"]+)\"")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
MAKE = re.compile(r"`(?:sudo )?make ([a-z]+)|^(?:sudo )?make ([a-z]+)", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked."""
    headings = HEADING.findall(FENCE.sub("", page.read_text()))
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Where a page links to within the project."""
    found = [first or second for first, second in LINK.findall(FENCE.sub("", page.read_text()))]
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether the file, and the heading in it, are there."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    return target.exists() and (not anchor or anchor in anchors(target))


def test_every_link_leads_somewhere(pages: list[Path], root: Path) -> None:
    dead = [
        (str(page.relative_to(root)), link) for page in pages for link in links(page) if not leads_somewhere(page, link)
    ]
    assert not dead


def test_every_page_can_be_reached_from_the_readme(pages: list[Path], root: Path) -> None:
    reached, waiting = set(), [root / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page) if link[0] != "#"]
    assert not [str(page.relative_to(root)) for page in pages if page not in reached]


def test_every_make_command_of_the_pages_exists(pages: list[Path], root: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (root / "Makefile").read_text(), re.MULTILINE))
    named = {first or second for page in pages for first, second in MAKE.findall(page.read_text())}
    assert {"demo", "test"} <= named
    assert named <= targets


def test_every_decision_is_numbered_and_listed(root: Path) -> None:
    folder = root / "docs" / "decisions"
    names = sorted(path.name for path in folder.glob("*.md") if path.name != "README.md")
    numbers = [name[:4] for name in names]
    assert [name for name in names if not re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", name)] == []
    assert len(set(numbers)) == len(numbers), numbers
    assert sorted(set(links(folder / "README.md"))) == names

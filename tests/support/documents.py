"""What documents say: their programs, tables, lists and links."""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pushsvc import errors
from pushsvc.errors import PushError

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "PROTOCOL.md").read_text()


def program(document: str, name: str) -> str:
    """The block of a document that is marked to be run under this name.

    Args:
        document: its path in the project.
        name: as in ``<!-- run: name -->`` before the block.
    """
    text = (ROOT / document).read_text()
    match = re.search(rf"<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)```", text, re.DOTALL)
    assert match is not None, f"{document} has no block to run as {name}"
    return match[1]


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading."""
    section = document.split(f"\n{heading}\n", 1)[1]
    rows = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE)
    assert rows is not None
    lines = rows[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> Iterator[str]:
    """The targets of a page's links and pictures, but for those on other sites."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not re.match(r"[a-z]+:", target):
            yield target


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link to a heading of a page can be, as GitHub makes it."""
    found: set[str] = set()
    seen: Counter[str] = Counter()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        text = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
        seen[anchor] += 1
    return frozenset(found)


def descendants(kind: type[PushError]) -> Iterator[type[PushError]]:
    """The errors below one in the tree."""
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from descendants(child)

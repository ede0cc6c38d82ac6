"""What a user sees of a page, in any engine."""

import re
from typing import Final

from tests.browser.engine import PATIENCE, Page
from tests.support.nodes import wait_until

_TEXTS: Final = """(selector) => [...document.querySelectorAll(selector)]
  .filter((element) => element.checkVisibility()).map((element) => element.innerText)"""

# A selector for the one element of that name: what it says, or what its heading does.
_NAMED: Final = """([selector, name]) => {
  const called = (element) =>
    element.ariaLabel ?? (element.querySelector("h1, h2, h3") ?? element).innerText;
  const path = (element) => {
    const parent = element.parentElement;
    if (!parent) return ":root";
    return `${path(parent)} > :nth-child(${[...parent.children].indexOf(element) + 1})`;
  };
  const found = [...document.querySelectorAll(selector)]
    .filter((element) => element.checkVisibility() && called(element).trim() === name);
  return found.length === 1 ? path(found[0]) : null;
}"""


def texts(page: Page, selector: str) -> list[str]:
    """The text of each visible element."""
    found: list[str] = page.evaluate(_TEXTS, selector)
    return found


def text(page: Page, selector: str) -> str:
    """The text of the one element."""
    (found,) = texts(page, selector)
    return found


def shows(page: Page, selector: str, pattern: str, seconds: float = PATIENCE) -> None:
    """Wait until there is one such element, and its text matches; any space is one blank."""
    found: list[str] = []

    def matches() -> bool:
        found[:] = (" ".join(each.split()) for each in texts(page, selector))
        return len(found) == 1 and re.search(pattern, found[0]) is not None

    try:
        wait_until(matches, f"{selector} to show {pattern!r}", seconds)
    except TimeoutError as error:
        raise TimeoutError(f"{error}; it shows {found}") from None


def counts(page: Page, selector: str, count: int, seconds: float = PATIENCE) -> None:
    """Wait until there are so many visible elements."""
    wait_until(lambda: len(texts(page, selector)) == count, f"{count} {selector}", seconds)


def named(page: Page, selector: str, name: str) -> str:
    """Wait until there is one visible element of that name; a selector for it alone."""
    found: str = wait_until(
        lambda: page.evaluate(_NAMED, [selector, name]), f"{selector} {name}", PATIENCE
    )
    return found


def press_each(page: Page, selector: str, letters: str) -> None:
    """As a user types."""
    for letter in letters:
        page.press(selector, letter)

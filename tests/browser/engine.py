"""What the stories need of a browser. Each engine has its own way to it; the stories have one.

It is a part of what Playwright's pages and contexts are, so these are used as they come.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import pytest

from tests.support.nodes import wait_until

NAMES = ("chromium", "firefox", "webkit")
PATIENCE = 15.0
"""Seconds; a busy machine is slow, not wrong."""

EVERY_ENGINE = pytest.mark.parametrize("browser", NAMES, indirect=True, scope="module")
PROMISED_IN_CHROMIUM = pytest.mark.parametrize(
    "browser",
    [pytest.param("chromium", marks=pytest.mark.promise), *NAMES[1:]],
    indirect=True,
    scope="module",
)
"""The same, and Chromium's part of it is in ``make test``."""


class Page(Protocol):
    """A tab."""

    @property
    def url(self) -> str: ...

    def goto(self, url: str, /) -> object:
        """Open an address; it returns when the page has loaded, as the next two do."""

    def reload(self) -> object: ...

    def go_back(self) -> object: ...

    def evaluate(self, expression: str, arg: Any = None, /) -> Any:
        """The value of an expression, or what a function makes of ``arg``, awaited."""

    def click(self, selector: str, /) -> None:
        """Click on the one element of that CSS selector, as soon as a user could.

        As the next two it finds what is in a shadow tree, by a selector within that.
        """

    def fill(self, selector: str, value: str, /) -> None:
        """Write into a field, in place of what it holds."""

    def press(self, selector: str, key: str, /) -> None:
        """Press a key, such as ``Enter``, ``Escape``, ``ArrowDown`` or a letter, in an element."""

    def close(self) -> None:
        """As a user does who closes the tab."""


P = TypeVar("P", bound=Page)
P_co = TypeVar("P_co", bound=Page, covariant=True)


class Context(Protocol[P_co]):
    """A profile: its tabs share storage, locks and channels; others see nothing of them."""

    @property
    def pages(self) -> Sequence[P_co]:
        """Its tabs, in the order in which they were opened, be it by a page."""

    def new_page(self) -> P_co: ...

    def set_offline(self, offline: bool, /) -> None:  # noqa: FBT001 - as Playwright has it
        """Take the network away from its tabs, or give it back, and let the browser tell them."""

    def close(self) -> None: ...


Problem = Callable[[str], None]
"""Is told what no page may do: write an error or a warning, throw, ask another machine."""


class Engine(Protocol[P_co]):
    """A browser that runs."""

    @property
    def context(self) -> Callable[..., Context[P_co]]:
        """Makes a profile of a ``Problem``; what else it takes is the engine's."""


def until(page: Page, expression: str, arg: Any = None, seconds: float = PATIENCE) -> None:
    """Wait until a JavaScript expression holds, or a function of ``arg``."""
    wait_until(lambda: page.evaluate(expression, arg), expression, seconds)

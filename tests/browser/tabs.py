"""Tabs of a browser, and what is watched in each of them."""

import re
from typing import Any, Generic

from playwright.sync_api import BrowserContext
from playwright.sync_api import Page as ChromiumPage

from tests.browser.engine import PATIENCE, Context, Engine, P, Page, until
from tests.browser.pages import PageServer
from tests.support.nodes import Node

REFUSED = (
    r"WebSocket connection to 'ws://127\.0\.0\.1:\d+/\S+' failed",
    r"Firefox can.t establish a connection to the server at ws://127\.0\.0\.1:\d+/",
)
"""What engines themselves write where a WebSocket could not be opened; no page can prevent it."""
LOST = (
    *REFUSED,
    r"Failed to load resource: net::ERR_(CONNECTION|EMPTY|INTERNET|INCOMPLETE|SOCKET_NOT)_",
    r"The connection to ws://127\.0\.0\.1:\d+/\S+ was interrupted while the page was loading",
    r"Cross-Origin Request Blocked: .* http://127\.0\.0\.1:\S+ .*CORS request did not succeed",
)
"""What they write where a server cannot be reached."""


class AnyTabs(Generic[P]):
    """The tabs of one test.

    Args:
        engine: the browser where they are opened.
    """

    def __init__(self, engine: Engine[P]) -> None:
        self._engine = engine
        self._contexts: list[Context[P]] = []
        self._problems: list[str] = []
        self.expected: list[str] = []
        """Patterns of console errors that are part of the scenario."""

    def context(self, **options: Any) -> Context[P]:
        """A profile: its tabs share storage, locks and channels; others see nothing of them."""
        context = self._engine.context(self._problems.append, **options)
        self._contexts.append(context)
        return context

    def open(self, url: str, context: Context[P] | None = None) -> P:
        """A tab with a page, in a profile of its own unless one is given."""
        page = (context or self.context()).new_page()
        page.goto(url)
        return page

    def client(
        self,
        pages: PageServer,
        node: Node | str,
        user: str = "u1",
        *,
        context: Context[P] | None = None,
        **options: Any,
    ) -> "ClientTab":
        """A tab of the application whose client is connected to a node, or to an address.

        Args:
            pages: the application.
            node: a node, or the address of what stands before it.
            user: whose tokens the application gives out.
            context: the profile.
            options: those of ``connect``; ``tokens`` is another address to get them at.
        """
        url = node if isinstance(node, str) else node.url
        page = self.open(f"{pages.url}/?client={url}", context)
        until(page, "window.ready")
        tab = ClientTab(page)
        if "token" not in options:
            options.setdefault("tokens", pages.tokens(user))
        page.evaluate("options => start(options)", options)
        return tab

    def close(self) -> None:
        while self._contexts:
            self._contexts.pop().close()

    def check(self) -> None:
        """Nothing unexpected was written, thrown or asked for."""
        unexpected = [
            problem
            for problem in self._problems
            if not any(re.search(pattern, problem) for pattern in self.expected)
        ]
        assert not unexpected, "\n".join(unexpected)


Tabs = AnyTabs[Page]
"""In any engine."""


class ChromiumTabs(AnyTabs[ChromiumPage]):
    """Where a test needs more of a page than other engines have."""

    def context(self, **options: Any) -> BrowserContext:
        context = super().context(**options)
        assert isinstance(context, BrowserContext)
        return context


class ClientTab:
    """A tab with a client in it.

    Args:
        page: one of the application's.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def wait(self, condition: str, argument: Any = None, seconds: float = PATIENCE) -> None:
        """Wait until a JavaScript condition holds; ``argument`` is its ``it``."""
        until(self.page, f"it => {condition}", argument, seconds)

    def connected(self, transport: str | None = None, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait until it is connected; its state."""
        self.wait(
            "state().status === 'connected' && (!it || state().transport === it)",
            transport,
            seconds,
        )
        return self.state()

    def received(self, count: int, seconds: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until at least so many notifications were handled; all that were."""
        self.wait("kept.notifications.length >= it", count, seconds)
        return self.notifications()

    def notifications(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.kept("notifications")
        return found

    def data(self) -> list[Any]:
        """The data of what was handled, in that order."""
        return [notification["data"] for notification in self.notifications()]

    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.page.evaluate("state()")
        return state

    def kept(self, what: str) -> Any:
        """What the page kept: notifications, states, gaps, errors, asked."""
        return self.page.evaluate("what => kept[what]", what)

    def close(self) -> None:
        """As a user does who closes the tab."""
        self.page.close()

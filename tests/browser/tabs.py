"""Tabs of a browser, and what is watched in each of them."""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, WebError, WebSocket

from tests.browser.pages import PageServer
from tests.support.nodes import Node

LOST = (
    r"WebSocket connection to 'ws://127\.0\.0\.1:\d+/\S+' failed",
    r"Failed to load resource: net::ERR_(CONNECTION|EMPTY|INTERNET|INCOMPLETE|SOCKET_NOT)_",
)
"""What Chromium itself writes where a server cannot be reached; no page can prevent it."""


class Tabs:
    """The tabs of one test.

    Args:
        browser: where they are opened.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._problems: list[str] = []
        self.sockets = 0
        """WebSockets that were opened in all tabs."""
        self.expected: list[str] = []
        """Patterns of console errors that are part of the scenario."""

    def context(self, **options: Any) -> BrowserContext:
        """A profile: its tabs share storage, locks and channels; others see nothing of them."""
        context = self._browser.new_context(**options)
        context.set_default_timeout(15_000)
        context.on("console", self._note_message)
        context.on("weberror", self._note_error)
        context.on("request", lambda request: self._note_request(request.url))
        context.on("page", self._watch)
        self._contexts.append(context)
        return context

    def open(self, url: str, context: BrowserContext | None = None) -> Page:
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
        context: BrowserContext | None = None,
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
        page.wait_for_function("window.ready")
        tab = ClientTab(page)
        if "token" not in options:
            options.setdefault("tokens", pages.tokens(user))
        page.evaluate("options => start(options)", options)
        return tab

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def check(self) -> None:
        """Nothing unexpected was written, thrown or asked for."""
        unexpected = [
            problem
            for problem in self._problems
            if not any(re.search(pattern, problem) for pattern in self.expected)
        ]
        assert not unexpected, "\n".join(unexpected)

    def _watch(self, page: Page) -> None:
        page.on("websocket", self._note_socket)

    def _note_socket(self, socket: WebSocket) -> None:
        self.sockets += 1
        self._note_request(socket.url)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            where = message.location.get("url", "")
            self._problems.append(f"console {message.type}: {message.text} ({where})")

    def _note_error(self, error: WebError) -> None:
        self._problems.append(f"uncaught: {error.error}")

    def _note_request(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme in {"data", "blob", "about"}:
            return
        try:
            local = ipaddress.ip_address(parts.hostname or "").is_loopback
        except ValueError:
            local = False
        if not local:
            self._problems.append(f"a request that leaves this machine: {url}")


class ClientTab:
    """A tab with a client in it.

    Args:
        page: one of the application's.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def wait(self, condition: str, argument: Any = None, seconds: float = 15) -> None:
        """Wait until a JavaScript condition holds; ``argument`` is its ``it``."""
        self.page.wait_for_function(
            f"it => {condition}", arg=argument, timeout=seconds * 1000, polling=20
        )

    def connected(self, transport: str | None = None, seconds: float = 15) -> dict[str, Any]:
        """Wait until it is connected; its state."""
        self.wait(
            "state().status === 'connected' && (!it || state().transport === it)",
            transport,
            seconds,
        )
        return self.state()

    def received(self, count: int, seconds: float = 15) -> list[dict[str, Any]]:
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
        self.page.close(run_before_unload=False)

"""Debian's Firefox, by WebDriver BiDi, which it speaks without a driver beside it.

https://www.w3.org/TR/webdriver-bidi/
"""

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.browser.driven import DrivenPage, leaves
from tests.browser.engine import Problem
from tests.support.nodes import wait_until
from tests.support.programs import need

PREFERENCES: Final = {
    "browser.startup.page": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "ui.prefersReducedMotion": 0,
}
"""Nothing is asked for at its start, and pages may move."""

Event = Callable[[str, dict[str, Any]], None]


class Session:
    """A connection to the browser: commands and their results; events come in between.

    Args:
        socket: to the browser.
        event: is told each event's name and parameters, in a thread of its own.
    """

    def __init__(self, socket: ClientConnection, event: Event) -> None:
        self._socket = socket
        self._event = event
        self._results: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._count = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give a command; its result.

        Raises:
            RuntimeError: the browser refused it, and why.
        """
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        self._socket.send(json.dumps(command))
        result = self._results.get(timeout=60)
        if result["type"] == "error":
            raise RuntimeError(f"{method}: {result['error']}: {result['message']}")
        answer: dict[str, Any] = result["result"]
        return answer

    def close(self) -> None:
        self._socket.close()
        self._reader.join()

    def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            for text in self._socket:
                message = json.loads(text)
                if message["type"] == "event":
                    self._event(message["method"], message["params"])
                else:
                    self._results.put(message)


class FirefoxPage(DrivenPage):
    """A tab; ``name`` is what the browser calls it."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self.name = name

    @property
    def url(self) -> str:
        tree = self._session.call("browsingContext.getTree", root=self.name, maxDepth=0)
        url: str = tree["contexts"][0]["url"]
        return url

    def goto(self, url: str) -> None:
        self._session.call("browsingContext.navigate", context=self.name, url=url, wait="complete")

    def reload(self) -> None:
        self._session.call("browsingContext.reload", context=self.name, wait="complete")

    def go_back(self) -> None:
        before = self.url
        self._session.call("browsingContext.traverseHistory", context=self.name, delta=-1)
        wait_until(lambda: self.url != before, "the page before")
        wait_until(lambda: self.evaluate("document.readyState") == "complete", "all of it")

    def close(self) -> None:
        self._session.call("browsingContext.close", context=self.name)

    def run(self, script: str) -> str:
        answer = self._session.call(
            "script.evaluate", expression=script, awaitPromise=True, target={"context": self.name}
        )
        if answer["type"] == "exception":
            raise RuntimeError(answer["exceptionDetails"]["text"])
        text: str = answer["result"]["value"]
        return text

    def act(self, sources: list[dict[str, Any]]) -> None:
        self._session.call("input.performActions", context=self.name, actions=sources)


class FirefoxContext:
    """A profile, which BiDi calls a user context."""

    def __init__(self, session: Session, name: str) -> None:
        self._session = session
        self._name = name
        self._pages: dict[str, FirefoxPage] = {}

    @property
    def pages(self) -> list[FirefoxPage]:
        tabs = self._session.call("browsingContext.getTree", maxDepth=0)["contexts"]
        there = [tab["context"] for tab in tabs if tab["userContext"] == self._name]
        self._pages = {
            name: self._pages.get(name) or FirefoxPage(self._session, name)
            for name in sorted(there, key=lambda name: name not in self._pages)
        }
        return list(self._pages.values())

    def new_page(self) -> FirefoxPage:
        tab = self._session.call("browsingContext.create", type="tab", userContext=self._name)
        page = self._pages[tab["context"]] = FirefoxPage(self._session, tab["context"])
        return page

    def set_offline(self, offline: bool) -> None:  # noqa: FBT001 - as Playwright has it
        self._session.call(
            "emulation.setNetworkConditions",
            networkConditions={"type": "offline"} if offline else None,
            userContexts=[self._name],
        )

    def close(self) -> None:
        self._session.call("browser.removeUserContext", userContext=self._name)


class Firefox:
    """A Firefox that runs.

    Args:
        socket: to its BiDi session.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._problems: dict[str, Problem] = {}
        """By profile."""
        self._profiles: dict[str, str] = {}
        """By tab."""
        self.session = Session(socket, self._event)
        self.session.call("session.new", capabilities={})
        self.session.call(
            "session.subscribe",
            events=[
                "browsingContext.contextCreated",
                "log.entryAdded",
                "network.beforeRequestSent",
            ],
        )

    def context(self, problem: Problem) -> FirefoxContext:
        name = self.session.call("browser.createUserContext")["userContext"]
        self._problems[name] = problem
        return FirefoxContext(self.session, name)

    def _event(self, name: str, told: dict[str, Any]) -> None:
        if name == "browsingContext.contextCreated":
            self._profiles[told["context"]] = told["userContext"]
            return
        tab = told["source"].get("context") if name == "log.entryAdded" else told["context"]
        problem = self._problems.get(self._profiles.get(tab or "", ""))
        if problem is None:
            return  # the browser's own
        if name == "network.beforeRequestSent":
            if leaves(url := told["request"]["url"]):
                problem(f"a request that leaves this machine: {url}")
        elif told["level"] in {"error", "warn"}:
            problem(f"{told['type']} {told['level']}: {told['text']}")


@contextmanager
def launch() -> Iterator[Firefox]:
    """Start it, with a profile of its own, until the end of the block."""
    program = need("firefox-esr")
    with tempfile.TemporaryDirectory(prefix="pushsvc-firefox-") as directory:
        lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in PREFERENCES.items())
        (Path(directory) / "user.js").write_text("\n".join(lines))
        process = subprocess.Popen(
            [program, "--headless", "--profile", directory, "--remote-debugging-port", "0"],
            env={**os.environ, "HOME": directory},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            port = wait_until(lambda: _port(Path(directory)), "Firefox", 60)
            with connect(f"ws://127.0.0.1:{port}/session", max_size=None) as socket:
                firefox = Firefox(socket)
                yield firefox
                firefox.session.call("browser.close")
                firefox.session.close()
                process.wait(30)
        finally:
            process.kill()
            process.wait()


def _port(profile: Path) -> int | None:
    """Where it listens, once it says so."""
    said = profile / "WebDriverBiDiServer.json"
    text = said.read_text() if said.exists() else ""
    port: int | None = json.loads(text)["ws_port"] if text else None
    return port

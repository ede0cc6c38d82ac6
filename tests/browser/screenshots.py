"""The pictures of README and guides, taken of the real thing.

``python -m tests.browser.screenshots`` takes all, or those that are named, such as ``bell``.
"""

import contextlib
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from pushsvc.server.embedded import EmbeddedServer
from tests.browser import chromium
from tests.browser.bell import BELL_PAGE, given, items
from tests.browser.pages import PageServer
from tests.browser.traffic import Device, Traffic
from tests.support.dev import dev
from tests.support.nodes import nodes, token

IMAGES = Path(__file__).parents[2] / "docs" / "images"
WIDTH = 1280
SECONDS = 56
"""How long the console looks on: its charts begin with a minute."""
DEVICES = 40


def main(*names: str) -> None:
    """Take them."""
    with tempfile.TemporaryDirectory() as directory, chromium.launch() as browser:
        for take in (console, demo, bell):
            if not names or take.__name__ in names:
                take(browser, Path(directory))


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
        page.screenshot(path=IMAGES / "console.png", animations="disabled")
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
        page.screenshot(path=IMAGES / "demo.png", animations="disabled")
        page.context.close()


def bell(browser: Browser, directory: Path) -> None:
    """The bell of a shop: light, dark, narrow, and from right to left."""
    with dev(directory) as development, PageServer() as pages:
        url = f"{pages.put('/', BELL_PAGE)}?client={development.url}"
        for name, width, texts, options in (
            ("bell", 720, ENGLISH, {}),
            ("bell-dark", 720, ENGLISH, {"color_scheme": "dark"}),
            ("bell-rtl", 720, ARABIC, {}),
            ("bell-narrow", 390, ENGLISH, {"is_mobile": True, "has_touch": True}),
        ):
            page = open_page(browser, 440, width, **options)
            page.goto(url)
            page.wait_for_function("window.ready")
            page.evaluate("shop => window.say(shop)", texts)
            there = items(*(title for title, _ in texts["notifications"]), read=2)
            ages = (20, 260, 3 * 3600, 26 * 3600)
            for item, age, (title, body) in zip(there, ages, texts["notifications"], strict=True):
                item["time"] = (datetime.now(UTC) - timedelta(seconds=age)).isoformat()
                item["data"] = {"title": title, "body": body, "url": "/orders"}
            given(page, *there)
            page.locator("pushsvc-inbox").click()
            page.mouse.move(10, 430)
            page.screenshot(path=IMAGES / f"{name}.png", animations="disabled")
            page.context.close()


def open_page(browser: Browser, height: int, width: int = WIDTH, **options: Any) -> Page:
    """A page as wide as the pictures; the options are Playwright's."""
    viewport: Any = {"width": width, "height": height}
    return browser.new_context(
        **{"viewport": viewport, "color_scheme": "light", **options}
    ).new_page()


ENGLISH: dict[str, Any] = {
    "lang": "en",
    "dir": "ltr",
    "shop": "Fernweh",
    "link": "Orders",
    "title": "Your orders",
    "text": "What you bought, and where it is.",
    "labels": {},
    "notifications": [
        ("Your order has shipped", "Order 17 comes tomorrow between nine and noon."),
        ("Maya replied to your question", "“Yes, the 42 runs half a size small.”"),
        ("Payment received", "149 € for order 17."),
        ("A price that you watch fell", "Trail shoes, now 79 €, until Sunday."),
    ],
}
ARABIC: dict[str, Any] = {
    "lang": "ar",
    "dir": "rtl",
    "shop": "متجر الأحذية",
    "link": "الطلبات",
    "title": "طلباتك",
    "text": "ما اشتريته، وأين هو.",
    "labels": {"title": "الإشعارات", "markAllRead": "تعليم الكل كمقروء"},
    "notifications": [
        ("تم شحن طلبك", "سيصل الطلب 17 غدًا بين التاسعة والظهر."),
        ("أجابت مايا على سؤالك", "نعم، المقاس 42 صغير بعض الشيء."),
        ("تم استلام الدفعة", "149 يورو للطلب 17."),
        ("انخفض سعر منتج تتابعه", "أحذية الجري الآن بسعر 79 يورو."),
    ],
}
"""What stands on the pages of the bell."""


if __name__ == "__main__":
    main(*sys.argv[1:])

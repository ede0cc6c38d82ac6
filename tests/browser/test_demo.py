"""The demo, as a newcomer clicks through it."""

import re
import subprocess

import httpx
import pytest

from tests.browser.engine import EVERY_ENGINE, Page
from tests.browser.pages import PageServer
from tests.browser.seen import counts, named, press_each, shows, text, texts
from tests.browser.tabs import LOST, Tabs
from tests.support.dev import Dev
from tests.support.nodes import wait_until
from tests.support.programs import need

pytestmark = EVERY_ENGINE


def demo(tabs: Tabs, development: Dev, page: str = "") -> Page:
    """A tab with a page of the demo."""
    opened = tabs.open(f"{development.admin_url}/demo{page}")
    counts(opened, "h1", 1)
    return opened


def card(page: Page, name: str) -> str:
    """The selector of what belongs to a user."""
    return named(page, "section.card", name)


def connected(page: Page, *names: str) -> None:
    for name in names:
        counts(page, f"{card(page, name)} .state[data-status=connected]", 1)


@pytest.mark.timeout(180)
def test_every_step_of_the_demo_does_what_it_says_even_the_kill(
    tabs: Tabs, development: Dev
) -> None:
    need("curl")
    # A node that is long away is asked whether it speaks TLS now, which the demo's policy forbids.
    tabs.expected += [*LOST, r"https://127\.0\.0\.1:\d+/client\.js"]
    page = demo(tabs, development)
    connected(page, "Anna", "Ben")
    anna = card(page, "Anna")

    page.click(named(page, "button", "Send"))
    shows(page, f"{anna} ol", "Your order has shipped")
    done(page, "send")
    shows(page, "#sent", "✓✓ acknowledged after")

    page.click(f"{anna} [role=switch]")
    counts(page, f"{anna} .state[data-status=closed]", 1)
    page.click(named(page, "button", "Send 3"))
    done(page, "offline")
    shows(page, "#count-waiting", "^3$")
    done(page, "presence")
    page.click(f"{anna} [role=switch]")
    done(page, "return")
    counts(page, f"{anna} li", 4)
    told = [re.findall(r"\((\d) of 3\)", each) for each in texts(page, f"{anna} li")]
    assert told == [[], ["1"], ["2"], ["3"]]

    for death in range(2):
        kill = named(page, "button", "kill -9 the node")
        counts(page, f"{kill}:enabled", 1, seconds=30)
        page.click(kill)
        shows(page, "#story", "none are missing, none came twice", seconds=60)
        shows(page, "#count-received", f"^{4 + 10 * (death + 1)}$")
    done(page, "kill")

    shows(page, "#curl", "curl")
    subprocess.run(["sh", "-c", text(page, "#curl")], check=True, capture_output=True)
    done(page, "curl")
    for count in ("missing", "twice", "disorder"):
        shows(page, f"#count-{count}", "^0$")


def done(page: Page, step: str) -> None:
    """Wait until the page ticks a step off."""
    counts(page, f"#step-{step}.done", 1)


def test_the_demo_leads_to_the_console_signed_in(tabs: Tabs, development: Dev) -> None:
    context = tabs.context()
    page = tabs.open(f"{development.admin_url}/demo", context)
    connected(page, "Anna", "Ben")
    page.click(named(page, "a", "Console ↗"))
    wait_until(lambda: page.evaluate("1") and len(context.pages) == 2, "the new tab")
    console = context.pages[1]
    shows(console, "body", "Signed in as admin")
    shows(console, "#main", r"The node is ready\.")
    connected(page, "Anna", "Ben")  # they stay in their tab


def test_the_address_of_the_console_that_is_printed_signs_in(tabs: Tabs, development: Dev) -> None:
    page = tabs.open(f"{development.admin_url}/dev/console")
    there = f"{development.admin_url}/console#/"
    wait_until(lambda: page.url == there, there)
    shows(page, "body", "Signed in as admin")


def test_a_page_of_another_origin_cannot_open_the_console(
    tabs: Tabs, development: Dev, pages: PageServer
) -> None:
    tabs.expected += ["403"]
    console = f"{development.admin_url}/dev/console"
    page = tabs.open(pages.put("/elsewhere", f'<!doctype html><a href="{console}">There</a>'))
    page.click("a")
    wait_until(lambda: page.url == console, console)
    shows(page, "body", "enter the address yourself")


def test_the_public_port_leads_to_the_demo(tabs: Tabs, development: Dev) -> None:
    page = tabs.open(f"{development.url}/demo/chat")
    assert page.url == f"{development.admin_url}/demo/chat"


def test_two_users_chat_and_see_who_types_and_who_has_read(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/chat")
    connected(page, "Anna", "Ben")
    anna, ben = card(page, "Anna"), card(page, "Ben")
    shows(page, f"{anna} .here", r"^Here: Anna \(you\), Ben$")
    press_each(page, named(page, "input", "Anna says"), "Hello Ben")
    shows(page, f"{ben} .doing", "Anna is typing")
    page.press(named(page, "input", "Anna says"), "Enter")
    for one in (anna, ben):
        shows(page, f"{one} li:last-child", "Anna: Hello Ben")
    shows(page, f"{anna} li:last-child", "read by Ben")
    page.fill(named(page, "input", "Ben says"), "Hello Anna")
    page.press(named(page, "input", "Ben says"), "Enter")
    shows(page, f"{anna} li:last-child", "Ben: Hello Anna")


def test_that_somebody_is_typing_is_forgotten_when_the_words_come(
    tabs: Tabs, development: Dev
) -> None:
    page = demo(tabs, development, "/chat")
    connected(page, "Anna", "Ben")
    ben = card(page, "Ben")
    # What Ben sees when the words come: a moment later it would be gone by itself.
    page.evaluate(
        """([list, doing]) => {
          window.seen = new Promise((resolve) => {
            const told = new MutationObserver(() =>
              resolve(document.querySelector(doing).textContent.trim()));
            told.observe(document.querySelector(list), { childList: true });
          });
        }""",
        [f"{ben} ol", f"{ben} .doing"],
    )
    says = named(page, "input", "Anna says")
    press_each(page, says, "Shall we")
    shows(page, f"{ben} .doing", "Anna is typing")
    page.press(says, "Enter")
    assert page.evaluate("seen") == ""
    shows(page, f"{ben} li:last-child", "Anna: Shall we")
    # What she types next is told again, at once.
    press_each(page, says, "go")
    shows(page, f"{ben} .doing", "Anna is typing")


def in_python(page: Page, development: Dev, example: str) -> None:
    """The page names the line that runs the example in Python with this node."""
    where = f"PUSH_URL={development.url} PUSH_ADMIN_URL={development.admin_url}"
    line = f"{where} .venv/bin/python examples/{example}"
    shows(page, "#python", f"^{re.escape(line)}$")


@pytest.mark.parametrize(
    "example", ["chat.py --user carla", "game.py", "ticker.py", "scores.py", "inbox/server.py"]
)
def test_the_line_that_runs_an_example_in_python_names_this_node(
    tabs: Tabs, development: Dev, example: str
) -> None:
    page = demo(tabs, development, f"/{re.split('[./]', example)[0]}")
    in_python(page, development, example)


def test_copies_of_a_document_end_up_the_same(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/document")
    in_python(page, development, "document.py")
    connected(page, "Anna", "Ben")
    anna, ben = card(page, "Anna"), card(page, "Ben")
    counts(page, f"{ben} input[type=text]", 3)
    page.click(named(page, "button", "Both change line 2 at once"))
    for one in (anna, ben):
        shows(page, f"{one} .edits", "^5 edits$")
    page.click(f"{ben} [role=switch]")
    page.fill(named(page, "input", "Anna, line 3"), "- rye bread")
    page.press(named(page, "input", "Anna, line 3"), "Enter")
    shows(page, f"{anna} .edits", "^6 edits$")
    shows(page, f"{ben} .edits", "^5 edits$")
    page.click(f"{ben} [role=switch]")
    line = named(page, "input", "Ben, line 3")
    wait_until(
        lambda: page.evaluate("line => document.querySelector(line).value", line) == "- rye bread",
        "Ben's line 3",
    )
    page.click(named(page, "button", "Carla joins"))
    shows(page, f"{card(page, 'Carla')} .edits", "^6 edits$")
    shows(page, "#same", r"^All copies are the same\.$")


def test_players_see_each_other_move(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/game")
    connected(page, "Anna", "Ben")
    ben = card(page, "Ben")
    dot = f'{ben} [data-name="anna"]'
    where = "dot => document.querySelector(dot)?.getAttribute('transform')"
    before = wait_until(lambda: page.evaluate(where, dot), "Anna's dot")
    wait_until(lambda: page.evaluate(where, dot) != before, "Anna's dot to move")
    shows(page, f"{ben} .rate", r"(1\d|2\d) positions/s from Anna")


def test_a_newcomer_to_the_ticker_has_the_latest_prices_first(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/ticker")
    connected(page, "Anna")
    page.click(named(page, "button", "Open the exchange"))
    counts(page, f"{card(page, 'Anna')} tbody tr", 4)
    shows(page, "#count", r"^([6-9]|\d\d) prices")
    page.click(named(page, "button", "Ben joins"))
    ben = card(page, "Ben")
    counts(page, f"{ben} tbody tr", 4)
    shows(page, f"{ben} .told", r"^4 kept, then [1-9]\d* new")


def test_every_screen_hears_of_every_goal(tabs: Tabs, development: Dev) -> None:
    page = demo(tabs, development, "/scores")
    shows(page, "#ready", r"^(\d+ of 24 connected|24 screens are connected\.)$")
    kickoff = named(page, "button", "Kick off")
    counts(page, f"{kickoff}:enabled", 1, seconds=20)
    page.click(kickoff)
    shows(page, "#ready", r"^24 screens are connected\.$")
    counts(page, "#goals li", 7, seconds=40)
    for each in texts(page, "#goals li"):
        assert "24 screens: half after" in each, each
    final = text(page, "#score")
    for screen in texts(page, "#screens li"):
        assert screen.startswith(final), screen


def test_what_is_read_on_the_phone_is_read_on_the_laptop_though_the_node_dies(
    tabs: Tabs, development: Dev
) -> None:
    tabs.expected += [*LOST, r"https://127\.0\.0\.1:\d+/client\.js"]
    page = demo(tabs, development, "/inbox")
    names = ("Phone", "Laptop")
    connected(page, *names)
    phone, laptop = (f"{card(page, name)} pushsvc-inbox" for name in names)
    before = badge(page, phone)
    for number in (1, 2, 3):
        page.click(named(page, "button", "Send"))
        for bell in (phone, laptop):
            badges(page, bell, before + number)
    httpx.post(f"{development.admin_url}/dev/kill", json={}).raise_for_status()
    page.evaluate("bell => document.querySelector(bell).show()", phone)
    page.click("li:nth-child(1) [part~=open]")
    for bell in (phone, laptop):
        badges(page, bell, before + 2)
    shows(page, f"{card(page, names[0])} .opened", "Opened here: Your order has shipped")


def badge(page: Page, bell: str) -> int:
    """The number that a bell shows."""
    path = "bell => document.querySelector(bell).shadowRoot.querySelector('[part=badge]')"
    return int(page.evaluate(f"{path}.textContent", bell) or 0)


def badges(page: Page, bell: str, number: int) -> None:
    wait_until(lambda: badge(page, bell) == number, f"{number} on {bell}")

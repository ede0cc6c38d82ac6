"""What the stories rely on, in each engine: that is what makes their assertions the same."""

import pytest

from tests.browser.engine import EVERY_ENGINE, until
from tests.browser.pages import PageServer
from tests.browser.tabs import Tabs

pytestmark = EVERY_ENGINE

EMPTY = "<!doctype html><html lang=en><title>an empty page</title>"


@pytest.mark.parametrize(
    ("done", "told"),
    [
        ("console.error('broken', 1)", "error: broken 1"),
        ("console.warn('careful')", "warn(ing)?: careful"),
        ("setTimeout(() => { throw new Error('thrown'); })", "thrown|Script error"),
        ("Promise.reject(new Error('rejected'))", "rejected"),
        ("fetch('http://push.invalid/a').catch(() => {})", "leaves this machine: .*push.invalid"),
        ("new WebSocket('ws://push.invalid/a')", "leaves this machine: .*push.invalid"),
    ],
)
def test_what_no_page_may_do_is_noticed(
    tabs: Tabs, pages: PageServer, done: str, told: str
) -> None:
    page = tabs.open(pages.put("/empty", EMPTY))
    page.evaluate(f"() => {{ {done}; }}")
    page.evaluate("new Promise((resolve) => setTimeout(resolve, 300))")
    tabs.close()
    with pytest.raises(AssertionError, match=told):
        tabs.check()
    tabs.expected.append("")  # all of it


def test_tabs_of_a_profile_share_what_other_profiles_do_not_see(
    tabs: Tabs, pages: PageServer
) -> None:
    url = pages.put("/empty", EMPTY)
    ours, others = tabs.context(), tabs.context()
    first, second, third = (tabs.open(url, profile) for profile in (ours, ours, others))
    for page in (second, third):
        page.evaluate("""() => {
          window.channel = new BroadcastChannel("c");
          channel.onmessage = ({ data }) => { window.said = data; };
        }""")
    first.evaluate("""async () => {
      localStorage.kept = "here";
      window.channel = new BroadcastChannel("c");
      channel.postMessage("hello");
      await new Promise((held) => {
        navigator.locks.request("l", () => { held(); return new Promise(() => {}); });
      });
    }""")
    until(second, "window.said === 'hello'")
    assert second.evaluate("localStorage.kept") == "here"
    free = "navigator.locks.request('l', { ifAvailable: true }, (lock) => lock !== null)"
    assert not second.evaluate(free)
    assert third.evaluate(free)
    assert third.evaluate("[window.said ?? null, localStorage.kept ?? null]") == [None, None]
    first.close()
    until(second, free)

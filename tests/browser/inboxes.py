"""Tabs of a browser that show an inbox."""

from collections.abc import Sequence
from typing import Any

from tests.browser.engine import PATIENCE
from tests.browser.tabs import ClientTab
from tests.support.nodes import Node, wait_until

OPEN = """options => {
  const inbox = window.inbox = push.inbox(options);
  const shown = window.shown = [];
  const note = () => {
    const { items, unread, state, more } = inbox.snapshot();
    const ids = items.map(({ id }) => id);
    const read = items.filter((item) => item.read).map(({ id }) => id);
    const at = performance.timeOrigin + performance.now();
    shown.push({ at, ids, read, unread, state, more });
  };
  inbox.subscribe(note);
  note();
}"""


class InboxTab:
    """What a tab shows.

    Args:
        tab: one with a client.
        options: those of ``push.inbox``.
    """

    def __init__(self, tab: ClientTab, **options: Any) -> None:
        self.tab = tab
        tab.page.evaluate(OPEN, options)

    def shows(
        self, ids: Sequence[str], unread: int, *, read: Sequence[str] = (), state: str = "ready"
    ) -> None:
        """Wait until it shows these, newest first; of them those are read."""
        expected = {"ids": list(ids), "read": list(read), "unread": unread, "state": state}

        def shown() -> bool:
            last: dict[str, Any] = self.tab.page.evaluate("shown.at(-1)")
            return all(last[name] == value for name, value in expected.items())

        try:
            wait_until(shown, "the inbox", PATIENCE)
        except TimeoutError:
            raise AssertionError(f"{expected}; {self.tab.page.evaluate('shown.at(-1)')}") from None

    def act(self, call: str) -> float:
        """Do something with it, such as ``read(['1-0'])``; when that began, in milliseconds."""
        at: float = self.tab.page.evaluate(f"""(async () => {{
          const at = performance.timeOrigin + performance.now();
          await inbox.{call};
          return at;
        }})()""")
        return at

    def since(self, began: float, read: Sequence[str]) -> float:
        """Milliseconds from a moment until it first showed that these are read."""
        at: float = self.tab.page.evaluate(
            "read => shown.find((each) => read.every((id) => each.read.includes(id))).at",
            list(read),
        )
        return at - began


def marked(node: Node, user: str, how: str, **which: Any) -> int:
    """Mark notifications as another program of the user does; how many are unread then."""
    answer = node.post(f"/v1/users/{user}/{how}", which)
    assert answer.status_code == 200, answer.text
    unread: int = answer.json()["unread"]
    return unread

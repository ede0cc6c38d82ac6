"""The bell of a page: what is in its shadow tree, and a page with one whose inbox a test decides.

Where a test asks what the element makes of a state, the page has an inbox of its own; what a node
and the client make of it the other tests ask of these.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.browser.engine import Page, until

# The element is one node's `/inbox.js`; `inbox.set({…})` changes what there is, `inbox.done` is
# what was asked of it, and `inbox.refuses` whether it fails.
BELL_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>an application</title>
<style>
  :root { color-scheme: light dark; }
  body { margin: 0; background: light-dark(#fff, #10151b); font: 16px/1.5 system-ui, sans-serif; }
  header { display: flex; align-items: center; gap: 1rem; padding: 0.75rem 1.25rem;
    border-bottom: 1px solid light-dark(#dde2e8, #343d48); }
  a { color: light-dark(#3551c9, #8fa5ff); }
  header b { margin-inline-end: auto; }
  main { padding: 1.25rem; max-width: 44rem; }
</style>
<script type="module">
  const query = new URLSearchParams(location.search);
  class Inbox {
    state = { items: [], unread: 0, state: "loading", more: false };
    done = [];
    refuses = false;
    #told = new Set();
    snapshot() { return this.state; }
    subscribe(told) { this.#told.add(told); return () => this.#told.delete(told); }
    set(changes) {
      this.state = { ...this.state, ...changes };
      for (const told of this.#told) told();
    }
    each(change) {
      const items = this.state.items.map(change).filter((item) => item && !item.archived);
      this.set({ items, unread: items.filter((item) => !item.read).length });
    }
    async #do(what, ids, change) {
      this.done.push([what, ...(ids ?? [])]);
      if (this.refuses) throw new Error("refused");
      if (!change) return;
      this.each((item) => (!ids || ids.includes(item.id) ? { ...item, ...change } : item));
    }
    read(ids) { return this.#do("read", ids, { read: true }); }
    unread(ids) { return this.#do("unread", ids, { read: false }); }
    archive(ids) { return this.#do("archive", ids, { read: true, archived: true }); }
    readAll() { return this.#do("readAll", null, { read: true }); }
    async loadMore() {
      await this.#do("loadMore");
      this.set({ items: [...this.state.items, ...(this.later ?? [])], more: false });
    }
    refresh() { return this.#do("refresh"); }
    close() { this.done.push(["close"]); }
    get listeners() { return this.#told.size; }
  }
  window.inbox = new Inbox();
  window.opened = [];
  addEventListener("pushsvc-open", (event) => {
    opened.push({ id: event.detail.item.id, url: event.detail.url ?? null });
    if (window.stays) event.preventDefault();
  });
  window.bell = document.querySelector("pushsvc-inbox");
  window.say = ({ lang, dir, shop, link, title, text, labels }) => {
    Object.assign(document.documentElement, { lang, dir });
    for (const [selector, words] of Object.entries({ b: shop, a: link, h1: title, p: text })) {
      document.querySelector(selector).textContent = words;
    }
    bell.lang = lang;
    bell.labels = labels;
  };
  if (!query.has("late")) await import(query.get("client") + "/inbox.js");
  bell.push = { inbox: () => inbox };
  window.ready = true;
</script>
</head>
<body>
<header><b>Fernweh</b> <a href="#main">Orders</a> <pushsvc-inbox></pushsvc-inbox></header>
<main id="main"><h1>Your orders</h1><p>What you bought, and where it is.</p></main>
</body>
</html>
"""

_DEEP = """(selector) => {
  const { shadowRoot } = document.querySelector("pushsvc-inbox");
  return [...shadowRoot.querySelectorAll(selector)].filter((each) =>
    each.checkVisibility({ visibilityProperty: true }));
}"""


def seen(page: Page, selector: str) -> list[str]:
    """The texts of what is visible of the bell, by a selector in its shadow tree."""
    found: list[str] = page.evaluate(
        f"(selector) => ({_DEEP})(selector).map((each) => each.innerText.trim())", selector
    )
    return found


def shows(page: Page, selector: str, *texts: str) -> None:
    """Wait until the bell shows exactly that."""
    until(
        page,
        f"([selector, wanted]) => JSON.stringify(({_DEEP})(selector)"
        ".map((each) => each.innerText.trim())) === JSON.stringify(wanted)",
        [selector, list(texts)],
    )


def attribute(page: Page, selector: str, name: str) -> Any:
    """An attribute of the one visible element."""
    return page.evaluate(
        f"([selector, name]) => {{ const [one, two] = ({_DEEP})(selector);"
        " return two ? 'several' : one?.getAttribute(name) ?? null; }",
        [selector, name],
    )


_ACTIVE = """() => {
  const active = document.querySelector("pushsvc-inbox").shadowRoot.activeElement;
  const row = active?.closest("li");
  return [active?.part.value ?? "", row ? [...row.parentElement.children].indexOf(row) + 1 : 0];
}"""


def focused(page: Page) -> str:
    """The part of the bell that has the focus, and the number of its row."""
    part, row = page.evaluate(_ACTIVE)
    return f"{part} {row}" if row else part


def press(page: Page, key: str) -> None:
    """Press a key where the focus is, in the bell."""
    part, row = page.evaluate(_ACTIVE)
    within = f"li:nth-child({row}) " if row else ""
    page.press(f"{within}[part~={part.split()[-1]}]", key)


def items(*titles: str, read: int = 0, first: int = 9) -> list[dict[str, Any]]:
    """What an inbox may hold, newest first, from one with the id ``9-0``; the last are read."""
    made = []
    for place, title in enumerate(titles):
        time = datetime.now(UTC) - timedelta(seconds=90 * (10 - first + place))
        made.append(
            {
                "id": f"{first - place}-0",
                "time": time.isoformat(),
                "data": {"title": title, "body": f"{title}, and more of it"},
                "read": place >= len(titles) - read,
                "archived": False,
            }
        )
    return made


def given(page: Page, *there: dict[str, Any], **changes: Any) -> None:
    """Have the inbox of the page hold that."""
    unread = sum(not item["read"] for item in there)
    state = {"items": list(there), "unread": unread, "state": "ready", "more": False} | changes
    page.evaluate("state => inbox.set(state)", state)

"""A page that is driven by scripts, and by the pointer and the keys of WebDriver.

WebDriver and WebDriver BiDi describe these alike: https://www.w3.org/TR/webdriver2/#actions
"""

import ipaddress
import json
from abc import ABC, abstractmethod
from typing import Any, Final
from urllib.parse import urlsplit

from tests.browser.engine import PATIENCE
from tests.support.nodes import wait_until

_KEYS: Final = {
    "Enter": "\ue007",
    "Tab": "\ue004",
    "Escape": "\ue00c",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowUp": "\ue013",
    "ArrowDown": "\ue015",
}

_EVALUATE: Final = """(async () => {
  const found = (%s);
  return JSON.stringify(typeof found === "function" ? await found(%s) : await found) ?? "null";
})()"""

# The elements of a selector, those in shadow trees too.
_FIND: Final = """function find(selector, root = document) {
  return [...root.querySelectorAll("*")].flatMap((each) => [
    ...(each.matches(selector) ? [each] : []),
    ...(each.shadowRoot ? find(selector, each.shadowRoot) : []),
  ]);
}"""

# Where to click, or why a user could not.
_SPOT: Final = f"""(selector) => {{
  {_FIND}
  const found = find(selector);
  if (found.length !== 1) return `${{found.length}} elements`;
  const [element] = found;
  if (element.matches(":disabled")) return "it is disabled";
  if (!element.checkVisibility({{ visibilityProperty: true }})) return "it is not visible";
  element.scrollIntoView({{ block: "center", inline: "center", behavior: "instant" }});
  const {{ x, y, width, height }} = element.getBoundingClientRect();
  const spot = [Math.floor(x + width / 2), Math.floor(y + height / 2)];
  const there = element.getRootNode().elementFromPoint(...spot);
  return element.contains(there) ? spot : `${{there?.outerHTML}} is there`;
}}"""

# Does something with the one element of a selector.
_WITH: Final = f"""([selector, what]) => {{
  {_FIND}
  find(selector)[0][what]();
}}"""


class DrivenPage(ABC):
    """What a page of the stories does, made of two things."""

    @abstractmethod
    def run(self, script: str) -> str:
        """Run an expression whose promise resolves to a text."""

    @abstractmethod
    def act(self, sources: list[dict[str, Any]]) -> None:
        """Use pointer or keys."""

    def evaluate(self, expression: str, arg: Any = None) -> Any:
        return json.loads(self.run(_EVALUATE % (expression, json.dumps(arg))))

    def click(self, selector: str) -> None:
        reason = ""

        def spot() -> list[int] | None:
            nonlocal reason
            found = self.evaluate(_SPOT, selector)
            reason = found if isinstance(found, str) else ""
            return None if reason else found

        try:
            x, y = wait_until(spot, f"a click on {selector}", PATIENCE)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {reason}") from None
        move = {"type": "pointerMove", "x": x, "y": y}
        press = {"type": "pointerDown", "button": 0}
        release = {"type": "pointerUp", "button": 0}
        self.act([{"type": "pointer", "id": "mouse", "actions": [move, press, release]}])

    def fill(self, selector: str, value: str) -> None:
        self.click(selector)
        self.evaluate(_WITH, [selector, "select"])
        self._type(value)

    def press(self, selector: str, key: str) -> None:
        self.evaluate(_WITH, [selector, "focus"])
        self._type(_KEYS.get(key, key))

    def _type(self, letters: str) -> None:
        strokes = [
            {"type": kind, "value": letter} for letter in letters for kind in ("keyDown", "keyUp")
        ]
        self.act([{"type": "key", "id": "keyboard", "actions": strokes}])


def leaves(url: str) -> bool:
    """Whether a request for it would leave this machine."""
    parts = urlsplit(url)
    if parts.scheme in {"data", "blob", "about"}:
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True

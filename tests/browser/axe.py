"""axe-core: what would keep people from using a page."""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

SCRIPT = Path(__file__).parents[2] / "clients/js/node_modules/axe-core/axe.min.js"
GRAVE = ("serious", "critical")
ANY = ("minor", "moderate", *GRAVE)

# What moves, in shadow trees too: `document.getAnimations()` alone tells of none there.
_MOVING = """() => {
  const within = (root) => [
    ...root.getAnimations(),
    ...[...root.querySelectorAll("*")].flatMap(({ shadowRoot }) =>
      shadowRoot ? within(shadowRoot) : []),
  ];
  return within(document)
    .filter(({ playState }) => playState === "running")
    .map(({ effect, animationName, transitionProperty }) =>
      `${effect.target.outerHTML.slice(0, 80)} (${animationName ?? transitionProperty})`);
}"""


@functools.cache
def _script() -> str:
    return SCRIPT.read_text()


def findings(page: Page, impacts: Collection[str] = GRAVE) -> list[str]:
    """The serious and critical findings on what a page shows now, or those of other impacts.

    The page is asked for less motion, now and from then on: what fades in has its contrast only
    when it is there, and is there at once then. What moves all the same is a finding.
    """
    page.emulate_media(reduced_motion="reduce")
    page.evaluate(_script())
    moving: list[str] = page.evaluate(_MOVING)
    answer: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"it moves though less motion is asked for: {each}" for each in moving] + [
        f"{found['id']} ({found['impact']}): {found['help']}: "
        + "; ".join(f"{node['target']} {node.get('failureSummary', '')}" for node in found["nodes"])
        for found in answer["violations"]
        if found["impact"] in impacts
    ]

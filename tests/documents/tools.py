"""Programs that read the served documents, and how they are run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.js import NODE

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
PROGRAMS = HERE / "programs"


def need_tools() -> None:
    """Skip the test where the packages of npm are not installed."""
    if not (MODULES / ".ready").exists():
        pytest.skip("needs the tools of tests/documents: `make test-all` installs them")


def run(*command: str | Path, cwd: Path = HERE, **environ: str) -> str:
    """Run a program of this environment, which has to succeed; all that it says."""
    path = f"{Path(NODE).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | {"PATH": path} | environ, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def python(*args: str | Path, cwd: Path = HERE, **environ: str) -> str:
    """Run the Python of this environment, to which a warning is an error."""
    return run(sys.executable, "-W", "error", *args, cwd=cwd, **environ)


def node(*args: str | Path, cwd: Path = HERE) -> str:
    """Run the Node.js of this environment."""
    return run(NODE, *args, cwd=cwd)

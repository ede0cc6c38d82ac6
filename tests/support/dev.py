"""A ``pushsvc dev`` of one's own."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.nodes import wait_until


@dataclass
class Dev:
    """Where it is, and where it writes."""

    url: str
    admin_url: str
    output: Path

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a program that is to use it."""
        return dict(os.environ) | {"PUSH_URL": self.url, "PUSH_ADMIN_URL": self.admin_url}


def start(
    directory: Path,
    *flags: str,
    command: Sequence[str] = (sys.executable, "-m", "pushsvc"),
    cwd: Path | None = None,
) -> tuple[subprocess.Popen[bytes], Dev]:
    """A development node on free ports, for who ends it by other means.

    Raises:
        RuntimeError: it ended, and why.
    """
    output = directory / "dev.log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PUSHSVC_")}
    with output.open("wb") as log:
        process = subprocess.Popen(
            [*command, "dev", "--port", "0", "--admin-port", "0", *flags],
            cwd=cwd, env=environ, stdout=log, stderr=log,
        )  # fmt: skip

    def introduced() -> str:
        text = output.read_text()
        if process.poll() is not None:
            raise RuntimeError(f"it ended: {text}")
        return text if "curl" in text else ""

    try:
        text = wait_until(introduced, "the introduction")
        console = re.search(r"console +http://[^:]+:(\d+)/", text)
        node = re.search(r"node +(http://\S+)", text)
        assert console
        assert node
    except BaseException:
        process.terminate()
        process.wait()
        raise
    return process, Dev(node[1], f"http://127.0.0.1:{console[1]}", output)


@contextmanager
def dev(directory: Path, *flags: str) -> Iterator[Dev]:
    """A development node on free ports, until the end of the block."""
    process, running = start(directory, *flags)
    try:
        yield running
    finally:
        process.terminate()
        process.wait()
    assert process.returncode == 0
    assert "Traceback" not in running.output.read_text()

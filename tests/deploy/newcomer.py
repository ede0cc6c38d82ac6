"""The README's two commands, as a newcomer runs them; nothing here needs more than Python.

``tests/deploy/bare.py`` runs it in a system that has nothing else.
"""

import os
import platform
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

_CLONE: Final = Path(__file__).parents[2]
_READY: Final = "http://127.0.0.1:9090/readyz"
_INSTALL_SECONDS: Final = 900
"""With what it downloads, over a slow line."""
_END_SECONDS: Final = 30


def run() -> None:
    """``make run``: it becomes ready, and Ctrl-C ends all of it."""
    began = time.monotonic()
    log = _CLONE / "run.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "run"], cwd=_CLONE, stdout=output, stderr=output, start_new_session=True
        )
    while not _ready():
        assert process.poll() is None, f"make run ended:\n{log.read_text()}"
        assert time.monotonic() < began + _INSTALL_SECONDS, f"never ready:\n{log.read_text()}"
        time.sleep(0.1)
    _say(f"make run: ready after {time.monotonic() - began:.0f} s")
    os.killpg(process.pid, signal.SIGINT)
    code = process.wait(_END_SECONDS)
    text = log.read_text()
    # Make itself ends by the signal, once what it ran has ended well.
    assert code in {0, -signal.SIGINT}, f"make run ended with {code}:\n{text}"
    assert "Error" not in text, text
    assert "Traceback" not in text, text
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        log.unlink()
        left = [*(Path.home() / ".local" / "state" / "pushsvc").glob("*")]
        assert left == [], f"make run left tokens: {left}"
        return
    raise AssertionError("make run left something running")


def test() -> None:
    """``make test``; where a browser can be fetched, no test may be skipped.

    What fails beside others is run once more, one at a time (CONTRIBUTING): both are in the log.
    """
    began = time.monotonic()
    strict = ["ARGS=--no-skips"] if platform.machine() == "x86_64" else []
    if subprocess.run(["make", "test", *strict], cwd=_CLONE, check=False).returncode:
        subprocess.run(["make", "failed"], cwd=_CLONE, check=True)
    _say(f"make test: {time.monotonic() - began:.0f} s, downloads included")


def _ready() -> bool:
    try:
        with urllib.request.urlopen(_READY, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - what it is run for


if __name__ == "__main__":
    run()
    test()

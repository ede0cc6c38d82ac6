"""A Debian in a folder, made from its packages."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SECONDS: Final = 900


def bootstrap(root: Path, suite: str, packages: Sequence[str] = ()) -> None:
    """Unpack the least that runs, and some packages.

    Raises:
        RuntimeError: it could not be made; the message ends with what debootstrap said.
    """
    more = [f"--include={','.join(packages)}"] if packages else []
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", *more, suite, str(root)],
        # Nothing has to survive a power cut: without waiting for the disk it takes half the time.
        env=os.environ | {"DPKG_FORCE": "unsafe-io"},
        capture_output=True, text=True, timeout=_SECONDS, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise RuntimeError(f"debootstrap failed: {made.stdout[-4000:]}{made.stderr}")

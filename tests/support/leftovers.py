"""What a run of the tests leaves behind: processes, and folders in the temporary directory.

Every process that a run starts carries its mark in the environment, through however many others it
was started, and every temporary file, and every state, is in a directory of the run.
"""

import os
import shutil
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

import psutil

MARK: Final = "PYTEST_RUN_OF_PUSHSVC"
"""The variable; its value begins with that of the run in which this one was started, if any."""
_TRACKER: Final = "multiprocessing.resource_tracker"
_PREFIX: Final = "pushsvc-"
"""How every temporary folder begins that pushsvc makes."""


class Run:
    """A run, from its begin on; the environment of this process changes with it."""

    seconds: float = 10.0
    """How long what was told to end, or whose parent has ended, has time."""

    def __init__(self) -> None:
        outer = os.environ.get(MARK)
        self._before = {name: os.environ.get(name) for name in ("TMPDIR", "XDG_STATE_HOME", MARK)}
        self.mark = f"{outer}/{uuid.uuid4().hex}" if outer else uuid.uuid4().hex
        # What tests keep to look at after a failure stays where it always is.
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
        self.directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}run-"))
        own = str(self.directory)
        # What `pushsvc dev` keeps for its user is not this user's.
        os.environ |= {MARK: self.mark, "TMPDIR": own, "XDG_STATE_HOME": f"{own}/state"}
        tempfile.tempdir = None

    def processes(self) -> list[psutil.Process]:
        """Those that it started and that are still there."""
        return [process for process in psutil.process_iter() if self._started(process)]

    def folders(self) -> list[Path]:
        return sorted(self.directory.glob(f"{_PREFIX}*"))

    def end(self) -> list[str]:
        """Wait for all that it started, and remove what is left; that, a line each."""
        deadline = time.monotonic() + self.seconds
        while (self.processes() or self.folders()) and time.monotonic() < deadline:
            time.sleep(0.1)
        left = []
        for process in self.processes():
            try:
                left.append(f"process {process.pid}: {' '.join(process.cmdline())[:300]}")
                process.kill()
            except psutil.NoSuchProcess:
                continue
        left += [f"folder {folder.name} in the temporary directory" for folder in self.folders()]
        shutil.rmtree(self.directory, ignore_errors=True)
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        tempfile.tempdir = None
        return left

    def _started(self, process: psutil.Process) -> bool:
        try:
            mark = process.environ().get(MARK, "")
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (psutil.Error, OSError):
            return False  # gone, or another user's
        ours = mark == self.mark or mark.startswith(f"{self.mark}/")
        return ours and alive and process.pid != os.getpid() and not _ends_with_us(process)


def _ends_with_us(process: psutil.Process) -> bool:
    """Whether it is what `multiprocessing` keeps for this process as long as this lives."""
    try:
        return process.ppid() == os.getpid() and _TRACKER in " ".join(process.cmdline())
    except psutil.Error:
        return True  # it has ended

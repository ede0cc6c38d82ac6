"""What processes do that the tests have forked; it imports little, so that they start soon."""

import os
import random
import signal
import uuid
from multiprocessing.connection import Connection
from pathlib import Path

BALLAST = 20_000_000
_ballast = b""


def load() -> None:
    """What a fork server here has in its memory."""
    global _ballast  # noqa: PLW0603 - the fork server's own
    _ballast = os.urandom(BALLAST)


def _private() -> int:
    """Bytes that nobody else has in memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def obey(pipe: Connection) -> None:
    """Do as told."""
    answers = {
        "pid": os.getpid,
        "blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "random": lambda: (random.random(), uuid.uuid4(), os.urandom(8)),
        "descriptors": lambda: len(list(Path("/proc/self/fd").iterdir())),
        "ballast": lambda: len(_ballast),
        "private": _private,
    }
    while True:
        try:
            verb, *rest = pipe.recv()
        except EOFError:
            return
        if verb == "exit":
            raise SystemExit(*rest)
        if verb == "raise":
            raise RuntimeError(*rest)
        pipe.send(answers[verb]())

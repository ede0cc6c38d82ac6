"""``pushsvc serve`` under cProfile, from SIGUSR1 on; the statistics go to the file in ``argv[1]``.

The profiler charges for each Python call, so its shares are those of the interpreter's work, and
the times are longer than those of a node that is not watched.
"""

import cProfile
import signal
import sys

from pushsvc.cli import main


def run(path: str) -> None:
    profile = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    try:
        main(["serve"])
    finally:
        profile.disable()
        profile.dump_stats(path)


if __name__ == "__main__":
    run(sys.argv[1])

"""``pushsvc serve`` that, on SIGUSR2, sends a frame to all of its sockets from a loop in C.

``argv`` is a directory, how many rounds, and how many bytes the frame has. What a send costs there,
in microseconds of CPU, goes to the file ``bare`` in the directory: the limit that no node can go
below, on the same sockets, in the same process.
"""

import ctypes
import gc
import signal
import subprocess
import sys
import time
from pathlib import Path

from pushsvc.cli import main
from pushsvc.node.connections import Connections
from pushsvc.protocol import frames

SOURCE = """
#include <sys/socket.h>
int send_all(const int *fds, int count, const char *frame, int size) {
    int sent = 0;
    for (int i = 0; i < count; i++)
        sent += send(fds[i], frame, size, MSG_DONTWAIT | MSG_NOSIGNAL) == size;
    return sent;
}
"""


def run(directory: Path, rounds: int, size: int) -> None:
    source, library = directory / "bare.c", directory / "bare.so"
    source.write_text(SOURCE)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    send_all = ctypes.CDLL(str(library)).send_all

    def bare(*_: object) -> None:
        gc.unfreeze()  # what is frozen is not listed
        (core,) = (each for each in gc.get_objects() if isinstance(each, Connections))
        fds = [connection.fd for connection in core]
        array = (ctypes.c_int * len(fds))(*fds)
        payload = b'{"type":"notification","id":"0-0","data":"%s"}'
        frame = frames.text(payload % (b"x" * (size - len(frames.text(payload)) + 2)))
        before = time.process_time()
        sent = sum(send_all(array, len(fds), frame, len(frame)) for _ in range(rounds))
        cpu = time.process_time() - before
        result = directory / "bare.new"
        result.write_text(f"{1e6 * cpu / sent} {sent} {len(frame)}")
        result.rename(directory / "bare")

    signal.signal(signal.SIGUSR2, bare)
    main(["serve"])


if __name__ == "__main__":
    run(Path(sys.argv.pop(1)), int(sys.argv.pop(1)), int(sys.argv.pop(1)))

"""Ports for the servers that tests start, kill, and start again at the same address."""

import itertools
import os
import random
import re
import socket

BAD_PORTS = {
    4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
}  # fmt: skip
"""Those above 1,023 to which a browser connects never: https://fetch.spec.whatwg.org/#bad-port"""
_FIRST, _LAST = 10_000, 19_999
_BUS = 10_000
"""How far above its port a Cluster's server listens for the others."""
_WORKERS = 8


def _mine() -> list[int]:
    """Those of this test process: pytest-xdist runs several side by side."""
    number = int(re.sub(r"\D", "", os.environ.get("PYTEST_XDIST_WORKER", "")) or 0) % _WORKERS
    share = (_LAST + 1 - _FIRST) // _WORKERS
    ports = range(_FIRST + number * share, _FIRST + (number + 1) * share)
    return [port for port in ports if port not in BAD_PORTS]


_ports = itertools.cycle(random.sample(_mine(), len(_mine())))


def free_port() -> int:
    """A port on which nobody listens, nor on that of a Cluster's bus above it.

    Neither is one that the system gives to connections, and each is given out once a round, so a
    server that was killed finds its port as it left it.

    Raises:
        OSError: none is left.
    """
    for port in itertools.islice(_ports, len(_mine())):
        with socket.socket() as probe, socket.socket() as bus:
            try:
                probe.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + _BUS))
            except OSError:
                continue
            return port
    raise OSError(f"no port is free from {min(_mine())} to {max(_mine())}")

"""What one publish costs for each connection that it reaches, next to the bare system calls."""

import os
import socket
import time
from itertools import count

from bench.acked import measured, requests
from bench.client import Herd, handshake
from bench.harness import Figure, node, say, tokens

CONNECTIONS = 1_000
PUBLISHES = 200
FRAME = bytes(130)
"""What the bare loop sends, about as much as a notification."""


def run(*, profile: bool) -> list[Figure]:
    """Reach one user's many connections with each publish."""
    del profile
    with node(
        max_connections_per_user=CONNECTIONS, ack_window=1024, ack_timeout_seconds=300
    ) as server:
        herd = Herd(server.port, acknowledges=False)
        herd.connect([handshake("/v1/ws", *tokens(["everybody"]))] * CONNECTIONS)
        say("fanout-cost: publishing")
        publishes = requests(["everybody"], 1, count(1).__next__, rounds=PUBLISHES)
        cpu, _ = measured(server, "pushsvc_delivered_total", herd, publishes, CONNECTIONS)
        herd.close()
    bare = _bare_loop()
    return [
        Figure("delivery to one of many connections", cpu, "us"),
        Figure("a bare loop of write()", bare, "us"),
        Figure("delivery : bare loop", cpu / bare, "x"),
    ]


def _bare_loop() -> float:
    """Microseconds of CPU for each frame that a loop writes to sockets which nobody reads."""
    say("fanout-cost: bare loop")
    with socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS) as server:
        ends = [socket.create_connection(server.getsockname()) for _ in range(CONNECTIONS)]
        others = [server.accept()[0] for _ in range(CONNECTIONS)]
    fds = [end.fileno() for end in ends]
    before = time.process_time()
    for _ in range(PUBLISHES):
        for fd in fds:
            os.write(fd, FRAME)
    cpu = time.process_time() - before
    for each in (*ends, *others):
        each.close()
    return 1e6 * cpu / (PUBLISHES * CONNECTIONS)

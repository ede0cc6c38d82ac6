"""What an idle connection costs: resident memory of a worker with and without 15,000 of them."""

from itertools import count

from bench.acked import requests
from bench.client import Herd, handshake
from bench.harness import Figure, Server, node, say, tokens

CONNECTIONS = 15_000
WARM_UP = 500
SAMPLE = 100
BAR = 2_500.0
"""Bytes per connection."""


def run(*, profile: bool) -> list[Figure]:
    """Connect them all and ask what the process holds."""
    del profile
    with node(max_connections=18_000) as server:
        _warm_up(server)
        before = server.memory()
        users = [f"user-{i}" for i in range(CONNECTIONS)]
        say(f"memory: connecting {CONNECTIONS}")
        herd = Herd(server.port)
        herd.connect(handshake("/v1/ws", token) for token in tokens(users))
        after = server.memory()
        held = server.metric("pushsvc_connections")
        if held != CONNECTIONS:
            raise RuntimeError(f"the node holds {held:g} connections, not {CONNECTIONS}")
        sample = users[:: CONNECTIONS // SAMPLE]
        live = herd.publish(requests(sample, len(sample), count(1).__next__, rounds=1), SAMPLE)
        herd.close()
    return [
        Figure("idle connection", (after - before) / CONNECTIONS, "bytes", at_most=BAR),
        Figure("worker without connections", before / 1e6, "MB"),
        Figure(f"worker with {CONNECTIONS:,}", after / 1e6, "MB"),
        Figure("of a sample live", 100 * live / len(sample), "%", at_least=100),
    ]


def _warm_up(server: Server) -> None:
    """Have everything imported, cached and allocated that the first connections need."""
    users = [f"early-{i}" for i in range(WARM_UP)]
    for _ in range(2):
        herd = Herd(server.port)
        herd.connect(handshake("/v1/ws", token) for token in tokens(users))
        herd.publish(requests(users, 100, count(1).__next__, rounds=5), 100)
        herd.close()
        server.rest()

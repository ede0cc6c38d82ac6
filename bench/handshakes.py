"""Handshakes on one core: tokens and registration included, next to a bare Tornado handler."""

from statistics import median

from bench.client import Herd, handshake
from bench.harness import Figure, Server, measure, node, say, tokens

HANDSHAKES = 4_000
ROUNDS = 3
BAR = 1.8
"""Times as many as the bare handler."""


def run(*, profile: bool) -> list[Figure]:
    """Take turns, so that both meet the same neighbours."""
    loop = _better_loop()
    with node(profile=profile) as ours, Server("bench.stock", loop) as stock:
        _round(ours, _authenticated("early", 500))
        _round(stock, [handshake("/v1/ws")] * 500)
        measure(ours, profile)
        ours_cpu, ours_wall, stock_cpu, stock_wall = [], [], [], []
        for i in range(ROUNDS):
            say(f"handshakes: round {i + 1} of {ROUNDS}")
            cpu, wall = _round(ours, _authenticated(f"round{i}", HANDSHAKES))
            ours_cpu.append(cpu)
            ours_wall.append(wall)
            cpu, wall = _round(stock, [handshake("/v1/ws")] * HANDSHAKES)
            stock_cpu.append(cpu)
            stock_wall.append(wall)
    cpu_ratio = median(stock_cpu) / median(ours_cpu)
    wall_ratio = median(stock_wall) / median(ours_wall)
    return [
        Figure("handshakes by CPU time, pushsvc : Tornado", cpu_ratio, "x", at_least=BAR),
        Figure("handshakes by the clock, pushsvc : Tornado", wall_ratio, "x", at_least=BAR),
        Figure("pushsvc, JWT and registration", 1 / median(ours_wall), "/s"),
        Figure(f"Tornado on {loop}, neither", 1 / median(stock_wall), "/s"),
        Figure("pushsvc, CPU a handshake", median(ours_cpu) * 1e6, "us"),
        Figure("Tornado, CPU a handshake", median(stock_cpu) * 1e6, "us"),
    ]


def _authenticated(name: str, number: int) -> list[bytes]:
    users = [f"{name}-{i}" for i in range(number)]
    return [handshake("/v1/ws", token) for token in tokens(users)]


def _better_loop() -> str:
    """The event loop on which the bare handler is faster."""
    costs = {}
    for loop in ("uvloop", "asyncio"):
        with Server("bench.stock", loop) as stock:
            _round(stock, [handshake("/v1/ws")] * 500)
            costs[loop], _ = _round(stock, [handshake("/v1/ws")] * HANDSHAKES)
        say(f"handshakes: bare Tornado on {loop}: {costs[loop] * 1e6:.0f} us of CPU")
    return min(costs, key=costs.__getitem__)


def _round(server: Server, requests: list[bytes]) -> tuple[float, float]:
    """Shake hands for each request; seconds of CPU and of time for one."""
    herd = Herd(server.port)
    before = server.cpu()
    wall = herd.connect(requests)
    cpu = server.cpu() - before
    herd.close()
    server.rest()
    return cpu / len(requests), wall / len(requests)

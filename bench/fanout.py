"""CPU time of a delivery to one of a topic's 10,000 subscribers, next to a C loop of ``send()``."""

import json
import signal
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.acked import measured
from bench.client import Herd, handshake, post
from bench.harness import SECRET, Figure, node, say, tokens, wait_until
from pushsvc.auth.tokens import mint

SUBSCRIBERS = 10_000
ROUNDS = 40
TOPIC = "scores.final"
BAR = 1.3
DELIVERED = "pushsvc_delivered_total"
SUBSCRIBE = json.dumps({"type": "subscribe", "topic": TOPIC, "ref": 1}).encode()


def run(*, profile: bool) -> list[Figure]:
    """Publish to one topic of many subscribers; then do in C what cannot be done without."""
    topics = {"subscribe": [TOPIC]}
    (publisher,) = tokens(["backend"], "push.publish")
    body = json.dumps({"to": {"topic": TOPIC}, "data": {"home": 98, "away": 97, "clock": "00:41"}})
    publish = post("/v1/notifications", publisher, "application/json", body.encode())
    with TemporaryDirectory(prefix="pushsvc-bench-") as directory:
        module = ("bench.bare_node", directory, str(ROUNDS), "170")
        with node(profile=profile, module=module) as server:
            herd = Herd(server.port, acknowledges=False)
            say("fanout: subscribing")
            herd.connect(
                handshake("/v1/ws", mint(secret=SECRET, user=f"u{i}", audience="pushsvc", ttl=3600,
                                         topics=topics))
                for i in range(SUBSCRIBERS)
            )  # fmt: skip
            herd.say(SUBSCRIBE)
            wait_until(lambda: herd.listening(publish) == SUBSCRIBERS, "all subscriptions")
            say("fanout: publishing")
            ours, _ = measured(server, DELIVERED, herd, repeat(publish, ROUNDS), SUBSCRIBERS)
            say("fanout: the same in C")
            server.process.send_signal(signal.SIGUSR2)
            result = Path(directory) / "bare"
            bare = herd.drain(lambda: result.exists() and result.read_text())
            herd.close()
    limit, sent, size = map(float, bare.split())
    say(f"fanout: {sent:.0f} sends of {size:.0f} bytes in C")
    return [
        Figure("a delivery to one of 10,000 subscribers", ours, "us"),
        Figure("a send() of a loop in C", limit, "us"),
        Figure("delivery : C loop", ours / limit, "x", at_most=BAR),
    ]

"""A bystander: publishes to itself at an even pace, and notes how long each notification took.

``argv`` is the port. The commands on standard input are ``begin`` and ``end``; the latter is
answered by what was noted, as JSON: when each was due, and after how many seconds it was received.
"""

import json
import math
import re
import select
import socket
import sys
import time
from collections import deque

from bench.client import ack, handshake, post
from bench.harness import SECRET
from pushsvc.auth.tokens import mint

EVERY = 0.02
"""Seconds between two notifications."""
PUBLISHERS = 32
"""Connections to publish on."""
_received = re.compile(rb'"type":"notification","id":"([0-9-]+)".*?"data":(\d+)').findall
_READ = 64 * 1024


def main(port: int) -> None:
    """Do as told."""
    token = mint(
        secret=SECRET, user="bystander", audience="pushsvc", scopes=["push.publish"], ttl=3600
    )
    receiver = socket.create_connection(("127.0.0.1", port))
    receiver.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    receiver.sendall(handshake("/v1/ws", token))
    if not receiver.recv(_READ).startswith(b"HTTP/1.1 101"):
        raise ConnectionError("the handshake was refused")
    publishers = [_publisher(port) for _ in range(PUBLISHERS)]
    idle = deque(publishers)
    sys.stdin.readline()
    print("begun", flush=True)
    due: list[float] = []
    samples: list[tuple[float, float]] = []
    begun = time.monotonic()
    ended = math.inf
    # All that were due by the end, however late they are.
    while (at := begun + len(due) * EVERY) <= ended or len(samples) < len(due):
        wait = max(0.0, at - time.monotonic()) if at <= ended and idle else 1.0
        ready, _, _ = select.select([receiver, *publishers, sys.stdin], [], [], wait)
        if receiver in ready:
            data = receiver.recv(_READ)
            if not data:
                raise ConnectionError("the node closed the connection")
            now = time.monotonic()
            found = _received(data)
            samples += [(due[int(number)], now - due[int(number)]) for _, number in found]
            receiver.sendall(b"".join(ack(each) for each, _ in found))
        for publisher in [each for each in ready if each in publishers]:
            answer = publisher.recv(_READ)
            if b"HTTP/1.1 202" not in answer:
                raise ConnectionError(f"a publish was refused: {answer[:500]!r}")
            idle.append(publisher)
        if sys.stdin in ready:
            sys.stdin.readline()
            ended = time.monotonic()
        if at <= min(ended, time.monotonic()) and idle:
            body = b'{"to":{"user":"bystander"},"data":%d}' % len(due)
            # As clients of HTTP do: on a connection where none is under way.
            idle.popleft().sendall(post("/v1/notifications", token, "application/json", body))
            due.append(at)
    print(json.dumps(samples), flush=True)


def _publisher(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


if __name__ == "__main__":
    main(int(sys.argv[1]))

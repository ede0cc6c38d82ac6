"""Many WebSockets in a process of their own, which listen to a topic and come back when told to.

``argv`` is the port, how many, and the topic. Each line on standard input is a command: ``come``
connects all of them, ``again`` drops them and has all come back at once. It is answered by a line
once all are there. One that is refused or lost comes back as the answer says, with jitter, as a
proper client does. What is received is counted and dropped.
"""

import errno
import os
import random
import re
import select
import socket
import sys
import time
from heapq import heappop, heappush

from bench.client import handshake
from bench.harness import SECRET
from pushsvc.auth.tokens import mint

_retry_after = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE).search
_READ = 64 * 1024


class Crowd:
    """The WebSockets.

    Args:
        port: of the node.
        requests: of each, its handshake.
    """

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests = requests
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._asking: dict[int, int] = {}
        self._later: list[tuple[float, int]] = []
        self.refused = 0

    def connect(self) -> None:
        """Have all connect, as many at once as there are."""
        for number in range(len(self._requests)):
            self._open(number)
            if number % 64 == 63:
                self.turn(0)
        while self._asking or self._later:
            self.turn(0.05)

    def drop(self) -> None:
        """Cut all connections."""
        for connection in self._sockets.values():
            connection.close()
        self._sockets.clear()

    def turn(self, seconds: float) -> None:
        """Do what there is to be done, or wait for it."""
        while self._later and self._later[0][0] <= time.monotonic():
            self._open(heappop(self._later)[1])
        for fd, events in self._epoll.poll(seconds, 1024):
            number = self._asking.get(fd)
            if number is None:
                self._drop_input(fd)
            elif events & select.EPOLLOUT:
                self._ask(fd, number)
            else:
                self._answered(fd, number)

    def _open(self, number: int) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        code = connection.connect_ex(("127.0.0.1", self._port))
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        fd = connection.fileno()
        self._sockets[fd] = connection
        self._asking[fd] = number
        self._epoll.register(fd, select.EPOLLOUT)

    def _ask(self, fd: int, number: int) -> None:
        try:
            self._sockets[fd].send(self._requests[number])
        except OSError:
            self._come_back(fd, number, 1.0)
        else:
            self._epoll.modify(fd, select.EPOLLIN)

    def _answered(self, fd: int, number: int) -> None:
        try:
            answer = self._sockets[fd].recv(_READ)
        except OSError:
            answer = b""
        if answer.startswith(b"HTTP/1.1 101"):
            del self._asking[fd]
            return
        if answer and not answer.startswith(b"HTTP/1.1 503"):
            raise ConnectionError(f"a handshake was refused: {answer[:500]!r}")
        asked = _retry_after(answer)
        self._come_back(fd, number, float(asked[1]) if asked else 1.0)

    def _come_back(self, fd: int, number: int, seconds: float) -> None:
        self.refused += 1
        del self._asking[fd]
        self._sockets.pop(fd).close()
        heappush(self._later, (time.monotonic() + seconds * (1 + random.random()), number))

    def _drop_input(self, fd: int) -> None:
        if not self._sockets[fd].recv(_READ):
            raise ConnectionError("the node closed a connection")


def main(port: int, count: int, topic: str) -> None:
    """Do as told, until the input ends."""
    topics = {"subscribe": [topic]}
    tokens = [
        mint(secret=SECRET, user=f"c{i}", audience="pushsvc", ttl=3600, topics=topics)
        for i in range(count)
    ]
    # What follows the handshake is read as soon as it is answered.
    subscribe = frame(b'{"type":"subscribe","topic":"%s"}' % topic.encode())
    crowd = Crowd(port, [handshake("/v1/ws", token) + subscribe for token in tokens])
    commands = select.poll()
    commands.register(sys.stdin, select.POLLIN)
    while True:
        crowd.turn(0.02)
        if not commands.poll(0):
            continue
        command = sys.stdin.readline().strip()
        if not command:
            return
        if command == "again":
            crowd.drop()
        crowd.refused = 0
        crowd.connect()
        print(crowd.refused, flush=True)


def frame(payload: bytes) -> bytes:
    """A text frame; a mask of zeros leaves it as it is."""
    return bytes((0x81, 0x80 | len(payload))) + bytes(4) + payload


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])

"""The public port: sockets are accepted, and what all of them together take is bounded.

A connection has a place among a number of them until it becomes a socket of the core. When all
places are taken, the client goes that has not gone on for longest, not the newcomer.
"""

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Sequence
from typing import Final

import structlog
import tornado.web

from pushsvc import metrics
from pushsvc.node.poller import READABLE
from pushsvc.node.readiness import UNFORESEEN, ReadinessSet
from pushsvc.node.tasks import Tasks
from pushsvc.protocol.requests import Head
from pushsvc.web.admission import Admission
from pushsvc.web.api import Operations
from pushsvc.web.bodies import Bodies
from pushsvc.web.bridge import Bridge
from pushsvc.web.handshake import Handshakes
from pushsvc.web.http_connection import FULL_ROUTE, HttpConnection

AT_ONCE: Final = 32
"""Most connections accepted before other sockets have their turn, however many come."""
PATIENCE: Final = 2.0
"""Seconds that a connection has for its first request before it can lose its place: a head that was
sent comes in less."""
REQUESTS: Final = 0.75
"""The share of places that requests may take; the rest is for handshakes."""
FULL: Final = 5.0
"""Seconds for which a node says that it has no room, after it sent somebody away."""

NO_ROOM: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)

log = structlog.get_logger("pushsvc.http")


class Front:
    """Serves the public port.

    Args:
        readiness: all sockets of the worker.
        admission: knows when clients are sent elsewhere.
        handshakes: answers requests for sockets.
        operations: what answers requests.
        others: answers requests of all other paths.
        request_timeout: seconds in which the head of a request, then its body, must arrive; the
            first one also has to begin by then.
        max_places: most connections that are not, or not yet, sockets of the core. Out of
            descriptors a process cannot even accept, to say that it is full.
        max_bodies: most bytes of all bodies together.
    """

    def __init__(
        self,
        readiness: ReadinessSet,
        admission: Admission,
        handshakes: Handshakes,
        operations: Operations,
        others: tornado.web.Application,
        *,
        request_timeout: float,
        max_places: int,
        max_bodies: int,
    ) -> None:
        self.readiness = readiness
        self.transport = readiness.transport
        self.admission = admission
        self.handshakes = handshakes
        self.operations = operations
        self.request_timeout = request_timeout
        self.bodies = Bodies(max_bodies)
        self.tasks = Tasks("requests")
        self.under_way = 0
        """Requests that are not answered yet, be their client gone; handshakes apart."""
        self.idle: dict[HttpConnection, None] = {}
        """Those whose client is to go on, by a request, by reading its answer or by the end; the
        first waits for longest."""
        self._fresh: dict[HttpConnection, None] = {}
        self._others = others
        self._max_places = max_places
        self._max_requests = max(1, int(REQUESTS * max_places))
        self._places = 0
        self._full_until = 0.0
        self._paused = False
        self._listeners: list[Listener] = []
        self.loop = asyncio.get_running_loop()

    def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept from these sockets, which are the front's from now on."""
        for sock in sockets:
            sock.setblocking(False)
            self._listeners.append(Listener(self, sock))

    def stop(self) -> None:
        """Accept no more."""
        for listener in self._listeners:
            listener.drop()
        self._listeners.clear()

    async def aclose(self) -> None:
        """Close all connections but those of the core, and end what is under way."""
        self.stop()
        for holder in self.readiness:
            if isinstance(holder, HttpConnection):
                holder.drop()
        await self.tasks.cancel()

    async def finished(self, seconds: float) -> None:
        """Wait until the requests under way are answered, or the time has passed."""
        deadline = time.monotonic() + seconds
        await self.handshakes.finished(seconds)
        while (self.under_way or self.tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def troubles(self) -> list[str]:
        """Why it should get no traffic; empty when it has room."""
        if self.readiness.now < self._full_until:
            return ["there is no room for more connections: clients are sent away"]
        return []

    # --- accepting -------------------------------------------------------------------------------

    def accept(self, sock: socket.socket) -> bool:
        """Take the connections that have come; False where the others are to wait for room."""
        for _ in range(AT_ONCE):
            if self.handshakes.full or (self._places >= self._max_places and self._has_room_soon()):
                self._paused = True
                return False
            try:
                peer, _address = sock.accept()
            except BlockingIOError:
                return True
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    continue  # it has gone again
                if self.readiness.lost:
                    self.readiness.drop_lost()
                    continue
                if self._evict():
                    continue
                self._send_away()
                return False
            peer.setblocking(False)
            if self._places >= self._max_places and not self._evict():
                self._send_away()
                with peer, contextlib.suppress(OSError):
                    if not self.transport.speaks_tls:
                        peer.send(NO_ROOM)
            else:
                self.take(peer)
        return True

    def take(self, peer: socket.socket) -> None:
        """Serve a connection.

        Args:
            peer: non-blocking.
        """
        try:
            # Without this the second small frame within a round trip waits for the first's ACK.
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            fd = self.transport.hold(peer)
        except (OSError, ValueError):  # it has gone again
            peer.close()
            return
        now = self.readiness.clock()
        connection = HttpConnection(self, now)
        try:
            self.readiness.add(connection, fd)
        except OSError:  # the system watches no more sockets
            self.transport.close(fd)
            self._send_away()
            return
        self.readiness.look(connection, now + self.request_timeout)
        self._places += 1
        self._fresh[connection] = None

    def _has_room_soon(self) -> bool:
        """Whether some of the places are taken for a moment only."""
        return self.handshakes.waiting > 0 or (bool(self._fresh) and self._idlest() is None)

    def _evict(self) -> bool:
        """Close the connection that has waited for longest; False where none waits."""
        found = self._idlest()
        if found is None:
            return False
        found.drop()
        return True

    def _idlest(self) -> HttpConnection | None:
        """The connection that has waited for longest; None where none does for long."""
        fresh = next(iter(self._fresh), None)
        if fresh is not None and self.readiness.now - fresh.since < PATIENCE:
            fresh = None
        found = next(iter(self.idle), fresh)
        if found is not None and fresh is not None and fresh.since < found.since:
            found = fresh
        return found

    def _full(self) -> None:
        self._full_until = self.readiness.now + FULL

    def _send_away(self) -> None:
        self._full()
        metrics.http_requests.labels(FULL_ROUTE, "503").inc()

    # --- what connections ask --------------------------------------------------------------------

    def busy(self, connection: HttpConnection) -> None:
        """A connection waits for nothing any more."""
        if self.idle.pop(connection, self) is self:
            self._fresh.pop(connection, None)

    def left(self, connection: HttpConnection) -> None:
        """A connection is over, or has become a socket of the core."""
        self._places -= 1
        self.busy(connection)
        if self._paused and not self.handshakes.full:
            self._paused = False
            for listener in self._listeners:
                listener.due()

    def is_full(self) -> bool:
        """Whether requests take all of the places that they may."""
        if self.under_way < self._max_requests:
            return False
        self._full()
        return True

    def hand_on(self, head: Head, connection: HttpConnection) -> None:
        """Have Tornado's routing and handlers answer a request."""
        Bridge(head, connection, secure=self.transport.speaks_tls).begin(self._others)

    def later(self, connection: HttpConnection) -> None:
        """Have a connection go on when others had their turn."""
        self.loop.call_soon(_go_on, connection)


def _go_on(connection: HttpConnection) -> None:
    try:
        connection.go_on()
    except Exception:
        log.exception(UNFORESEEN)
        connection.drop()


class Listener:
    """A listening socket in the readiness set.

    Args:
        front: that accepts.
        sock: listens.
    """

    def __init__(self, front: Front, sock: socket.socket) -> None:
        self.fd = -1
        self.wake = 0
        self._front = front
        self._sock = sock
        front.readiness.add(self, sock.fileno())

    def ready(self, events: int) -> None:  # noqa: ARG002 - it can only be readable
        """See ``Holder``."""
        front = self._front
        try:
            if front.accept(self._sock):
                return
        except Exception:  # with which the port must not be closed
            log.exception("connections cannot be accepted")
        # It stays readable for as long as somebody waits: look again in a while.
        front.readiness.want(self, 0)
        front.readiness.look(self, front.readiness.now + 1)

    def due(self) -> None:
        """See ``Holder``."""
        self._front.readiness.want(self, READABLE)

    def resumed(self, seconds: float) -> None:
        """See ``Holder``."""

    def drop(self) -> None:
        """See ``Holder``."""
        if self.fd >= 0:
            self._front.readiness.forget(self)
            self._sock.close()

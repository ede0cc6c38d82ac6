"""The connection core as an echo server, which is what the Autobahn test suite tests.

It is the node without Redis, tokens and rate limits: `Front` reads the handshake, the socket goes
to `Connections`, and every message goes back as it came.

    python -m tests.autobahn.echo PORT
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import click
import tornado.web
import uvloop
from tornado.netutil import bind_sockets

from pushsvc.node.connections import Connection, Connections
from pushsvc.node.readiness import ReadinessSet
from pushsvc.protocol import frames
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.limits import Rate
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.requests import Head
from pushsvc.protocol.session import Acked, Policy, Request, Session
from pushsvc.protocol.wire import TEXT
from pushsvc.server.process import until_signal
from pushsvc.web.admission import Admission
from pushsvc.web.api import Operations
from pushsvc.web.front import Front
from pushsvc.web.handshake import Handshakes
from pushsvc.web.http_connection import HttpConnection
from pushsvc.web.websocket import switching, websocket_key

HOST: Final = "127.0.0.1"
LISTENING: Final = f"listening on {HOST}:"
"""The one line of output, before the port."""
MAX_MESSAGE: Final = 16 * 1024 * 1024

_DAY: Final = 86_400.0
_UNLIMITED: Final = Rate(1e12, 1e12)
# No case of the suite is to end by time or by rate: each would be taken for a fault of the framing.
_POLICY: Final = Policy(
    heartbeat=_DAY,
    window=1,
    ack_timeout=_DAY,
    ack_attempts=1,
    messages=_UNLIMITED,
    bytes=_UNLIMITED,
    control=_UNLIMITED,
)


class Nobody:
    """The owner of connections that are sent nothing but what they sent."""

    def drained(self, connection: Connection) -> None:
        """Nothing waits."""

    def acked(self, connection: Connection, ack: Acked) -> None:
        """Nothing is acknowledged."""

    def redeliver(self, connection: Connection, cursor: Cursor) -> None:
        """Nothing was delivered."""

    def left(self, connection: Connection) -> None:
        """Nothing was kept."""

    def written(self, connection: Connection) -> None:
        """Nothing was acknowledged."""


class EchoConnections(Connections):
    """A core that sends every message back, text as text and binary as binary."""

    def __init__(self) -> None:
        super().__init__(
            _POLICY, MAX_MESSAGE, Nobody(), self._no_renewal, self._no_request, ReadinessSet()
        )
        self.max_tail = 4 * MAX_MESSAGE  # a client may send on while it does not read

    @staticmethod
    def _no_renewal(connection: Connection, token: str, ref: Ref) -> None:
        """No message is a ``refresh`` here."""

    @staticmethod
    def _no_request(connection: Connection, request: Request) -> None:
        """No message asks for anything."""

    def _message(self, connection: Connection, message: frames.Message) -> None:
        connection.write(frames.encode(message.opcode, message.payload))


class EchoHandshakes:
    """The handshake of ``Handshakes``, open to everyone."""

    def __init__(self, connections: EchoConnections) -> None:
        self._connections = connections

    def begin(self, head: Head, client: HttpConnection) -> None:
        """Answer a request."""
        key = websocket_key(head.version, head.headers)
        fd, early = client.release()
        now = time.monotonic()
        cursors = Cursor(mailbox("autobahn"), "autobahn"), Cursor(BROADCAST)
        session = Session("autobahn", "autobahn", now + _DAY, now, *cursors)
        connection = self._connections.new(session, TEXT)
        self._connections.adopt(connection, fd)
        connection.write(switching(key, None))
        if early:
            self._connections.received(connection, early)


class Open:
    """An admission that never closes."""

    draining = False


@asynccontextmanager
async def echo_server(port: int) -> AsyncIterator[int]:
    """Serve until the context ends; gives the port, which 0 leaves to the system."""
    connections = EchoConnections()
    front = Front(
        connections.readiness,
        cast("Admission", Open()),
        cast("Handshakes", EchoHandshakes(connections)),
        Operations({}, {}),
        tornado.web.Application(),
        request_timeout=10.0,
        max_places=100,
        max_bodies=1,
    )
    sockets = bind_sockets(port, HOST)
    bound = sockets[0].getsockname()[1]
    front.listen(sockets)
    ticking = asyncio.create_task(_tick(connections))
    try:
        yield bound
    finally:
        ticking.cancel()
        await front.aclose()
        connections.close()
        connections.readiness.close()


async def _tick(connections: Connections) -> None:
    while True:
        await asyncio.sleep(1)
        connections.readiness.tick()


async def _serve(port: int) -> None:
    stop = until_signal()
    async with echo_server(port) as bound:
        click.echo(f"{LISTENING}{bound}")
        await stop.asked.wait()


@click.command()
@click.argument("port", type=click.IntRange(0, 65535))
def main(port: int) -> None:
    """Echo WebSocket messages on PORT, or on a free one if it is 0, until a signal."""
    with (
        contextlib.suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_serve(port))


if __name__ == "__main__":
    main(prog_name="python -m tests.autobahn.echo")

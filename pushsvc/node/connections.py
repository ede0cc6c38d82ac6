"""The connection core: every WebSocket of a worker, without a queue each.

A socket arrives here after its handshake. What a connection holds while it is idle is one
``Connection``, one ``Session`` and one ``Cursor``; a frame reader exists while a frame is
incomplete, and unsent bytes exist while the kernel's buffer is full: at most one notification and
``MAX_TAIL`` of replies. Meanwhile nothing is fed to it; it reads on from its feed later.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

import msgspec
import structlog

from pushsvc import metrics
from pushsvc.codes import Close
from pushsvc.logs import SampledLog
from pushsvc.node.ages import Ages
from pushsvc.node.poller import READABLE, WRITABLE
from pushsvc.node.readiness import ReadinessSet
from pushsvc.node.turns import Work, parts
from pushsvc.protocol import frames, messages
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.messages import Ref
from pushsvc.protocol.session import (
    Acked,
    Beat,
    Effect,
    End,
    Policy,
    Redeliver,
    Renew,
    Request,
    Send,
    Session,
)
from pushsvc.protocol.wire import TEXT, Wire

READ_BYTES: Final = 16 * 1024
"""Most bytes read from one socket before the next has its turn."""
MAX_TAIL: Final = 64 * 1024
"""Bytes of replies that may wait, behind one notification, for a peer that does not read."""
LINGER: Final = 3.0
"""Seconds that a peer has to answer a close (RFC 6455, section 7.1.1)."""

_KNOWN: Final = frozenset(Close)

log = structlog.get_logger("pushsvc.connections")
sampled = SampledLog(log)


class Owner(Protocol):
    """Who decides what connections are sent."""

    def drained(self, connection: "Connection") -> None:
        """The socket has room again."""

    def acked(self, connection: "Connection", ack: Acked) -> None:
        """The client acknowledged."""

    def redeliver(self, connection: "Connection", cursor: Cursor) -> None:
        """The cursor was rewound."""

    def left(self, connection: "Connection") -> None:
        """The connection is over."""

    def written(self, connection: "Connection") -> asyncio.Future[None] | None:
        """What is done once all that the client acknowledged is written; None where it is.

        It is done within 2 seconds, less than ``LINGER``, also where it could not be written.
        """


Renewal = Callable[["Connection", str, Ref], None]
"""Verifies a new token for a connection, and answers its ref."""
Serve = Callable[["Connection", Request], None]
"""Does what a client asks for, and answers its ref."""


class Connection(msgspec.Struct, gc=False, eq=False):
    """One WebSocket, or one event stream.

    Args:
        core: the core that it is part of.
        number: unique in this process.
        session: its rules.
        wire: how messages are written to it.
    """

    _core: "Connections"
    number: int
    session: Session
    wire: Wire = TEXT
    fd: int = -1
    wake: int = 0
    open: bool = False
    """False before the handshake is answered and once a close was sent."""
    reader: frames.FrameReader | None = None
    """Holds the beginning of a frame or message; None while there is none."""
    tail: bytes | None = None
    """What the kernel did not take; None while the socket has room."""
    blocked_at: float = 0.0

    def writable(self) -> bool:
        """Whether the next frame may be handed over."""
        return self.tail is None and self.open

    def has_room(self, size: int) -> bool:
        """Whether a reply of ``size`` bytes can be sent, or may wait."""
        return self.tail is None or len(self.tail) + size <= self._core.max_tail

    def write(self, data: bytes) -> None:
        """Send frames: now, or as soon as the peer has read what was sent before."""
        if self.fd < 0:
            return
        if self.tail is not None:
            if not self.has_room(len(data)):
                self._core.abort(self, Close.SLOW_CONSUMER)
                return
            self.tail += data
            return
        try:
            sent = self._core.transport.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._core.abort(self, None)
            return
        if sent < len(data):
            self._core.keep(self, data[sent:])

    def send(self, payload: bytes) -> None:
        """Send one message."""
        if self.open:
            self.write(self.wire.message(payload))

    def perform(self, effects: list[Effect]) -> None:
        """Carry out what the session asks for, in order."""
        self._core.perform(self, effects)

    def watch(self) -> None:
        """See ``Listener``."""
        core = self._core
        due = core.readiness.now + core.policy.ack_timeout
        # It is looked at earlier anyway, unless it is asked for signs of life more seldom.
        if not 0 < self.wake <= due and self.fd >= 0:
            core.readiness.look(self, due)

    def renewed(self) -> None:
        """Its token ends at another time than before."""
        self._core.watch(self)

    def end(self, code: Close) -> None:
        """Close the connection with a code and its reason."""
        if self.open:
            self._core.end(self, code, code.reason)

    def depart(self, retry_after: float) -> None:
        """Have the client come back, to another node, after some seconds."""
        self.send(messages.reconnect(retry_after))
        self.end(Close.DRAINING)

    def ready(self, events: int) -> None:
        """See ``Holder``."""
        core = self._core
        if events & WRITABLE:
            core.flush(self)
        if events & READABLE and self.fd >= 0:
            core.read(self)

    def due(self) -> None:
        """See ``Holder``."""
        self._core.due(self)

    def resumed(self, seconds: float) -> None:  # noqa: ARG002 - all are asked alike
        """Ask the peer before calling it silent."""
        core, session = self._core, self.session
        session.seen = max(session.seen, core.readiness.now - core.policy.heartbeat)

    def drop(self) -> None:
        """See ``Holder``."""
        self._core.abort(self, None)


class Connections:
    """The WebSockets and event streams of a worker.

    Args:
        policy: the rules of every session.
        max_message: most bytes of a client's message.
        owner: who decides what connections are sent.
        renew: verifies a new token.
        serve: does what clients ask for.
        readiness: all sockets of the worker.
        max_age: seconds after which a connection is asked to go elsewhere; 0 for never.
    """

    def __init__(
        self,
        policy: Policy,
        max_message: int,
        owner: Owner,
        renew: Renewal,
        serve: Serve,
        readiness: ReadinessSet,
        *,
        max_age: float = 0.0,
    ) -> None:
        self.policy = policy
        self.max_tail = max_message + MAX_TAIL
        """Most bytes that wait for one peer."""
        self.readiness = readiness
        self.transport = readiness.transport
        self._max_message = max_message
        self._owner = owner
        self._renew = renew
        self._serve = serve
        # An idle reader is as good as a new one, so connections without one share it.
        self._idle_reader = frames.FrameReader(max_message=max_message)
        self._count = 0
        self._numbers = 0
        # Those whose close waits for its answer.
        self._answering: set[Connection] = set()
        self._ages = Ages(max_age, random.random) if max_age else None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Connection]:
        return (each for each in self.readiness if isinstance(each, Connection))

    def each(self, name: str, act: Callable[[Connection], None]) -> None:
        """Check each connection that is there once the check begins, and has not gone by its turn.

        Args:
            name: of the check. One that waits and has not begun does for another.
            act: what is done.
        """
        self.readiness.turns.check(name, self._each(act))

    def _each(self, act: Callable[[Connection], None]) -> Work:
        for place, part in enumerate(parts(list(self))):
            if place:
                yield
            for connection in part:
                if connection.open:
                    act(connection)

    def present(self) -> list[Connection]:
        """Those that no close was sent to yet."""
        return [connection for connection in self if connection.open]

    def number(self) -> int:
        """A number that no connection of this process has had."""
        self._numbers += 1
        return self._numbers

    def new(self, session: Session, wire: Wire) -> Connection:
        """A connection whose handshake is not answered yet."""
        return Connection(self, self.number(), session, wire)

    def adopt(self, connection: Connection, fd: int) -> None:
        """Hold a socket from now on.

        Args:
            connection: made by ``new``.
            fd: the non-blocking socket, which is watched for input.
        """
        readiness = self.readiness
        now = readiness.clock()
        readiness.replace(connection, fd)
        connection.open = True
        self._count += 1
        metrics.connections.inc()
        # Who came together would beat together, so the first time is shortened at random.
        connection.session.seen = now - self.policy.heartbeat * random.random() / 2  # noqa: S311
        due = connection.session.next_due(self.policy)
        if self._ages is not None:
            due = min(due, self._ages.begin(fd, now))
        readiness.look(connection, due)

    def fan_out(self, connections: Iterable[Connection], frame: bytes) -> list[Connection]:
        """Write one frame to many connections; those that have no room for it.

        This is the innermost loop of the service: what is done here is done for every subscriber
        of a topic, and costs next to the system call.
        """
        write, size = self.transport.write, len(frame)
        blocked = []
        for connection in connections:
            if connection.tail is not None:
                blocked.append(connection)
                continue
            try:
                sent = write(connection.fd, frame)
                if sent == size:
                    continue
            except BlockingIOError:
                sent = 0
            except OSError:
                self.abort(connection, None)
                continue
            self.keep(connection, frame[sent:])
        return blocked

    def keep(self, connection: Connection, tail: bytes) -> None:
        """Keep what the kernel did not take until the peer has read what it did."""
        connection.tail = tail
        connection.blocked_at = self.readiness.now
        self.readiness.want(connection, READABLE | WRITABLE)

    def watch(self, connection: Connection) -> None:
        """See to it that a connection is looked at when something of it is due."""
        if connection.fd >= 0:
            self.readiness.look(connection, connection.session.next_due(self.policy))

    def due(self, connection: Connection) -> None:
        """Do what the time asks for."""
        now = self.readiness.now
        if not connection.open:
            self.readiness.remove(connection)
        elif connection.tail is not None and now - connection.blocked_at >= self._patience:
            self.abort(connection, Close.SLOW_CONSUMER)
        elif self._ages is not None and now >= self._ages.end(connection.fd):
            connection.depart(random.random())  # noqa: S311 - not a secret
        else:
            self.perform(connection, connection.session.due(self.policy, now))
            if connection.fd >= 0 and connection.open:
                self.watch(connection)
                if self._ages is not None:
                    self.readiness.look(connection, self._ages.end(connection.fd))

    @property
    def _patience(self) -> float:
        """Seconds that a peer may leave its socket full."""
        return self.policy.ack_timeout

    def end(self, connection: Connection, code: int | None, reason: str = "") -> None:
        """Send a close and give the peer ``LINGER`` seconds to answer it."""
        self.readiness.drop_lost((connection,))  # nobody is there to be told
        if not connection.open:
            return
        self._leave(connection, code)
        connection.write(connection.wire.close(code, reason))
        if connection.fd < 0:
            return
        self._linger(connection)
        if connection.tail is None:
            self._half_close(connection)

    def abort(self, connection: Connection, code: Close | None) -> None:
        """Drop a connection whose peer cannot be told, or does not read what it is told."""
        if connection.open:
            self._leave(connection, code)
        self._drop(connection)

    async def settled(self) -> None:
        """Wait until those that were sent a close have answered it, or ``LINGER`` has passed.

        A socket that is closed with unread input is reset, and the peer may lose the close.
        """
        deadline = self.readiness.clock() + LINGER
        while self.readiness.clock() < deadline and any(not each.open for each in self):
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Drop all of them."""
        for connection in list(self):
            connection.end(Close.GOING_AWAY)
            self._drop(connection)

    # --- readiness -----------------------------------------------------------------------------

    def flush(self, connection: Connection) -> None:
        """Write what waits: the socket has room."""
        tail, connection.tail = connection.tail, None
        self.readiness.want(connection, READABLE)
        if tail:
            connection.write(tail)
        if connection.fd < 0 or connection.tail is not None:
            return
        if connection.open:
            self._owner.drained(connection)
        elif connection not in self._answering:
            self._half_close(connection)

    def read(self, connection: Connection) -> None:
        """Read what has come, and act on it."""
        try:
            data = self.transport.read(connection.fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            if connection.open:
                self.readiness.lose(connection)
            else:  # its end was counted, and costs nothing any more
                self._drop(connection)
        elif connection.open:
            self._received(connection, data)

    def received(self, connection: Connection, data: bytes) -> None:
        """Act on bytes that came before the socket was adopted, unless it was lost since."""
        if connection.open:
            self._received(connection, data)

    def _received(self, connection: Connection, data: bytes) -> None:
        refused = connection.session.received(len(data), self.policy, self.readiness.now)
        if refused is not None:
            self.perform(connection, [refused])
            return
        if not connection.wire.answers:
            return  # a request has been made, and is all that the peer has to say
        reader = connection.reader or self._idle_reader
        violation = None
        try:
            events = reader.feed(data)
        except frames.ProtocolError as error:
            violation, events = error, error.events
        if reader.idle:
            connection.reader = None
        else:
            connection.reader = reader
            if reader is self._idle_reader:
                self._idle_reader = frames.FrameReader(max_message=self._max_message)
        for event in events:
            self._handle(connection, event)
            if not connection.open:
                return
        if violation is not None:
            sampled.warning("frame refused", reason=str(violation))
            self.end(connection, violation.close, str(violation))

    def _handle(self, connection: Connection, event: frames.Event) -> None:
        session, policy, now = connection.session, self.policy, self.readiness.now
        if isinstance(event, frames.Message):
            self._message(connection, event)
        elif isinstance(event, frames.Closed):
            self._leave(connection, event.code or Close.NORMAL)
            # Who has the answer may come back to any node, which is to know what was acknowledged.
            written = self._owner.written(connection)
            if written is None:
                self._answer(connection, event.code)
            else:
                self._answering.add(connection)
                self._linger(connection)
                written.add_done_callback(lambda _: self._answer(connection, event.code))
        else:
            refused = session.controlled(policy, now)
            if refused is not None:
                self.perform(connection, [refused])
            elif isinstance(event, frames.Ping):
                pong = frames.pong(event.payload)
                # A peer that reads none of its pongs is owed no more of them.
                if connection.has_room(len(pong)):
                    connection.write(pong)

    def _message(self, connection: Connection, message: frames.Message) -> None:
        wire = connection.wire
        if message.opcode == wire.opcode:
            effects = connection.session.receive(
                message.payload, self.policy, self.readiness.now, wire.read
            )
            self.perform(connection, effects)
        else:
            self.end(connection, Close.UNSUPPORTED_DATA, Close.UNSUPPORTED_DATA.reason)

    def perform(self, connection: Connection, effects: list[Effect]) -> None:
        """Carry out what a session asks for, in order."""
        for effect in effects:
            if isinstance(effect, Acked):
                self._owner.acked(connection, effect)
            elif isinstance(effect, Send):
                connection.send(effect.payload)
                if effect.error is not None:
                    metrics.client_errors.labels(effect.error).inc()
            elif isinstance(effect, Beat):
                if connection.tail is None:
                    connection.write(connection.wire.beat)
            elif isinstance(effect, Redeliver):
                self._owner.redeliver(connection, effect.cursor)
            elif isinstance(effect, Renew):
                self._renew(connection, effect.token, effect.ref)
            elif isinstance(effect, End):
                self.end(connection, effect.code, effect.code.reason)
            else:
                self._serve(connection, effect)

    # --- the end -------------------------------------------------------------------------------

    def _leave(self, connection: Connection, code: int | None) -> None:
        connection.open = False
        connection.reader = None
        self._count -= 1
        metrics.connections.dec()
        metrics.closes.labels(_label(code)).inc()
        self._owner.left(connection)

    def _answer(self, connection: Connection, code: int | None) -> None:
        """Answer the close of the peer, and drop the connection."""
        self._answering.discard(connection)
        connection.write(frames.encode_close(code))
        # The peer has said its last word, so nothing of it can be lost by closing at once.
        if connection.tail is None:
            self._drop(connection)
        else:
            self._linger(connection)

    def _half_close(self, connection: Connection) -> None:
        """No more output; input is read and dropped, so that the close is not lost to a reset."""
        try:
            self.transport.shutdown(connection.fd)
        except OSError:
            self._drop(connection)

    def _linger(self, connection: Connection) -> None:
        """Have a connection that is over dropped in a while."""
        connection.wake = 0  # what is due later than that is due no more
        self.readiness.look(connection, self.readiness.now + LINGER)

    def _drop(self, connection: Connection) -> None:
        connection.tail = None
        self.readiness.remove(connection)


def _label(code: int | None) -> str:
    """The metric label of a close; what a peer sent must not make labels without end."""
    if code is None:
        return "lost"
    return str(code) if code in _KNOWN else "other"

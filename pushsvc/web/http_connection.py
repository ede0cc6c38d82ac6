"""One connection of the public port: requests are read, answered in order, and bounded in all ways.

One request at a time is under way. What a client sends behind it waits in the buffer, of which
little is read; an answer that a client does not read holds up its next request. So what one
connection takes is bounded, however many requests it is sent.
"""

import asyncio
import math
import time
from typing import Final, Protocol

import structlog

from pushsvc import errors
from pushsvc.errors import PushError
from pushsvc.logs import SampledLog
from pushsvc.node.poller import READABLE, WRITABLE
from pushsvc.node.readiness import UNFORESEEN, ReadinessSet
from pushsvc.node.tasks import Tasks
from pushsvc.node.transport import Transport
from pushsvc.protocol.answers import Pairs, head_of
from pushsvc.protocol.requests import Head, RequestReader
from pushsvc.web.admission import Admission
from pushsvc.web.api import Operations
from pushsvc.web.base import MAX_DROPPED, MAX_HEADERS
from pushsvc.web.bodies import Bodies, Body
from pushsvc.web.handshake import SOCKETS, Handshakes
from pushsvc.web.operation import (
    ALWAYS,
    Admitted,
    Answer,
    Operation,
    Request,
    admit,
    carry_out,
    finished,
    headers_of,
    late,
    refusal,
)

MAX_FIELDS: Final = 1024
"""Lines of a request's headers."""
READ_BYTES: Final = 16 * 1024
"""Most bytes read from one socket before the next has its turn."""
BODY_BYTES: Final = 64 * 1024
"""The same of a body that is waited for, and of what is dropped."""
MAX_AHEAD: Final = 16 * 1024
"""Bytes that a client may send ahead of the answer to its request before no more are read; not less
than a head has."""
IN_A_TURN: Final = 8
"""Most requests that one connection begins before the next has its turn."""
KEEP_ALIVE: Final = 75.0
"""Seconds that a connection may be idle between two requests: longer than the 60 s of common load
balancers, so that it is them who close it."""
UNREAD: Final = 75.0
"""Seconds that a client has to read an answer."""
LINGER: Final = 5.0
"""Seconds for which input is still read and dropped behind the last answer: closed at once, the
socket would be reset, and a client that still sends would lose the answer."""
LINGER_BYTES: Final = 8 * 1024 * 1024
"""Bytes that are dropped so."""

ABANDON: Final = 1.0
"""Seconds after which a request ends whose client has gone, where that is of use to nobody."""

TLS_HANDSHAKE: Final = 22
"""The first byte of a TLS connection (RFC 8446, section 5.1), with which no request begins."""
IN_ONE: Final = 16 * 1024
"""Bytes of a body that is sent in one piece with its head. A longer one is not copied: many who do
not read a page have one copy of it."""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
ROUTE: Final = "other"
"""The metric label of what is no request of any path."""
FULL_ROUTE: Final = "accept"
"""That of what there is no room for, whatever it asks for."""

SHAKING, WAITING, ASKED, DROPPING, LEAVING, LINGERING = range(6)
"""What goes on: a TLS handshake; the wait for a head; a request under way; the rest of a body that
nobody wants; the last answer is not read yet; the end is told."""

log = structlog.get_logger("pushsvc.http")
sampled = SampledLog(log)


class Surroundings(Protocol):
    """What a connection needs of the front that it is part of."""

    readiness: ReadinessSet
    transport: Transport
    admission: Admission
    handshakes: Handshakes
    operations: Operations
    bodies: Bodies
    tasks: Tasks
    loop: asyncio.AbstractEventLoop
    request_timeout: float
    under_way: int
    idle: "dict[HttpConnection, None]"

    def busy(self, connection: "HttpConnection") -> None:
        """It waits for nothing any more."""

    def left(self, connection: "HttpConnection") -> None:
        """It is over, or has become a socket of the core."""

    def later(self, connection: "HttpConnection") -> None:
        """Have it ``advance`` when others had their turn."""

    def is_full(self) -> bool:
        """Whether requests take all of the places that they may."""

    def hand_on(self, head: Head, connection: "HttpConnection") -> None:
        """Have a handler of Tornado answer."""


class HttpConnection:
    """A client of the public port, until it becomes a socket of the core or goes.

    Args:
        front: that it is part of.
    """

    __slots__ = (
        "_abandons",  # whether the operation ends with the client
        "_advancing",
        "_asked",  # the request under way, and that of a body that is dropped
        "_begun",  # whether there was a request
        "_body",  # of the request under way, where it has one
        "_closing",  # whether the present answer is the last
        "_counted",  # whether the request is one of those that the front counts
        "_deadline",
        "_dropped",
        "_front",
        "_gone",  # whether the client has said all that it will
        "_idle",  # whether nothing of a further request has come
        "_phase",
        "_reader",
        "_soon",  # whether the next request begins when others had their turn
        "_tail",  # what the kernel did not take; None while the socket has room
        "_task",
        "_wanted",
        "fd",
        "since",
        "wake",
    )

    def __init__(self, front: Surroundings, now: float) -> None:
        self.fd = -1
        self.wake = 0
        self.since = now
        """When it began to wait for its client, or the client last read something."""
        self._front = front
        self._reader = RequestReader(MAX_HEADERS, MAX_FIELDS)
        self._phase = SHAKING if front.transport.speaks_tls else WAITING
        self._deadline = now + front.request_timeout
        self._wanted = READABLE
        self._tail: bytes | memoryview | None = None
        self._asked: Head | None = None
        self._body: Body | None = None
        self._dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._abandons = self._advancing = self._begun = self._closing = False
        self._counted = self._gone = self._idle = self._soon = False

    @property
    def _awaits_body(self) -> bool:
        return self._body is not None and self._body.awaited

    # --- what the readiness set tells ------------------------------------------------------------

    def ready(self, events: int) -> None:
        """See ``Holder``."""
        if events & WRITABLE and self._tail is not None:
            self._flush()
        if events & READABLE and self.fd >= 0:
            self._read()

    def due(self) -> None:
        """See ``Holder``."""
        front = self._front
        if front.readiness.now < self._deadline:
            if self._deadline < math.inf:
                front.readiness.look(self, self._deadline)
        elif self._phase == WAITING and self._tail is None and self._reader.buffered:
            self._refuse(late("headers", front.request_timeout))
        else:
            self.drop()

    def resumed(self, seconds: float) -> None:
        """See ``Holder``."""
        self._deadline += seconds

    def drop(self) -> None:
        """Close the socket; what is under way and can be given up is."""
        if self.fd < 0:
            return
        self._front.left(self)
        self._front.readiness.remove(self)
        if self._asked is not None and not self._counted:
            self._front.handshakes.gone(self._asked, self)
        # What goes on without its client is counted until it ends: else a client could begin any
        # number, and go each time.
        if self._task is not None and not self._reader.complete:
            self._task.cancel()
            self._uncount()  # it may not even have begun
        elif self._task is not None and self._abandons:
            # What is under way in Redis ends first.
            self._front.loop.call_later(ABANDON, self._task.cancel)

    def _until(self, deadline: float) -> None:
        self._deadline = deadline
        self._front.readiness.look(self, deadline)

    def _watch(self) -> None:
        """Watch for what can be made use of."""
        if self.fd < 0:
            return
        reads = not self._gone and (
            self._reader.buffered <= MAX_AHEAD
            or self._phase in (SHAKING, DROPPING, LINGERING)
            or self._awaits_body
        )
        wanted = (READABLE if reads else 0) | (0 if self._tail is None else WRITABLE)
        if wanted != self._wanted:
            self._wanted = wanted
            self._front.readiness.want(self, wanted)

    # --- reading ---------------------------------------------------------------------------------

    def _read(self) -> None:
        transport = self._front.transport
        try:
            if self._phase == SHAKING:
                transport.handshake(self.fd)
                self._phase = WAITING
            heads = self._phase in (WAITING, ASKED) and not self._awaits_body
            data = transport.read(self.fd, READ_BYTES if heads else BODY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self.drop()
            return
        if not data:
            self._ended()
        elif self._phase == LINGERING:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.drop()
        else:
            self._received(data)

    def _received(self, data: bytes) -> None:
        if self._phase == WAITING:
            if not self._begun and data[0] == TLS_HANDSHAKE and not self._reader.buffered:
                # Who writes https for http would else wait until the time for a request is up.
                sampled.warning(
                    "a client speaks TLS to the port that has none: its address begins with https"
                    " or wss, and PUSHSVC_TLS_CERT_FILE is not set"
                )
                self.drop()
                return
            self._reader.feed(data)
            self.advance()
            if self._idle and self._phase == WAITING and self._reader.buffered:
                self._idle = False
                self._until(self._front.readiness.now + self._front.request_timeout)
        else:
            self._reader.feed(data)
            if self._body is not None:
                self._body.more()
            elif self._phase == DROPPING:
                self._drop_body()
        self._watch()

    def _ended(self) -> None:
        """The client sends no more: it has gone, or waits for answers with one half closed."""
        if self._phase == ASKED:
            waits = self._reader.complete and not self._abandons
        elif self._phase == WAITING:
            waits = self._tail is not None or self._soon
        else:
            waits = self._phase == LEAVING
        if self._gone or not waits:
            self.drop()
        else:
            self._gone = True
            self._watch()

    def go_on(self) -> None:
        """Others had their turn."""
        self._soon = False
        self.advance()
        self._watch()

    def advance(self) -> None:
        """Begin the next request, if it has come and its turn is there."""
        if self._advancing or self._soon:
            return
        self._advancing = True
        try:
            for _ in range(IN_A_TURN):
                if self._phase != WAITING or self._tail is not None or self.fd < 0:
                    return
                try:
                    head = self._reader.head()
                    if head is None:
                        if self._gone:
                            self.drop()
                        return
                    self._begin(head)
                except PushError as error:
                    self._refuse(error)
        finally:
            self._advancing = False
        if self._phase == WAITING and self.fd >= 0:
            self._soon = True
            self._front.later(self)

    # --- a request -------------------------------------------------------------------------------

    def _begin(self, head: Head) -> None:
        front = self._front
        front.busy(self)
        self._asked = head
        self._begun = True
        self._idle = False
        self._phase = ASKED
        self._deadline = math.inf
        path, _, query = head.target.partition("?")
        if head.method == "GET" and path in SOCKETS:
            self._abandons = True
            front.handshakes.begin(head, self)
            return
        if front.is_full():
            self._closing = True  # so that the next client has the place
            full = errors.Overloaded("too many requests at once: retry", retry_after=2.0)
            self._refuse(full, FULL_ROUTE)
            return
        self._counted = True
        front.under_way += 1
        found = front.operations.find(path)
        if found is None:
            try:
                front.hand_on(head, self)
            except Exception:
                self._uncount()
                raise
            return
        operation, part, device = found
        request = Request(head.method, path, query, head.headers, head.length, part, device)
        self._abandons = operation.abandons
        self._task = front.tasks.spawn(self._serve(operation, request))

    async def _serve(self, operation: Operation, request: Request) -> None:
        """Answer a request of an operation."""
        began = time.monotonic()
        try:
            try:
                outcome = await admit(operation, request)
                if isinstance(outcome, Admitted):
                    outcome = await self._carry_out(operation, request, outcome)
            finally:
                # Not behind the answer, with which the next request may begin.
                self._task = None
                self._uncount()
                if self._body is not None:
                    self._body.forget()
                    self._body = None
            finished(operation.route, outcome.status, time.monotonic() - began)
            self.answer(outcome, headers_of(operation, request, outcome))
        except Exception:
            log.exception(UNFORESEEN)
            self.drop()

    async def _carry_out(
        self, operation: Operation, request: Request, admitted: Admitted
    ) -> Answer:
        body = b""
        if request.length:
            front = self._front
            self._body = Body(front.bodies, self._reader, admitted)
            try:
                body = await self._body.whole(self._await_body, front.request_timeout)
            except PushError as error:
                return refusal(error, operation.route, operation.allow)
        return await carry_out(operation, request, admitted, body)

    def _await_body(self) -> None:
        """Have the client send the body, all of which has not come."""
        if self.fd < 0:  # and no more of it comes
            raise asyncio.CancelledError
        asked, body = self._asked, self._body
        if asked is not None and asked.expects and body is not None and not body.held:
            self.write(CONTINUE)
        self._watch()

    # --- an answer -------------------------------------------------------------------------------

    def answer(self, answer: Answer, headers: Pairs, length: int | None = None) -> None:
        """Answer the request that is under way.

        Args:
            answer: its status and body.
            headers: all but ``Date``, ``Content-Length``, and ``Connection`` where that is its end.
            length: bytes of the body, where the answer to a HEAD has none.
        """
        self._uncount()  # whatever becomes of the answer: its client may be gone
        if self.fd < 0:
            return
        asked = self._asked
        last = self._closing or asked is None or not asked.keep_alive
        last = last or (self._gone and not self._reader.buffered)
        if not last and not self._reader.complete:
            # Who waits for "100 Continue" may send the body or not; one that is large or has no
            # length is not waited for.
            last = asked.expects or not 0 <= asked.length <= MAX_DROPPED  # type: ignore[union-attr]
        self._closing = last = last or self._front.admission.draining
        body = b"" if asked is not None and asked.method == "HEAD" else answer.body
        length = len(answer.body) if length is None else length
        head = head_of(answer.status, headers, length, int(time.time()), last=last)
        if len(body) <= IN_ONE:
            self.write(head + body)
        else:
            self.write(head)
            if self.fd >= 0:
                self.write(body)
        if self.fd >= 0:
            self._answered()

    def _answered(self) -> None:
        if self._closing:
            self._phase = LEAVING
            if self._tail is None:
                self._part()
            else:
                self._await_client()
                self._until(self.since + UNREAD)
        elif not self._reader.complete:
            self._phase = DROPPING
            self._await_client()
            self._until(self.since + self._front.request_timeout)
            self._drop_body()
        else:
            self._wait()
        self._watch()

    def _await_client(self) -> None:
        """It is for the client to go on, whose place is given away if it does not."""
        front = self._front
        self.since = front.readiness.now
        front.idle.pop(self, None)
        front.idle[self] = None

    def _wait(self) -> None:
        """Wait for the next request."""
        front = self._front
        self._phase = WAITING
        self._asked = None
        self._abandons = False
        self._await_client()
        now = self.since
        if self._tail is not None:
            self._until(now + UNREAD)
            return
        self._idle = not self._reader.buffered
        if self._idle and self._gone:
            self.drop()
        elif self._idle:
            self._until(now + KEEP_ALIVE)
        else:
            self._until(now + front.request_timeout)
            self.advance()

    def _drop_body(self) -> None:
        """Drop what has come of the body of a request that was refused."""
        try:
            self._reader.body()
        except PushError:
            self.drop()
            return
        if self._reader.complete:
            self._wait()

    def _part(self) -> None:
        """The last answer is written: close, or let the client read it first."""
        asked = self._asked
        told = asked is not None and not asked.keep_alive
        if told and self._reader.complete and not self._reader.buffered:
            self.drop()  # it sends no more
            return
        try:
            self._front.transport.shutdown(self.fd)
        except OSError:
            self.drop()
            return
        self._phase = LINGERING
        self._gone = False
        self._await_client()
        self._until(self.since + LINGER)

    def _refuse(self, error: PushError, route: str = ROUTE) -> None:
        """Answer what cannot be handed to anybody."""
        front = self._front
        front.busy(self)
        if self._phase == WAITING:
            self._phase = ASKED
            self._asked = None  # where the next request begins is not known
        answer = refusal(error, route)
        finished(route, answer.status, 0.0)
        self.answer(answer, (*ALWAYS, *answer.headers))

    def answer_last(self, answer: Answer, headers: Pairs) -> None:
        """Answer the request that is under way, and end the connection; see ``answer``."""
        self._closing = True
        self.answer(answer, headers)

    def _uncount(self) -> None:
        if self._counted:
            self._counted = False
            self._front.under_way -= 1

    def write(self, data: bytes | memoryview) -> None:
        """Send, now or as soon as the client has read what was sent before."""
        if self._tail is not None:
            self._tail = b"".join((self._tail, data))
            return
        try:
            sent = self._front.transport.write(self.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop()
            return
        if sent < len(data):
            self._tail = memoryview(data)[sent:]
            if sent and self._phase != ASKED:
                self._await_client()  # which reads, if slowly

    def _flush(self) -> None:
        tail, self._tail = self._tail, None
        if tail:
            self.write(tail)
        if self.fd < 0:
            return
        if self._tail is None:
            if self._phase == LEAVING:
                self._part()
            elif self._phase == WAITING:
                self._wait()
        self._watch()

    # --- what it becomes -------------------------------------------------------------------------

    def release(self) -> tuple[int, bytes]:
        """Give the socket up to another holder, which takes its place in the readiness set.

        Returns:
            The descriptor, watched for input, and what came behind the request.
        """
        if self._wanted != READABLE:
            self._front.readiness.want(self, READABLE)
        self._front.left(self)
        fd, self.fd = self.fd, -1
        return fd, self._reader.rest()

"""The public port: its paths, and the server that bounds how slowly a request may arrive."""

import asyncio
import contextlib
import time
import weakref
from dataclasses import dataclass
from typing import Any, cast

import tornado.web
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPConnection, HTTPMessageDelegate, HTTPServerRequest
from tornado.iostream import IOStream, StreamClosedError

from pushsvc import metrics
from pushsvc.web import event_stream, pages, scheduled, topics, users, websocket
from pushsvc.web.admission import Admission
from pushsvc.web.base import MAX_HEADERS, NotFoundHandler, OperationHandler
from pushsvc.web.cors import Origins
from pushsvc.web.documents import AsyncAPIHandler, DocsHandler, HomeHandler, OpenAPIHandler
from pushsvc.web.handshake import Handshakes
from pushsvc.web.operation import Operation
from pushsvc.web.poll import PollOperation
from pushsvc.web.publish import BatchOperation, PublishOperation
from pushsvc.web.receipts import ReceiptsHandler
from pushsvc.web.request_splitter import RequestSplitter
from pushsvc.web.revocations import DisconnectOperation, RevocationsOperation
from pushsvc.web.tickets import TicketsOperation
from pushsvc.web.tls import PlainStream, Tls

KEEP_ALIVE = 75.0
"""Seconds that a connection may be idle between two requests: longer than the 60 s of common load
balancers, so that it is them who close it."""


NO_ROOM = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


def _demo(admin_url: str) -> list[Any]:
    """The paths of the public port that lead to the demo, in development."""
    to = {"url": admin_url + "{0}", "permanent": False}
    return [(r"(/demo(?:/[a-z]+)?)/?", tornado.web.RedirectHandler, to)]


@dataclass(frozen=True, slots=True)
class Routes:
    """The operations, and what the handlers of each other kind are made with."""

    publish: PublishOperation
    batch: BatchOperation
    ack: users.AckOperation
    poll: PollOperation
    tickets: TicketsOperation
    revocations: RevocationsOperation
    disconnect: DisconnectOperation
    timeout: float
    """Seconds in which the body of a request must arrive."""
    users: dict[str, Any]
    recall: dict[str, Any]
    topics: dict[str, Any]
    cancel: dict[str, Any]
    receipts: dict[str, Any]

    def operations(self) -> dict[str, Operation]:
        """Those whose whole path says what they are, by it."""
        return {
            "/v1/notifications": self.publish,
            "/v1/notifications/batch": self.batch,
            users.ACK: self.ack,
            "/v1/poll": self.poll,
            "/v1/tickets": self.tickets,
            "/v1/revocations": self.revocations,
        }

    def rules(self) -> list[Any]:
        """The paths of the public port."""
        return [
            (websocket.PATH, websocket.WebSocketHandler),
            (event_stream.PATH, event_stream.StreamHandler),
            *(
                (path, OperationHandler, {"serves": serves, "timeout": self.timeout})
                for path, serves in self.operations().items()
            ),
            *(rule for of in users.NAMED for rule in self._of_user(of)),
            *(
                (of + topics.PRESENCE, topics.TopicPresenceHandler, self.topics)
                for of in topics.NAMED
            ),
            *(
                (of + users.NOTIFICATION, scheduled.TopicCancelHandler, self.cancel)
                for of in topics.NAMED
            ),
            (scheduled.BROADCAST, scheduled.CancelHandler, self.cancel),
            (r"/v1/receipts", ReceiptsHandler, self.receipts),
            (r"/openapi\.json", OpenAPIHandler),
            (r"/asyncapi\.json", AsyncAPIHandler),
            (r"/docs", DocsHandler),
            *pages.client(),
            (r"/", HomeHandler),
        ]

    def _of_user(self, named: str) -> list[Any]:
        """The paths below what names a user."""
        return [
            (named + users.NOTIFICATIONS, users.NotificationsHandler, self.users),
            (named + users.NOTIFICATION, users.RecallHandler, self.recall),
            (named + users.PRESENCE, users.PresenceHandler, self.users),
            (
                named + users.DISCONNECT,
                OperationHandler,
                {"serves": self.disconnect, "timeout": self.timeout},
            ),
        ]


class Application(tornado.web.Application):
    """The application of the public port."""

    def __init__(
        self,
        handshakes: Handshakes,
        routes: Routes,
        *,
        admission: Admission,
        origins: Origins,
        demo: str | None = None,
    ) -> None:
        self._handshakes = handshakes
        self.fresh: dict[IOStream, float] = {}
        # A request whose client has gone is forgotten with its last reference.
        self._under_way: weakref.WeakSet[HTTPServerRequest] = weakref.WeakSet()
        super().__init__(
            [*routes.rules(), *([] if demo is None else _demo(demo))],
            default_handler_class=NotFoundHandler,
            log_function=lambda handler: self._under_way.discard(handler.request),
            admission=admission,
            origins=origins,
        )

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Take a request whose headers are to come."""
        connection: Any = request_conn
        return RequestSplitter(
            self._handshakes,
            request_conn,
            lambda: super(Application, self).start_request(server_conn, request_conn),
            lambda: self.fresh.pop(connection.stream, None),
        )

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Route a request whose headers are complete."""
        self._under_way.add(request)
        return super().find_handler(request, **kwargs)

    async def finished(self, seconds: float) -> None:
        """Wait until the requests under way are answered, or the time has passed."""
        deadline = time.monotonic() + seconds
        await self._handshakes.finished(seconds)
        while self._under_way and time.monotonic() < deadline:
            await asyncio.sleep(0.02)


class Server(HTTPServer):
    """An HTTP server that gives a new connection a short time for its first request.

    Tornado has one time-out for the headers of a request and for the idle time before them. A peer
    that sends a byte a second must go soon, a publisher's pooled connection must not.

    Args:
        application: what is served.
        request_timeout: seconds for the first request's headers, and the TLS handshake before.
        max_streams: most connections that are not, or not yet, sockets of the core. Out of
            descriptors a process cannot even accept, to say that it is full.
        tls: what it takes to speak TLS, and nothing else; None for plain HTTP.
    """

    def initialize(  # type: ignore[override]
        self,
        application: Application,
        *,
        request_timeout: float,
        max_streams: int,
        tls: Tls | None = None,
    ) -> None:
        self._open = 0
        self._max_streams = max_streams
        self._tls = tls
        super().initialize(
            application,
            max_header_size=MAX_HEADERS,
            max_buffer_size=1024 * 1024,
            idle_connection_timeout=KEEP_ALIVE,
            # The handlers answer a late body with a problem; this is behind it.
            body_timeout=request_timeout + 5,
        )
        self._fresh = application.fresh
        self._request_timeout = request_timeout

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        """Take a new connection, or say that there is no room for it."""
        if self._open >= self._max_streams:
            metrics.http_requests.labels("accept", "503").inc()
            if self._tls is None:
                with contextlib.suppress(StreamClosedError):
                    stream.write(NO_ROOM)
            stream.close()
            return
        if self._tls is None:
            PlainStream.take(stream)
        else:
            secured = self._tls.secure(stream)
            if secured is None:
                return
            stream = secured
        self._open += 1
        self._fresh[stream] = time.monotonic() + self._request_timeout
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        """A connection is over, or has become a socket of the core."""
        self._open -= 1
        self._fresh.pop(cast("Any", server_conn).stream, None)
        super().on_close(server_conn)

    def tick(self) -> None:
        """Close the connections that made no request in time; to be called once a second."""
        if self._tls is not None:
            self._tls.tick()
        now = time.monotonic()
        late = []
        for stream, deadline in self._fresh.items():
            if deadline > now:
                break
            late.append(stream)
        for stream in late:
            del self._fresh[stream]
            stream.close()

"""Parts the requests for WebSockets and event streams from all others."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    RequestStartLine,
    ResponseStartLine,
)

from pushsvc.web import event_stream, websocket
from pushsvc.web.handshake import Handshakes

PATHS: Final = (websocket.PATH, event_stream.PATH)


class RequestSplitter(HTTPMessageDelegate):
    """Decides who answers a request once its headers are read.

    Args:
        handshakes: answers those for WebSockets and event streams.
        connection: that the request comes on.
        others: makes Tornado's own delegate, for the others.
        arrived: called when the headers are there.
    """

    def __init__(
        self,
        handshakes: Handshakes,
        connection: HTTPConnection,
        others: Callable[[], HTTPMessageDelegate],
        arrived: Callable[[], object],
    ) -> None:
        self._arrived = arrived
        self._handshakes = handshakes
        self._connection: Any = connection
        self._others = others
        self._other: HTTPMessageDelegate | None = None

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._arrived()
        request = cast("RequestStartLine", start_line)
        if request.method == "GET" and request.path.partition("?")[0] in PATHS:
            # May be done here and nowhere later, by Tornado's rules.
            self._handshakes.begin(request, headers, self._connection.detach())
            return None
        self._other = self._others()
        return self._other.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return None if self._other is None else self._other.data_received(chunk)

    def finish(self) -> None:
        if self._other is not None:
            self._other.finish()

    def on_connection_close(self) -> None:
        if self._other is not None:
            self._other.on_connection_close()

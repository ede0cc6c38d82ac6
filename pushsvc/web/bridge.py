"""From the front to Tornado's routing and handlers, by its public interfaces, and back.

Nothing that is served so reads a body: what has one is an operation. An answer is complete before
it is written, since no handler streams.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import tornado.web
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    RequestStartLine,
    ResponseStartLine,
)

from pushsvc.errors import InvalidRequest
from pushsvc.protocol.answers import Pairs
from pushsvc.protocol.requests import Head
from pushsvc.web.operation import Answer

_UNSAID = frozenset({"Date", "Content-Length"})
"""What the connection writes by itself."""


class Client(Protocol):
    """The connection that a request came on."""

    def answer(self, answer: Answer, headers: Pairs, length: int | None = None) -> None:
        """Answer it; ``length`` is that of the body where the answer to a HEAD has none."""


@dataclass(frozen=True, slots=True)
class Context:
    """What Tornado asks of where a request came from."""

    protocol: str
    remote_ip: str = ""


_PLAIN = Context("http")
_SECURE = Context("https")


class Bridge(HTTPConnection):
    """A request that a handler of Tornado answers.

    Args:
        head: of the request.
        connection: that it came on.
        secure: whether that is TLS.
    """

    def __init__(self, head: Head, connection: Client, *, secure: bool) -> None:
        self.context = _SECURE if secure else _PLAIN
        self._head = head
        self._connection = connection
        self._status = 0
        self._length: str | None = None
        self._headers: tuple[tuple[str, str], ...] = ()
        self._parts: list[bytes] = []

    def begin(self, application: tornado.web.Application) -> None:
        """Have it answered.

        Raises:
            InvalidRequest: Tornado cannot read it.
        """
        head = self._head
        delegate = application.start_request(self, self)
        try:
            delegate.headers_received(
                RequestStartLine(head.method, head.target, head.version), HTTPHeaders(head.headers)
            )
            delegate.finish()
        except HTTPInputError as error:
            raise InvalidRequest(f"the request is not valid HTTP/1.1: {error}") from None

    def set_close_callback(self, callback: Callable[[], None] | None) -> None:
        """A handler is not told that its client has gone: what is answered so is quick."""

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
    ) -> "asyncio.Future[None]":
        """Take the head of the answer."""
        assert isinstance(start_line, ResponseStartLine)  # noqa: S101 - Tornado's interface
        self._status = start_line.code
        self._length = headers.get("Content-Length")
        self._headers = tuple(each for each in headers.get_all() if each[0] not in _UNSAID)
        return self.write(chunk or b"")

    def write(self, chunk: bytes) -> "asyncio.Future[None]":
        """Take a part of the body."""
        self._parts.append(chunk)
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def finish(self) -> None:
        """The answer is complete."""
        answer = Answer(self._status, b"".join(self._parts))
        length = None if self._length is None else int(self._length)
        self._connection.answer(answer, self._headers, length)

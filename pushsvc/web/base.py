"""What all handlers of Tornado share: problem details, authorization, metrics."""

import asyncio
import http
from typing import Any, ClassVar, Final

import msgspec
import tornado.web

from pushsvc import errors
from pushsvc.auth.tokens import Claims, TokenCheck
from pushsvc.errors import PushError
from pushsvc.protocol import encoding
from pushsvc.web import cors, operation
from pushsvc.web.cors import Origins
from pushsvc.web.operation import (
    ALWAYS,
    CHUNKED,
    METHOD_NOT_ALLOWED,
    Admitted,
    Answer,
    Operation,
    Request,
)

_BY_STATUS: dict[int, tuple[type[PushError], str]] = {
    400: (errors.InvalidRequest, "the request is not valid HTTP/1.1: see RFC 9112"),
    404: (errors.NotFound, "nothing is served at this path: see PROTOCOL.md for those that are"),
    405: (errors.MethodNotAllowed, METHOD_NOT_ALLOWED),
}


MAX_HEADERS: Final = 16 * 1024
"""Bytes of a request's headers, its first line among them."""
MAX_DROPPED: Final = 1024 * 1024
"""Most bytes of a refused request's body that are read so that the connection can be kept."""


class Handler(tornado.web.RequestHandler):
    """Base of all handlers: every error is a problem (RFC 9457)."""

    route: ClassVar[str] = "other"
    """The metric label."""
    allow: ClassVar[str] = "GET"
    _verifier: TokenCheck

    async def authorized(self) -> Claims:
        """What the request's token says.

        Raises:
            InvalidToken: there is none, or it is refused.
        """
        return await operation.authorize(self.request.headers, self._verifier)

    def set_default_headers(self) -> None:
        """Headers of every answer."""
        for name, value in ALWAYS:
            self.set_header(name, value)

    def decode_argument(self, value: bytes | None, name: str | None = None) -> str:  # noqa: ARG002 - Tornado's interface
        """A part of the path, percent-decoded; empty where it is optional and not there."""
        return operation.path_part(self.request.path, value or b"")

    def subject(self, part: str | None, argument: str) -> str:
        """The name that a request is about.

        Args:
            part: the part of the path that names it, None where the query does.
            argument: of the query.

        Raises:
            InvalidRequest: nothing names it, or it is named twice.
        """
        return operation.subject(part, self.request.query, argument)

    def compute_etag(self) -> None:
        """No answer here is worth a digest."""

    def write_json(self, status: int, value: Any) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(encoding.encode(value) + b"\n")  # for a reader in a terminal

    def send(self, answer: Answer) -> None:
        """Write an answer, and end it."""
        self.set_status(answer.status, http.HTTPStatus(answer.status).phrase)
        for name, value in answer.headers:
            self.set_header(name, value)
        self.finish(answer.body or None)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Turn whatever was raised into a problem."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, PushError):
            known = _BY_STATUS.get(status_code)
            error = known[0](known[1]) if known else errors.internal()
        self.clear()
        self.send(operation.problem(error, self.allow))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:  # noqa: ARG002 - Tornado's interface
        """Log what is this server's fault; callers' errors are counted, and logged sampled."""
        if not isinstance(value, tornado.web.HTTPError):
            operation.log_error(value, self.route)

    def on_finish(self) -> None:
        operation.finished(self.route, self.get_status(), self.request.request_time())


class NotFoundHandler(Handler):
    """Every path that nothing is served at."""

    def prepare(self) -> None:
        raise errors.NotFound(_BY_STATUS[404][1])


class CrossOriginHandler(Handler):
    """Base of handlers that pages may call, and that read no body.

    The application's setting ``origins`` says which pages may. A handler's ``allow`` names OPTIONS
    too.
    """

    def set_default_headers(self) -> None:
        """Tell the browser that its page may read the answer, be it an error."""
        super().set_default_headers()
        for name, value in cors.cross_origin(self._origins, self.request.headers):
            self.set_header(name, value)

    @property
    def _origins(self) -> Origins:
        origins: Origins = self.settings["origins"]
        return origins

    def prepare(self) -> None:
        """Refuse a page that may not call, whatever it asks for."""
        self._origins.check(self.request.headers)

    def options(self, *_: str, **__: str) -> None:
        """Answer what a browser asks before it lets a page call."""
        self.send(Answer(204, b"", cors.preflight(self.allow, self.request.headers)))


@tornado.web.stream_request_body
class OperationHandler(Handler):
    """Serves an operation on the admin port: its body is bounded before it is read.

    Args:
        serves: the operation.
        timeout: seconds in which the body must arrive.
    """

    def initialize(self, serves: Operation, timeout: float) -> None:
        self.route = serves.route  # type: ignore[misc]  # one class serves all operations
        self.allow = serves.allow  # type: ignore[misc]
        self._operation = serves
        self._timeout = timeout
        self._chunks: list[bytes] = []
        self._asked = Request(
            self.request.method or "",
            self.request.path,
            self.request.query,
            self.request.headers,
            self._length(),
        )
        self._outcome: Admitted | Answer
        self._timer: asyncio.TimerHandle | None = None

    def _length(self) -> int:
        """Bytes of the body, as ``Request`` has them."""
        if "Transfer-Encoding" in self.request.headers:
            return CHUNKED
        length = self.request.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            return CHUNKED
        # What has more digits is too large by any measure, and slow to read as a number; zeros
        # before them say nothing.
        return int(length.lstrip("0")[:15] or "0")

    async def prepare(self) -> None:
        """Decide from the headers alone whether the body is worth keeping."""
        if self.path_kwargs:
            (part,) = self.path_kwargs.values()
            self._asked = msgspec.structs.replace(self._asked, part=part)
        serves, length = self._operation, self._asked.length
        self._outcome = await operation.admit(serves, self._asked)
        if isinstance(self._outcome, Admitted) and length == CHUNKED:
            late = errors.LengthRequired("send the body with a Content-Length, not chunked")
            self._outcome = operation.refusal(late, self.route)
        if isinstance(self._outcome, Answer):
            served = self._asked.method in serves.methods
            if not served or length == CHUNKED or length > MAX_DROPPED:
                self.send(self._outcome)
                return
            # Answered now, the connection would be closed with input unread, and the reset that
            # follows overtakes the answer.
        # Tornado's own limit is that of a small request.
        most = max(length, MAX_DROPPED)
        self.request.connection.set_max_body_size(most)  # type: ignore[union-attr]
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._late)

    def _late(self) -> None:
        if self._finished:
            return
        if isinstance(self._outcome, Answer):
            self.send(self._outcome)
            return
        self.send(operation.refusal(operation.late("body", self._timeout), self.route))

    def data_received(self, chunk: bytes) -> None:
        """Collect the body, whose size was bounded, unless the request was refused."""
        if isinstance(self._outcome, Admitted):
            self._chunks.append(chunk)

    async def _serve(self, *_: str, **__: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if isinstance(self._outcome, Answer):
            self.send(self._outcome)
            return
        body = b"".join(self._chunks)
        self.send(await operation.carry_out(self._operation, self._asked, self._outcome, body))

    get = post = options = _serve

    def on_connection_close(self) -> None:
        super().on_connection_close()
        if self._timer is not None:
            self._timer.cancel()

    def send(self, answer: Answer) -> None:
        """Write an answer, and end it."""
        headers = operation.headers_of(self._operation, self._asked, answer)
        super().send(msgspec.structs.replace(answer, headers=headers))

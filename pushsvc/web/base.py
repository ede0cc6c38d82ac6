"""What all handlers share: problem details, authorization, bounded bodies, metrics."""

import asyncio
import http
import math
from typing import Any, ClassVar, Final

import structlog
import tornado.web
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from pushsvc import errors, metrics
from pushsvc.auth.tokens import Claims, TokenCheck
from pushsvc.errors import PushError
from pushsvc.logs import SampledLog
from pushsvc.protocol import encoding

log = SampledLog(structlog.get_logger("pushsvc.web"))

_BY_STATUS: dict[int, tuple[type[PushError], str]] = {
    400: (errors.InvalidRequest, "the request is not valid HTTP/1.1: see RFC 9112"),
    404: (errors.NotFound, "nothing is served at this path: see PROTOCOL.md for those that are"),
    405: (errors.MethodNotAllowed, "this path does not serve this method: see the Allow header"),
}

MAX_DROPPED: Final = 1024 * 1024
"""Most bytes of a body that are read although the request is refused."""


class Handler(tornado.web.RequestHandler):
    """Base of all handlers: every error is a problem (RFC 9457)."""

    route: ClassVar[str] = "other"
    """The metric label."""
    allow: ClassVar[str] = "GET"

    def set_default_headers(self) -> None:
        """Headers of every answer."""
        self.set_header("Server", "pushsvc")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """End the answer; one that was under way when the node began to drain says so too."""
        admission = self.settings.get("admission")
        if admission is not None and admission.draining and "Connection" not in self._headers:
            # Whoever keeps this connection alive finds another node with the next one.
            self.set_header("Connection", "close")
        return super().finish(chunk)

    def compute_etag(self) -> None:
        """No answer here is worth a digest."""

    def write_json(self, status: int, value: Any) -> None:
        """Answer with JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(encoding.encode(value) + b"\n")  # for who reads it in a terminal

    def refuse(self, error: PushError) -> None:
        """Answer with a problem."""
        status, headers, body = problem(error, self.allow)
        self.set_status(status, http.HTTPStatus(status).phrase)
        for name, value in headers.items():
            self.set_header(name, value)
        self.finish(body)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Turn whatever was raised into a problem."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        if not isinstance(error, PushError):
            known = _BY_STATUS.get(status_code)
            error = (
                known[0](known[1])
                if known
                else PushError("the server made an error: it is logged; retrying may help")
            )
        self.clear()
        self.refuse(error)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is this server's fault; callers' errors are counted, and logged sampled."""
        if isinstance(value, PushError) and value.status < 500:
            log.warning("request refused", route=self.route, code=value.code)
        elif isinstance(value, PushError):
            log.warning("request failed", route=self.route, code=value.code)
        elif not isinstance(value, tornado.web.HTTPError):
            structlog.get_logger("pushsvc.web").error(
                "unexpected error", route=self.route, exc_info=(typ, value, tb)
            )

    def on_finish(self) -> None:
        """Count the request."""
        metrics.http_requests.labels(self.route, str(self.get_status())).inc()
        metrics.http_seconds.labels(self.route).observe(self.request.request_time())


def problem(error: PushError, allow: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """The answer that tells an error: status, headers and body.

    Args:
        error: what to tell.
        allow: the methods that the path serves.
    """
    headers = {"Content-Type": "application/problem+json"}
    if isinstance(error, errors.InvalidToken):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = allow
    if isinstance(error, errors.UpgradeRequired):
        # What to speak instead (RFC 9110, section 15.5.22; RFC 6455, section 4.4).
        headers |= {
            "Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
        }  # fmt: skip
    if error.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    return error.status, headers, encoding.encode(error.problem())


class NotFoundHandler(Handler):
    """Every path that nothing is served at."""

    def prepare(self) -> None:
        """Refuse whatever the method."""
        raise errors.NotFound(_BY_STATUS[404][1])


@tornado.web.stream_request_body
class BodyHandler(Handler):
    """Base of handlers that read a body: bounded in size and time before it is read."""

    bodiless: ClassVar[bool] = False
    """Whether a request may come without any body, as a GET may."""

    def initialize(self, verifier: TokenCheck, max_body: int, timeout: float) -> None:
        """Take what the application passes.

        Args:
            verifier: of tokens.
            max_body: most bytes of a body.
            timeout: seconds in which the body must arrive.
        """
        self._verifier = verifier
        self._max_body = max_body
        self._timeout = timeout
        self._chunks: list[bytes] = []
        self._refused: PushError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.claims: Claims

    async def prepare(self) -> None:
        """Decide from the headers alone whether the body is worth keeping."""
        try:
            await self.admit()
        except PushError as error:
            length = self._length()
            served = str(self.request.method) in self.allow
            if not served or length is None or length > MAX_DROPPED:
                raise
            # Answered now, the connection would be closed with input unread, and the reset that
            # follows overtakes the answer.
            self._refused = error
        # Tornado's own limit is that of a small request.
        most = max(self._max_body, MAX_DROPPED)
        self.request.connection.set_max_body_size(most)  # type: ignore[union-attr]
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._late)

    async def admit(self) -> None:
        """Refuse, by raising an error, what the headers alone condemn."""
        if self.request.method not in self.allow:
            raise errors.MethodNotAllowed(_BY_STATUS[405][1])
        self.claims = await authorize(self.request, self._verifier)
        headers = self.request.headers
        if "Content-Encoding" in headers:
            raise errors.UnsupportedMediaType(
                "compressed bodies are not read: send the body without Content-Encoding"
            )
        length = self._length()
        if length is None:
            raise errors.LengthRequired("send the body with a Content-Length, not chunked")
        if length > self._max_body:
            raise errors.PayloadTooLarge(
                f"the body has {length} bytes, at most {self._max_body} are read: split it"
            )

    def _length(self) -> int | None:
        """The Content-Length; None where the request has none."""
        length = self.request.headers.get("Content-Length", "")
        if not length and "Transfer-Encoding" not in self.request.headers:
            return 0 if self.bodiless or self.request.method == "GET" else None
        # What has more digits is too large by any measure, and slow to read as a number.
        return int(length[:15]) if length.isascii() and length.isdigit() else None

    def _late(self) -> None:
        if not self._finished:
            late = errors.RequestTimeout(f"the body did not arrive in {self._timeout:g} s")
            self.refuse(self._refused or late)

    def data_received(self, chunk: bytes) -> None:
        """Collect the body; its size is bounded by Content-Length."""
        if self._refused is None:
            self._chunks.append(chunk)

    def body(self) -> bytes:
        """The whole body.

        Raises:
            PushError: what was known to be wrong before it arrived.
        """
        if self._timer is not None:
            self._timer.cancel()
        if self._refused is not None:
            raise self._refused
        return b"".join(self._chunks)

    def on_connection_close(self) -> None:
        """Nobody waits any more."""
        super().on_connection_close()
        self.application.log_request(self)
        if self._timer is not None:
            self._timer.cancel()

    def media_type(self, *accepted: str) -> str:
        """The body's media type.

        Raises:
            UnsupportedMediaType: it is not one of those accepted.
        """
        value = self.request.headers.get("Content-Type", "")
        kind = value.partition(";")[0].strip().lower()
        if kind not in accepted:
            raise errors.UnsupportedMediaType(
                f"send Content-Type {' or '.join(accepted)}, not {kind[:80]!r}"
            )
        return kind


def bearer(headers: HTTPHeaders) -> str | None:
    """The token in the Authorization header (RFC 6750, section 2.1), None without one."""
    header: str | None = headers.get("Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def authorize(request: HTTPServerRequest, verifier: TokenCheck) -> Claims:
    """Verify the token of a request.

    Raises:
        InvalidToken: there is none, or it is refused.
    """
    token = bearer(request.headers)
    if not token:
        raise errors.InvalidToken("send a token: Authorization: Bearer <token>")
    return verifier.verify_cached(token) or await verifier.verify(token)

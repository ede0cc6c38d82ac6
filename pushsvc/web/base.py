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
from pushsvc.protocol.names import find_stray_percent
from pushsvc.web.query import Query

log = SampledLog(structlog.get_logger("pushsvc.web"))

_BY_STATUS: dict[int, tuple[type[PushError], str]] = {
    400: (errors.InvalidRequest, "the request is not valid HTTP/1.1: see RFC 9112"),
    404: (errors.NotFound, "nothing is served at this path: see PROTOCOL.md for those that are"),
    405: (errors.MethodNotAllowed, "this path does not serve this method: see the Allow header"),
}

MAX_HEADERS: Final = 16 * 1024
"""Bytes of a request's headers, its first line among them."""
MAX_SMALL: Final = 4096
"""Most bytes of a body that says little, such as an acknowledgement."""
MAX_DROPPED: Final = 1024 * 1024
"""Most bytes of a body that are read although the request is refused."""


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
        return await authorize(self.request, self._verifier)

    def set_default_headers(self) -> None:
        """Headers of every answer."""
        self.set_header("Server", "pushsvc")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Cache-Control", "no-store")

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> "asyncio.Future[None]":
        """End the answer; one that was under way when the node began to drain says so too."""
        admission = self.settings.get("admission")
        if admission is not None and admission.draining and "Connection" not in self._headers:
            # A client that keeps this connection alive finds another node with the next one.
            self.set_header("Connection", "close")
        return super().finish(chunk)

    def decode_argument(self, value: bytes | None, name: str | None = None) -> str:  # noqa: ARG002 - Tornado's interface
        """A part of the path, percent-decoded; empty where it is optional and not there."""
        # Tornado hands over raw bytes encoded once more, and a stray percent sign as it stands:
        # both would be names of others.
        if not self.request.path.isascii():
            raise errors.InvalidRequest(
                "the path is not ASCII: percent-encode the bytes of its UTF-8"
            )
        if find_stray_percent(self.request.path):
            raise errors.InvalidRequest("the path is not percent-encoded: send % as %25")
        try:
            return (value or b"").decode()
        except UnicodeDecodeError:
            raise errors.InvalidRequest(
                "the path is not UTF-8: percent-encode the bytes of its UTF-8"
            ) from None

    def subject(self, part: str | None, argument: str) -> str:
        """The name that a request is about.

        Args:
            part: the part of the path that names it, None where the query does.
            argument: of the query.

        Raises:
            InvalidRequest: nothing names it, or it is named twice.
        """
        if part is not None:
            return part
        name = Query(self.request.query).one(argument)
        if name is None:
            raise errors.InvalidRequest(f'"{argument}" is missing: add ?{argument}= to the path')
        return name

    def compute_etag(self) -> None:
        """No answer here is worth a digest."""

    def write_json(self, status: int, value: Any) -> None:
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(encoding.encode(value) + b"\n")  # for a reader in a terminal

    def refuse(self, error: PushError) -> None:
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
            error = known[0](known[1]) if known else errors.internal()
        self.clear()
        self.refuse(error)

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is this server's fault; callers' errors are counted, and logged sampled."""
        if isinstance(value, PushError) and value.status < 500:
            log.warning("request refused", route=self.route, code=value.code, detail=value.detail)
        elif isinstance(value, PushError):
            log.warning("request failed", route=self.route, code=value.code, detail=value.detail)
        elif not isinstance(value, tornado.web.HTTPError):
            structlog.get_logger("pushsvc.web").error(
                "unexpected error", route=self.route, exc_info=(typ, value, tb)
            )

    def on_finish(self) -> None:
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
        raise errors.NotFound(_BY_STATUS[404][1])


@tornado.web.stream_request_body
class BodyHandler(Handler):
    """Base of handlers that read a body: bounded in size and time before it is read.

    Args:
        verifier: of tokens.
        max_body: most bytes of a body.
        timeout: seconds in which the body must arrive.
    """

    bodiless: ClassVar[bool] = False
    """Whether a request may come without any body, as a GET may."""

    def initialize(self, verifier: TokenCheck, max_body: int, timeout: float) -> None:
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
        self.claims = await self.authorized()
        headers = self.request.headers
        if "Content-Encoding" in headers:
            raise errors.UnsupportedMediaType(
                "compressed bodies are not read: send the body without Content-Encoding"
            )
        length = self._length()
        if length is None:
            raise errors.LengthRequired("send the body with a Content-Length, not chunked")
        most = self.most()
        if length > most:
            raise errors.PayloadTooLarge(
                f"the body has {length} bytes, at most {most} are read: send less, or in parts"
            )

    def most(self) -> int:
        """Most bytes of a body; may depend on whose it is, which is known by now."""
        return self._max_body

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


def lacking(needed: str, request: HTTPServerRequest, verifier: TokenCheck) -> errors.Forbidden:
    """The refusal of a request whose token, which was verified, lacks a scope.

    Args:
        needed: what is needed.
        request: with the token, which is read once more: only a refusal costs that.
        verifier: of the token; knows where scopes are looked for.
    """
    return errors.Forbidden(f"{needed}: {verifier.looked_at(bearer(request.headers) or '')}")


async def authorize(request: HTTPServerRequest, verifier: TokenCheck) -> Claims:
    """Verify the token of a request.

    Raises:
        InvalidToken: there is none, or it is refused.
    """
    token = bearer(request.headers)
    if not token:
        raise errors.InvalidToken("send a token: Authorization: Bearer <token>")
    return verifier.verify_cached(token) or await verifier.verify(token)

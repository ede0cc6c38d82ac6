"""What is asked for by HTTP, free of transport: an operation is written once for all ways in.

A way in (a handler, the HTTP front) reads the head of a request, calls ``admit``, reads a body of
at most so many bytes, calls ``carry_out``, writes the answer with ``headers_of`` it, and counts it
with ``finished``. What is to be known of HTTP besides stays there: how a body arrives, until when,
and what becomes of that of a request that was refused.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import msgspec
import structlog

from pushsvc import errors, metrics
from pushsvc.auth.tokens import Claims, TokenCheck
from pushsvc.errors import PushError
from pushsvc.logs import SampledLog
from pushsvc.protocol import encoding
from pushsvc.protocol.answers import Pairs
from pushsvc.protocol.names import find_stray_percent
from pushsvc.protocol.push_capability import Capability
from pushsvc.web import cors
from pushsvc.web.cors import Origins
from pushsvc.web.query import Query

log = structlog.get_logger("pushsvc.web")
sampled = SampledLog(log)

JSON: Final = "application/json"
_JSON: Final = (("Content-Type", JSON),)
_PROBLEM: Final = (("Content-Type", "application/problem+json"),)

SERVER: Final[Pairs] = (("Server", "pushsvc"),)
ALWAYS: Final[Pairs] = (
    *SERVER,
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)
"""The headers of every answer."""

CHUNKED: Final = -1
"""The length of a body that comes in chunks."""

MAX_SMALL: Final = 4096
"""Most bytes of a body that says little, such as an acknowledgement."""
METHOD_NOT_ALLOWED: Final = "this path does not serve this method: see the Allow header"


class Request(msgspec.Struct, frozen=True):
    """A request as an operation sees it.

    Args:
        method: in upper case.
        path: as it was sent, without the query.
        query: as it was sent, without its question mark.
        headers: asked with lower-case names.
        length: bytes of the body, 0 without one, ``CHUNKED`` where that is not told ahead.
        part: what the path names, decoded; None where the query does, or nothing.
        device: the device that the path names besides, decoded.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    length: int = 0
    part: str | None = None
    device: str | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a request.

    Args:
        status: of HTTP.
        body: its bytes.
        headers: those beyond what ``headers_of`` adds, and beyond ``Content-Length``.
    """

    status: int
    body: bytes
    headers: Pairs = _JSON


class Admitted(msgspec.Struct, frozen=True):
    """What the headers of a request say once it is let in.

    Args:
        claims: who asks; ``ANYONE`` where the operation finds out by itself.
        most: bytes of a body that are read.
        opened: what the capability opens that was sent in place of a token.
    """

    claims: Claims
    most: int
    opened: Capability | None = None


ANYONE: Final = Claims("", 0)
"""Somebody who may do nothing."""


class Operation:
    """Base of all operations; one object serves all requests, so it keeps nothing of any.

    Args:
        origins: which pages may call; None where that is not for pages.
    """

    route: ClassVar[str] = "other"
    """The metric label."""
    allow: ClassVar[str] = "GET"
    """The methods that it serves, ``OPTIONS`` among them where pages may call."""
    methods: ClassVar[frozenset[str]] = frozenset({"GET"})
    """The same as a set."""
    abandons: ClassVar[bool] = False
    """Whether it is cancelled when the client has gone; what is not is carried out."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.methods = frozenset(cls.allow.split(", "))

    def __init__(self, origins: Origins | None = None) -> None:
        self.origins = origins

    async def admit(self, request: Request) -> Admitted:
        """Refuse, by raising an error, what the headers alone condemn.

        Raises:
            PushError: they do.
        """
        raise NotImplementedError

    async def answer(self, request: Request, admitted: Admitted, body: bytes) -> Answer:
        """Do what is asked for.

        Args:
            request: that was let in.
            admitted: what ``admit`` made of it.
            body: all of it.

        Raises:
            PushError: it was not done.
        """
        raise NotImplementedError

    def check_method(self, request: Request) -> None:
        """Check what needs to be known of nobody.

        Raises:
            OriginRefused: a page calls that may not.
            MethodNotAllowed: the method is another one.
        """
        if self.origins is not None:
            self.origins.check(request.headers)
        if request.method not in self.methods:
            raise errors.MethodNotAllowed(METHOD_NOT_ALLOWED)


class TokenOperation(Operation):
    """Base of operations for which a token is needed, in the Authorization header.

    Args:
        verifier: of tokens.
        max_body: most bytes of a body.
        origins: which pages may call; None where that is not for pages.
    """

    bodiless: ClassVar[bool] = False
    """Whether a request may come without any body, as a GET may."""

    def __init__(
        self, verifier: TokenCheck, *, max_body: int, origins: Origins | None = None
    ) -> None:
        super().__init__(origins)
        self._verifier = verifier
        self._max_body = max_body

    async def admit(self, request: Request) -> Admitted:
        """Refuse, by raising an error, what the headers alone condemn.

        Raises:
            PushError: they do.
        """
        self.check_method(request)
        claims = await self.authorized(request)
        headers = request.headers
        if "content-encoding" in headers:
            raise errors.UnsupportedMediaType(
                "compressed bodies are not read: send the body without Content-Encoding"
            )
        length = request.length
        if not (length or self.bodiless or request.method == "GET" or "content-length" in headers):
            raise errors.LengthRequired("send a body, with a Content-Length or in chunks")
        most = self.most(claims)
        if length > most:
            raise too_large(length, most)
        self.permit(request, claims)
        return Admitted(claims, most)

    async def authorized(self, request: Request) -> Claims:
        """What the request's token says.

        Raises:
            InvalidToken: there is none, or it is refused.
        """
        return await authorize(request.headers, self._verifier)

    def most(self, claims: Claims) -> int:  # noqa: ARG002 - for those that override it
        """Most bytes of a body; may depend on whose it is."""
        return self._max_body

    def permit(self, request: Request, claims: Claims) -> None:
        """Check scope and rate.

        Raises:
            Forbidden: the token does not allow it.
            RateLimited: it is asked for too often.
        """

    def lacking(self, needed: str, request: Request) -> errors.Forbidden:
        """See ``lacking``."""
        return lacking(needed, request.headers, self._verifier)


# --- the way of a request, whatever it came in by --------------------------------------------


async def admit(operation: Operation, request: Request) -> Admitted | Answer:
    """Let a request in whose headers are complete, or answer it; raises nothing.

    An answer may be that to a preflight, which needs no token.
    """
    try:
        if request.method == "OPTIONS" and operation.origins is not None:
            return _preflight(operation.origins, operation.allow, request)
        return await operation.admit(request)
    except Exception as error:  # noqa: BLE001 - told and logged
        return refusal(error, operation.route, operation.allow)


def _preflight(origins: Origins, allow: str, request: Request) -> Answer:
    origins.check(request.headers)
    if request.length:
        raise errors.InvalidRequest("send OPTIONS without a body")
    return Answer(204, b"", cors.preflight(allow, request.headers))


async def carry_out(
    operation: Operation, request: Request, admitted: Admitted, body: bytes
) -> Answer:
    """Answer a request whose body is complete; raises nothing."""
    try:
        return await operation.answer(request, admitted, body)
    except Exception as error:  # noqa: BLE001 - told and logged
        return refusal(error, operation.route, operation.allow)


def refusal(error: Exception, route: str, allow: str = "GET") -> Answer:
    """Log an error, and tell the caller of it.

    Args:
        error: what was raised; the caller is told what a ``PushError`` says and nothing of others.
        route: of the operation.
        allow: the methods that it serves.
    """
    log_error(error, route)
    return problem(error if isinstance(error, PushError) else errors.internal(), allow)


def headers_of(operation: Operation, request: Request, answer: Answer) -> Pairs:
    """All headers of an answer but ``Date`` and ``Content-Length``.

    Args:
        operation: that was asked for.
        request: of the client.
        answer: to it.
    """
    origins = operation.origins
    pages = () if origins is None else cors.cross_origin(origins, request.headers)
    return (*ALWAYS, *pages, *answer.headers)


def finished(route: str, status: int, seconds: float) -> None:
    """Count a request that was answered, or whose client has gone.

    Args:
        route: of the operation.
        status: of the answer.
        seconds: since the request began.
    """
    requests, times = _series(route, status)
    requests.inc()
    times.observe(seconds)


@functools.cache
def _series(route: str, status: int) -> tuple[metrics.Counter, metrics.Histogram]:
    return metrics.http_requests.labels(route, str(status)), metrics.http_seconds.labels(route)


def log_error(error: BaseException, route: str) -> None:
    """Log what is this server's fault; callers' errors are counted, and logged sampled."""
    if not isinstance(error, PushError):
        log.error("unexpected error", route=route, exc_info=error)
    elif error.status < 500:
        sampled.warning("request refused", route=route, code=error.code, detail=error.detail)
    else:
        sampled.warning("request failed", route=route, code=error.code, detail=error.detail)


def problem(error: PushError, allow: str = "GET") -> Answer:
    """The answer that tells an error (RFC 9457).

    Args:
        error: what to tell.
        allow: the methods that the path serves.
    """
    headers: Pairs = _PROBLEM
    if isinstance(error, errors.InvalidToken):
        headers += (("WWW-Authenticate", "Bearer"),)
    elif isinstance(error, errors.MethodNotAllowed):
        headers += (("Allow", allow),)
    elif isinstance(error, errors.UpgradeRequired):
        # What to speak instead (RFC 9110, section 15.5.22; RFC 6455, section 4.4).
        headers += (
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Version", "13"),
        )
    if error.retry_after is not None:
        headers += (("Retry-After", str(math.ceil(error.retry_after))),)
    return Answer(error.status, encoding.encode(error.problem()), headers)


def json_answer(status: int, value: Any) -> Answer:
    """An answer in JSON."""
    return Answer(status, encoding.encode(value) + b"\n")  # for a reader in a terminal


def too_large(length: int, most: int) -> errors.PayloadTooLarge:
    """The refusal of a body; of one in chunks ``length`` is what came of it."""
    return errors.PayloadTooLarge(
        f"the body has {length} bytes, at most {most} are read: send less, or in parts"
    )


def late(what: str, seconds: float) -> errors.RequestTimeout:
    """The refusal of what did not come in time."""
    return errors.RequestTimeout(f"the {what} did not arrive in {seconds:g} s")


# --- what operations and handlers ask of a request --------------------------------------------


def media_type(headers: Mapping[str, str], *accepted: str) -> str:
    """The media type of a body.

    Args:
        headers: of the request, asked with lower-case names.
        accepted: those that are read.

    Raises:
        UnsupportedMediaType: it is none of them.
    """
    value = headers.get("content-type", "")
    if value in accepted:
        return value
    kind = value.partition(";")[0].strip().lower()
    if kind not in accepted:
        raise errors.UnsupportedMediaType(
            f"send Content-Type {' or '.join(accepted)}, not {kind[:80]!r}"
        )
    return kind


def path_part(path: str, part: bytes) -> str:
    """A part of a path that names something.

    Args:
        path: as it was sent, all of it.
        part: percent-decoded.

    Raises:
        InvalidRequest: it is not percent-encoded UTF-8.
    """
    if not path.isascii():
        raise errors.InvalidRequest("the path is not ASCII: percent-encode the bytes of its UTF-8")
    # Decoding leaves a stray percent sign as it stands, which would be the name of another.
    if find_stray_percent(path):
        raise errors.InvalidRequest("the path is not percent-encoded: send % as %25")
    try:
        return part.decode()
    except UnicodeDecodeError:
        raise errors.InvalidRequest(
            "the path is not UTF-8: percent-encode the bytes of its UTF-8"
        ) from None


def subject(part: str | None, query: str, argument: str) -> str:
    """The name that a request is about.

    Args:
        part: the part of the path that names it, None where the query does.
        query: of the request.
        argument: of the query.

    Raises:
        InvalidRequest: nothing names it, or it is named twice.
    """
    if part is not None:
        return part
    name = Query(query).one(argument)
    if name is None:
        raise errors.InvalidRequest(f'"{argument}" is missing: add ?{argument}= to the path')
    return name


def bearer(headers: Mapping[str, str]) -> str | None:
    """The token in the Authorization header (RFC 6750, section 2.1), None without one."""
    header = headers.get("authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def lacking(needed: str, headers: Mapping[str, str], verifier: TokenCheck) -> errors.Forbidden:
    """The refusal of a request whose token, which was verified, lacks a scope.

    Args:
        needed: what is needed.
        headers: with the token, which is read once more: only a refusal costs that.
        verifier: of the token; knows where scopes are looked for.
    """
    return errors.Forbidden(f"{needed}: {verifier.looked_at(bearer(headers) or '')}")


async def authorize(headers: Mapping[str, str], verifier: TokenCheck) -> Claims:
    """Verify the token of a request.

    Raises:
        InvalidToken: there is none, or it is refused.
    """
    token = bearer(headers)
    if not token:
        raise errors.InvalidToken("send a token: Authorization: Bearer <token>")
    return verifier.verify_cached(token) or await verifier.verify(token)

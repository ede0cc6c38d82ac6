"""Every error that a caller can meet, and how each is told on the wire.

::

    PushError
    ├── InvalidRequest          400
    │   ├── InvalidJSON
    │   └── InvalidName
    ├── InvalidToken            401, close 4500
    ├── Forbidden               403
    │   └── OriginRefused
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── RequestTimeout          408
    ├── TooManyDevices          409
    ├── LengthRequired          411
    ├── PayloadTooLarge         413
    │   └── TopicFull
    ├── UnsupportedMediaType    415
    ├── IdempotencyConflict     422
    ├── UpgradeRequired         426
    ├── TooManyRequests         429
    │   ├── RateLimited         close 4008
    │   ├── QuotaExceeded
    │   └── TooManyConnections  close 4505
    ├── HeadersTooLarge         431
    ├── UnsupportedTransferEncoding  501
    └── Unavailable             503
        ├── Overloaded
        ├── StoreUnavailable
        └── DurabilityNotReached

An error knows its stable ``code`` (the ``code`` of an ``error`` frame, the last segment of a
problem's ``type`` and the metric label), its HTTP status, its close code where a connection cannot
live on, and whether the same request may succeed later. ``detail`` tells the caller what to change.
"""

from typing import Any, ClassVar, Self, TypeVar

from pushsvc.codes import Close

PROBLEM_PREFIX = "urn:pushsvc:problem:"

Value = TypeVar("Value")


class PushError(Exception):
    """Base of all errors that reach a caller.

    Args:
        detail: one sentence for the caller: what is wrong and what to change.
        retry_after: seconds after which trying again makes sense.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500
    close: ClassVar[Close | None] = None
    temporary: ClassVar[bool] = False

    def __init__(self, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    def bare(self) -> Self:
        """The error without what led to it: an error that is kept would keep its input, too."""
        self.__cause__ = self.__context__ = None
        return self.with_traceback(None)

    def problem(self) -> dict[str, Any]:
        """The error as an RFC 9457 problem details object."""
        problem: dict[str, Any] = {
            "type": PROBLEM_PREFIX + self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.retry_after is not None:
            problem["retry_after"] = self.retry_after
        return problem


def internal() -> PushError:
    """What a caller is told of an error that nobody foresaw; the log has it."""
    return PushError("the server made an error: it is logged; retrying may help")


class InvalidRequest(PushError):
    """The request or message does not have the documented shape."""

    code = "invalid"
    title = "Invalid request"
    status = 400


class InvalidJSON(InvalidRequest):
    """The text is not JSON, or not JSON that every client can read (RFC 7493)."""

    code = "invalid_json"
    title = "Invalid JSON"


class InvalidName(InvalidRequest):
    """A user id, device, topic or event has characters or a length that names may not have."""

    code = "invalid_name"
    title = "Invalid name"


class InvalidToken(PushError):
    """The token is missing, malformed, expired, or not for this service."""

    code = "invalid_token"
    title = "Token refused"
    status = 401
    close = Close.TOKEN_REFUSED


class Forbidden(PushError):
    """The token is good but does not allow this."""

    code = "forbidden"
    title = "Forbidden"
    status = 403


class OriginRefused(Forbidden):
    """The browser page's origin is not allowed."""

    code = "origin_refused"
    title = "Origin refused"


class NotFound(PushError):
    """Nothing is served at this path."""

    code = "not_found"
    title = "Not found"
    status = 404


class MethodNotAllowed(PushError):
    """The path exists, the method does not."""

    code = "method_not_allowed"
    title = "Method not allowed"
    status = 405


class RequestTimeout(PushError):
    """The request did not arrive in time."""

    code = "request_timeout"
    title = "Request timeout"
    status = 408
    temporary = True


class TooManyDevices(PushError):
    """It is for a device that never came, of a user who has as many devices as one may."""

    code = "too_many_devices"
    title = "Too many devices"
    status = 409


class LengthRequired(PushError):
    """A body is needed, and the request has none."""

    code = "length_required"
    title = "Length required"
    status = 411


class PayloadTooLarge(PushError):
    """The body or the message is over its limit."""

    code = "too_large"
    title = "Payload too large"
    status = 413


class TopicFull(PayloadTooLarge):
    """The topic holds as many bytes as may be there for a client to publish."""

    code = "topic_full"
    title = "Topic full"


class UnsupportedMediaType(PushError):
    """The body's media type or encoding is not one that is read here."""

    code = "unsupported_media_type"
    title = "Unsupported media type"
    status = 415


class IdempotencyConflict(PushError):
    """The Idempotency-Key was used before with another body."""

    code = "idempotency_conflict"
    title = "Idempotency key reused"
    status = 422


class UpgradeRequired(PushError):
    """The path serves WebSocket version 13 only (RFC 6455, section 4.2.2)."""

    code = "upgrade_required"
    title = "Upgrade required"
    status = 426


class TooManyRequests(PushError):
    """A limit of this caller is used up for now."""

    code = "too_many_requests"
    title = "Too many requests"
    status = 429
    temporary = True


class RateLimited(TooManyRequests):
    """Over the message rate."""

    code = "rate_limited"
    title = "Rate limited"
    close = Close.RATE_LIMITED


class QuotaExceeded(TooManyRequests):
    """The user's publishes have stored as many bytes as they may for now."""

    code = "quota_exceeded"
    title = "Quota exceeded"


class TooManyConnections(TooManyRequests):
    """The user holds as many connections as one user may."""

    code = "too_many_connections"
    title = "Too many connections"
    close = Close.TOO_MANY_CONNECTIONS


class HeadersTooLarge(PushError):
    """The request's headers have too many bytes or lines."""

    code = "headers_too_large"
    title = "Headers too large"
    status = 431


class UnsupportedTransferEncoding(PushError):
    """The request's body comes in another transfer coding than chunks."""

    code = "unsupported_transfer_encoding"
    title = "Unsupported transfer encoding"
    status = 501


class Unavailable(PushError):
    """The service cannot do this now; the same request may succeed later."""

    code = "unavailable"
    title = "Unavailable"
    status = 503
    temporary = True

    def __init__(self, detail: str, *, retry_after: float = 1.0) -> None:
        super().__init__(detail, retry_after=retry_after)


class Overloaded(Unavailable):
    """The node is at one of its own limits."""

    code = "overloaded"
    title = "Overloaded"


class StoreUnavailable(Unavailable):
    """Redis cannot be reached, or refuses."""

    code = "store_unavailable"
    title = "Store unavailable"


class DurabilityNotReached(Unavailable):
    """The append happened but was not confirmed at the configured durability in time."""

    code = "durability_not_reached"
    title = "Durability not reached"


def checked(result: Value | PushError) -> Value:
    """A result of several, where an error may stand for one.

    Raises:
        PushError: it is an error.
    """
    if isinstance(result, PushError):
        raise result
    return result

"""What can go wrong, as one tree.

PushError
├── Refused         the service said no: the same request would be refused again
├── Unavailable     it did not answer in the time allowed: trying again later is safe
├── OutcomeUnknown  it was sent and not answered, or not understandably: it may have happened
├── QueueFull       too much waits for a connection: this one was not sent
└── Closed          the client was closed before this was answered, or asked
"""

from collections.abc import Mapping
from typing import Any


class PushError(Exception):
    """Anything that this package raises on purpose."""


class Refused(PushError):
    """The service refused it.

    Args:
        detail: why, and what to change.
        code: the stable name of the problem, such as ``forbidden``; ``closed`` where a connection
            was closed for good.
        status: of the HTTP answer, or the close code of a WebSocket (1000 and up); None for a
            message on a live socket.
        retry_after: seconds after which another try may go better; None where it would not.
    """

    def __init__(
        self,
        detail: str,
        *,
        code: str = "refused",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{code if status is None else status}: {detail}")
        self.detail = detail
        self.code = code
        self.status = status
        self.retry_after = retry_after

    @classmethod
    def of(cls, problem: Any, status: int | None, retry_after: float | None = None) -> "Refused":
        """Of a problem+json document (RFC 9457) or an ``error`` message, however misshapen.

        Args:
            problem: the parsed JSON.
            status: of the answer; None to take the problem's own.
            retry_after: seconds, from a header; the problem's own is more exact.
        """
        if not isinstance(problem, Mapping):
            return cls("the answer says no more", status=status, retry_after=retry_after)
        kind = str(problem.get("type", "")).rpartition(":")[2]
        own = problem.get("status")
        wait = problem.get("retry_after", retry_after)
        return cls(
            str(problem.get("detail") or problem.get("title") or "the answer says no more"),
            code=str(problem.get("code") or kind or "refused"),
            status=own if status is None and isinstance(own, int) else status,
            retry_after=float(wait) if isinstance(wait, int | float) else None,
        )

    @property
    def unserved(self) -> bool:
        """Whether nothing is served at the path, other than that nothing of that name is kept."""
        elsewhere = ("nothing is served", "this is the admin port")
        nobody = self.code == "refused" or self.detail.startswith(elsewhere)
        return self.status == 404 and nobody

    def advised(self) -> "Refused":
        """The same, and what to change where nothing is served at the path."""
        if self.unserved:
            advice = (
                "check that the URL is the address of a node's public port (8080 unless it was set)"
                " without a path of the API, and that the node is as new as this client"
            )
            self.args = (f"{self}; {advice}",)
        return self


class NoAnswer(ConnectionError):
    """There was no answer; the reason says what to change, and its cause is what happened.

    It is no ``PushError``, as it is tried again: it is the last reason of an ``Unavailable``, and
    the ``error`` of a client's ``State``.
    """


class NotInTime(NoAnswer, TimeoutError):
    """There was no answer in time, and no more is known."""


class Unavailable(PushError):
    """The service could not be reached, or could not do it, in the time allowed.

    Args:
        detail: what was tried, and what happened last.
        key: the idempotency key of the call: whoever repeats the same call with it, all that was
            in it, publishes nothing twice, whatever became of this one. None where there is no
            such key.
    """

    def __init__(self, detail: str, *, key: str | None = None) -> None:
        safe = f"; repeating the same call, whole, with the idempotency key {key!r} is safe"
        super().__init__(detail if key is None else detail + safe)
        self.detail = detail
        self.key = key


class OutcomeUnknown(PushError):
    """It was sent, and there is no answer that says what became of it: it may have happened."""

    code = "unknown"


class QueueFull(PushError):
    """There is no connection, and as much waits for one as may: this was not sent."""

    code = "queue_full"


class Closed(PushError):
    """The client was closed: open a new one."""

    code = "closed"

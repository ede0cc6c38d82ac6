"""A publisher for programs without an event loop."""

import random
import ssl as tls
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self, Unpack

from pushsvc.client import publishing
from pushsvc.client.calls import Answer, Call, Done
from pushsvc.client.errors import PushError
from pushsvc.client.http import Http
from pushsvc.client.publishing import MAX_BODY, Content, Note, Receipt, Request, Result

DEADLINE = 30.0
"""Seconds for a publish, with all its retries."""
TIMEOUT = 10.0
"""Seconds for one try."""
CONNECTIONS = 4
"""Open at most."""


class Publisher:
    """Publishes, and does not return before it is known what became of it.

    ::

        with Publisher("https://push.example.com", token=token) as publisher:
            publisher.publish(user="u1", event="order.shipped", data={"order": 17})

    Each request carries an idempotency key, the caller's or one made here, and is sent again with
    it after network errors, 429 and 5xx, as late as the service asks: it is one notification
    however often it had to be sent. What is ephemeral is the exception. May be used by several
    threads.

    Args:
        url: of a node or of what stands before the nodes.
        token: one with the scope ``push.publish``, or with ``topics.publish``; or a function that
            returns one, which is told whether the last one was refused. What it raises is tried
            again within the deadline, save a ``PushError``, which ends the call.
        deadline: seconds for a call, with all its retries.
        timeout: seconds for one try.
        max_body: bytes of a request, where the nodes' ``MAX_BODY_BYTES`` is not the default.
        ssl: for https; the system's by default.

    Raises:
        ValueError: the URL is neither http nor https.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[bool], str],
        deadline: float = DEADLINE,
        timeout: float = TIMEOUT,
        max_body: int = MAX_BODY,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        self._http = Http(url, CONNECTIONS, ssl)
        self._provider = token
        self._token = token if isinstance(token, str) else None
        self._token_lock = threading.Lock()
        self._deadline = deadline
        self._timeout = timeout
        self._max_body = max_body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be called several times."""
        self._http.close()

    def publish(self, *, idempotency_key: str | None = None, **note: Unpack[Note]) -> Receipt:
        """Publish one notification; the receipt.

        Args:
            idempotency_key: the same key and the same notification make one, for 24 hours. Give
                one that outlives this program, such as the order's number, where the program
                may publish again after a crash.
            note: ``data``, one of ``user``, ``topic`` and ``broadcast``, and the other fields of
                ``Note``.

        Raises:
            Refused: the service does not take it; ``code`` and ``detail`` say why.
            Unavailable: not done within the deadline; repeating it with its ``key`` is safe.
            OutcomeUnknown: what was answered is no receipt.
            ValueError: it names no destination, or several.
            TypeError: ``data`` is no JSON value.
        """
        request = publishing.one(publishing.encode(note), idempotency_key)
        return publishing.receipt(self._call(request))

    def publish_to_users(
        self,
        users: Sequence[str],
        *,
        idempotency_key: str | None = None,
        **content: Unpack[Content],
    ) -> list[Result]:
        """Publish one notification to many users; a receipt or an error for each, in order.

        Raises:
            PushError: none was published, all for this reason.
        """
        requests = publishing.requests_to(users, content, idempotency_key)
        return self._results(requests)

    def publish_many(
        self, notes: Iterable[Note], *, idempotency_key: str | None = None
    ) -> list[Result]:
        """Publish many notifications; a receipt or an error for each, in order.

        They go in as few requests as possible: at most 1000 each, and ``max_body`` bytes. Where
        some are ``Unavailable``, repeat the same call: the same notifications, all of them, with
        the error's ``key`` as ``idempotency_key``. What was published is not published again, and
        has its receipt again.

        Raises:
            PushError: none was published, all for this reason.
            ValueError, TypeError: as in ``publish``; nothing was published.
        """
        encoded = [publishing.encode(note) for note in notes]
        requests = publishing.requests_for(encoded, idempotency_key, self._max_body)
        return self._results(requests)

    def _results(self, requests: Sequence[Request]) -> list[Result]:
        results: list[Result] = []
        for request in requests:
            try:
                results += publishing.results(self._call(request), request)
            except PushError as error:
                if len(requests) == 1:
                    raise
                results += [error] * request.count
        return results

    def _call(self, request: Request) -> dict[str, Any]:
        """Send a request until it is answered."""
        call = Call(
            request, time.monotonic(), self._deadline,
            renewable=not isinstance(self._provider, str),
        )  # fmt: skip
        token = refused = None
        while True:
            outcome: Answer | Exception
            try:
                token = self._current_token(instead_of=refused)
            except PushError:
                raise  # the provider's own verdict
            except Exception as error:  # noqa: BLE001 - whatever a provider raises may pass
                outcome = error
            else:
                limit = min(self._timeout, call.left(time.monotonic()))
                outcome = self._http.send(request, token, limit)
            step = call.next(outcome, time.monotonic(), random.random())  # noqa: S311 - jitter
            if isinstance(step, Done):
                return step.value
            if step.new_token:
                refused = token
            time.sleep(step.delay)

    def _current_token(self, instead_of: str | None = None) -> str:
        """The token, or a new one instead of one that was refused."""
        if isinstance(self._provider, str):
            return self._provider
        with self._token_lock:  # several threads ask once
            if self._token is None or self._token == instead_of:
                self._token = self._provider(instead_of is not None)
            return self._token

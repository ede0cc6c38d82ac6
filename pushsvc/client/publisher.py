"""A publisher for programs without an event loop."""

import ssl as tls
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Self, TypeVar, Unpack

from pushsvc.client import asking, publishing
from pushsvc.client.asking import (
    Device,
    Erased,
    Kept,
    Outcomes,
    Page,
    Question,
    Recalled,
    Revocation,
    Ticket,
)
from pushsvc.client.calls import Answer, Request
from pushsvc.client.core import CONNECTIONS, DEADLINE, TIMEOUT, Core, Io
from pushsvc.client.errors import Closed
from pushsvc.client.forks import renew_in_children
from pushsvc.client.http import Http
from pushsvc.client.messages import Present
from pushsvc.client.publishing import MAX_BODY, Content, Note, Receipt, Result
from pushsvc.client.tokens import Token

T = TypeVar("T")


class _Blocking(Io):
    """What the core awaits, and what is done before that returns."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._renew()
        renew_in_children(self, _Blocking._renew)

    def _renew(self) -> None:
        """In a process that was forked: begin with a lock that nobody holds."""
        self._lock = threading.Lock()

    async def send(
        self, request: Request, token: str, timeout: float, until: float
    ) -> Answer | Exception:
        return self._http.send(request, token, timeout, until)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no event loop here

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        with self._lock:
            yield

    async def ask_for_token(self, provider: Token, *, refused: bool) -> str:
        if isinstance(provider, str):
            return provider
        token = provider(refused)
        if not isinstance(token, str):
            raise TypeError("the function of a Publisher returns a string, and is no coroutine")
        return token

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:  # noqa: ARG002 - nothing interrupts it
        return await work


def _now(work: Awaitable[T]) -> T:
    """The result of what waits for nothing but ``_Blocking``, and so never waits."""
    try:
        next(work.__await__())
    except StopIteration as done:
        result: T = done.value
        return result
    raise AssertionError("it waits for an event loop")


class Publisher:
    """Publishes and asks, and does not return before it is known what became of it.

    ::

        with Publisher("https://push.example.com", token=token) as publisher:
            publisher.publish(user="u1", event="order.shipped", data={"order": 17})

    Each publish carries an idempotency key, the caller's or one made here, and is sent again with
    it after network errors, 429 and 5xx, as late as the service asks: it is one notification
    however often it had to be sent. What is ephemeral is the exception. So is all else sent again,
    as doing it twice is as good as once. May be used by several threads, and by processes that
    were forked since: each has connections of its own.

    Users and topics are named in the query of a request, so that any name works through any
    proxy; nodes of versions that do not know that answer 404.

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
        self._core = Core(_Blocking(self._http), token, deadline, timeout)
        self._max_body = max_body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; what is called afterwards raises. May be called several times."""
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
            Closed: the publisher was, before the answer.
            ValueError: it names no destination, or several.
            TypeError: ``data`` is no JSON value.
        """
        request = publishing.one(publishing.encode(note), idempotency_key)
        return publishing.receipt(self._done(self._core.call(request)))

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
        return self._done(self._core.results(requests))

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
        return self._done(self._core.results(requests))

    # --- about users and topics ------------------------------------------------------------------
    #
    # Each of these raises Refused, Unavailable, OutcomeUnknown and Closed as `publish` does.

    def recall(
        self,
        id: str,  # noqa: A002 - as the receipt has it
        *,
        user: str | None = None,
        topic: str | None = None,
        broadcast: bool = False,
    ) -> Recalled | None:
        """Take a notification back; None where it is not kept there.

        What is scheduled never goes out. What is out is taken back from a user: devices that have
        not acknowledged it never see it, or are told that it is withdrawn. In a topic, and of what
        was for everyone, it stays.

        Args:
            id: of the receipt.
            user: whom it was published to, each of several alone.
            topic: likewise.
            broadcast: whether it was for everyone.

        Raises:
            ValueError: it is no id, or it does not name exactly one of them.
        """
        return self._ask(asking.recall(id, user, topic, broadcast=broadcast))

    def history(
        self, user: str, *, limit: int | None = None, before: str | None = None
    ) -> Iterator[Kept]:
        """What a user's mailbox keeps, newest first, asked for page by page as it is taken.

        Args:
            user: whose.
            limit: how many at most; None for all.
            before: only those before this id.
        """
        self._check()
        return _each(self._core.history(user, limit, before))

    def page(self, user: str, *, before: str | None = None, limit: int = 100) -> Page:
        """One page of ``history``: ``next`` of the answer is ``before`` of the next one.

        Args:
            user: whose.
            before: where it goes on; None for the newest.
            limit: how many at most, up to 100; a page can be short.
        """
        return self._ask(asking.page(user, before, limit))

    def devices(self, user: str) -> list[Device]:
        """The devices of a user that are connected now; none where the user is away."""
        return self._ask(asking.devices(user))

    def presence(self, topic: str) -> Present:
        """Who listens to a topic: ``users, count``, at most 500 by name, and how many they are.

        ``sample`` of the answer tells whether the users are some of a large topic's.
        """
        return self._ask(asking.presence(topic))

    def receipts(self, *, after: str | None = None, limit: int = 100, wait: int = 0) -> Outcomes:
        """What became of what this token's subject published with ``receipt=True``, oldest first.

        Args:
            after: ``next`` of the answer of before, which is yours to keep; None for all there are.
            limit: how many at most, up to 1000.
            wait: whole seconds, up to 25, that the service waits for one.
        """
        return self._ask(asking.receipts(after, limit, wait))

    # --- with the scope push.admin ---------------------------------------------------------------

    def disconnect(self, user: str, *, ttl: float | None = None) -> Revocation:
        """Close a user's connections, and refuse the tokens that it has. See ``revoke``."""
        return self._ask(asking.disconnect(user, ttl))

    def erase(self, user: str) -> Erased:
        """Erase all that is kept of a user; tokens stay good, see ``disconnect``."""
        return self._ask(asking.erase(user))

    def export(self, user: str) -> Iterator[Mapping[str, Any]]:
        """All that is kept of a user, in parts as the service tells them (PROTOCOL.md)."""
        self._check()
        place = None
        while True:
            part = self._ask(asking.export(user, place))
            yield part
            place = part["next"]
            if place is None:
                return

    def revoke(
        self,
        *,
        user: str | None = None,
        jti: str | None = None,
        everyone: bool = False,
        issued_before: datetime | float | None = None,
        ttl: float | None = None,
    ) -> Revocation:
        """Refuse tokens from now on, and close the connections that were opened with them.

        A revocation that is sent again after a lost answer covers what was issued meanwhile too.

        Args:
            user: whose tokens.
            jti: the one token with this id.
            everyone: all tokens of the namespace, this publisher's too; with ``issued_before``.
            issued_before: tokens issued up to then; of a user those of now, and ten seconds more,
                unless it is given.
            ttl: seconds to keep it, longer than the tokens live; 30 days unless it is given.

        Raises:
            ValueError: it does not name exactly one of them.
        """
        return self._ask(asking.revoke(user, jti, issued_before, ttl, everyone=everyone))

    def revocations(self) -> list[Revocation]:
        """What is revoked, the newest 1000."""
        return self._ask(asking.revocations())

    # --- for clients -----------------------------------------------------------------------------

    def ticket(self, token: str | None = None) -> Ticket:
        """A ticket for a token, for a client that can set no header; see PROTOCOL.md.

        Args:
            token: the user's that is to connect; None for this publisher's own.
        """
        return self._ask(asking.ticket(token))

    # --- how it is done --------------------------------------------------------------------------

    def _ask(self, question: Question[T]) -> T:
        return self._done(self._core.ask(question))

    def _done(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            self._check()
            return _now(work)
        finally:
            work.close()

    def _check(self) -> None:
        if self._http.closed:
            raise Closed("the publisher is closed: open a new one")


def _each(found: AsyncGenerator[T]) -> Iterator[T]:
    """What an asynchronous generator gives that waits for nothing but ``_Blocking``."""
    while True:
        try:
            yield _now(anext(found))
        except StopAsyncIteration:
            return

"""A publisher for asyncio, which sends what is published in the same moment as one batch."""

import asyncio
import ssl as tls
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
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
from pushsvc.client.batches import Batches
from pushsvc.client.calls import Answer, Request
from pushsvc.client.core import CONNECTIONS, DEADLINE, TIMEOUT, Core, Io, unanswered
from pushsvc.client.errors import Closed, NotInTime
from pushsvc.client.forks import require_own
from pushsvc.client.http import Http
from pushsvc.client.messages import Present
from pushsvc.client.publishing import MAX_BODY, Content, Note, Receipt, Result
from pushsvc.client.tokens import Token, ask_for_token

T = TypeVar("T")

QUEUE = 10_000
"""Publishes that may be under way at once; further ones wait for their turn."""


class AsyncPublisher:
    """Publishes, batching by itself; methods, errors and retries are those of ``Publisher``.

    ::

        async with AsyncPublisher("https://push.example.com", token=token) as publisher:
            await publisher.publish(user="u1", event="order.shipped", data={"order": 17})

    What is published by ``publish`` goes in batches, one at a time: while one is under way, what
    comes meanwhile becomes the next. So the order of the calls is the order of publishing, and
    many concurrent calls cost a few requests. Each gets its own receipt or error; one that is over
    a limit of where it goes, as of what may wait there, is ``Refused`` at once, with
    ``retry_after``: the others do not wait for it.

    It belongs to the event loop in which it was entered: elsewhere, as in a process that was forked
    since, its calls raise ``RuntimeError``. Make one in each.

    Requests are sent by a few threads. A caller that is cancelled stops waiting; what is under way
    is still sent. The end of the block waits for all calls that were made in it.

    What was published without a key is no request of its own, so that its ``Unavailable`` has no
    ``key``: give an ``idempotency_key`` where it is to be repeated safely.

    Args:
        url: of a node or of what stands before the nodes.
        token: as for ``connect``: the function may be a coroutine function.
        deadline: seconds for a batch, with all its retries.
        timeout: seconds for one try.
        max_body: bytes of a request, where the nodes' ``MAX_BODY_BYTES`` is not the default.
        queue: publishes that may be under way; further ones wait for their turn.
        ssl: for https; the system's by default.

    Raises:
        ValueError: the URL is neither http nor https.
    """

    def __init__(
        self,
        url: str,
        *,
        token: Token,
        deadline: float = DEADLINE,
        timeout: float = TIMEOUT,
        max_body: int = MAX_BODY,
        queue: int = QUEUE,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        self._io = _Asyncio(Http(url, CONNECTIONS, ssl))
        self._core = Core(self._io, token, deadline, timeout)
        self._max_body = max_body
        self._turns = asyncio.Semaphore(queue)
        self._batches = Batches(self._core, max_body, lambda: self._closed and not self._calls)
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._calls = 0
        self._no_calls = asyncio.Event()
        self._no_calls.set()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a publisher is entered once: make another one")
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._batches.work(), name="pushsvc.client publisher")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for all calls, then close the connections. May be called several times.

        What is called afterwards raises ``Closed``.
        """
        require_own(self._loop, "publisher")
        self._closed = True
        self._batches.look()
        try:
            await self._no_calls.wait()
            self._batches.look()
            if self._task is not None:
                await asyncio.wait([self._task])
        finally:
            if self._task is not None:
                self._task.cancel()  # only where this wait was cancelled is it still running
            self._io.close()

    async def publish(self, *, idempotency_key: str | None = None, **note: Unpack[Note]) -> Receipt:
        """Publish one notification; the receipt. See ``Publisher.publish``.

        With an ``idempotency_key`` it is a request of its own, as a key stands for a request.
        """
        encoded = publishing.encode(note)
        with self._under_way():
            async with self._turns:
                if idempotency_key is not None:
                    request = publishing.one(encoded, idempotency_key)
                    return publishing.receipt(await self._core.call(request))
                self._check_worker()
                return await self._batches.put(encoded)

    async def publish_to_users(
        self,
        users: Sequence[str],
        *,
        idempotency_key: str | None = None,
        **content: Unpack[Content],
    ) -> list[Result]:
        """Publish one notification to many users. See ``Publisher.publish_to_users``."""
        requests = publishing.requests_to(users, content, idempotency_key)
        with self._under_way():
            return await self._core.results(requests)

    async def publish_many(
        self, notes: Iterable[Note], *, idempotency_key: str | None = None
    ) -> list[Result]:
        """Publish many notifications. See ``Publisher.publish_many``."""
        encoded = [publishing.encode(note) for note in notes]
        requests = publishing.requests_for(encoded, idempotency_key, self._max_body)
        with self._under_way():
            return await self._core.results(requests)

    async def recall(
        self,
        id: str,  # noqa: A002 - as there
        *,
        user: str | None = None,
        topic: str | None = None,
        broadcast: bool = False,
    ) -> Recalled | None:
        """See ``Publisher.recall``."""
        return await self._ask(asking.recall(id, user, topic, broadcast=broadcast))

    async def history(
        self, user: str, *, limit: int | None = None, before: str | None = None
    ) -> AsyncGenerator[Kept]:
        """See ``Publisher.history``; for ``async for``."""
        async with aclosing(self._core.history(user, limit, before)) as found:
            while True:
                with self._under_way():
                    each = await anext(found, None)
                if each is None:
                    return
                yield each

    async def page(self, user: str, *, before: str | None = None, limit: int = 100) -> Page:
        """See ``Publisher.page``."""
        return await self._ask(asking.page(user, before, limit))

    async def devices(self, user: str) -> list[Device]:
        """See ``Publisher.devices``."""
        return await self._ask(asking.devices(user))

    async def presence(self, topic: str) -> Present:
        """See ``Publisher.presence``."""
        return await self._ask(asking.presence(topic))

    async def receipts(
        self, *, after: str | None = None, limit: int = 100, wait: int = 0
    ) -> Outcomes:
        """See ``Publisher.receipts``."""
        return await self._ask(asking.receipts(after, limit, wait))

    async def disconnect(self, user: str, *, ttl: float | None = None) -> Revocation:
        """See ``Publisher.disconnect``."""
        return await self._ask(asking.disconnect(user, ttl))

    async def erase(self, user: str) -> Erased:
        """See ``Publisher.erase``."""
        return await self._ask(asking.erase(user))

    async def export(self, user: str) -> AsyncIterator[Mapping[str, Any]]:
        """See ``Publisher.export``."""
        place = None
        while True:
            part = await self._ask(asking.export(user, place))
            yield part
            place = part["next"]
            if place is None:
                return

    async def revoke(
        self,
        *,
        user: str | None = None,
        jti: str | None = None,
        everyone: bool = False,
        issued_before: datetime | float | None = None,
        ttl: float | None = None,
    ) -> Revocation:
        """See ``Publisher.revoke``."""
        return await self._ask(asking.revoke(user, jti, issued_before, ttl, everyone=everyone))

    async def revocations(self) -> list[Revocation]:
        """See ``Publisher.revocations``."""
        return await self._ask(asking.revocations())

    async def ticket(self, token: str | None = None) -> Ticket:
        """See ``Publisher.ticket``."""
        return await self._ask(asking.ticket(token))

    async def _ask(self, question: Question[T]) -> T:
        with self._under_way():
            return await self._core.ask(question)

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """A call of the program, for which ``close`` waits."""
        if self._closed:
            raise Closed("the publisher is closed: open a new one")
        if self._task is None:
            raise RuntimeError("use the publisher within `async with`")
        require_own(self._loop, "publisher")
        self._calls += 1
        self._no_calls.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._no_calls.set()

    def _check_worker(self) -> None:
        if self._task is None or self._task.done():
            raise Closed("the publisher does not send any more: open a new one")


class _Asyncio(Io):
    """What the core awaits, in an event loop: requests are sent by a few threads.

    Args:
        http: what sends them.
    """

    def __init__(self, http: Http) -> None:
        self._http = http
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="pushsvc.client")
        self._lock = asyncio.Lock()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    async def send(
        self, request: Request, token: str, timeout: float, until: float
    ) -> Answer | Exception:
        try:
            sending = asyncio.wrap_future(
                self._threads.submit(self._http.send, request, token, timeout, until)
            )
        except RuntimeError:
            raise unanswered() from None
        try:
            await asyncio.wait([sending], timeout=max(until - time.monotonic(), 0.0))
            if not sending.done():
                return NotInTime("no thread was free, or there was no answer")
            if sending.cancelled():
                raise unanswered()
            return sending.result()
        finally:
            sending.cancel()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def lock(self) -> asyncio.Lock:
        return self._lock

    async def ask_for_token(self, provider: Token, *, refused: bool) -> str:
        return await ask_for_token(provider, refused=refused)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(seconds):
            return await work

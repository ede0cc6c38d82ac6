"""A publisher for asyncio, which sends what is published in the same moment as one batch."""

import asyncio
import random
import ssl as tls
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, Unpack

from pushsvc.client import publishing
from pushsvc.client.calls import Answer, Call, Done
from pushsvc.client.errors import Closed, PushError
from pushsvc.client.http import Http
from pushsvc.client.publisher import CONNECTIONS, DEADLINE, TIMEOUT
from pushsvc.client.publishing import MAX_BODY, Content, Note, Receipt, Request, Result
from pushsvc.client.tokens import Token, ask_for_token

QUEUE = 10_000
"""Publishes that may be under way at once; further ones wait for their turn."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    note: bytes
    result: asyncio.Future[Receipt]


class AsyncPublisher:
    """Publishes, batching by itself; arguments, errors and retries are those of ``Publisher``.

    ::

        async with AsyncPublisher("https://push.example.com", token=token) as publisher:
            await publisher.publish(user="u1", event="order.shipped", data={"order": 17})

    What is published by ``publish`` goes in batches, one at a time: while one is under way, what
    comes meanwhile becomes the next. So the order of the calls is the order of publishing, and
    many concurrent calls cost a few requests. Each gets its own receipt or error.

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
        self._http = Http(url, CONNECTIONS, ssl)
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="pushsvc.client")
        self._provider = token
        self._token = token if isinstance(token, str) else None
        self._token_lock = asyncio.Lock()
        self._deadline = deadline
        self._timeout = timeout
        self._max_body = max_body
        self._turns = asyncio.Semaphore(queue)
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._calls = 0
        self._no_calls = asyncio.Event()
        self._no_calls.set()

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a publisher is entered once: make another one")
        self._task = asyncio.create_task(self._work(), name="pushsvc.client publisher")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Wait for all calls, then close the connections. May be called several times."""
        self._closed = True
        self._wake.set()
        try:
            await self._no_calls.wait()
            self._wake.set()
            if self._task is not None:
                await asyncio.wait([self._task])
        finally:
            if self._task is not None:
                self._task.cancel()  # only where this wait was cancelled is it still running
            self._threads.shutdown(wait=False, cancel_futures=True)
            self._http.close()

    async def publish(self, *, idempotency_key: str | None = None, **note: Unpack[Note]) -> Receipt:
        """Publish one notification; the receipt. See ``Publisher.publish``.

        With an ``idempotency_key`` it is a request of its own, as a key stands for a request.
        """
        encoded = publishing.encode(note)
        with self._under_way():
            async with self._turns:
                if idempotency_key is not None:
                    request = publishing.one(encoded, idempotency_key)
                    return publishing.receipt(await self._call(request))
                waiting = _Waiting(encoded, asyncio.get_running_loop().create_future())
                self._check_worker()
                self._waiting.append(waiting)
                self._wake.set()
                return await waiting.result

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
            return await self._results(requests)

    async def publish_many(
        self, notes: Iterable[Note], *, idempotency_key: str | None = None
    ) -> list[Result]:
        """Publish many notifications. See ``Publisher.publish_many``."""
        encoded = [publishing.encode(note) for note in notes]
        requests = publishing.requests_for(encoded, idempotency_key, self._max_body)
        with self._under_way():
            return await self._results(requests)

    async def _results(self, requests: Sequence[Request]) -> list[Result]:
        results: list[Result] = []
        for request in requests:
            try:
                results += publishing.results(await self._call(request), request)
            except PushError as error:
                if len(requests) == 1:
                    raise
                results += [error] * request.count
        return results

    @contextmanager
    def _under_way(self) -> Iterator[None]:
        """A call of the program, for which ``close`` waits."""
        if self._task is None:
            raise RuntimeError("use the publisher within `async with`")
        if self._closed:
            raise Closed("the publisher is closed: open a new one")
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

    # --- batches -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Send what waits, batch after batch, until the publisher is closed and nothing waits."""
        try:
            while self._waiting or self._calls or not self._closed:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(0)  # whoever publishes in the same moment comes along
                await self._send(self._batch())
        finally:
            for waiting in self._waiting:
                if not waiting.result.done():
                    waiting.result.set_exception(_closed())

    def _batch(self) -> list[_Waiting]:
        """As many of those that wait as fit into one request, without those that left."""
        wanted: list[_Waiting] = []
        while self._waiting and len(wanted) < publishing.MOST:
            each = self._waiting.popleft()
            if not each.result.done():
                wanted.append(each)
        parts = publishing.split((each.note for each in wanted), self._max_body)
        count = len(parts[0]) if parts else 0
        self._waiting.extendleft(reversed(wanted[count:]))
        return wanted[:count]

    async def _send(self, waiting: Sequence[_Waiting]) -> None:
        if not waiting:
            return
        notes = [each.note for each in waiting]
        # It is nobody's to repeat: who publishes one of them knows nothing of the others.
        request = publishing.batch(notes, publishing.key_of(None), repeat=None)
        results: Sequence[Result | Exception]
        try:
            results = publishing.results(await self._call(request), request)
        except Exception as error:  # noqa: BLE001 - each caller is told, whatever it is
            results = [error] * len(waiting)
        except BaseException:
            for each in waiting:
                if not each.result.done():
                    each.result.set_exception(_closed())
            raise
        for each, result in zip(waiting, results, strict=True):
            if each.result.done():
                continue  # its caller left
            if isinstance(result, Exception):
                each.result.set_exception(result)
            else:
                each.result.set_result(result)

    # --- one request ---------------------------------------------------------------------------

    async def _call(self, request: Request) -> dict[str, Any]:
        """Send a request until it is answered."""
        call = Call(
            request, time.monotonic(), self._deadline,
            renewable=not isinstance(self._provider, str),
        )  # fmt: skip
        token = refused = None
        while True:
            outcome: Answer | Exception
            try:
                async with asyncio.timeout(call.left(time.monotonic())):
                    token = await self._current_token(instead_of=refused)
            except PushError:
                raise  # the provider's own verdict
            except Exception as error:  # noqa: BLE001 - whatever a provider raises may pass
                outcome = error
            else:
                outcome = await self._try(call, token)
            step = call.next(outcome, time.monotonic(), random.random())  # noqa: S311 - jitter
            if isinstance(step, Done):
                return step.value
            if step.new_token:
                refused = token
            await asyncio.sleep(step.delay)

    async def _try(self, call: Call, token: str) -> Answer | Exception:
        """Send a request once, in a thread."""

        def send() -> Answer | Exception:
            # Not before there was a thread for it is it known what time is left.
            limit = min(self._timeout, call.left(time.monotonic()))
            return self._http.send(call.request, token, limit)

        try:
            sending = asyncio.wrap_future(self._threads.submit(send))
        except RuntimeError:
            raise _closed() from None
        try:
            await asyncio.wait([sending], timeout=call.left(time.monotonic()))
            if not sending.done():
                return TimeoutError("no thread was free, or there was no answer")
            if sending.cancelled():
                raise _closed()
            return sending.result()
        finally:
            sending.cancel()

    async def _current_token(self, instead_of: str | None = None) -> str:
        """The token, or a new one instead of one that was refused."""
        provider = self._provider
        if isinstance(provider, str):
            return provider
        async with self._token_lock:  # several calls ask once
            if self._token is None or self._token == instead_of:
                self._token = await ask_for_token(provider, refused=instead_of is not None)
            return self._token


def _closed() -> Closed:
    return Closed("the publisher was closed before this was answered: it may have been published")

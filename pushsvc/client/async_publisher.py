"""A publisher for asyncio, which sends what is published in the same moment as one batch."""

import asyncio
import random
import ssl as tls
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, Unpack

from pushsvc.client import publishing
from pushsvc.client.calls import Call, Done
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
    is still sent. The end of the block waits for what was published in it.

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

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError("a publisher is entered once: make another one")
        self._task = asyncio.create_task(self._work(), name="pushsvc.client publisher")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Send what was published, then close the connections. May be called several times."""
        self._closed = True
        self._wake.set()
        try:
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
        self._check()
        encoded = publishing.encode(note)
        async with self._turns:
            if idempotency_key is not None:
                key = publishing.key_of(idempotency_key)
                answer = await self._call(Request(publishing.ONE, encoded, key))
                return publishing.receipt(answer)
            waiting = _Waiting(encoded, asyncio.get_running_loop().create_future())
            self._check()
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
        self._check()
        return await self._results(publishing.requests_to(users, content, idempotency_key))

    async def publish_many(
        self, notes: Iterable[Note], *, idempotency_key: str | None = None
    ) -> list[Result]:
        """Publish many notifications. See ``Publisher.publish_many``."""
        self._check()
        encoded = [publishing.encode(note) for note in notes]
        return await self._results(
            publishing.requests_for(encoded, idempotency_key, self._max_body)
        )

    async def _results(self, requests: Sequence[Request]) -> list[Result]:
        results: list[Result] = []
        for request in requests:
            try:
                results += publishing.results(await self._call(request), request.key)
            except PushError as error:
                if len(requests) == 1:
                    raise
                results += [error] * publishing.size_of(request)
        return results

    def _check(self) -> None:
        if self._task is None:
            raise RuntimeError("use the publisher within `async with`")
        if self._closed:
            raise Closed("the publisher is closed: open a new one")

    # --- batches -------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Send what waits, batch after batch, until the publisher is closed and nothing waits."""
        try:
            while self._waiting or not self._closed:
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(0)  # whoever publishes in the same moment comes along
                await self._send(self._batch())
        finally:
            for waiting in self._waiting:
                if not waiting.result.done():
                    waiting.result.set_exception(Closed("the publisher was closed before"))

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
        request = publishing.batch([each.note for each in waiting], publishing.key_of(None))
        results: Sequence[Result | Exception]
        try:
            results = publishing.results(await self._call(request), request.key)
        except Exception as error:  # noqa: BLE001 - each caller is told, whatever it is
            results = [error] * len(waiting)
        except BaseException:
            for each in waiting:
                each.result.cancel()
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
        loop = asyncio.get_running_loop()
        token = await self._current_token()
        while True:
            limit = max(min(self._timeout, call.left(time.monotonic())), 0.001)
            send = self._http.send
            outcome = await loop.run_in_executor(self._threads, send, request, token, limit)
            step = call.next(outcome, time.monotonic(), random.random())  # noqa: S311 - jitter
            if isinstance(step, Done):
                return step.value
            if step.new_token:
                token = await self._current_token(instead_of=token)
            await asyncio.sleep(step.delay)

    async def _current_token(self, instead_of: str | None = None) -> str:
        """The token, or a new one instead of one that was refused."""
        provider = self._provider
        if isinstance(provider, str):
            return provider
        async with self._token_lock:  # several calls ask once
            if self._token is None or self._token == instead_of:
                self._token = await ask_for_token(provider, refused=instead_of is not None)
            return self._token

"""Requests in an event loop: a few threads send them, as what sends them blocks."""

import asyncio
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pushsvc.client.calls import Answer, Request
from pushsvc.client.core import Io, unanswered
from pushsvc.client.errors import NotInTime
from pushsvc.client.http import Http
from pushsvc.client.tokens import Token, ask_for_token

T = TypeVar("T")


class Threads(Io):
    """What the core awaits, in an event loop: requests are sent by a few threads.

    Args:
        http: what sends them.
        count: how many threads.
    """

    def __init__(self, http: Http, count: int) -> None:
        self._http = http
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="pushsvc.client")
        self._lock = asyncio.Lock()

    def close(self) -> None:
        """Send nothing more, and close what is idle."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._http.close()

    async def send(
        self, request: Request, token: str, timeout: float, until: float
    ) -> Answer | Exception:
        """Send a request once, in a thread."""
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
        """Wait."""
        await asyncio.sleep(seconds)

    def lock(self) -> asyncio.Lock:
        """Let one call at a time ask for a token."""
        return self._lock

    async def ask_for_token(self, provider: Token, *, refused: bool) -> str:
        """A token of a function, which may be a coroutine function."""
        return await ask_for_token(provider, refused=refused)

    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do something, or raise ``TimeoutError``."""
        async with asyncio.timeout(seconds):
            return await work

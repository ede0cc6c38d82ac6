"""What is published in the same moment, as one request: what comes meanwhile is the next one."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pushsvc.client import publishing
from pushsvc.client.core import Core, unanswered
from pushsvc.client.publishing import Receipt, Result


@dataclass(frozen=True, slots=True)
class _Waiting:
    note: bytes
    result: asyncio.Future[Receipt]


class Batches:
    """The notifications that wait for a request, in their order.

    Args:
        core: sends the requests, one at a time.
        max_body: bytes of one.
        over: whether nothing more will come once nothing waits.
    """

    def __init__(self, core: Core, max_body: int, over: Callable[[], bool]) -> None:
        self._core = core
        self._max_body = max_body
        self._over = over
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()

    def put(self, note: bytes) -> asyncio.Future[Receipt]:
        """Have an encoded notification sent; what becomes of it."""
        waiting = _Waiting(note, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._wake.set()
        return waiting.result

    def look(self) -> None:
        """Whether it is over may have changed."""
        self._wake.set()

    async def work(self) -> None:
        """Send what waits, batch after batch, until it is over."""
        try:
            while self._waiting or not self._over():
                if not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                    await asyncio.sleep(0)  # whoever publishes in the same moment comes along
                await self._send(self._batch())
        finally:
            for waiting in self._waiting:
                if not waiting.result.done():
                    waiting.result.set_exception(unanswered())

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
            results = publishing.results(await self._core.call(request), request)
        except Exception as error:  # noqa: BLE001 - each caller is told, whatever it is
            results = [error] * len(waiting)
        except BaseException:
            for each in waiting:
                if not each.result.done():
                    each.result.set_exception(unanswered())
            raise
        for each, result in zip(waiting, results, strict=True):
            if each.result.done():
                continue  # its caller left
            if isinstance(result, Exception):
                each.result.set_exception(result)
            else:
                each.result.set_result(result)

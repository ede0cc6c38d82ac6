"""A pipeline queue carries commands to Redis, one pipeline under way at a time.

While one pipeline is under way the next fills up, so the busier a node is, the less a command
costs. Commands of one queue are executed in the order in which they were submitted.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, overload

import structlog
from redis.exceptions import (
    AskError,
    BusyLoadingError,
    ClusterError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

from pushsvc import metrics
from pushsvc.errors import Overloaded, PushError, StoreUnavailable, Unavailable, checked, internal
from pushsvc.logs import SampledLog
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command, Result, StoreConnection

Decoded = TypeVar("Decoded")

Submission = tuple[Sequence[Command], asyncio.Future[list[Any]], Callable[[Any], Any] | None]

MAX_PIPELINE: Final = 512
"""Most commands in one pipeline."""
MAX_QUEUE: Final = 50_000
"""Most commands that wait; further ones are refused."""
MAX_TOLD: Final = 8
"""Most different reasons that are logged for one time in which Redis cannot be reached."""
FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0

log = structlog.get_logger("pushsvc.lane")
sampled = SampledLog(log)

_PASSING: Final = (
    AskError, BusyLoadingError, ClusterError, NoScriptError, ReadOnlyError, TryAgainError,
)  # fmt: skip
"""Errors of a server that starts, fails over or moves slots: nothing was executed."""
_LOST: Final = (RedisConnectionError, RedisTimeoutError, OSError)
"""What stands for the answer of one server of several that could not be reached."""
_UNKNOWN: Final = (
    "the store cannot be reached, so the request may or may not have been carried out: retry"
)
_PASSING_CODES: Final = ("NOREPLICAS", "MISCONF", "BUSY", "UNBLOCKED")
"""The same, where redis-py has no class for them."""


_FORBIDDEN_IN_SCRIPT: Final = "ACL failure in script"
_ELSEWHERE_IN_SCRIPT: Final = "non local key"
"""Of a script whose slot moves, and which asks for a key that is not there, or no longer."""


def passes(error: Exception) -> bool:
    """Whether it is of a server that starts, fails over or moves slots: a retry is right."""
    text = str(error)
    return (
        isinstance(error, _PASSING)
        or text.startswith(_PASSING_CODES)
        or _ELSEWHERE_IN_SCRIPT in text
    )


class PipelineQueue:
    """One stream of commands to Redis.

    Args:
        name: the label of its metrics.
        connection: the way to Redis that it has for itself.
        scripts: given to each server before the first command, so that a command that needs one
            is not left behind by those after it.
        at_once: most submissions that are answered before everything else has its turn: who waits
            for one of them goes on in the same turn of the event loop.
        tail: a command put after each pipeline, on the same connection (``WAIT``, ``WAITAOF``);
            what it answered follows the results of every submission, once for each of them.

    Attributes:
        on_change: told when the queue leads to another server than before, or to one that was away
            meanwhile: what was written without waiting for a replica may be lost.
    """

    def __init__(
        self,
        name: str,
        connection: StoreConnection,
        scripts: Scripts,
        tail: Command | None = None,
        *,
        at_once: int = MAX_PIPELINE,
    ) -> None:
        self.name = name
        self.on_change: Callable[[], None] = lambda: None
        connection.greet(scripts.load)
        self._connection = connection
        self._changes = connection.changes
        self._at_once = at_once
        self._tail = tail
        self._queue: deque[Submission] = deque()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None
        self._pause = 0.0
        self._closed_until = 0.0
        self._closed = False
        self._told_forbidden = False
        self._told_errors: set[str] = set()
        self._seconds = metrics.redis_seconds.labels(name)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way: what is submitted now may be alone in its pipeline."""
        return self._task is None

    @overload
    def submit(self, commands: Sequence[Command]) -> asyncio.Future[list[Result]]: ...

    @overload
    def submit(
        self, commands: Sequence[Command], decode: Callable[[Any], Decoded]
    ) -> asyncio.Future[list[Decoded | PushError]]: ...

    def submit(
        self, commands: Sequence[Command], decode: Callable[[Any], Any] | None = None
    ) -> asyncio.Future[list[Any]]:
        """Have commands executed, in order.

        Args:
            commands: what is executed.
            decode: makes a result of each reply; None leaves them as they are.

        Returns:
            A future of their results in order; a command that failed has a ``PushError`` for its
            result. The future itself fails with ``StoreUnavailable`` where it is not known which
            of the commands were executed.

        Raises:
            Overloaded: too many commands wait already; none of these was taken.
            StoreUnavailable: Redis failed a moment ago; none of these was taken.
        """
        now = time.monotonic()
        if self._closed or now < self._closed_until:
            raise StoreUnavailable(
                "the store cannot be reached: retry", retry_after=max(1.0, self._pause)
            )
        if self._waiting + len(commands) > MAX_QUEUE:
            raise Overloaded("too many requests wait for the store: retry")
        future: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._queue.append((commands, future, decode))
        self._waiting += len(commands)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return future

    async def one(self, *command: Any) -> Any:
        """Execute one command.

        Raises:
            PushError: what the command failed with.
        """
        return await self.execute(command)

    async def execute(self, command: Command) -> Any:
        """Execute one command that was made before; see ``one``."""
        (result,) = await self.submit([command])
        return checked(result)

    def forget(self, commands: Sequence[Command]) -> None:
        """Have commands executed whose outcome does not matter."""
        try:
            future = self.submit(commands)
        except Unavailable:
            return
        # Looking at the exception is what keeps asyncio from reporting it.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def aclose(self) -> None:
        """Finish what was submitted and close the connections."""
        self._closed = True
        if self._task is not None:
            await self._task
        await self._connection.aclose()

    async def _run(self) -> None:
        try:
            while self._queue:
                batch = self._next_batch()
                commands = [command for some, _, _ in batch for command in some]
                if not commands:
                    await self._answer(
                        batch, []
                    )  # a server would say nothing, and be taken for dead
                    continue
                started = time.perf_counter()
                try:
                    results = await self._connection.execute(commands, self._tail)
                except (RedisError, OSError) as error:
                    self._fail(batch, error)
                    continue
                except Exception as error:
                    # Whatever a client library meets in a broken connection, callers must hear.
                    log.exception("a pipeline failed in an unforeseen way", lane=self.name)
                    self._fail(batch, error)
                    continue
                self._pause = 0.0
                self._told_errors.clear()
                self._seconds.observe(time.perf_counter() - started)
                await self._answer(
                    batch,
                    [
                        self._to_error(result) if isinstance(result, Exception) else result
                        for result in results
                    ],
                )
                if self._changes != self._connection.changes:
                    self._changes = self._connection.changes
                    self.on_change()
        finally:
            self._task = None

    def _next_batch(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        while self._queue and (not batch or size + len(self._queue[0][0]) <= MAX_PIPELINE):
            item = self._queue.popleft()
            size += len(item[0])
            batch.append(item)
        self._waiting -= size
        return batch

    async def _answer(self, batch: list[Submission], results: list[Result]) -> None:
        count = len(results) // 2 if self._tail is not None else 0
        first = 0
        for place, (commands, future, decode) in enumerate(batch):
            if place and not place % self._at_once:
                await asyncio.sleep(0)
            last = first + len(commands)
            if not future.done():
                answer = results[first:last]
                if count:
                    answer += results[count + first : count + last]
                if decode is None:
                    future.set_result(answer)
                else:
                    self._decode(future, answer, decode)
            first = last

    def _decode(
        self,
        future: asyncio.Future[list[Any]],
        answer: list[Result],
        decode: Callable[[Any], Any],
    ) -> None:
        future.set_result(
            [
                each if isinstance(each, PushError) else self._decoded(each, decode)
                for each in answer
            ]
        )

    def _decoded(self, reply: Result, decode: Callable[[Any], Any]) -> Any:
        try:
            return decode(reply)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged with its traceback
            # One that nobody foresaw, such as a stray value in one mailbox, fails no other. It is
            # read again each second, so the log must not be told each time.
            sampled.warning("a reply was not understood", lane=self.name, exc_info=True)
            return internal()

    def _to_error(self, result: Exception) -> PushError:
        metrics.redis_errors.labels(self.name, type(result).__name__).inc()
        if isinstance(result, OutOfMemoryError):
            return StoreUnavailable("the store is out of memory: retry later", retry_after=5.0)
        text = str(result)
        if isinstance(result, NoPermissionError) or _FORBIDDEN_IN_SCRIPT in text:
            return self._forbidden(text)
        if passes(result):
            return StoreUnavailable("the store is failing over: retry", retry_after=1.0)
        if isinstance(result, _LOST):
            return StoreUnavailable(_UNKNOWN, retry_after=1.0)
        return PushError(f"the store refused a command: {text[:200]}")

    def _forbidden(self, text: str) -> PushError:
        if not self._told_forbidden:  # once: a node that lacks a permission lacks it all the time
            self._told_forbidden = True
            log.error(
                "Redis does not permit a command: give the user what docs/operations/redis.md says",
                lane=self.name,
                error=text[:200],
            )
        return PushError(f"the store does not permit a command: {text[:200]}")

    def _fail(
        self,
        batch: list[Submission],
        error: Exception,
    ) -> None:
        """Fail a pipeline, and for a moment everything after it, so that callers hear at once."""
        metrics.redis_errors.labels(self.name, type(error).__name__).inc()
        text = str(error)
        # Each reason once, until it can be reached again; the error names the address.
        if text not in self._told_errors and len(self._told_errors) < MAX_TOLD:
            self._told_errors.add(text)
            log.warning("Redis cannot be reached", lane=self.name, error=text)
        self._pause = min(max(self._pause * 2, FIRST_PAUSE), LONGEST_PAUSE)
        self._closed_until = time.monotonic() + self._pause
        batch = [*batch, *self._queue]
        self._queue.clear()
        self._waiting = 0
        for _, future, _ in batch:
            if not future.done():
                future.set_exception(StoreUnavailable(_UNKNOWN, retry_after=max(1.0, self._pause)))

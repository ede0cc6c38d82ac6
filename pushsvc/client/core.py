"""What both publishers do: which request, with which token, again when, and what comes of it.

These coroutines wait for nothing but the ``Io`` that they are given. In an event loop that is
asyncio's; where it blocks, it never suspends them, and ``blocking.now`` runs them to their end.
"""

import logging
import random
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pushsvc.client import asking, publishing
from pushsvc.client.asking import MALFORMED, Kept, Only, Question
from pushsvc.client.calls import Answer, Call, Done, Request, Retry
from pushsvc.client.errors import Closed, OutcomeUnknown, PushError, Refused, Unavailable
from pushsvc.client.hints import checked_token
from pushsvc.client.publishing import Result
from pushsvc.client.tokens import Token

DEADLINE = 30.0
"""Seconds for a call, with all its retries."""
TIMEOUT = 10.0
"""Seconds for one try."""
CONNECTIONS = 4
"""Open at most."""

T = TypeVar("T")

_log = logging.getLogger("pushsvc.client")


class Io(ABC):
    """What a publisher does with the world, blocking or not."""

    @abstractmethod
    async def send(
        self, request: Request, token: str, timeout: float, until: float
    ) -> Answer | Exception:
        """Send a request once; the answer, or the error instead of one. See ``Http.send``."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Wait."""

    @abstractmethod
    def lock(self) -> AbstractAsyncContextManager[None]:
        """Let one call at a time ask for a token."""

    @abstractmethod
    async def ask_for_token(self, provider: Token, *, refused: bool) -> str:
        """A token of a function."""

    @abstractmethod
    async def within(self, seconds: float, work: Coroutine[Any, Any, T]) -> T:
        """Do something, or raise ``TimeoutError`` where it can be interrupted."""


class Core:
    """The calls of one publisher.

    Args:
        io: how it sends and waits.
        provider: of its tokens.
        deadline: seconds for a call, with all its retries.
        timeout: seconds for one try.
    """

    def __init__(self, io: Io, provider: Token, deadline: float, timeout: float) -> None:
        self._io = io
        self._provider = provider
        self._token: str | None = None
        self._deadline = deadline
        self._timeout = timeout

    async def ask(self, question: Question[T]) -> T:
        """What a question is answered.

        Raises:
            PushError: there is no such answer.
        """
        try:
            told = await self.call(question.request)
        except Refused as refused:
            if question.otherwise is None:
                raise
            return question.otherwise(refused)
        try:
            return question.read(told)
        except MALFORMED:
            raise OutcomeUnknown(f"the answer is not what was asked for: {told!s:.200}") from None

    async def history(
        self, user: str, limit: int | None, before: str | None, only: Only
    ) -> AsyncGenerator[Kept]:
        """What a mailbox keeps, page by page as it is taken."""
        left = limit
        while left is None or left > 0:
            most = asking.LARGEST_PAGE if left is None else min(left, asking.LARGEST_PAGE)
            page = await self.ask(asking.page(user, before, most, only))
            for each in page.notifications:
                yield each
            if page.next is None:
                return
            before = page.next
            left = None if left is None else left - len(page.notifications)

    async def results(self, requests: Sequence[Request]) -> list[Result]:
        """What became of the notifications of several requests, in order.

        Raises:
            PushError: there is one request, and it failed.
        """
        results: list[Result] = []
        for request in requests:
            try:
                results += publishing.results(await self.call(request), request)
            except PushError as error:
                if len(requests) == 1:
                    raise
                results += [error] * request.count
        return results

    async def call(self, request: Request) -> dict[str, Any]:
        """Send a request until it is answered.

        Raises:
            PushError: it is refused, or there is no answer in time.
        """
        call = Call(
            request, time.monotonic(), self._deadline + request.wait,
            renewable=request.bearer is None and not isinstance(self._provider, str),
        )  # fmt: skip
        token = ""
        refused: str | None = None
        while True:
            outcome: Answer | Exception
            try:
                left = call.left(time.monotonic())
                current = self._current_token(request.bearer, instead_of=refused)
                token = checked_token(await self._io.within(left, current))
            except PushError:
                raise  # the provider's own verdict, or that this is no token
            except Exception as error:  # noqa: BLE001 - whatever a provider raises may pass
                outcome = error
            else:
                limit = self._timeout + request.wait
                outcome = await self._io.send(request, token, limit, call.until)
            step = _logged(call, outcome)
            if isinstance(step, Done):
                return step.value
            if step.new_token:
                refused = token
            await self._io.sleep(step.delay)

    async def _current_token(self, given: str | None, *, instead_of: str | None) -> str:
        """The token that was given, or ours, or a new one instead of one that was refused."""
        if given is not None:
            return given
        if isinstance(self._provider, str):
            return self._provider
        async with self._io.lock():  # several calls ask once
            if self._token is None or self._token == instead_of:
                refused = instead_of is not None
                self._token = await self._io.ask_for_token(self._provider, refused=refused)
            return self._token


def unanswered() -> Closed:
    """The error of a call that the end of its publisher has cut short."""
    return Closed("the publisher was closed before this was answered: it may have been published")


def _logged(call: Call, outcome: Answer | Exception) -> Retry | Done:
    """What to do after a try, of which the log says more than that it was done.

    Of the path there is no query, as that names users.
    """
    what = f"{call.request.method} {call.request.path.partition('?')[0]}"
    try:
        step = call.next(outcome, time.monotonic(), random.random())  # noqa: S311 - jitter
    except Unavailable as error:
        _log.warning("%s: given up: %s", what, error.detail)
        raise
    if isinstance(step, Done):
        return step
    if step.new_token:
        _log.info(
            "%s: a new token in %.1f s, as the last was refused: %s", what, step.delay, step.why
        )
    else:
        _log.warning("%s: again in %.1f s: %s", what, step.delay, step.why)
    return step

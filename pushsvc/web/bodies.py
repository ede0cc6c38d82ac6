"""The body of a request as it comes, and what those of all requests of a worker take together."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pushsvc.auth.tokens import SCOPE_PUBLISH, Claims
from pushsvc.errors import Overloaded, PushError, RateLimited
from pushsvc.protocol.requests import RequestReader
from pushsvc.web.operation import Admitted, late, too_large

AT_ONCE: Final = 16
"""Most requests of one client whose bodies are waited for; those that come whole do not count."""


class Bodies:
    """The bytes of all bodies that are being read, or whose request is not answered yet.

    Args:
        most: of them.
    """

    def __init__(self, most: int) -> None:
        self._left = self._most = most
        self._awaited: dict[str, int] = {}

    def take(self, size: int) -> None:
        """Account for some that have come.

        Raises:
            Overloaded: these are too many.
        """
        if size > self._left:
            raise Overloaded(
                f"the bodies of all requests have over {self._most} bytes: retry", retry_after=2.0
            )
        self._left -= size

    def give(self, size: int) -> None:
        """Account for some that are needed no more."""
        self._left += size

    @contextmanager
    def awaited(self, claims: Claims) -> Iterator[None]:
        """Count a request whose body is waited for while the context lasts.

        Each takes a place, for as long as its sender likes within the time for a body. A backend
        may have as many as there are.

        Args:
            claims: of its sender.

        Raises:
            RateLimited: too many of a client's are waited for.
        """
        if SCOPE_PUBLISH in claims.scopes:
            yield
            return
        caller = claims.caller
        others = self._awaited.get(caller, 0)
        if others >= AT_ONCE:
            raise RateLimited(
                f"{AT_ONCE} requests of this user have unfinished bodies: send those first",
                retry_after=2.0,
            )
        self._awaited[caller] = others + 1
        try:
            yield
        finally:
            self._awaited[caller] -= 1
            if not self._awaited[caller]:
                del self._awaited[caller]


class Body:
    """The body of one request.

    Args:
        bodies: what all of them may take.
        reader: of the connection, which has read the head.
        admitted: how much is read, and of whom.
    """

    __slots__ = ("_admitted", "_bodies", "_data", "_reader", "_waiter", "held")

    def __init__(self, bodies: Bodies, reader: RequestReader, admitted: Admitted) -> None:
        self.held = 0
        """Bytes that have come, and count until the request is answered."""
        self._admitted = admitted
        self._bodies = bodies
        self._reader = reader
        self._data = bytearray()
        self._waiter: asyncio.Future[None] | None = None

    @property
    def awaited(self) -> bool:
        """Whether more of it is waited for."""
        return self._waiter is not None

    async def whole(self, wait: Callable[[], None], seconds: float) -> bytes:
        """All of it.

        Args:
            wait: called before it is waited for, where not all of it is there.
            seconds: in which it must arrive.

        Raises:
            PayloadTooLarge: it has more bytes than are read.
            RequestTimeout: it did not come in time.
            RateLimited: too many of its sender's are waited for.
            Overloaded: the bodies of all requests are more than a node can hold.
            InvalidRequest: it is malformed.
        """
        data = self._take()
        if self._reader.complete:
            return data
        self._data += data
        with self._bodies.awaited(self._admitted.claims):
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                wait()
                async with asyncio.timeout(seconds):
                    await self._waiter
            except TimeoutError:
                raise late("body", seconds) from None
            finally:
                self._waiter = None
        data = bytes(self._data)
        self._data.clear()
        return data

    def more(self) -> None:
        """More of it may have come."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        try:
            self._data += self._take()
        except PushError as error:
            self.forget()  # now: others that come in this turn of the loop may have its room
            waiter.set_exception(error)
            return
        if self._reader.complete:
            waiter.set_result(None)

    def _take(self) -> bytes:
        data = self._reader.body()
        size = self.held + len(data)
        if size > self._admitted.most:
            raise too_large(size, self._admitted.most)
        self._bodies.take(len(data))
        self.held = size
        return data

    def forget(self) -> None:
        """It is needed no more."""
        self._bodies.give(self.held)
        self.held = 0
        self._data.clear()

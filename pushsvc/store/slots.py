"""Which primary of a Redis Cluster serves which slot: a map that its servers tell."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from redis.crc import REDIS_CLUSTER_HASH_SLOTS
from redis.exceptions import AskError, AuthenticationError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.store.server_connection import ServerConnection

log = structlog.get_logger("pushsvc.cluster")

Address = tuple[str, int]
"""Host and port of a server."""
Owners = list[Address | None]
"""The primary of each slot, None where there is none."""
Open = Callable[[Address, float], ServerConnection]
"""Makes a connection to a server whose pipelines are answered within the given seconds, or fail."""

MAP_SECONDS: Final = 5.0
"""How old the map of slots may be; it is also read again whenever an answer contradicts it."""
FAILED_MAP_SECONDS: Final = 1.0
"""The same while a server fails: another one may be promoted in its place at any time."""
MAP_PAUSE: Final = 0.2
"""Least seconds between two readings of the map."""
ANSWER_SECONDS: Final = 1.0
"""How long a server may take to tell the map, before another one is asked."""
READ_SECONDS: Final = 4.0
"""How long all of them may take."""
FAILED_SECONDS: Final = 10.0
"""For how long a server counts as one that fails: longer than it takes to try it once more."""
REFUSALS: Final = (AuthenticationError, NoPermissionError)
"""Errors of a server that does not let this node in."""


def owners_of(answer: Sequence[Any], asked: Address) -> Owners:
    """The primary of each slot.

    Args:
        answer: to ``CLUSTER SLOTS``.
        asked: who gave it; a server that does not know its own name is reached where this one is.
    """
    owners: Owners = [None] * REDIS_CLUSTER_HASH_SLOTS
    for first, last, (host, port, *_), *_ in answer:
        owner = (_host(host, asked), port)
        owners[first : last + 1] = [owner] * (last + 1 - first)
    return owners


def target(redirection: AskError, answered: Address) -> Address:
    """Where a command is to be sent instead.

    Args:
        redirection: MOVED or ASK.
        answered: who gave it.
    """
    return _host(redirection.host.encode(), answered), redirection.port


def _host(host: bytes | None, asked: Address) -> str:
    return asked[0] if host in (None, b"", b"?") else host.decode()


class Slots:
    """Which primary serves which slot, as far as is known; one for all connections of a process.

    Args:
        hosts: servers of the Cluster, asked as long as no others are known, or all of those fail.
        open_connection: makes connections to servers.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        hosts: Sequence[Address],
        open_connection: Open,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owners: Owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        self.primaries: frozenset[Address] = frozenset()
        self.changes = 0
        """How often another server was found to be a primary."""
        self.open_connection = open_connection
        self._hosts = hosts
        self._clock = clock
        self._doubted: set[Address] = set()
        """Servers that contradicted the map since it was read."""
        self._failed: dict[Address, float] = {}
        """When servers failed last."""
        self._wrong = True
        self._read_at = -MAP_PAUSE
        self._reading: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def current(self) -> None:
        """Read the map again if it is wrong, and see to it that it is read now and then.

        Raises:
            RedisError: no server was ever there to tell it, or none lets this node in.
        """
        now = self._clock()
        usual = FAILED_MAP_SECONDS if any(map(self._fails, self._failed)) else MAP_SECONDS
        age = now - self._read_at
        if self._reading is None and age >= (MAP_PAUSE if self._wrong else usual):
            self._reading = asyncio.get_running_loop().create_task(self._read())
        if self._reading is not None and self._wrong:
            # Not the task itself: a caller that gives up must not take the others' answer along.
            await asyncio.wait([self._reading])
        if not self.primaries:
            if isinstance(self._error, REFUSALS):
                raise self._error
            raise RedisConnectionError(f"the Cluster cannot be reached: {self._error}")

    def moved(self, slot: int, to: Address) -> None:
        """A server said who serves a slot; there may be more to know."""
        self.owners[slot] = to
        if to not in self.primaries:
            self._see(self.owners, self.primaries | {to})
        self._wrong = True

    def doubt(self, server: Address) -> None:
        """A server does not serve what the map says."""
        self._doubted.add(server)
        self._wrong = True

    def failed(self, server: Address) -> None:
        """A server could not be reached, or did not answer in time."""
        self._failed[server] = self._clock()
        self._wrong = True

    def anyone(self) -> Address:
        """A primary, one that answers if there is such a one."""
        return min(self.primaries, key=self._fails) if self._failed else next(iter(self.primaries))

    def _fails(self, server: Address) -> bool:
        return self._clock() < self._failed.get(server, -FAILED_SECONDS) + FAILED_SECONDS

    async def aclose(self) -> None:
        """Wait until nothing is read; other connections may go on."""
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(READ_SECONDS):
                await self._read_from_any()
        except TimeoutError as error:
            self._error = error
        finally:
            self._read_at = self._clock()
            self._reading = None

    async def _read_from_any(self) -> None:
        self._error = None
        for server in self._candidates():
            try:
                owners = await self._ask(server)
            except (RedisError, OSError, ValueError) as error:
                # That it lets nobody in says more than that another one cannot be reached.
                if not isinstance(self._error, REFUSALS):
                    self._error = error
                self.failed(server)
            else:
                self._wrong = False
                self._doubted.clear()
                self._failed = {each: at for each, at in self._failed.items() if self._fails(each)}
                self._see(owners, frozenset(owner for owner in owners if owner is not None))
                return

    def _candidates(self) -> list[Address]:
        """Whom to ask, in order.

        A server in doubt may be cut off, and tell an old map; one that fails keeps callers waiting.
        """
        known = dict.fromkeys([*self.primaries, *self._hosts])
        return sorted(known, key=lambda each: (self._fails(each), each in self._doubted))

    async def _ask(self, server: Address) -> Owners:
        connection = self.open_connection(server, ANSWER_SECONDS)
        try:
            (answer,) = await connection.execute([("CLUSTER", "SLOTS")])
        finally:
            await connection.aclose()
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            raise RedisConnectionError("no slot is served yet")
        return owners_of(answer, server)

    def _see(self, owners: Owners, primaries: frozenset[Address]) -> None:
        promoted = primaries - self.primaries
        if self.primaries and promoted:
            self.changes += 1
            log.info(
                "the Cluster has a new primary", servers=["{}:{}".format(*p) for p in promoted]
            )
        self.owners, self.primaries = owners, primaries

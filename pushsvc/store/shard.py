"""One primary of several, which may fail or hang while the others serve."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from pushsvc.store.server_connection import Command, Result, ServerConnection

FIRST_PAUSE: Final = 0.1
LONGEST_PAUSE: Final = 2.0
"""Seconds between two tries to reach a server that failed; each is twice as long as the last."""


class Shard:
    """A connection to one primary, which stays shut after a failure until the server answers again.

    Whether it does is asked in the background: a command that finds out would make all others of
    its pipeline, those for healthy servers too, wait as long as it may take.

    Args:
        connection: to the server.
        failed: told of each failure, a try in the background included.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        connection: ServerConnection,
        failed: Callable[[Exception], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.used_at = clock()
        self._connection = connection
        self._failed = failed
        self._clock = clock
        self._trying: asyncio.Task[None] | None = None

    @property
    def changes(self) -> int:
        """How often its connection had to be opened again."""
        return self._connection.changes

    async def execute(self, commands: Sequence[Command], tail: Command | None) -> list[Result]:
        """Execute commands in order, then the tail once.

        Raises:
            RedisError, OSError: it is not known which of them were executed.
        """
        self.used_at = self._clock()
        if self._trying is not None:
            raise RedisConnectionError("this server failed a moment ago and does not answer yet")
        try:
            return await self._connection.execute(commands, tail)
        except (RedisError, OSError) as error:
            self._failed(error)
            self._trying = asyncio.get_running_loop().create_task(self._try())
            raise

    async def aclose(self) -> None:
        """Close the connection."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.wait([self._trying])
        await self._connection.aclose()

    async def _try(self) -> None:
        pause = FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            try:
                # An error is an answer, too: what it means is for the commands to say.
                await self._connection.execute([("PING",)])
            except Exception as error:  # noqa: BLE001 - what ends this keeps the server shut
                self._failed(error)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                break
        self._trying = None

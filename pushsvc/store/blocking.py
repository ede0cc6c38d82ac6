"""Commands that wait for something, which may hold up no pipeline."""

from typing import Any

from redis.exceptions import RedisError

from pushsvc.errors import StoreUnavailable
from pushsvc.store.server_connection import Result, StoreConnection


class BlockingConnection:
    """Commands one by one, each on a connection that nothing else needs meanwhile.

    Args:
        connection: whose time-out is longer than any command blocks.
    """

    def __init__(self, connection: StoreConnection) -> None:
        self._connection = connection

    async def execute(self, *command: Any) -> Result:
        """Execute one command.

        Raises:
            StoreUnavailable: Redis cannot be reached or refuses.
        """
        try:
            (answer,) = await self._connection.execute([command])
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"a blocking command failed: {error}") from error
        if isinstance(answer, Exception):
            raise StoreUnavailable(f"a blocking command failed: {answer}")
        return answer

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.aclose()

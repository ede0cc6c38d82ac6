"""Redis as the domain sees it: commands and scripts, by the names of keys and operations."""

from typing import Any, Final

from pushsvc.store.pipeline_queue import PipelineQueue
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts
from pushsvc.store.server_connection import Command

MOST_KEYS: Final = 12
"""Most keys of one script."""


class Redis:
    """One queue of commands, with the names that they need.

    Args:
        queue: where the commands go.
        keys: the key names.
        scripts: the operations.

    Attributes:
        submit, one, forget, aclose: as the queue has them.
    """

    __slots__ = ("_calls", "aclose", "forget", "keys", "one", "queue", "submit")

    def __init__(self, queue: PipelineQueue, keys: Keys, scripts: Scripts) -> None:
        self.queue = queue
        self.keys = keys
        # By how many keys there are: concatenating whole tuples is what costs least.
        self._calls: dict[str, list[Command]] = {
            name: [("EVALSHA", digest, count) for count in range(MOST_KEYS + 1)]
            for name, digest in scripts.digests.items()
        }
        self.submit = queue.submit
        self.one = queue.one
        self.forget = queue.forget
        self.aclose = queue.aclose

    def script(self, name: str, keys: tuple[str, ...], *args: Any) -> Command:
        """The command that runs a script.

        Args:
            name: of its file, without the suffix.
            keys: that it uses, all of one slot.
            args: what else it is given.
        """
        return self._calls[name][len(keys)] + keys + args

    async def run(self, name: str, keys: tuple[str, ...], *args: Any) -> Any:
        """Run a script.

        Raises:
            PushError: what it failed with.
        """
        return await self.one(*self.script(name, keys, *args))

"""Redis as the domain sees it: commands and scripts, by the names of keys and operations."""

from typing import Any

from pushsvc.store.calls import Run
from pushsvc.store.pipeline_queue import PipelineQueue
from pushsvc.store.schema import Keys
from pushsvc.store.scripts import Scripts


class Redis:
    """One queue of commands, with the names that they need.

    Args:
        queue: where the commands go.
        keys: the key names.
        scripts: the operations.

    Attributes:
        submit, execute, one, forget, aclose: as the queue has them.
    """

    __slots__ = ("_scripts", "aclose", "execute", "forget", "keys", "one", "queue", "submit")

    def __init__(self, queue: PipelineQueue, keys: Keys, scripts: Scripts) -> None:
        self.queue = queue
        self.keys = keys
        self._scripts = scripts.by_name
        self.submit = queue.submit
        self.execute = queue.execute
        self.one = queue.one
        self.forget = queue.forget
        self.aclose = queue.aclose

    def script(
        self, name: str, keys: tuple[str, ...], *args: Any, common: tuple[Any, ...] = ()
    ) -> Run:
        """The command that runs a script.

        Args:
            name: of its file, without the suffix.
            keys: that it uses, all of one slot.
            args: what else it is given.
            common: what it is given behind that, and many runs have alike.
        """
        return Run((self._scripts[name], keys, args, common))

    async def run(self, name: str, keys: tuple[str, ...], *args: Any) -> Any:
        """Run a script.

        Raises:
            PushError: what it failed with.
        """
        return await self.execute(self.script(name, keys, *args))

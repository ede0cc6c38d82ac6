"""The client under test: a process that is told what to do, and tells what it sees.

Commands and events are JSON objects, one a line; README.md describes them.
"""

import asyncio
import json
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeVar

from conformance.queue import Queue

T = TypeVar("T")

STARTS_WITHIN: Final = 15.0
"""Seconds until the first line; interpreters start slowly on a busy machine."""
ENDS_WITHIN: Final = 5.0
"""Seconds from the end of its input to the end of a driver."""
LINES_KEPT: Final = 6
"""Lines of its error output that are shown when something goes wrong."""


class DriverFailed(Exception):
    """The driver does not speak as README.md says, or ended."""


class Driver:
    """One running driver.

    Attributes:
        client: the name of the client, as its first line says.
        has: what the client can do beyond the least; scenarios may need it.
        hung: it did not end when its input did, and was killed.
        events: what it told, by the event's name.
    """

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.client = ""
        self.hung = False
        self.has: frozenset[str] = frozenset()
        self.events: dict[str, Queue[dict[str, Any]]] = {}
        self._process = process
        self._errors: deque[str] = deque(maxlen=LINES_KEPT)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    @asynccontextmanager
    async def running(cls, command: Sequence[str]) -> AsyncIterator["Driver"]:
        """A driver that is ready, until the block ends.

        Raises:
            DriverFailed: it did not become ready.
        """
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1024 * 1024,
            start_new_session=True,  # so that what the command starts ends with it
        )
        driver = cls(process)
        reading = asyncio.gather(driver._read_events(), driver._read_errors())
        try:
            await driver._ready()
            yield driver
        finally:
            await driver._stop()
            await reading

    def of(self, kind: str) -> Queue[dict[str, Any]]:
        """The events of one name."""
        return self.events.setdefault(kind, Queue())

    def tell(self, command: dict[str, Any]) -> None:
        """Send a command."""
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def unless_ended(self, coming: Coroutine[Any, Any, T], within: float) -> T:
        """What is awaited, while the driver lives.

        Raises:
            TimeoutError: it did not come within so many seconds.
            DriverFailed: the driver ended first.
        """
        taking = asyncio.ensure_future(coming)
        either: set[asyncio.Future[Any]] = {taking, self._ended}
        try:
            await asyncio.wait(either, timeout=within, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
            if self._ended.done():
                raise DriverFailed(f"the driver ended. {self.errors()}")
            raise TimeoutError
        finally:
            taking.cancel()

    def errors(self) -> str:
        """The last lines of its error output."""
        return "\n".join(self._errors) or "It wrote no errors."

    async def _ready(self) -> None:
        try:
            ready = await self.unless_ended(self.of("ready").take(), STARTS_WITHIN)
        except TimeoutError as wrong:
            raise DriverFailed(f"not ready in {STARTS_WITHIN:g} s. {self.errors()}") from wrong
        self.client = str(ready.get("client", "a client without a name"))
        self.has = frozenset(ready.get("has", []))

    async def _read_events(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type: it was asked for
        with suppress(ValueError):  # a line over the limit ends the conversation
            async for line in self._process.stdout:
                try:
                    event = json.loads(line)
                    self.of(event["event"]).put(event)
                except (KeyError, TypeError, ValueError):
                    self._errors.append(f"not an event: {line.decode(errors='replace').rstrip()}")
        if not self._ended.done():
            self._ended.set_result(None)

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None  # noqa: S101 - for the type: it was asked for
        with suppress(ValueError):
            async for line in self._process.stderr:
                self._errors.append(line.decode(errors="replace").rstrip())

    async def _stop(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), ENDS_WITHIN)
        except TimeoutError:
            self.hung = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()

"""Pipelines to a Redis Cluster: each command goes to the primary that serves its key.

Every primary is reached by a pipe of its own, so what holds for one server holds for each: a
pipeline is written at once, its tail follows on the same connection, and a server that fails takes
only its own commands with it. What a server answers to a command that is not for it says that
nothing was executed, so the command is sent on.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

import structlog
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError

from pushsvc.feeds.pipe import Command, Result, ServerPipe
from pushsvc.logs import SampledLog

log = structlog.get_logger("pushsvc.cluster")
sampled = SampledLog(log)

Address = tuple[str, int]
"""Host and port of a server."""
Owners = list[Address | None]
"""The primary of each slot, None where there is none."""
Part = TypeVar("Part")
Open = Callable[[Address, float], ServerPipe]
"""Makes a pipe to a server whose pipelines are answered within the given seconds, or fail."""

REDIRECTIONS: Final = 3
"""How often a command is sent on before its caller is told to retry."""
MAP_SECONDS: Final = 5.0
"""How old the map of slots may be; it is also read again whenever an answer contradicts it."""
MAP_PAUSE: Final = 0.2
"""Least seconds between two readings of the map."""
ANSWER_SECONDS: Final = 1.0
"""How long a server may take to tell the map, before another one is asked."""
READ_SECONDS: Final = 4.0
"""How long all of them may take."""
PAUSE: Final = 0.5
"""For how long a server that failed is not tried again: the others' commands must not wait."""

# --- rules ---------------------------------------------------------------------------------------

_KEYLESS: Final = frozenset({"PING", "SCRIPT", "TIME", "WAIT", "WAITAOF"})
_KEY_AT: Final = {"EVALSHA": 3, "XINFO": 2}
"""Where a command has its key, if not in the first place."""


def slot_of(command: Command) -> int | None:
    """The slot of a command's key, None for a command without one."""
    name = command[0]
    if name in _KEYLESS:
        return None
    place = command.index("STREAMS") + 1 if name == "XREAD" else _KEY_AT.get(name, 1)
    key = command[place]
    return key_slot(key if isinstance(key, bytes) else key.encode())


def batches(
    commands: Sequence[Command], owners: Owners, anyone: Address
) -> dict[Address, list[int]]:
    """Which commands each primary is sent, by their places, in order.

    Args:
        commands: of a pipeline.
        owners: of the slots.
        anyone: who is sent what has no key, or a slot of which no owner is known: it knows better.
    """
    sent: dict[Address, list[int]] = {}
    for place, command in enumerate(commands):
        slot = slot_of(command)
        to = (None if slot is None else owners[slot]) or anyone
        there = sent.get(to)
        if there is None:
            sent[to] = [place]
        else:
            there.append(place)
    return sent


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


# --- the map -------------------------------------------------------------------------------------


class Slots:
    """Which primary serves which slot, as far as is known; one for all pipes of a process.

    Args:
        hosts: servers of the Cluster, asked as long as no others are known, or all of those fail.
        open_pipe: makes pipes to servers.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self,
        hosts: Sequence[Address],
        open_pipe: Open,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.owners: Owners = [None] * REDIS_CLUSTER_HASH_SLOTS
        self.primaries: frozenset[Address] = frozenset()
        self.changes = 0
        """How often another server was found to be a primary."""
        self.open_pipe = open_pipe
        self._hosts = hosts
        self._clock = clock
        self._doubted: dict[Address, None] = {}
        """Servers that failed or contradicted the map since it was read; the latest is last."""
        self._wrong = True
        self._read_at = -MAP_PAUSE
        self._reading: asyncio.Task[None] | None = None
        self._error: Exception | None = None

    async def current(self) -> None:
        """Read the map again if it is wrong, and see to it that it is read now and then.

        Raises:
            RedisConnectionError: no server was ever there to tell it.
        """
        age = self._clock() - self._read_at
        if self._reading is None and age >= (MAP_PAUSE if self._wrong else MAP_SECONDS):
            self._reading = asyncio.get_running_loop().create_task(self._read())
        if self._reading is not None and self._wrong:
            # Not the task itself: a caller that gives up must not take the others' answer along.
            await asyncio.wait([self._reading])
        if not self.primaries:
            raise RedisConnectionError(f"the Cluster cannot be reached: {self._error}")

    def moved(self, slot: int, to: Address) -> None:
        """A server said who serves a slot; there may be more to know."""
        self.owners[slot] = to
        if to not in self.primaries:
            self._see(self.owners, self.primaries | {to})
        self._wrong = True

    def doubt(self, server: Address) -> None:
        """A server failed, or does not serve what the map says."""
        self._doubted.pop(server, None)
        self._doubted[server] = None
        self._wrong = True

    async def aclose(self) -> None:
        """Wait until nothing is read; other pipes may go on."""
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
        for server in self._candidates():
            try:
                owners = await self._ask(server)
            except (RedisError, OSError, ValueError) as error:
                self._error = error
                self.doubt(server)
            else:
                self._wrong = False
                self._doubted.clear()
                self._see(owners, frozenset(owner for owner in owners if owner is not None))
                return

    def _candidates(self) -> list[Address]:
        """Whom to ask, in order: who is in doubt may be cut off, and tell an old map."""
        known = [*self.primaries, *self._hosts]
        return [*(each for each in known if each not in self._doubted), *self._doubted]

    async def _ask(self, server: Address) -> Owners:
        pipe = self.open_pipe(server, ANSWER_SECONDS)
        try:
            (answer,) = await pipe.execute([("CLUSTER", "SLOTS")])
        finally:
            await pipe.aclose()
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


# --- the pipe ------------------------------------------------------------------------------------


class ClusterPipe:
    """A pipe to all primaries of a Cluster.

    Args:
        slots: the map, shared with other pipes.
        timeout: seconds that each server has for its part of a pipeline.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, slots: Slots, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._timeout = timeout
        self._clock = clock
        self._pipes: dict[Address, ServerPipe] = {}
        self._shut: dict[Address, float] = {}
        self._reconnects = 0

    @property
    def changes(self) -> int:
        """How often a server was promoted, or a connection had to be opened again."""
        return self._slots.changes + self._reconnects

    async def execute(
        self, commands: Sequence[Command], tail: Command | None = None
    ) -> list[Result]:
        """Execute commands; in order as far as they are for the same slot.

        A server that fails is the result of its commands, of which it is not known whether they
        were executed.
        """
        slots = self._slots
        await slots.current()
        await self._forget_old()
        results: list[Result] = [None] * len(commands)
        tails: list[Result] = [None] * len(commands)
        parts = batches(commands, slots.owners, next(iter(slots.primaries)))
        asking: set[int] = set()
        for turn in range(REDIRECTIONS + 1):
            answers = await self._parallel(
                self._part(server, commands, places, asking, tail)
                for server, places in parts.items()
            )
            onward: dict[Address, list[int]] = {}
            asking = set()
            for (server, places), answer in zip(parts.items(), answers, strict=True):
                for place, result, confirmed in zip(places, *answer, strict=True):
                    results[place] = result
                    tails[place] = confirmed
                    if isinstance(result, AskError):
                        to = target(result, server)
                        if isinstance(result, MovedError):
                            slots.moved(result.slot_id, to)
                        else:
                            asking.add(place)
                        onward.setdefault(to, []).append(place)
                    elif isinstance(result, ClusterDownError | ReadOnlyError):
                        slots.doubt(server)
            if not onward or turn == REDIRECTIONS:
                break
            parts = {to: sorted(places) for to, places in onward.items()}
        return results if tail is None else results + tails

    async def load(self, scripts: Sequence[str]) -> None:
        """Put scripts into the cache of every primary; one that fails now can run none anyway."""
        await self._slots.current()
        commands = [("SCRIPT", "LOAD", script) for script in scripts]
        await self._parallel(self._send(server, commands, None) for server in self._slots.primaries)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._slots.aclose()
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            await pipe.aclose()

    async def _part(
        self,
        server: Address,
        commands: Sequence[Command],
        places: Sequence[int],
        asking: Iterable[int],
        tail: Command | None,
    ) -> tuple[list[Result], list[Result]]:
        """The results of one server's part of a pipeline, and what its tail answered."""
        part: list[Command] = []
        mine: list[int] = []
        for place in places:
            if place in asking:
                part.append(("ASKING",))
            mine.append(len(part))
            part.append(commands[place])
        results = await self._send(server, part, tail)
        tails = results[len(part) :] or [None] * len(part)
        if len(mine) < len(part):
            return [results[i] for i in mine], [tails[i] for i in mine]
        return results[: len(part)], tails

    async def _send(
        self, server: Address, commands: Sequence[Command], tail: Command | None
    ) -> list[Result]:
        pipe = self._pipes.get(server)
        if pipe is None:
            pipe = self._pipes[server] = self._slots.open_pipe(server, self._timeout)
        error: Exception
        if self._clock() < self._shut.get(server, 0.0):
            error = RedisConnectionError("this server of the Cluster failed a moment ago")
        else:
            before = pipe.changes
            try:
                return await pipe.execute(commands, tail)
            except (RedisError, OSError) as failure:
                error = failure
                sampled.warning(
                    "a server of the Cluster cannot be reached",
                    server="{}:{}".format(*server),
                    error=str(failure),
                )
                self._slots.doubt(server)
                self._shut[server] = self._clock() + PAUSE
            finally:
                self._reconnects += pipe.changes - before
        return [error] * (len(commands) * (1 if tail is None else 2))

    async def _forget_old(self) -> None:
        """Close the connections to servers that are no primaries any more."""
        if len(self._pipes) > len(self._slots.primaries):
            for server in self._pipes.keys() - self._slots.primaries:
                self._shut.pop(server, None)
                await self._pipes.pop(server).aclose()

    @staticmethod
    async def _parallel(parts: Iterable[Coroutine[Any, Any, Part]]) -> list[Part]:
        work = list(parts)
        if len(work) == 1:
            return [await work[0]]
        # All of them end before the first unforeseen error is told, so no connection is in use.
        results = await asyncio.gather(*work, return_exceptions=True)
        answers: list[Part] = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            answers.append(result)
        return answers

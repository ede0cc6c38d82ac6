"""Pipelines to a Redis Cluster: each command goes to the primary that serves its key.

Every primary is reached by a connection of its own, so what holds for one server holds for each: a
pipeline is written at once, its tail follows on the same connection, and a server that fails fails
only its own commands. The others of that pipeline wait until it has failed; those that come later
do not, since it is left alone until it answers again. What a server answers to a command that is
not for it says that nothing was executed, so the command is sent on.
"""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

import structlog
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from pushsvc.logs import SampledLog
from pushsvc.store.calls import Run
from pushsvc.store.server_connection import Command, Greeting, Result, cut_off
from pushsvc.store.shard import Shard
from pushsvc.store.slots import Address, Owners, Slots, target

sampled = SampledLog(structlog.get_logger("pushsvc.cluster"))

Part = TypeVar("Part")

REDIRECTIONS: Final = 3
"""How often a command is sent on before its caller is told to retry."""
KEEP_SECONDS: Final = 10.0
"""How long a server that is no primary keeps its connection, if slots are on their way to it."""

_ASKING: Final = ("ASKING",)
_KEYLESS: Final = frozenset({"PING", "SCRIPT", "TIME", "WAIT", "WAITAOF"})
_KEY_AT: Final = {"EVALSHA": 3, "XINFO": 2}
"""Where a command has its key, if not in the first place."""


def slot_of(command: Command) -> int | None:
    """The slot of a command's key, None for a command without one."""
    if isinstance(command, Run):
        return key_slot(command[1][0].encode())
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


class ClusterConnection:
    """A connection to all primaries of a Cluster.

    Args:
        slots: the map, shared with other connections.
        timeout: seconds that each server has for its part of a pipeline.
        clock: seconds on a monotonic clock.
    """

    def __init__(
        self, slots: Slots, timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._slots = slots
        self._timeout = timeout
        self._clock = clock
        self._greeting: Greeting | None = None
        self._shards: dict[Address, Shard] = {}
        self._past_changes = 0

    @property
    def changes(self) -> int:
        """How often a server was promoted, or a connection had to be opened again."""
        now = sum(shard.changes for shard in self._shards.values())
        return self._slots.changes + self._past_changes + now

    def greet(self, greeting: Greeting) -> None:
        """Have the connection to every server that is met from now on begin with a greeting."""
        self._greeting = greeting

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
        parts = batches(commands, slots.owners, slots.anyone())
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
                    if not isinstance(result, ResponseError):
                        continue
                    if isinstance(result, AskError):
                        to = target(result, server)
                        if isinstance(result, MovedError):
                            slots.moved(result.slot_id, to)
                        else:
                            asking.add(place)
                        onward.setdefault(to, []).append(place)
                    elif isinstance(result, ClusterDownError | ReadOnlyError) or cut_off(result):
                        slots.doubt(server)
            if not onward or turn == REDIRECTIONS:
                break
            parts = {to: sorted(places) for to, places in onward.items()}
        return results if tail is None else results + tails

    async def everywhere(self, commands: Sequence[Command]) -> dict[str, list[Result]]:
        """Execute commands on every server that serves slots, or is about to; none is sent on."""
        await self._slots.current()
        servers = [*(self._slots.primaries | self._shards.keys())]
        answers = await self._parallel(self._send(server, commands, None) for server in servers)
        return {
            "{}:{}".format(*server): answer for server, answer in zip(servers, answers, strict=True)
        }

    async def at(self, server: str, commands: Sequence[Command]) -> list[Result]:
        """Execute commands on one server."""
        host, _, port = server.rpartition(":")
        return await self._send((host, int(port)), commands, None)

    def unserved(self) -> int:
        """How many slots no primary is known for."""
        return self._slots.owners.count(None)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._slots.aclose()
        shards, self._shards = self._shards, {}
        for shard in shards.values():
            await shard.aclose()

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
                part.append(_ASKING)
            mine.append(len(part))
            part.append(commands[place])
        results = await self._send(server, part, tail)
        tails = results[len(part) :] or [None] * len(part)
        if len(mine) < len(part):
            for i, command in enumerate(part):
                if command == _ASKING and isinstance(results[i], ResponseError):
                    # That it is not permitted says more than what the next one is answered then.
                    results[i + 1] = results[i]
            return [results[i] for i in mine], [tails[i] for i in mine]
        return results[: len(part)], tails

    async def _send(
        self, server: Address, commands: Sequence[Command], tail: Command | None
    ) -> list[Result]:
        shard = self._shards.get(server)
        if shard is None:
            connection = self._slots.open_connection(server, self._timeout)
            if self._greeting is not None:
                connection.greet(self._greeting)
            failed = functools.partial(self._failed, server)
            shard = self._shards[server] = Shard(connection, failed, self._clock)
        try:
            return await shard.execute(commands, tail)
        except (RedisError, OSError) as error:
            return [error] * (len(commands) * (1 if tail is None else 2))

    def _failed(self, server: Address, error: Exception) -> None:
        if server not in self._slots.primaries:
            return  # it was replaced, and is closed soon
        self._slots.failed(server)
        sampled.warning(
            "a server of the Cluster cannot be reached",
            server="{}:{}".format(*server),
            error=str(error),
        )

    async def _forget_old(self) -> None:
        """Close the connections to servers that are no primaries any more."""
        for server in self._shards.keys() - self._slots.primaries:
            if self._shards[server].used_at < self._clock() - KEEP_SECONDS:
                shard = self._shards.pop(server)
                self._past_changes += shard.changes
                await shard.aclose()

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

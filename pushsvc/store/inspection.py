"""What the servers of Redis say of themselves, and which names are kept there, for people."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from pushsvc.errors import StoreUnavailable
from pushsvc.store.schema import Keys, feed_of
from pushsvc.store.server_connection import Command, Result, StoreConnection

# To wait for no replica is answered at once, with how many there are.
_ASKED: Final[tuple[Command, ...]] = (("TIME",), ("HELLO",), ("INFO",), ("WAIT", 0, 1))
PAGE: Final = 1000
"""Keys that Redis looks at for one answer: about as many as it can in a millisecond."""


@dataclass(frozen=True, slots=True)
class Server:
    """What one primary says of itself; what it does not tell, or not to this user, is missing.

    Attributes:
        name: of the server.
        error: why it could not be asked.
        sent: by this machine's clock, when it was asked.
        time: by its own clock then.
        heard: by this machine's clock, when its answer was there.
        told: what it says to everyone of itself: its software, version, mode and role.
        info: what it says to those who may ask; None if this user may not.
        followers: how many replicas it has heard of last; None if this user may not wait for them.
    """

    name: str
    error: str = ""
    sent: float = 0.0
    time: float | None = None
    heard: float = 0.0
    told: Mapping[str, str] = field(default_factory=dict)
    info: Mapping[str, str] | None = None
    followers: int | None = None

    @property
    def version(self) -> str:
        """Such as "Valkey 9.0.1"; empty if it does not say."""
        known = self.told or self.info or {}
        number = known.get("version") or known.get("valkey_version") or known.get("redis_version")
        software = known.get("server") or known.get("server_name") or "redis"
        return f"{software.capitalize()} {number}" if number else ""

    @property
    def mode(self) -> str:
        """How it is run, standalone or in a cluster; empty if it does not say."""
        return self.told.get("mode", "")

    @property
    def is_replica(self) -> bool:
        """Whether it follows another one."""
        return self.told.get("role") == "replica"

    @property
    def policy(self) -> str | None:
        """What it throws away when memory is short."""
        return None if self.info is None else self.info.get("maxmemory_policy")

    @property
    def max_memory(self) -> int | None:
        """Bytes that it may take; 0 is all of the machine's."""
        return self._number("maxmemory")

    @property
    def memory(self) -> int | None:
        """Bytes that it takes."""
        return self._number("used_memory")

    @property
    def persists(self) -> bool | None:
        """Whether it writes what it is told to disk (AOF)."""
        written = self._number("aof_enabled")
        return None if written is None else written != 0

    @property
    def replicas(self) -> int | None:
        """How many follow it."""
        connected = self._number("connected_slaves")
        return self.followers if connected is None else connected

    @property
    def stops_when_cut_off(self) -> bool | None:
        """Whether it takes no writes while none of its replicas hears them."""
        return None if self.info is None else "min_slaves_good_slaves" in self.info

    @property
    def free_clients(self) -> int | None:
        """How many more connections it takes."""
        most, present = self._number("maxclients"), self._number("connected_clients")
        return None if most is None or present is None else most - present

    def _number(self, name: str) -> int | None:
        text = None if self.info is None else self.info.get(name)
        return int(text) if text is not None and text.isdecimal() else None


async def inspect(connection: StoreConnection) -> list[Server]:
    """Ask every primary about itself.

    Raises:
        StoreUnavailable: none can be asked.
    """
    sent = time.time()
    try:
        answers = await connection.everywhere(_ASKED)
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store cannot be asked: {error}") from error
    heard = time.time()
    return [_server(name, results, sent, heard) for name, results in answers.items()]


def _server(name: str, results: list[Result], sent: float, heard: float) -> Server:
    clock, hello, info, followers = results
    for each in results:
        # An answer that refuses is one, too.
        if isinstance(each, Exception) and not isinstance(each, ResponseError):
            return Server(name, error=str(each) or type(each).__name__)
    return Server(
        name,
        sent=sent,
        time=None if isinstance(clock, Exception) else int(clock[0]) + int(clock[1]) / 1e6,
        heard=heard,
        told={} if isinstance(hello, Exception) else _told(hello),
        info=None if isinstance(info, Exception) else _lines(info),
        followers=followers if isinstance(followers, int) else None,
    )


def _told(answer: list[Any]) -> dict[str, str]:
    """The texts among the fields of ``HELLO``."""
    pairs = zip(answer[::2], answer[1::2], strict=True)
    return {
        name.decode(): value.decode(errors="replace")
        for name, value in pairs
        if isinstance(value, bytes)
    }


def _lines(answer: bytes) -> dict[str, str]:
    """The fields of ``INFO``."""
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}


@dataclass(frozen=True, slots=True)
class Wide:
    """The feeds of users and topics whose stored form is not the name itself.

    Attributes:
        feeds: those that were found.
        whole: whether all keys were looked at.
    """

    feeds: frozenset[str]
    whole: bool


class NotPermitted(Exception):
    """This user may not look through the names of keys."""


async def key_names(connection: StoreConnection, pattern: str) -> AsyncIterator[Sequence[bytes]]:
    """The names of all keys that match a pattern, page by page; a page may be empty.

    Raises:
        NotPermitted: this user may not look.
        StoreUnavailable: a server cannot be asked now.
    """
    try:
        for server in await connection.everywhere([("PING",)]):
            cursor = b"0"
            while True:
                (answer,) = await connection.at(
                    server, [("SCAN", cursor, "MATCH", pattern, "COUNT", PAGE)]
                )
                if isinstance(answer, Exception):
                    raise answer
                cursor, found = answer
                yield found
                if cursor == b"0":
                    break
    except NoPermissionError:
        raise NotPermitted from None
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store cannot be asked for keys: {error}") from error


async def wide_feeds(connection: StoreConnection, keys: Keys, most: int) -> Wide | None:
    """Look for such feeds; None if this user may not.

    Args:
        connection: to ask by.
        keys: the key names.
        most: how many keys are looked at, whoever they belong to.

    Raises:
        StoreUnavailable: it cannot be asked now.
    """
    feeds: set[str] = set()
    pages = most // PAGE
    try:
        async for found in key_names(connection, keys.wide):
            if pages == 0:
                return Wide(frozenset(feeds), whole=False)
            pages -= 1
            feeds.update(map(feed_of, found))
    except NotPermitted:
        return None
    return Wide(frozenset(feeds), whole=True)

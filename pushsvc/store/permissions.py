"""What a node's user must be allowed to do in Redis (ACL), and how a node finds out that it is not.

A permission that is missing would else be met when the command is first needed, days later; and a
node with a wrong password would wait for a Redis that never lets it in.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from pushsvc.errors import StoreUnavailable
from pushsvc.store.cluster import ClusterConnection
from pushsvc.store.pipeline_queue import passes
from pushsvc.store.schema import Keys
from pushsvc.store.server_connection import Command, Result, StoreConnection

_SCRIPT: Final = "return 1"
_DIGEST: Final = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
_PROBE_MS: Final = 10_000
_WAITS: Final[dict[str, Command]] = {"WAIT": ("WAIT", 0, 1), "WAITAOF": ("WAITAOF", 0, 0, 1)}
_SHOWN: Final = 5
"""Commands that a message names; who lacks more has another rule altogether."""


def probe(key: str, confirm: Command | None = None, *, cluster: bool = False) -> list[Command]:
    """Every command that a node uses, on a key that is gone at the end.

    That a command does not fit the key is no matter: whether it is permitted is asked first.

    Args:
        key: that nothing else uses.
        confirm: what publishes wait with.
        cluster: whether slots may move.
    """
    return [
        # It is about the command that follows alone, which has no key.
        *([("ASKING",)] if cluster else []),
        ("PING",),
        ("HSET", key, "field", "1"),
        ("PEXPIRE", key, _PROBE_MS),
        ("PTTL", key),
        ("EXISTS", key),
        ("EXPIREAT", key, 4_000_000_000, "LT"),
        ("HDEL", key, "none"),
        ("HEXISTS", key, "field"),
        ("HGET", key, "field"),
        ("HGETALL", key),
        ("HINCRBY", key, "field", 1),
        ("HKEYS", key),
        ("HLEN", key),
        ("HMGET", key, "field"),
        ("HSCAN", key, 0, "COUNT", 1),
        ("HSETNX", key, "field", "1"),
        ("GET", key),
        ("GETDEL", key),
        ("SET", key, "", "NX", "PX", _PROBE_MS),
        ("XADD", key, "NOMKSTREAM", "*", "field", "1"),
        ("XDEL", key, "1-1"),
        ("XINFO", "STREAM", key),
        ("XLEN", key),
        ("XRANGE", key, "-", "+", "COUNT", 1),
        ("XREAD", "COUNT", 1, "STREAMS", key, "0"),
        ("XREVRANGE", key, "+", "-", "COUNT", 1),
        ("XTRIM", key, "MAXLEN", 1),
        ("ZADD", key, "XX", 1, "member"),
        ("ZCOUNT", key, 0, 0),
        ("ZMSCORE", key, "member"),
        ("ZRANGE", key, 0, 0),
        ("ZRANGEBYSCORE", key, 0, 0),
        ("ZREM", key, "member"),
        ("ZREMRANGEBYSCORE", key, 0, 0),
        ("ZREVRANGE", key, 0, 0),
        ("ZSCORE", key, "member"),
        ("TIME",),
        ("SCRIPT", "LOAD", _SCRIPT),
        ("SCRIPT", "EXISTS", _DIGEST),
        ("EVALSHA", _DIGEST, 1, key),
        ("DEL", key),
        *([] if confirm is None else [_WAITS[confirm[0]]]),
    ]


class Refusal(NamedTuple):
    """Why Redis does not serve a node."""

    text: str
    login: bool
    """It does not know the user, or the password is another one."""


async def refusal(
    connection: StoreConnection, keys: Keys, confirm: Command | None = None
) -> Refusal | None:
    """Whether Redis lets the user in and permits what a node does; every primary is asked.

    Args:
        connection: to ask by; not that of a queue, which would count each misfit as an error of
            Redis.
        keys: the key names.
        confirm: what publishes wait with.

    Returns:
        None if nothing is refused.

    Raises:
        StoreUnavailable: Redis cannot be asked now.
    """
    commands = probe(keys.probe, confirm, cluster=isinstance(connection, ClusterConnection))
    try:
        # Users are not replicated. Whether a user may do a thing is asked before whether the server
        # serves the key, so each can be asked about the same one.
        answers = await connection.everywhere(commands)
    except AuthenticationError as error:
        return Refusal(f"Redis does not let this node in: {error}", login=True)
    except NoPermissionError as error:
        return Refusal(f"the user lacks permissions: {error}", login=False)
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store cannot be asked for permissions: {error}") from error
    for server, results in answers.items():
        told = refused(commands, results, f"tried on the key {keys.probe} of {server}")
        if told is not None:
            return told
    return None


def refused(commands: Sequence[Command], results: Sequence[Result], where: str) -> Refusal | None:
    """What one server refused.

    Args:
        commands: that it was sent.
        results: what it answered.
        where: for the text.
    """
    for result in results:
        if isinstance(result, AuthenticationError):
            return Refusal(f"Redis does not let this node in, {where}: {result}", login=True)
    errors = {
        command[0]: result
        for command, result in zip(commands, results, strict=True)
        if isinstance(result, NoPermissionError)
    }
    if not errors:
        return None
    names = [*errors]
    more = len(names) - _SHOWN
    named = ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    answer = str(errors[names[0]])[:200]
    return Refusal(f"the user lacks permissions, {where}: {named}: {answer}", login=False)


async def unconfirmable(connection: StoreConnection, confirm: Command | None) -> str | None:
    """Why Redis can never confirm what publishes wait for.

    Args:
        connection: to ask by; that of a queue would give Redis the scripts.
        confirm: what publishes wait with.

    Returns:
        What it answered; None if it can, or cannot be asked yet.
    """
    if confirm is None or confirm[0] != "WAITAOF":
        return None
    try:
        *_, answer = await connection.execute([("PING",)], confirm)
    except (RedisError, OSError):
        return None  # publishes will tell
    # One that loads its data, or fails over, may confirm it later.
    return str(answer) if isinstance(answer, ResponseError) and not passes(answer) else None

"""What a node's user must be allowed to do in Redis (ACL), and how a node finds out that it is not.

A permission that is missing would else be met by whoever first needs the command, days later.
"""

from typing import Final

from redis.exceptions import NoPermissionError, RedisError

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.keys import Keys
from pushsvc.feeds.pipe import Command, Pipe

_SCRIPT: Final = "return 1"
_DIGEST: Final = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"
_PROBE_MS: Final = 10_000
_WAITS: Final[dict[str, Command]] = {"WAIT": ("WAIT", 0, 1), "WAITAOF": ("WAITAOF", 0, 0, 1)}
_SHOWN: Final = 5
"""Commands that a message names; who lacks more has another rule altogether."""


def probe(key: str, confirm: Command | None = None) -> list[Command]:
    """Every command that a node uses, on a key that is gone at the end.

    That a command does not fit the key is no matter: whether it is permitted is asked first.

    Args:
        key: that nothing else uses.
        confirm: what publishes wait with.
    """
    return [
        ("PING",),
        ("HSET", key, "field", "1"),
        ("PEXPIRE", key, _PROBE_MS),
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
        ("HSETNX", key, "field", "1"),
        ("HVALS", key),
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
        ("ZRANGE", key, 0, 0),
        ("ZRANGEBYSCORE", key, 0, 0),
        ("ZREM", key, "member"),
        ("ZREMRANGEBYSCORE", key, 0, 0),
        ("ZREVRANGE", key, 0, 0),
        ("ZSCORE", key, "member"),
        ("TIME",),
        ("SCRIPT", "LOAD", _SCRIPT),
        ("EVALSHA", _DIGEST, 1, key),
        ("DEL", key),
        *([] if confirm is None else [_WAITS[confirm[0]]]),
    ]


async def missing(pipe: Pipe, keys: Keys, confirm: Command | None = None) -> str | None:
    """Which permissions the user lacks: a sentence with what Redis answered, None if it has all.

    Args:
        pipe: to ask by; not one of a lane, which would count each misfit as an error of Redis.
        keys: the key names.
        confirm: what publishes wait with.

    Raises:
        StoreUnavailable: Redis cannot be asked now.
    """
    commands = probe(keys.probe, confirm)
    try:
        results = await pipe.execute(commands)
    except (RedisError, OSError) as error:
        raise StoreUnavailable(f"the store cannot be asked for permissions: {error}") from error
    refused = [
        (command[0], str(result))
        for command, result in zip(commands, results, strict=True)
        if isinstance(result, NoPermissionError)
    ]
    if not refused:
        return None
    names = [name for name, _ in refused]
    more = len(names) - _SHOWN
    named = ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
    answer = refused[0][1][:200]
    return f"the user lacks permissions, tried on the key {keys.probe}: {named}: {answer}"

"""Runs of scripts on their way to a server, which takes several of one script in one call.

About half of what a small script costs Redis is the call: that it is found, and given its keys and
arguments, and that what it defines is defined.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

MOST_BYTES: Final = 64 * 1024
"""Bytes of what its runs are given from which on a call takes no further one."""


class Script(NamedTuple):
    """A script that servers have."""

    digest: str
    """By which it is called."""
    most: int = 1
    """Most runs that share a call: it holds up everyone, so all of them take about 1 ms."""


class Run(tuple[Script, tuple[str, ...], tuple[Any, ...]]):
    """A command: one run of a script.

    It is the script, the keys, which are of one slot, and the arguments. The first of these is the
    one that may be long, if any is.
    """

    __slots__ = ()


def gather(
    commands: Sequence[tuple[Any, ...]], *, share: bool
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """What is sent for some commands: runs of one script that follow each other share calls.

    Args:
        commands: what is to be executed.
        share: whether the server takes keys of several slots at once.

    Returns:
        The commands as a server knows them; and for each how many runs it is, 0 for one that is
        none.
    """
    calls: list[tuple[Any, ...]] = []
    counts: list[int] = []
    place, end = 0, len(commands)
    while place < end:
        command = commands[place]
        place += 1
        if not isinstance(command, Run):
            calls.append(command)
            counts.append(0)
            continue
        script, its_keys, its_args = command
        first, last = place - 1, end if share else place
        last = min(last, first + script.most)
        keys, args = [*its_keys], [len(its_keys), len(its_args), *its_args]
        size = _size(its_args)
        while place < last and size < MOST_BYTES:
            command = commands[place]
            if not isinstance(command, Run) or command[0] is not script:
                break
            _, its_keys, its_args = command
            keys += its_keys
            args += (len(its_keys), len(its_args), *its_args)
            size += _size(its_args)
            place += 1
        calls.append(("EVALSHA", script.digest, len(keys), *keys, *args))
        counts.append(place - first)
    return calls, counts


def _size(args: tuple[Any, ...]) -> int:
    return len(args[0]) if args and isinstance(args[0], bytes) else 0


def spread(answers: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """The results of the commands that were gathered; an error of a call is that of each run."""
    results: list[Any] = []
    for answer, count in zip(answers, counts, strict=True):
        if not count:
            results.append(answer)
        elif isinstance(answer, list):
            results += answer
        else:
            results += [answer] * count
    return results

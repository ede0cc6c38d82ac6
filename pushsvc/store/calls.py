"""Runs of scripts on their way to a server, which takes several of one script in one call.

What is common to them, the call itself and arguments that are always the same, costs Redis about a
quarter of what a small script costs it.
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


class Run(tuple[Script, tuple[str, ...], tuple[Any, ...], tuple[Any, ...]]):
    """A command: one run of a script.

    It is the script, the keys, which are of one slot, and the arguments: those that are its own, of
    which the first is the one that may be long, and behind them those that many runs have alike.
    """

    __slots__ = ()


def gather(
    commands: Sequence[tuple[Any, ...]], *, share: bool
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """What is sent for some commands: runs of one kind that follow each other share calls.

    They are of one script, have as many keys and arguments, and the same of those that are alike.

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
        script, its_keys, its_args, common = command
        first, last = place - 1, end if share else place
        last = min(last, first + script.most)
        keys, args = [*its_keys], [*its_args]
        each, own, size = len(keys), len(args), _size(its_args)
        while place < last and size < MOST_BYTES:
            command = commands[place]
            if not isinstance(command, Run) or command[0] is not script or command[3] != common:
                break
            its_keys, its_args = command[1], command[2]
            if len(its_keys) != each or len(its_args) != own:
                break
            keys += its_keys
            args += its_args
            size += _size(its_args)
            place += 1
        runs = place - first
        calls.append(("EVALSHA", script.digest, len(keys), *keys, runs, own, *args, *common))
        counts.append(runs)
    return calls, counts


def _size(args: tuple[Any, ...]) -> int:
    return len(args[0]) if args and isinstance(args[0], bytes) else 0


def spread(answers: Sequence[Any], counts: Sequence[int]) -> list[Any]:
    """The results of the commands that were gathered; an error of a call is that of each run."""
    results: list[Any] = []
    for answer, count in zip(answers, counts, strict=True):
        if not count:
            results.append(answer)
        elif count > 1 and isinstance(answer, list):
            results += answer
        else:
            results += [answer] * count
    return results

"""Runs of scripts on their way to a server, which takes several of one script in one call.

About half of what a small script costs Redis is the call: that it is found, and given its keys and
arguments, and that what it defines is defined.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

MOST_BYTES: Final = 64 * 1024
"""Bytes of arguments from which on a call takes no further run."""


class Script(NamedTuple):
    """A script that servers have."""

    digest: str
    """By which it is called."""
    most: int = 1
    """Most runs that share a call: it holds up everyone, so all of them take about 1 ms."""


class Run(NamedTuple):
    """A command: one run of a script, on keys of one slot."""

    script: Script
    keys: tuple[str, ...]
    args: tuple[Any, ...]


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
        if not isinstance(command, Run):
            calls.append(command)
            counts.append(0)
            place += 1
            continue
        script, first, size = command.script, place, 0
        last = min(end, place + script.most) if share else place + 1
        keys: list[str] = []
        args: list[Any] = []
        while True:
            _, its_keys, its_args = command
            keys += its_keys
            args += (len(its_keys), len(its_args))
            args += its_args
            place += 1
            if place == last:
                break
            command = commands[place]
            if not isinstance(command, Run) or command.script is not script:
                break
            size += sum([len(each) for each in its_args if isinstance(each, bytes)])
            if size >= MOST_BYTES:
                break
        calls.append(("EVALSHA", script.digest, len(keys), *keys, *args))
        counts.append(place - first)
    return calls, counts


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

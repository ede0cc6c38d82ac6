"""What a process that is forked may not share with the one that it was forked from."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

QUIET: Final = 1.0
"""Most seconds that a fork waits for what other threads are in the middle of."""

Thing = TypeVar("Thing")

_renewals: Final[WeakKeyDictionary[Any, Callable[[Any], None]]] = WeakKeyDictionary()
_pauses: Final[
    WeakKeyDictionary[Any, tuple[Callable[[Any, float], None], Callable[[Any], None]]]
] = WeakKeyDictionary()


def renew_in_children(thing: Thing, renew: Callable[[Thing], None]) -> None:
    """Have something renewed in each process that is forked, before anything else runs there.

    A comparison of process ids at each use would come later, and two threads of the child would
    need a lock for it, which may be held when the fork takes place.

    Args:
        thing: that has connections or locks. It is not kept alive for this.
        renew: makes it begin anew, with none of those that there were.
    """
    _renewals[thing] = renew


def pause_for_forks(
    thing: Thing, pause: Callable[[Thing, float], None], go_on: Callable[[Thing], None]
) -> None:
    """Have something pause while a process is forked.

    That is for what holds locks which nobody can renew in the child, as OpenSSL's are: its next
    call there would wait for ever.

    Args:
        thing: that is used by several threads. It is not kept alive for this.
        pause: waits until no thread is in the middle of it, and lets none begin; until a time on
            the monotonic clock, since the fork has to take place.
        go_on: ends that, in the parent.
    """
    _pauses[thing] = pause, go_on


def require_own(loop: asyncio.AbstractEventLoop | None, what: str) -> None:
    """Something that lives in an event loop, or was not entered yet, is used in that loop.

    What it would write elsewhere, as in a process that was forked since, is in the middle of what
    is written there.

    Args:
        loop: in which it was entered.
        what: it is called.

    Raises:
        RuntimeError: this is another loop.
    """
    if loop is not None and loop is not asyncio.get_running_loop():
        raise RuntimeError(
            f"this {what} belongs to another event loop, or to the process that this one was"
            " forked from: make one in each"
        )


def _pause_all() -> None:
    until = time.monotonic() + QUIET
    for thing, (pause, _) in list(_pauses.items()):
        pause(thing, until)


def _go_on_all() -> None:
    for thing, (_, go_on) in list(_pauses.items()):
        go_on(thing)


def _renew_all() -> None:
    for thing, renew in _renewals.items():
        renew(thing)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(before=_pause_all, after_in_parent=_go_on_all, after_in_child=_renew_all)

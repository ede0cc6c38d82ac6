"""How long the cyclic garbage collector stops a worker that holds 100,000 connections."""

import gc
import time
from typing import Any, cast

from bench.harness import Figure
from pushsvc.node.connections import Connection, Connections
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import TEXT
from pushsvc.server.process import settle_memory

CONNECTIONS = 100_000
BAR = 10.0
"""Milliseconds."""


class Tracked:
    """An object that the collector walks, for comparison: three of them stand for a connection."""

    __slots__ = ("other", "value")

    def __init__(self, other: object) -> None:
        self.other = other
        self.value = 0.0


def run(*, profile: bool) -> list[Figure]:
    """Make the objects of so many connections, and collect."""
    del profile
    settle_memory()  # as a worker does after its start
    core = cast(Connections, None)
    connections = [Connection(core, n, _session(f"{n}"), TEXT) for n in range(CONNECTIONS)]
    ours = _pause()
    ordinary = [Tracked(Tracked(Tracked(None))) for _ in range(CONNECTIONS)]
    figures = [
        Figure(f"full collection, {CONNECTIONS:,} connections", ours, "ms", at_most=BAR),
        Figure("the same with ordinary objects", _pause() - ours, "ms"),
    ]
    _keep(connections, ordinary)
    return figures


def _session(user: str) -> Session:
    return Session(user, "default", 1e9, 0.0, Cursor(mailbox(user), "default"), Cursor(BROADCAST))


def _pause() -> float:
    """The longest of some full collections, in milliseconds."""
    longest = 0.0
    gc.collect()
    for _ in range(5):
        begin = time.perf_counter()
        gc.collect()
        longest = max(longest, time.perf_counter() - begin)
    return longest * 1000


def _keep(*alive: Any) -> None:
    """Use what was to live until here."""
    del alive

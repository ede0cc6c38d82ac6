"""``pushsvc serve`` that holds many connections without sockets: ``argv`` says how many.

Each is a ``Connection`` and a ``Session`` in the node's core, on its timer wheel, a listener of its
mailbox, swept like any other, and registered in Redis. Only the descriptor is none: a process that
is not root may not have so many. Nothing is written to them, as if their sockets were full.
"""

import asyncio
import gc
import os
import resource
import sys

from pushsvc import logs
from pushsvc.node.connections import Connection
from pushsvc.node.node import Node
from pushsvc.protocol.delivery import Cursor
from pushsvc.protocol.feeds import BROADCAST, mailbox
from pushsvc.protocol.session import Session
from pushsvc.protocol.wire import TEXT
from pushsvc.server import process
from pushsvc.settings import load

DEVICES = 32
"""Of one user in a hundred."""
AT_ONCE = 500


def places(count: int) -> list[tuple[str, str]]:
    """So many users and devices."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        user = f"user-{len(found)}"
        devices = DEVICES if len(found) % 100 == 0 else 1
        found += [(user, f"device-{n}") for n in range(devices)]
    return found[:count]


async def crowd(node: Node, count: int) -> None:
    """Have the node hold so many."""
    core, now = node.connections, node.readiness.now
    fd = max(resource.getrlimit(resource.RLIMIT_NOFILE))
    waiting: list[Connection] = []
    for user, device in places(count):
        session = Session(
            user, device, now + 3600, now,
            Cursor(mailbox(user), device), Cursor(BROADCAST, device),
        )  # fmt: skip
        connection = core.new(session, TEXT)
        core.adopt(connection, fd)
        connection.tail, connection.blocked_at = b"", now + 3600
        fd += 1
        waiting.append(connection)
        if len(waiting) == AT_ONCE:
            await asyncio.gather(*(node.dispatcher.join(each) for each in waiting))
            waiting.clear()
    await asyncio.gather(*(node.dispatcher.join(each) for each in waiting))
    for each in core:
        each.session.cursor.release()
        each.session.broadcast.release()
    process.settle_memory()


def node_here() -> Node:
    """The node of this process."""
    (found,) = (each for each in gc.get_objects() if isinstance(each, Node))
    return found


def main(count: int) -> None:
    settings = load(dict(os.environ), {})
    logs.configure(settings.log_format, settings.log_level)
    crowding: list[asyncio.Task[None]] = []

    def started(*_: int) -> None:
        gc.unfreeze()  # what is frozen is not listed
        coming = crowd(node_here(), count)
        crowding.append(asyncio.get_running_loop().create_task(coming))

    process.serve(settings, started)
    crowding[0].result()


if __name__ == "__main__":
    main(int(sys.argv[1]))

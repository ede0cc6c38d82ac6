"""Handing a new entry to connections, each with a cursor of its own in the feed."""

from collections.abc import Iterable

from pushsvc.feeds.nodes import Entry
from pushsvc.node.listener import Listener
from pushsvc.protocol import messages
from pushsvc.protocol.wire import Wire


def dispatch(
    entry: Entry,
    listeners: Iterable[Listener],
    window: int,
    now: float,
    *,
    broadcast: bool = False,
    frames: dict[Wire, bytes] | None = None,
) -> tuple[list[Listener], list[Listener]]:
    """Hand a new entry of a mailbox or a broadcast to those that are in step with the feed.

    It is encoded once for each wire that writes alike for all, and nothing is awaited.

    Args:
        entry: the entry.
        listeners: who listens to its feed.
        window: most entries that may be sent to one and not acknowledged.
        now: seconds on a monotonic clock.
        broadcast: whether the feed is their broadcast, and not their mailbox.
        frames: how it was written for others, where these are not all.

    Returns:
        Those that were sent it, and those that were not: their cursors know that there is
        something to read.
    """
    feed, entry_id, previous, body = entry.feed, entry.id, entry.previous, entry.body
    payload = b""
    frames = {} if frames is None else frames
    sent: list[Listener] = []
    missed: list[Listener] = []
    for listener in listeners:
        session = listener.session
        cursor = session.broadcast if broadcast else session.cursor
        if not (cursor.offer(entry_id, previous, window) and listener.writable()):
            missed.append(listener)
            continue
        wire = listener.wire
        frame = frames.get(wire)
        if frame is None:
            payload = payload or messages.notification(entry_id, body, 1)
            frame = wire.entry(feed, entry_id, payload)
            if wire.shared:
                frames[wire] = frame
        idle = cursor.unacked is None
        cursor.take(entry_id, now)
        listener.write(frame)
        if idle:
            listener.watch()
        sent.append(listener)
    return sent, missed


def pass_on(
    payload: bytes, listeners: Iterable[Listener], frames: dict[Wire, bytes] | None = None
) -> tuple[int, int]:
    """Hand over what is no entry of a feed; how many got it, and how many had no room for it.

    Args:
        payload: what it is.
        listeners: to whom.
        frames: how it was written for others, where these are not all.
    """
    frames = {} if frames is None else frames
    sent = dropped = 0
    for listener in listeners:
        if not listener.writable():
            dropped += listener.open
            continue
        wire = listener.wire
        frame = frames.get(wire)
        if frame is None:
            frame = wire.message(payload)
            if wire.shared:
                frames[wire] = frame
        listener.write(frame)
        sent += 1
    return sent, dropped

"""One feed as a client sees it: what came of it, and what of that is done."""

import re

Id = tuple[int, int]
"""An id in the order of its feed: milliseconds, and a sequence number within them."""

START: Id = (0, 0)
ACK_PAUSE = 0.05
"""Seconds between two acks of one feed while more of it waits: one ack covers all before it."""


_SHAPE = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


def parse(text: str) -> Id:
    """The two numbers of an id, which order it; its text does not.

    Raises:
        ValueError: it is no id.
    """
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no id, which is <milliseconds>-<sequence>")
    return int(found[1]), int(found[2])


class Feed:
    """A user's mailbox, the broadcast, or one topic.

    Args:
        acked: whether what comes of it is acknowledged: topics are not.
        broadcast: whether it is the broadcast, whose acks say so.
    """

    __slots__ = ("acked", "broadcast", "handled", "received", "told", "told_at")

    def __init__(self, *, acked: bool, broadcast: bool = False) -> None:
        self.acked = acked
        self.broadcast = broadcast
        self.received = START
        """The newest that was taken: what comes again up to here is a repetition."""
        self.handled = START
        """The newest that the program is done with."""
        self.told = START
        """How far the service was told, on this connection or an earlier one."""
        self.told_at = 0.0

    def take(self, text: str) -> bool:
        """Whether a notification with this id is new; it is taken as received."""
        found = parse(text)
        if found <= self.received:
            return False
        self.received = found
        return True

    def repeats(self, text: str) -> bool:
        """Whether this one, which came again, is done already: then it is to be acked again."""
        return self.acked and parse(text) <= self.handled

    def handle(self, text: str, now: float, *, at_once: bool) -> bool:
        """The program is done with this one and all before it; whether to say so now.

        Args:
            text: its id.
            now: seconds on any steady clock.
            at_once: whether the program asked for it.
        """
        if not self.acked:
            return False
        self.handled = max(self.handled, parse(text))
        if self.handled <= self.told:
            return False
        return at_once or now - self.told_at >= ACK_PAUSE

"""Acknowledgements on their way to Redis.

Those of a moment gather, so that a moderate load writes them by the dozen, and of a device the last
one only. Until they are written they are what a node's death loses: their entries come again. So a
close is answered, and a device that comes back is let in, once those of the device are written.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, NamedTuple

from pushsvc.errors import PushError, Unavailable, checked
from pushsvc.feeds.feed import AckKind, Acknowledged, Acknowledgement, Feeds
from pushsvc.feeds.nodes import ControlMessage, Outbox, node_of
from pushsvc.protocol import feeds as names
from pushsvc.protocol.ids import render

SLICE: Final = 512
"""Most positions that are written at once."""
MOST_ASKED: Final = 10_000
"""Most acknowledgements that wait to be answered; further ones are written, and not answered."""
MOST_SHARED: Final = 10_000
"""Most mailboxes of which it is known that one device settles something for all."""

LONGEST: Final = 2.0
"""Most seconds for which something waits until the positions of a device are written: less than
clients wait for the answer to their close."""

Answer = Callable[[int], None]
"""Told the device's position, once it is written down."""


class _PositionOf(NamedTuple):
    """A position of a device: in its mailbox, or in the broadcast."""

    feed: str
    device: str
    kind: AckKind


class _Position(NamedTuple):
    id: int
    connection: str


def _merge(waiting: dict[_PositionOf, _Position], place: _PositionOf, position: _Position) -> None:
    held = waiting.get(place)
    if held is None or held.id < position.id:
        waiting[place] = position


class Acks:
    """The positions that are not written down yet.

    Args:
        feeds: where they are written.
        outbox: for the nodes that hold other connections of a user.
        receipts_due: told of mailboxes that may owe a receipt.
        gather: seconds for which those gather that nobody waits for.
    """

    def __init__(
        self,
        feeds: Feeds,
        outbox: Outbox,
        receipts_due: Callable[[str], None],
        gather: float = 0.0,
    ) -> None:
        self._feeds = feeds
        self._outbox = outbox
        self._receipts_due = receipts_due
        self._dirty: dict[_PositionOf, _Position] = {}
        # Those that Redis refused: they must not hold up the others.
        self._refused: dict[_PositionOf, _Position] = {}
        # Those that Redis is asked to write.
        self._writing: dict[_PositionOf, _Position] = {}
        # By mailbox and device.
        self._awaited: dict[tuple[str, str], asyncio.Future[None]] = {}
        self._asked: list[tuple[_PositionOf, int, Answer]] = []
        # The newest entry of a mailbox that any one device settles for all.
        self._shared: OrderedDict[str, int] = OrderedDict()
        self._gather = gather
        self._timer: asyncio.TimerHandle | None = None
        self._at_once = False
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def add(
        self,
        feed: str,
        device: str,
        entry_id: int,
        kind: AckKind,
        connection: str,
        answer: Answer | None,
    ) -> None:
        """Write a device's position down, and tell it when that is done.

        Args:
            feed: the mailbox.
            device: whose position it is.
            entry_id: the position.
            kind: what of.
            connection: the connection that acknowledges; empty where it is none.
            answer: whom to tell.
        """
        place = _PositionOf(feed, device, kind)
        # What Redis refused waits for the next call of ``flush``, and what comes later with it.
        waiting = self._refused if self._refused and place in self._refused else self._dirty
        _merge(waiting, place, _Position(entry_id, connection))
        if answer is not None and len(self._asked) < MOST_ASKED:
            self._asked.append((place, entry_id, answer))
        if self._failing:
            return
        # Positions in the broadcast are no entries of the mailbox.
        shared = 0 if kind is AckKind.BROADCAST else self._shared.get(feed, 0)
        if shared and entry_id >= shared:
            del self._shared[feed]
        if answer is not None or shared or not self._gather or len(self._dirty) >= SLICE:
            self.hurry()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._gather, self.hurry)

    def share(self, feed: str, entry_id: int) -> None:
        """Know that one acknowledgement settles an entry for all devices: it will not wait.

        Nodes are told of it when it is published, and never of what a connection catches up on: an
        acknowledgement of that gathers like others.
        """
        # A publish that is repeated tells of an entry again, after newer ones.
        self._shared[feed] = max(entry_id, self._shared.get(feed, 0))
        self._shared.move_to_end(feed)
        if len(self._shared) > MOST_SHARED:
            self._shared.popitem(last=False)

    async def write(self, feed: str, device: str, entry_id: int, broadcast: bool) -> int:  # noqa: FBT001
        """Write down what a client acknowledges that cannot say so on its connection.

        Returns:
            The device's position.

        Raises:
            PushError: Redis cannot be reached or refuses.
        """
        kind = AckKind.BROADCAST if broadcast else AckKind.STORED
        everyone = names.broadcast(names.namespace_of(feed))
        if broadcast and not await self._feeds.holds(everyone, entry_id):
            entry_id = 0  # changes nothing, and is answered with the position
        (result,) = await self._feeds.ack([Acknowledgement(feed, device, entry_id, kind)])
        acknowledged = checked(result)
        self._tell(_PositionOf(feed, device, kind), "", acknowledged)
        return acknowledged.position

    def flush(self) -> None:
        """Write what is not written; what fails waits for the next call."""
        for place, position in self._refused.items():
            _merge(self._dirty, place, position)
        self._refused.clear()
        self._failing = False
        self.hurry()

    def hurry(self) -> None:
        """Write what gathers now; what failed, and all that comes after, waits for ``flush``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # All that wait would be tried with each connection that closes.
        if self._dirty and not self._failing:
            self._at_once = True
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._run())

    def written(self, feed: str, device: str) -> asyncio.Future[None] | None:
        """Write what a device acknowledged, now where it gathers.

        Args:
            feed: the mailbox.
            device: whose positions are written.

        Returns:
            A future that is done once they are written, or Redis cannot be reached or refuses, or
            ``LONGEST`` has passed; None where there is nothing to wait for.
        """
        if self._failing or not self._on_the_way(feed, device):
            return None
        self.hurry()
        key = feed, device
        future = self._awaited.get(key)
        if future is None:
            loop = asyncio.get_running_loop()
            future = self._awaited[key] = loop.create_future()
            timer = loop.call_later(LONGEST, self._release, key)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    def _on_the_way(self, feed: str, device: str) -> bool:
        if not self._dirty and not self._writing:
            return False
        places = [_PositionOf(feed, device, kind) for kind in AckKind]
        return any(place in self._dirty or place in self._writing for place in places)

    def _release(self, key: tuple[str, str]) -> None:
        future = self._awaited.pop(key, None)
        if future is not None:
            future.set_result(None)

    def _look_again(self) -> None:
        """Release those who wait for what is written by now, or will not be for a while."""
        for key in list(self._awaited):
            if self._failing or not self._on_the_way(*key):
                self._release(key)

    async def aclose(self) -> None:
        """Wait until everything is written, or could not be."""
        if self._task is not None:
            await self._task
        self.flush()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        try:
            while self._at_once and self._dirty and not self._failing:
                slice_ = {key: self._dirty.pop(key) for key in list(islice(self._dirty, SLICE))}
                # What comes while this is written gathers until its own time.
                self._at_once = bool(self._dirty)
                self._writing = slice_
                try:
                    results = await self._feeds.ack(
                        Acknowledgement(place.feed, place.device, at.id, place.kind, at.connection)
                        for place, at in slice_.items()
                    )
                except Unavailable:
                    self._failing = True
                    for place, position in slice_.items():
                        _merge(self._dirty, place, position)
                else:
                    self._settle(slice_, results)
                self._writing = {}
                self._look_again()
        finally:
            self._task = None
            self._writing = {}

    def _settle(
        self, written: dict[_PositionOf, _Position], results: Iterable[Acknowledged | PushError]
    ) -> None:
        positions: dict[_PositionOf, int] = {}
        for (place, position), result in zip(written.items(), results, strict=True):
            if isinstance(result, PushError):
                self._refused[place] = position
                continue
            positions[place] = result.position
            if result.others or result.receipts:
                self._tell(place, position.connection, result)
        if not self._asked:
            return
        waiting = []
        for asked in self._asked:
            place, entry_id, answer = asked
            at = positions.get(place)
            # An acknowledgement of more, which came meanwhile, waits for its own write.
            more = place in self._dirty or place in self._refused
            if at is not None and (at >= entry_id or not more):
                answer(at)
            else:
                waiting.append(asked)
        self._asked = waiting

    def _tell(self, place: _PositionOf, connection: str, acknowledged: Acknowledged) -> None:
        """Tell the other connections of the user what concerns them."""
        feed, device, kind = place
        others = acknowledged.others
        same = {node_of(c) for c, d in others.items() if d == device and c != connection}
        for node in same:
            values = [device, render(acknowledged.position), kind]
            self._outbox.notify(node, ControlMessage("acked", feed, values))
        for entry_id in acknowledged.settled:
            for node in {node_of(c) for c in others}:  # of this device, too: the count is another
                self._outbox.notify(
                    node, ControlMessage("withdrawn", feed, [render(entry_id), "acked"])
                )
        if acknowledged.receipts:
            self._receipts_due(feed)

"""Acknowledgements on their way to Redis: one write a device while an earlier one is under way."""

import asyncio
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
    """

    def __init__(self, feeds: Feeds, outbox: Outbox, receipts_due: Callable[[str], None]) -> None:
        self._feeds = feeds
        self._outbox = outbox
        self._receipts_due = receipts_due
        self._dirty: dict[_PositionOf, _Position] = {}
        # Those that Redis refused: they must not hold up the others.
        self._refused: dict[_PositionOf, _Position] = {}
        self._asked: list[tuple[_PositionOf, int, Answer]] = []
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
        waiting = self._refused if place in self._refused else self._dirty
        _merge(waiting, place, _Position(entry_id, connection))
        if answer is not None and len(self._asked) < MOST_ASKED:
            self._asked.append((place, entry_id, answer))
        if not self._failing:
            self._start()

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
        self._start()

    def _start(self) -> None:
        if self._dirty and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def aclose(self) -> None:
        """Wait until everything is written, or could not be."""
        if self._task is not None:
            await self._task
        self.flush()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        self._failing = False
        try:
            while self._dirty and not self._failing:
                slice_ = {key: self._dirty.pop(key) for key in list(islice(self._dirty, SLICE))}
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
        finally:
            self._task = None

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
            for node in {node_of(c) for c, d in others.items() if d != device}:
                self._outbox.notify(
                    node, ControlMessage("withdrawn", feed, [render(entry_id), "acked"])
                )
        if acknowledged.receipts:
            self._receipts_due(feed)

"""A ticker: the latest price of each share first, and then every change.

Each price has its share as ``collapse_key``: in the topic it replaces the one before. So the topic
holds one price a share, however many were published, and that is what a newcomer is sent first.

    python examples/ticker.py
"""

import asyncio
import itertools
import random
import secrets

from common import NODE, connected, run, token_for
from pushsvc.client import AsyncPublisher, Client, Note, Notification, PushError

BEFORE, AFTER = 100, 12
"""Prices that are published before the newcomer comes, and while it watches."""


class Feeder:
    """Publishes prices as a backend does: over HTTP, with the scope ``push.publish``."""

    def __init__(self, topic: str, publisher: AsyncPublisher) -> None:
        self.prices = {"ACME": 120.0, "GLOBEX": 75.5, "INITECH": 9.8, "UMBRELLA": 310.0}
        self._topic = topic
        self._publisher = publisher
        self._turns = itertools.cycle(list(self.prices))

    def tick(self, share: str) -> Note:
        """A new price of a share, as a notification."""
        self.prices[share] = round(self.prices[share] * random.uniform(0.97, 1.03), 2)
        return {
            "topic": self._topic,
            "event": "price",
            "collapse_key": share,
            "data": {"share": share, "price": self.prices[share]},
        }

    async def publish(self, count: int) -> None:
        """Publish so many prices, the shares taking turns, in one request."""
        ticks = [self.tick(next(self._turns)) for _ in range(count)]
        for result in await self._publisher.publish_many(ticks):
            if isinstance(result, PushError):
                raise result


async def watch(client: Client, last: str, board: dict[str, float]) -> None:
    """Keep a board of the latest prices; what is newer than ``last`` is a change."""
    changes = 0
    async for message in client:
        if not isinstance(message, Notification) or message.event != "price":
            continue  # a broadcast, or for another part of an app
        share, price = message.data["share"], message.data["price"]
        kind = "state " if order(str(message.id)) <= order(last) else "change"
        move = f" ({price - board[share]:+.2f})" if share in board else ""
        print(f"  {kind} {share:<9}{price:>8.2f}{move}", flush=True)
        board[share] = price
        changes += kind == "change"
        if changes == AFTER:
            return


def order(notification_id: str) -> tuple[int, ...]:
    """Ids are compared by their two numbers."""
    return tuple(map(int, notification_id.split("-")))


async def main() -> None:
    """Feed a topic, and watch it from the middle on."""
    topic = f"ticker.{secrets.token_hex(3)}"
    board: dict[str, float] = {}
    exchange = await token_for("exchange", scope="push.publish")
    anna = await token_for("anna", topics="ticker.*")
    async with AsyncPublisher(NODE, token=exchange) as publisher, connected(anna) as client:
        feeder = Feeder(topic, publisher)
        await feeder.publish(BEFORE)
        print(
            f"{BEFORE} prices were published. A newcomer gets the latest of each share, then "
            "changes:"
        )
        last = await client.subscribe(topic)
        watching = asyncio.create_task(watch(client, last, board))
        for _ in range(AFTER):
            await asyncio.sleep(0.2)
            await feeder.publish(1)
        await watching
    if board != feeder.prices:
        raise SystemExit("the board differs from the exchange: this must never happen")
    print("The board shows what the exchange has.")


if __name__ == "__main__":
    run(main())

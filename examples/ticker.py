"""A ticker: the latest price of each share first, and then every change.

Each price has its share as ``collapse_key``: in the topic it replaces the one before. So the topic
holds one price a share, however many were published, and that is what a newcomer is sent first.

    python examples/ticker.py
"""

import asyncio
import itertools
import random
import secrets

from common import NODE, Client, Message, connected, post, run, token_for

BEFORE, AFTER = 100, 12
"""Prices that are published before the newcomer comes, and while it watches."""


class Feeder:
    """Publishes prices as a backend does: over HTTP, with the scope ``push.publish``."""

    def __init__(self, topic: str, token: str) -> None:
        self.prices = {"ACME": 120.0, "GLOBEX": 75.5, "INITECH": 9.8, "UMBRELLA": 310.0}
        self._topic = topic
        self._token = token
        self._turns = itertools.cycle(list(self.prices))

    def tick(self, share: str) -> Message:
        """A new price of a share, as a notification."""
        self.prices[share] = round(self.prices[share] * random.uniform(0.97, 1.03), 2)
        return {
            "to": {"topic": self._topic},
            "event": "price",
            "collapse_key": share,
            "data": {"share": share, "price": self.prices[share]},
        }

    async def publish(self, count: int) -> None:
        """Publish so many prices, the shares taking turns, in one request."""
        ticks = [self.tick(next(self._turns)) for _ in range(count)]
        url = f"{NODE}/v1/notifications/batch"
        answer = await post(url, {"notifications": ticks}, self._token)
        if not all("id" in result for result in answer["results"]):
            raise RuntimeError(f"not all were published: {answer}")


async def watch(client: Client, last: str, board: dict[str, float]) -> None:
    """Keep a board of the latest prices; what is newer than ``last`` is a change."""
    changes = 0
    async for message in client:
        if message.get("event") != "price":
            continue  # a broadcast, or for another part of an app
        share, price = message["data"]["share"], message["data"]["price"]
        kind = "state " if order(message["id"]) <= order(last) else "change"
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
    feeder = Feeder(topic, await token_for("exchange", scope="push.publish"))
    await feeder.publish(BEFORE)
    print(
        f"{BEFORE} prices were published. A newcomer gets the latest of each share, then changes:"
    )
    board: dict[str, float] = {}
    async with connected(await token_for("anna", topics="ticker.*")) as client:
        answer = await client.ask("subscribe", topic=topic)
        watching = asyncio.create_task(watch(client, answer["last"], board))
        for _ in range(AFTER):
            await asyncio.sleep(0.2)
            await feeder.publish(1)
        await watching
    if board != feeder.prices:
        raise SystemExit("the board differs from the exchange: this must never happen")
    print("The board shows what the exchange has.")


if __name__ == "__main__":
    run(main())

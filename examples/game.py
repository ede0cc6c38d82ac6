"""A game: everyone's position, 20 times a second, to everyone else.

Positions are ephemeral: never stored, and dropped first for a player whose connection is slow. The
next one is only 50 ms away, and an old one is worth nothing.

    python examples/game.py                # 8 players for 3 seconds
    python examples/game.py --players 20
"""

import argparse
import asyncio
import math
import random
import secrets
import time

from common import at_least_one, connected, run, token_for
from pushsvc.client import Client, Notification

HZ = 20
WIDTH, HEIGHT = 48, 12


class Player:
    """One player, and where the others are on this player's screen."""

    def __init__(self, name: str, topic: str) -> None:
        self.name = name
        self.topic = topic
        self.x, self.y = random.uniform(0, WIDTH), random.uniform(0, HEIGHT)
        self.direction = random.uniform(0, 2 * math.pi)
        self.others: dict[str, tuple[float, float]] = {}
        self.sent = self.received = 0

    def step(self) -> None:
        """Walk on, about four fields a second."""
        self.direction += random.uniform(-0.4, 0.4)
        self.x = (self.x + 4 / HZ * math.cos(self.direction)) % WIDTH
        self.y = (self.y + 4 / HZ * math.sin(self.direction)) % HEIGHT

    async def watch(self, client: Client) -> None:
        async for message in client:
            if (
                isinstance(message, Notification)
                and message.ephemeral
                and message.sender not in (None, self.name)
            ):
                self.others[str(message.sender)] = message.data
                self.received += 1

    async def play(self, start: asyncio.Barrier, seconds: float) -> None:
        """Connect, wait for all players, and play."""
        async with connected(await token_for(self.name, topics="game.*")) as client:
            await client.subscribe(self.topic)
            watching = asyncio.create_task(self.watch(client))
            await start.wait()
            begin = time.monotonic()
            for tick in range(round(HZ * seconds)):
                # By the clock: what one tick is late does not make the next one late.
                await asyncio.sleep(begin + tick / HZ - time.monotonic())
                self.step()
                here = [round(self.x, 1), round(self.y, 1)]
                await client.publish(self.topic, here, ephemeral=True)
                self.sent += 1
            await asyncio.sleep(0.5)  # for what is still on its way
        await watching

    def screen(self) -> str:
        """The field as this player sees it: oneself is @."""
        field = [["."] * WIDTH for _ in range(HEIGHT)]
        for name, (x, y) in {**self.others, "@": (self.x, self.y)}.items():
            field[int(y) % HEIGHT][int(x) % WIDTH] = name[-1]
        return "\n".join("  " + "".join(row) for row in field)


async def main(count: int, seconds: float) -> None:
    """Let them play, and show how many updates each of them got."""
    topic = f"game.{secrets.token_hex(3)}"
    players = [Player(f"player-{chr(97 + i % 26)}{i // 26 or ''}", topic) for i in range(count)]
    print(f"{count} players send their position {HZ} times a second, for {seconds:g} s ...")
    start = asyncio.Barrier(count)
    async with asyncio.TaskGroup() as tasks:
        for player in players:
            tasks.create_task(player.play(start, seconds))
    print("\nwho        sent/s  received/s from each of the others")
    for player in players:
        each = player.received / seconds / max(count - 1, 1)
        print(f"{player.name:<10} {player.sent / seconds:>6.1f}  {each:>10.1f}")
    print(f"\nWhere all are, as {players[0].name} sees it:\n{players[0].screen()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--players", type=at_least_one, default=8, help="default: 8")
    parser.add_argument("--seconds", type=float, default=3, help="default: 3")
    given = parser.parse_args()
    run(main(given.players, given.seconds))

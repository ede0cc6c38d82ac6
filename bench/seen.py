"""What is read in one place: how soon it is seen in all, and what marks and lists cost Valkey.

One user has a mailbox of 1,000 unread, and four connections over two nodes: by one of them single
notifications are read, and each of the others, two of them event streams, is waited for. Then
everything is read at once, and the newest 20 of what is unread are listed, in turn.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import redis

from bench.harness import Figure, Server, another, node, say, tokens
from pushsvc.client import Client, Publisher, connect

MAILBOX: Final = 1_000
LISTED: Final = 20
ROUNDS: Final = 200
REPEATS: Final = 20
"""Of what Valkey is asked; the medians are told."""
SEEN_BAR: Final = 200.0
READ_BAR: Final = 5.0
LIST_BAR: Final = 2.0
"""Milliseconds, as all of them."""
USER: Final = "reader"
PATIENCE: Final = 30.0
RATES: Final[dict[str, Any]] = {"rate_messages_per_second": 10_000, "rate_burst": 20_000}
"""So that no limit of a client falls into a measurement."""


def run(*, profile: bool) -> list[Figure]:
    """Read, wait, and look at what Valkey did."""
    del profile
    publisher, reader = *tokens(["backend"], "push.publish"), *tokens([USER])
    with node(**RATES) as one, another(one, **RATES) as two:
        ids = _publish(one, publisher)
        say(f"seen: {ROUNDS} read one by one")
        seen = asyncio.run(_seen(one, two, reader, ids))
        say("seen: what Valkey does")
        read_all, listed = _costs(one, publisher, ids)
    return [
        Figure("read here, seen in all others: p50", statistics.median(seen), "ms"),
        Figure(
            "the same: p99", statistics.quantiles(seen, n=100)[-1], "ms", at_most=SEEN_BAR,
        ),
        Figure(f"Valkey: read all of {MAILBOX:,}", read_all, "ms", at_most=READ_BAR),
        Figure(f"Valkey: list {LISTED} of {MAILBOX:,} unread", listed, "ms", at_most=LIST_BAR),
    ]  # fmt: skip


def _publish(server: Server, token: str) -> list[str]:
    """A full mailbox; its ids, oldest first."""
    with Publisher(_url(server), token=token) as publisher:
        receipts = publisher.publish_many({"user": USER, "data": n} for n in range(MAILBOX))
    for failed in receipts:
        if isinstance(failed, Exception):
            raise failed
    return [str(getattr(each, "id", None)) for each in receipts]


def _url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}"


# --- how soon ------------------------------------------------------------------------------------


class _Others:
    """The other connections: when the last of them was told."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._left: dict[str, int] = {}
        self._all = asyncio.Event()

    def expect(self, notification: str) -> None:
        self._left = {notification: self._count}
        self._all.clear()

    def hear(self, message: dict[str, Any]) -> None:
        if message["type"] != "read":
            return
        for each in message["ids"]:
            if each in self._left:
                self._left[each] -= 1
                if not self._left[each]:
                    self._all.set()

    async def told(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._all.wait()


async def _seen(one: Server, two: Server, token: str, ids: Sequence[str]) -> list[float]:
    """Milliseconds from reading one until the last of the others is told, for each."""
    others = _Others(3)
    async with AsyncExitStack() as stack:
        # Nothing is acknowledged: a window of notifications comes, and then only what is read.
        here = await stack.enter_async_context(_socket(one, token, "here", None))
        await stack.enter_async_context(_socket(two, token, "there", others))
        for number, server in enumerate((one, two)):
            await stack.enter_async_context(_stream(server, token, f"stream-{number}", others))
        inbox = here.inbox()
        times = []
        for each in ids[:ROUNDS]:
            others.expect(each)
            begin = time.perf_counter()
            reading = asyncio.create_task(inbox.read(each))
            await others.told()
            times.append(1e3 * (time.perf_counter() - begin))
            await reading
    return times


@asynccontextmanager
async def _socket(
    server: Server, token: str, device: str, others: _Others | None
) -> AsyncIterator[Client]:
    """A WebSocket that is there."""
    there = asyncio.Event()

    def hear(message: dict[str, Any]) -> None:
        if others is not None:
            others.hear(message)
        if message["type"] == "welcome":
            there.set()

    url = _url(server)
    async with connect(url, token=token, device=device, ack="manual", on_message=hear) as client:
        async with asyncio.timeout(PATIENCE):
            await there.wait()
        yield client


@asynccontextmanager
async def _stream(server: Server, token: str, device: str, others: _Others) -> AsyncIterator[None]:
    """An event stream that is there."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    head = (
        f"GET /v1/stream?device={device} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {token}\r\n\r\n"
    )
    writer.write(head.encode())
    there = asyncio.Event()

    async def listen() -> None:
        async for line in reader:
            at = line.find(b"data: {")  # a chunk may begin before it
            if at >= 0:
                message = json.loads(line[at + len(b"data: ") :])
                others.hear(message)
                if message["type"] == "welcome":
                    there.set()

    listening = asyncio.create_task(listen())
    try:
        async with asyncio.timeout(PATIENCE):
            await there.wait()
        yield
    finally:
        listening.cancel()
        writer.close()


# --- what it costs -------------------------------------------------------------------------------


def _costs(server: Server, token: str, ids: Sequence[str]) -> tuple[float, float]:
    """Milliseconds of Valkey for reading all, and for a list: the medians."""
    client: Any = redis.Redis.from_url(server.redis_url)
    read_all, listed = [], []
    with Publisher(_url(server), token=token) as publisher:
        for _ in range(REPEATS):
            if publisher.unread(USER, until=ids[-1]) != MAILBOX:
                raise RuntimeError("not everything is unread")
            begin = _spent(client)
            page = publisher.page(USER, limit=LISTED, unread=True)
            listed.append(_spent(client) - begin)
            if len(page.notifications) != LISTED or page.unread != MAILBOX:
                raise RuntimeError(f"listed {len(page.notifications)}, of {page.unread} unread")
            begin = _spent(client)
            unread = publisher.read(USER, until=ids[-1])
            read_all.append(_spent(client) - begin)
            if unread:
                raise RuntimeError(f"{unread} are left unread")
    client.close()
    return statistics.median(read_all), statistics.median(listed)


def _spent(client: Any) -> float:
    """Milliseconds that scripts have taken, with all that they call."""
    commands = client.info("commandstats")
    scripts = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")
    return sum(float(commands[name]["usec"]) for name in scripts if name in commands) / 1e3

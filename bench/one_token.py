"""What one ordinary token can do to everybody else, at the rates that it is allowed.

A user may receive, and listen and publish to the topics of one room. Everything that such a token
allows is done at once, over as many connections as one user may hold, against one of two nodes;
meanwhile other users are sent notifications on both.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import multiprocessing
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import redis
import websockets
from websockets.asyncio.client import ClientConnection, connect

from bench.harness import SECRET, Figure, Server, another, node, pin, say, tokens, wait_until
from pushsvc.auth.tokens import mint

SECONDS = 20.0
"""How long each measurement takes."""
BYSTANDERS = 20
"""Users on each node who are sent notifications, one after the other."""
PACE = 0.01
"""Seconds between two of these notifications."""
STATE_KEYS, STATE_BYTES = 1000, 60_000
"""Of the topic whose state is asked for."""
CROWD = 50_000
"""Users present in the topic whose presence is asked for."""
P95_BAR = 100.0
"""Milliseconds."""
MEMORY_BAR = 64.0
"""MiB by which the node's resident memory may grow."""
REDIS_BAR = 25.0
"""Percent of a core."""
SOCKETS = 24
"""Connections of the one; a user may hold 32."""
RATE = 10
"""Messages a second that one connection may send."""


def run(*, profile: bool) -> list[Figure]:
    """Measure the others alone, then beside the one."""
    del profile
    with node() as near, another(near) as far:
        say("one_token: filling a state and a crowd")
        _fill_state(near)
        _fill_crowd(near)
        nodes = {"same node": near, "other node": far}
        say("one_token: the others alone")
        alone, _, idle = _measure(nodes)
        say("one_token: beside the one")
        before = near.memory()
        with _one(near):
            beside, grown, busy = _measure(nodes)
    figures = []
    for name in nodes:
        figures.append(Figure(f"p95 of others, {name}, alone", alone[name], "ms"))
        figures.append(Figure(f"p95 of others, {name}", beside[name], "ms", at_most=P95_BAR))
    figures += [
        Figure("Redis, without the one", idle, "%"),
        Figure("Redis", busy, "%", at_most=REDIS_BAR),
        Figure("memory of the node grew", (grown - before) / 2**20, "MiB", at_most=MEMORY_BAR),
    ]
    return figures


# --- the others ----------------------------------------------------------------------------------


def _measure(nodes: dict[str, Server]) -> tuple[dict[str, float], int, float]:
    """The 95th percentile of each node in ms, the first one's highest memory, Redis' CPU in %."""
    near = next(iter(nodes.values()))
    highest = 0
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(0.2):
            highest = max(highest, near.process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    client = redis.Redis.from_url(near.redis_url)
    begun, used = time.monotonic(), _redis_cpu(client)
    try:
        times = asyncio.run(_others({name: each.port for name, each in nodes.items()}))
    finally:
        over.set()
        watcher.join()
    redis_cpu = 100 * (_redis_cpu(client) - used) / (time.monotonic() - begun)
    client.close()
    p95 = {name: 1000 * statistics.quantiles(each, n=20)[-1] for name, each in times.items()}
    return p95, highest, redis_cpu


def _redis_cpu(client: Any) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user"] + info["used_cpu_sys"])


async def _others(ports: dict[str, int]) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in ports}
    await asyncio.gather(*(_node_of_others(ports[name], times[name]) for name in ports))
    return times


async def _node_of_others(port: int, times: list[float]) -> None:
    """Send to each user in turn, and note how long each notification takes to come."""
    users = [f"other-{port}-{number}" for number in range(BYSTANDERS)]
    (publisher,) = tokens(["backend"], "push.publish")
    async with contextlib.AsyncExitStack() as stack:
        sockets = [
            await stack.enter_async_context(_socket(port, token, "default"))
            for token in tokens(users)
        ]
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False)
        )
        headers = {"Authorization": f"Bearer {publisher}"}
        deadline = time.monotonic() + SECONDS
        for number in itertools.count():
            if time.monotonic() > deadline:
                return
            turn = number % BYSTANDERS
            note = {"to": {"user": users[turn]}, "data": number}
            begun = time.monotonic()
            try:
                answer = await http.post("/v1/notifications", json=note, headers=headers)
            except httpx.TimeoutException:
                times.append(time.monotonic() - begun)
                continue
            answer.raise_for_status()
            while (message := json.loads(await sockets[turn].recv()))["type"] != "notification":
                pass
            times.append(time.monotonic() - begun)
            await sockets[turn].send(json.dumps({"type": "ack", "id": message["id"]}))
            await asyncio.sleep(PACE)


def _socket(port: int, token: str, device: str) -> connect:
    return connect(
        f"ws://127.0.0.1:{port}/v1/ws?device={device}",
        additional_headers={"Authorization": f"Bearer {token}"},
        max_size=None,
        proxy=None,
    )


# --- what is kept --------------------------------------------------------------------------------


def _fill_state(server: Server) -> None:
    (token,) = tokens(["backend"], "push.publish")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    for begin in range(0, STATE_KEYS, 10):
        notes = [
            {"to": {"topic": "room.state"}, "data": "x" * STATE_BYTES, "collapse_key": f"k{key}"}
            for key in range(begin, begin + 10)
        ]
        connection.request(
            "POST", "/v1/notifications/batch", json.dumps({"notifications": notes}),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )  # fmt: skip
        answer = connection.getresponse()
        answer.read()
        if answer.status != http.client.ACCEPTED:
            raise RuntimeError(f"the state was refused: {answer.status}")
    connection.close()


def _fill_crowd(server: Server) -> None:
    """Say of many users that the node holds a subscription of theirs, as it would itself."""
    client: Any = redis.Redis.from_url(server.redis_url)
    (node_id, *_) = client.zrange("push:nodes", 0, -1)
    fields = {f"{node_id.decode()} crowd-{number}": 1 for number in range(CROWD)}
    client.hset("push:{t:room.crowd}:present", mapping=fields)
    client.close()


# --- the one -------------------------------------------------------------------------------------


@contextmanager
def _one(server: Server) -> Iterator[None]:
    """Everything that one token allows, in a process of its own, until the context ends."""
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=(server.port,))
    process.start()
    try:
        wait_until(lambda: server.metric("pushsvc_connections") >= SOCKETS, "the one's sockets")
        yield
    finally:
        process.terminate()
        process.join()


def _attack(port: int) -> None:
    pin(0, -1)
    asyncio.run(_everything(port))


async def _everything(port: int) -> None:
    room = {"subscribe": ["room.**"], "publish": ["room.**"]}
    token = mint(
        secret=SECRET, user="one", audience="pushsvc", scopes=["push.receive"], topics=room,
        ttl=3600,
    )  # fmt: skip
    plans: list[Callable[[int], Iterator[Any]]] = [
        _subscribes, _presences, _digits, _publishes, _pings, _unknown,
    ]  # fmt: skip
    sockets = [
        _forever(partial(_speak, port, token, number, plans[number % len(plans)]))
        for number in range(SOCKETS)
    ]
    requests = [
        _forever(partial(_request, port, token, make, n))
        for make in (_polls, _batches, _acks, _lists, _tickets)
        for n in range(4)
    ]
    await asyncio.gather(*sockets, *requests)


async def _forever(attempt: Callable[[], Awaitable[None]]) -> None:
    while True:
        with contextlib.suppress(OSError, websockets.WebSocketException, httpx.HTTPError):
            await attempt()
        await asyncio.sleep(0.2)


async def _speak(port: int, token: str, number: int, plan: Callable[[int], Iterator[Any]]) -> None:
    """Send as many messages as a connection may, and read what comes."""
    async with _socket(port, token, f"d{number}") as socket:
        reading = asyncio.create_task(_drain(socket))
        try:
            for message in plan(number):
                await socket.send(message if isinstance(message, str) else json.dumps(message))
                await asyncio.sleep(1 / RATE)
        finally:
            reading.cancel()


async def _drain(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


def _subscribes(_: int) -> Iterator[Any]:
    for ref in itertools.count():
        kind = "unsubscribe" if ref % 2 else "subscribe"
        yield {"type": kind, "ref": ref, "topic": "room.state"}


def _presences(_: int) -> Iterator[Any]:
    yield {"type": "subscribe", "topic": "room.crowd"}
    for ref in itertools.count():
        yield {"type": "presence", "ref": ref, "topic": "room.crowd"}


def _digits(_: int) -> Iterator[Any]:
    runs = ",".join(["9" * 308] * 40)
    for _ in itertools.count():
        yield f'{{"type":"ping","ref":[{runs}]}}'


def _publishes(number: int) -> Iterator[Any]:
    for key in itertools.count():
        yield {
            "type": "publish", "ref": key, "topic": f"room.n{number}", "data": "x" * 12_000,
            "collapse_key": f"k{key % 1000}",
        }  # fmt: skip


def _pings(_: int) -> Iterator[Any]:
    for ref in itertools.count():
        yield {"type": "ping", "ref": ref}
        yield {"type": "ack", "id": f"{ref}-0"}


def _unknown(number: int) -> Iterator[Any]:
    topics = {f"room.u{number}.{each}": None for each in range(100)}
    for ref in itertools.count():
        yield {"type": "subscribe", "ref": ref, "topics": topics}
        yield {"type": "unsubscribe", "ref": ref, "topic": f"room.u{number}.{ref % 100}"}


_Make = Callable[[int, int], tuple[str, str, dict[str, Any]]]


async def _request(port: int, token: str, make: _Make, number: int) -> None:
    """Send requests, each once the one before is answered, and wait where that is asked for."""
    base = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        base_url=base, headers=headers, timeout=60, trust_env=False
    ) as client:
        for turn in itertools.count():
            method, path, more = make(number, turn)
            answer = await client.request(method, path, **more)
            await asyncio.sleep(float(answer.headers.get("Retry-After", 0)))


def _polls(number: int, turn: int) -> tuple[str, str, dict[str, Any]]:
    return "GET", f"/v1/poll?device=p{number}-{turn}&wait=0", {}


def _batches(number: int, turn: int) -> tuple[str, str, dict[str, Any]]:
    del number, turn
    more = {"content": b"x\n" * 2**19, "headers": {"Content-Type": "application/x-ndjson"}}
    return "POST", "/v1/notifications/batch", more


def _acks(number: int, turn: int) -> tuple[str, str, dict[str, Any]]:
    return "POST", "/v1/ack", {"json": {"device": f"a{number}-{turn}", "id": f"{turn}-0"}}


def _lists(number: int, turn: int) -> tuple[str, str, dict[str, Any]]:
    del number, turn
    return "GET", "/v1/users/one/notifications?limit=100", {}


def _tickets(number: int, turn: int) -> tuple[str, str, dict[str, Any]]:
    del number, turn
    return "POST", "/v1/tickets", {}

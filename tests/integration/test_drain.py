"""How a node leaves: unready but serving, then all are sent elsewhere, and nothing stays behind."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from pushsvc.server.build import ANSWER_SECONDS
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.server.worker import STOP_SECONDS
from tests.support.backend import problem
from tests.support.events import Stream
from tests.support.nodes import Node, nodes, publisher_token, token, wait_until
from tests.support.phone import Phone
from tests.support.proxy import Proxy
from tests.support.raw import Ended, Raw, RawSocket, request
from tests.support.topics import member

WORKERS = pytest.mark.parametrize("workers", [1, 2])


def troubles(node: Node) -> list[str]:
    """What ``/readyz`` says is wrong."""
    answer = httpx.get(f"{node.admin_url}/readyz", timeout=5)
    found: list[str] = answer.json()["troubles"]
    assert (answer.status_code == 503) == bool(found)
    return found


def begin_to_drain(node: Node) -> float:
    """SIGTERM; when, and the node is unready."""
    at = time.monotonic()
    node.process.send_signal(signal.SIGTERM)
    wait_until(lambda: troubles(node) == ["draining"], "the node to be unready")
    return at


def ended(node: Node, seconds: float = 15) -> int:
    """The exit code."""
    return node.process.wait(seconds)


def publication(user: str, *, length: int | None = None) -> bytes:
    """A publish request, as a backend sends it on a connection that it keeps."""
    body = json.dumps({"to": {"user": user}, "data": 1}).encode()
    head = request(
        "POST",
        "/v1/notifications",
        {
            "Upgrade": None,
            "Connection": None,
            "Sec-WebSocket-Version": None,
            "Sec-WebSocket-Key": None,
            "Authorization": f"Bearer {publisher_token()}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        },
    )
    return (head + body)[:length]


def knock(node: Node) -> None:
    """Try a handshake on a new connection."""
    with Raw(node) as raw:
        raw.send(request())
        raw.answer()


def content(redis: Redis, key: str) -> str:
    """What is under a key."""
    read: dict[bytes, Callable[[str], Any]] = {
        b"hash": redis.hgetall,
        b"set": redis.smembers,
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"stream": redis.xrange,
        b"string": redis.get,
    }
    kind: Any = redis.type(key)
    return str(read[kind](key)) if kind in read else ""


def closed_with_4001(raw: RawSocket) -> None:
    message = raw.message()
    assert message["type"] == "reconnect"
    assert 0 <= message["retry_after"] <= 1
    assert raw.closed() == 4001


# --- the delay -----------------------------------------------------------------------------------


@WORKERS
async def test_during_the_delay_a_node_is_unready_and_serves_everything(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, workers: int
) -> None:
    node = Node(
        valkey.url, tmp_path, prefix=prefix, workers=workers, drain_delay_seconds=1.5,
        drain_seconds=0.2,
    ).start()  # fmt: skip
    try:
        async with AsyncExitStack() as stack:
            early = await stack.enter_async_context(Phone(node, "u1"))
            at = await asyncio.to_thread(begin_to_drain, node)
            assert time.monotonic() - at < 0.5, "it is unready at once"
            late = await stack.enter_async_context(Phone(node, "u2"))
            answer = await asyncio.to_thread(
                node.post, "/v1/notifications", {"to": {"user": "u1"}, "data": 1}
            )
            assert (answer.status_code, answer.json()["connections"]) == (202, 1)
            assert answer.headers["Connection"] == "close"
            assert (await early.notification())["data"] == 1
            assert await asyncio.to_thread(troubles, node) == ["draining"]
            for phone in (early, late):
                assert (await phone.receive())["type"] == "reconnect"
                assert time.monotonic() - at > 1.4
                assert await phone.closed() == 4001
        assert await asyncio.to_thread(ended, node) == 0
        node.check_log()
    finally:
        node.stop()


def test_after_the_delay_new_connections_are_refused_and_old_ones_told(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, drain_seconds=1) as node, ExitStack() as stack:
        first, second = stack.enter_context(Raw(node)), stack.enter_context(Raw(node))
        sockets = [stack.enter_context(RawSocket(node, f"u{number}")) for number in range(5)]
        for pooled in (first, second):
            pooled.send(publication("u0"))
            answer = pooled.answer()
            assert (answer.status_code, answer.headers.get("Connection")) == (202, None)
        begin_to_drain(node)
        # On a connection that is there already a publish is taken still, and it is the last.
        first.send(publication("nobody"))
        answer = first.answer()
        assert (answer.status_code, answer.headers["Connection"]) == (202, "close")
        second.send(request())
        problem(second.answer(), 503, "overloaded")
        with pytest.raises((ConnectionRefusedError, Ended)):
            knock(node)
        assert [sockets[0].message()["type"] for _ in range(2)] == ["notification"] * 2
        for raw_socket in sockets:
            closed_with_4001(raw_socket)
        assert ended(node) == 0


# --- publishes in flight -------------------------------------------------------------------------


def test_a_publish_under_way_is_answered_before_the_node_ends(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Node(valkey.url, tmp_path, prefix=prefix, drain_seconds=0) as node, Raw(node) as backend:
        whole = publication("u1")
        backend.send(whole[:-5])
        wait_until(lambda: node.metric("pushsvc_loop_lag_seconds_count") >= 1, "it to be read")
        node.process.send_signal(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            wait_until(lambda: node.process.poll() is not None, "the node to wait", 0.5)
        backend.send(whole[-5:])
        answer = backend.answer()
        assert (answer.status_code, answer.headers["Connection"]) == (202, "close")
        assert ended(node) == 0


# --- who listens otherwise -----------------------------------------------------------------------


async def test_streams_and_polls_are_sent_elsewhere_in_their_turn(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with nodes(1, valkey.url, tmp_path, prefix=prefix, drain_seconds=2) as (node,):
        gone: list[float] = []

        async def streams(number: int) -> None:
            async with Stream(node, f"s{number}") as stream:
                reconnect, closed = await stream.ended()
                assert reconnect["type"] == "reconnect"
                assert (closed["type"], closed["code"]) == ("closed", 4001)
                gone.append(time.monotonic())

        async def polls(client: httpx.AsyncClient, number: int) -> None:
            answer = await client.get(
                f"{node.url}/v1/poll?wait=30",
                headers={"Authorization": f"Bearer {token(f'p{number}')}"},
            )
            assert (answer.status_code, answer.json()["messages"]) == (200, [])
            assert answer.headers["Connection"] == "close"
            gone.append(time.monotonic())

        async with httpx.AsyncClient(timeout=30) as client, asyncio.TaskGroup() as tasks:
            for number in range(10):
                tasks.create_task(streams(number))
                tasks.create_task(polls(client, number))

            def all_there() -> bool:
                return node.metric("pushsvc_connections") == 20

            await asyncio.to_thread(wait_until, all_there, "all to listen")
            at = await asyncio.to_thread(begin_to_drain, node)
        assert await asyncio.to_thread(ended, node) == 0
        assert len(gone) == 20
        half = sum(each - at < 1 for each in gone)
        assert 5 <= half <= 15, [round(each - at, 2) for each in gone]


# --- a second signal -----------------------------------------------------------------------------


@pytest.mark.parametrize(("workers", "delay"), [(1, 60), (2, 0)])
def test_a_second_signal_ends_the_drain_at_once_and_cleanly(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, workers: int, delay: float
) -> None:
    node = Node(
        valkey.url, tmp_path, prefix=prefix, workers=workers, drain_seconds=60,
        drain_delay_seconds=delay,
    ).start()  # fmt: skip
    try:
        with ExitStack() as stack:
            sockets = [stack.enter_context(RawSocket(node, f"u{number}")) for number in range(8)]
            at = begin_to_drain(node)
            node.process.send_signal(signal.SIGTERM)  # the first once more, as a group gets it
            time.sleep(max(0.0, at + 0.8 - time.monotonic()))
            assert node.process.poll() is None
            node.process.send_signal(signal.SIGINT)
            for raw in sockets:
                closed_with_4001(raw)
        assert ended(node, 5) == 0
        node.check_log()
    finally:
        node.stop()


# --- what is left --------------------------------------------------------------------------------


@WORKERS
async def test_nothing_of_a_node_is_left_in_redis(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str, workers: int
) -> None:
    async with AsyncExitStack() as streams:
        stack = streams.enter_context(ExitStack())
        redis = stack.enter_context(Redis.from_url(valkey.url))
        node = Node(valkey.url, tmp_path, prefix=prefix, workers=workers, drain_seconds=0.3).start()
        stack.callback(node.stop)
        for number in range(10):
            stack.enter_context(RawSocket(node, f"u{number}"))
        live: list[Any] = redis.zrange(f"{prefix}:nodes", 0, -1)
        assert len(live) == workers
        stream = await streams.enter_async_context(Stream(node, "s", topics=["t"]))
        await stream.settled(["t"])
        ids = [name.decode() for name in live]

        def mentioned() -> list[str]:
            """Keys that know the node, but for the summary, which lives as long as a lease."""
            keys = [key.decode() for key in redis.scan_iter(f"{prefix}:*")]
            known = [key for key in keys if any(each in key + content(redis, key) for each in ids)]
            return [key for key in known if not key.endswith(":summary")]

        found = mentioned()
        assert f"{prefix}:nodes" in found
        assert any(key.endswith(":inbox") for key in found)
        assert f"{prefix}:{{b}}:listeners" in found
        assert len(found) > 10
        node.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(ended, node) == 0
        assert mentioned() == []
        node.check_log()


def test_a_node_whose_redis_hangs_ends_within_its_grace(tmp_path: Path) -> None:
    with EmbeddedServer() as server:
        node = Node(server.url, tmp_path, drain_seconds=0.2).start()
        try:
            with RawSocket(node, "u1", auth=member("u1")) as raw, Raw(node) as backend:
                raw.say(type="subscribe", topic="t", ref=1)
                assert raw.message()["ref"] == 1
                node.publish("u1", 1)
                note = raw.message()
                os.kill(server.pid, signal.SIGSTOP)
                # So that there is something to write for everybody who writes.
                raw.say(type="ack", id=note["id"])
                raw.say(type="publish", topic="t", data=1)
                backend.send(publication("u1"))
                at = time.monotonic()
                node.process.send_signal(signal.SIGTERM)
                closed_with_4001(raw)
                problem(backend.answer(), 503, "store_unavailable")
            assert ended(node, STOP_SECONDS) == 0
            assert time.monotonic() - at < STOP_SECONDS
        finally:
            os.kill(server.pid, signal.SIGCONT)
            node.stop()


@pytest.mark.parametrize("path", ["/v1/ws?", "/v1/poll?wait=30&"])
def test_who_is_let_in_after_redis_held_it_up_is_sent_elsewhere_too(
    tmp_path: Path, valkey: EmbeddedServer, prefix: str, path: str
) -> None:
    class Asking(RawSocket):
        def __init__(self) -> None:
            Raw.__init__(self, node)
            auth = {"Authorization": f"Bearer {token('u1')}"}
            self._ticket = node.post("/v1/tickets", headers=auth).json()["ticket"]

        def ask(self, path: str) -> None:
            target = f"{path}ticket={self._ticket}"
            self.send(request(target=target, headers={"Authorization": None}))

    with Proxy(valkey.port) as proxy:
        node = Node(proxy.url, tmp_path, prefix=prefix, drain_seconds=0, lease_seconds=30)
        try:
            node.start()
            with Asking() as first:  # the scripts are loaded with it
                first.ask("/v1/ws?")
                assert first.answer().status_code == 101
            with Asking() as late:
                # Two answers, for the ticket and for the connection, each of them in time.
                proxy.delay = 0.42 * ANSWER_SECONDS
                late.ask(path)
                httpx.get(f"{node.url}/client.js")  # behind it
                begin_to_drain(node)
                answer = late.answer()
                if answer.status_code == 101:
                    assert late.message()["type"] == "welcome"
                    closed_with_4001(late)
                else:
                    assert answer.json().get("messages") == [], answer.text
                proxy.delay = 0.0
                assert ended(node) == 0
        finally:
            node.stop()
        node.check_log()


# --- the age -------------------------------------------------------------------------------------


async def test_connections_are_sent_elsewhere_at_their_age(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    node = Node(valkey.url, tmp_path, prefix=prefix, max_connection_age_seconds=3)
    with node:
        async with Phone(node, "u1") as phone, Stream(node, "u2") as stream:
            opened = time.monotonic()
            assert (await phone.receive())["type"] == "reconnect"
            assert await phone.closed() == 4001
            reconnect, closed = await stream.ended()
            assert reconnect["type"] == "reconnect"
            assert (closed["type"], closed["code"]) == ("closed", 4001)
            assert 2 < time.monotonic() - opened < 5
        assert await asyncio.to_thread(troubles, node) == []

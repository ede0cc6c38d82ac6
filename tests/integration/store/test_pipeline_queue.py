"""Pipelines to a real server, and to one that is gone."""

import asyncio

import pytest
import structlog

from pushsvc.errors import Overloaded, PushError, StoreUnavailable
from pushsvc.feeds.feed import Bounds, Feeds, Join
from pushsvc.protocol.notifications import Append
from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store import pipeline_queue as module
from pushsvc.store.pipeline_queue import PipelineQueue
from pushsvc.store.scripts import Scripts
from pushsvc.store.topology import connector
from tests.support.failover import ask
from tests.support.redis import redis_at


def queue_to(url: str, tail: tuple[object, ...] | None = None) -> PipelineQueue:
    return PipelineQueue("test", connector(url)(2), Scripts(), tail)


async def test_commands_run_in_the_order_of_submission(valkey: EmbeddedServer, prefix: str) -> None:
    queue = queue_to(valkey.url)
    futures = [
        queue.submit([("RPUSH", prefix, f"{i}a"), ("RPUSH", prefix, f"{i}b")]) for i in range(700)
    ]
    lengths = [length for future in futures for length in await future]
    assert lengths == list(range(1, 1401))
    await queue.aclose()


async def test_no_commands_are_answered_in_their_order_and_wait_for_nothing(
    valkey: EmbeddedServer,
) -> None:
    queue = queue_to(valkey.url)
    async with asyncio.timeout(10):
        assert await queue.submit([]) == []
        done: list[int] = []
        for number, commands in enumerate([[("PING",)], [], [("PING",)]]):
            future = queue.submit(commands)
            future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc]
        await future
        await asyncio.sleep(0)
    assert done == [0, 1, 2]
    await queue.aclose()


async def test_the_answers_of_a_pipeline_are_given_in_parts_and_in_order(
    valkey: EmbeddedServer,
) -> None:
    queue = PipelineQueue("test", connector(valkey.url)(2), Scripts(), at_once=8)
    done: list[int] = []
    for number in range(100):
        future = queue.submit([("PING",)])
        future.add_done_callback(lambda _, number=number: done.append(number))  # type: ignore[misc]
    before = 0
    async with asyncio.timeout(10):
        while len(done) < 100:
            await asyncio.sleep(0)
            assert len(done) - before <= 8
            before = len(done)
    assert done == list(range(100))
    await queue.aclose()


async def test_a_command_that_fails_fails_alone(valkey: EmbeddedServer, prefix: str) -> None:
    queue = queue_to(valkey.url)
    before, wrong, after = await queue.submit(
        [("SET", prefix, "x"), ("LPUSH", prefix, "y"), ("GET", prefix)]
    )
    assert after == b"x"
    assert isinstance(wrong, PushError)
    assert before
    await queue.aclose()


async def test_a_reply_that_is_not_understood_fails_its_own_caller_and_no_other(
    valkey: EmbeddedServer,
) -> None:
    queue = queue_to(valkey.url)
    with structlog.testing.capture_logs() as lines:
        one, bad, other = await queue.submit([("ECHO", "1"), ("ECHO", "x"), ("ECHO", "2")], int)
    assert (one, other) == (1, 2)
    assert isinstance(bad, PushError)
    assert [line["event"] for line in lines] == ["a reply was not understood"]
    await queue.aclose()


async def test_what_the_tail_answered_follows_the_results_once_for_each_of_them(
    valkey: EmbeddedServer, prefix: str
) -> None:
    queue = queue_to(valkey.url, ("WAIT", 0, 10))
    first, second = queue.submit([("SET", prefix, 1)]), queue.submit([("GET", prefix)] * 2)
    assert (await first)[1:] == [0]
    assert await second == [b"1", b"1", 0, 0]
    await queue.aclose()


async def test_while_redis_is_gone_callers_hear_at_once_and_afterwards_all_is_well() -> None:
    with EmbeddedServer() as server:
        queue = queue_to(server.url)
        await queue.one("PING")
        server.kill()
        with pytest.raises(StoreUnavailable, match="may or may not"):
            await queue.one("PING")
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            queue.submit([("PING",)])
        server.start()
        async with asyncio.timeout(10):
            while True:
                try:
                    await queue.one("PING")
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.01)
        await queue.aclose()


async def test_more_than_the_queue_holds_is_refused_and_not_half_taken(
    valkey: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUE", 10)
    queue = queue_to(valkey.url)
    kept = queue.submit([("INCR", prefix)] * 10)
    with pytest.raises(Overloaded):
        queue.submit([("INCR", prefix)])
    assert await kept == list(range(1, 11))
    assert await queue.one("INCR", prefix) == 11
    await queue.aclose()


async def test_a_script_that_its_server_still_lacks_may_be_called_again(
    valkey: EmbeddedServer, prefix: str
) -> None:
    queue = queue_to(valkey.url)
    with pytest.raises(StoreUnavailable):
        await queue.one("EVALSHA", "0" * 40, 1, prefix)
    await queue.aclose()


class Forgetful:
    """Feeds of a server that a test may have forget its scripts."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.queue = redis_at(server.url, "push")
        self.keys = self.queue.keys
        bounds = Bounds(100, 3600, 10)
        self.feeds = Feeds(bounds, publishing=self.queue, sessions=self.queue)

    def forget(self) -> None:
        ask(self.server.port, "SCRIPT", "FLUSH")

    def listeners(self, feed: str) -> dict[str, str]:
        found: dict[str, str] = ask(self.server.port, "HGETALL", self.keys.listeners(feed))
        return found

    def kept(self, feed: str) -> list[str]:
        log = ask(self.server.port, "XRANGE", self.keys.log(feed), "-", "+")
        return [fields["d"] for _, fields in log]


JOIN, LEAVE = [Join("u:x", "n1.1", "d1", None, 0, False, False)], [("u:x", ["n1.1"])]


async def test_a_server_without_scripts_gets_them_before_the_first_command() -> None:
    """Else what needs none, like to leave, would be carried out before what needs one."""
    with EmbeddedServer() as server:
        there = Forgetful(server)
        for _ in "never had them", "lost them at its restart":
            joined, left = there.feeds.join(JOIN), there.feeds.leave(LEAVE)
            assert not isinstance((await joined)[0], PushError)
            await left
            assert there.listeners("u:x") == {}
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        await there.queue.aclose()


async def test_scripts_that_are_there_are_not_sent_again() -> None:
    with EmbeddedServer() as server:
        for _ in range(2):
            ask(server.port, "CONFIG", "RESETSTAT")
            queue = queue_to(server.url)
            await queue.one("PING")
            await queue.aclose()
        received = int(ask(server.port, "INFO", "stats")["total_net_input_bytes"])
    assert received < 2000


async def test_what_a_server_forgets_while_it_runs_is_refused_and_not_carried_out_later() -> None:
    with EmbeddedServer() as server:
        there = Forgetful(server)
        await there.feeds.join([Join("u:y", "n1.1", "d1", None, 0, False, False)])
        there.forget()
        joined, left = there.feeds.join(JOIN), there.feeds.leave(LEAVE)
        assert isinstance((await joined)[0], StoreUnavailable)
        await left
        assert there.listeners("u:x") == {}
        async with asyncio.timeout(5):
            while isinstance((await there.feeds.join(JOIN))[0], StoreUnavailable):
                await asyncio.sleep(0.01)
        assert list(there.listeners("u:x")) == ["n1.1"]
        await there.queue.aclose()


async def test_publishes_to_a_server_that_forgets_are_never_kept_in_another_order() -> None:
    """Not even where another queue gives it the scripts in the middle of a pipeline."""
    with EmbeddedServer() as server:
        there = Forgetful(server)
        appends = [Append("u:x", b"%06d" % i + b"x" * 20_000) for i in range(90)]

        async def another_queue(pause: float) -> None:
            await asyncio.sleep(pause)
            other = queue_to(server.url)
            await other.one("PING")
            await other.aclose()

        for turn in range(8):
            ask(server.port, "FLUSHALL")
            there.forget()
            (results, _), _ = await asyncio.gather(
                there.feeds.append(appends), another_queue(0.0005 * turn)
            )
            kept = there.kept("u:x")
            assert kept == sorted(kept)
            assert len(kept) == sum(not isinstance(result, PushError) for result in results)
        await there.queue.aclose()


async def test_a_caller_that_gave_up_does_not_disturb_the_others(
    valkey: EmbeddedServer, prefix: str
) -> None:
    queue = queue_to(valkey.url)
    await queue.one("SET", prefix, "secret")
    impatient = queue.submit([("GET", prefix)])
    patient = queue.submit([("ECHO", "mine")])
    impatient.cancel()
    assert await patient == [b"mine"]
    await queue.aclose()


async def test_out_of_memory_is_told_and_nothing_is_trimmed() -> None:
    with EmbeddedServer(extra=["--maxmemory", "3mb"]) as server:
        queue = queue_to(server.url)
        refused = None
        for i in range(200):
            (refused,) = await queue.submit([("XADD", "s", "*", "d", "x" * 50_000)])
            if isinstance(refused, PushError):
                break
            assert await queue.one("XLEN", "s") == i + 1
        assert isinstance(refused, StoreUnavailable)
        assert "out of memory" in refused.detail
        await queue.aclose()

"""Webhooks to a real HTTP server that accepts, refuses, redirects, is slow, or is not there."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, ClassVar

import pytest
import redis
import tornado.web
from prometheus_client import REGISTRY
from standardwebhooks import Webhook
from tornado.httpclient import HTTPResponse
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port

from pushsvc.errors import StoreUnavailable
from pushsvc.feeds.feed import Appended, Bounds, Feeds
from pushsvc.feeds.receipt_log import Position, ReceiptLog
from pushsvc.feeds.work_queue import WorkQueue
from pushsvc.node import webhooks
from pushsvc.node.webhooks import Webhooks
from pushsvc.protocol import ids
from pushsvc.protocol.feeds import receipts
from pushsvc.protocol.notifications import Append
from pushsvc.protocol.receipts import Status, body
from pushsvc.protocol.webhooks import GIVE_UP_AFTER
from pushsvc.server.embedded import EmbeddedServer
from tests.support.redis import redis_at

SECRET = "whsec_" + "QUJD" * 10
FEED = receipts("backend")

Answer = Callable[[tornado.web.RequestHandler], Awaitable[None]]


class Receiver(tornado.web.RequestHandler):
    """Answers as its test says, and keeps what it was sent."""

    came: ClassVar[list[dict[str, Any]]] = []
    ids: ClassVar[list[str]] = []
    answers: ClassVar[list[Answer]] = []

    async def post(self) -> None:
        self.came.append(Webhook(SECRET).verify(self.request.body, dict(self.request.headers)))
        self.ids.append(self.request.headers["webhook-id"])
        if self.answers:
            await self.answers.pop(0)(self)


def status(code: int, **headers: str) -> Answer:
    async def answer(handler: tornado.web.RequestHandler) -> None:
        handler.set_status(code)
        for name, value in headers.items():
            handler.set_header(name.replace("_", "-"), value)

    return answer


async def large(handler: tornado.web.RequestHandler) -> None:
    handler.write(b"x" * (webhooks.MAX_ANSWER + 1))


async def broken(handler: tornado.web.RequestHandler) -> None:
    stream = handler.detach()
    await stream.write(b"HTTP/1.1 what\r\n\r\n")
    stream.close()


async def slow(_: tornado.web.RequestHandler) -> None:
    await asyncio.sleep(1)


class Rig:
    """One node's webhooks, a receiver, and receipts to be sent."""

    def __init__(self, url: str, prefix: str, address: str) -> None:
        self.address = address
        self.commands = redis_at(url, prefix)
        self.keys = self.commands.keys
        bounds = Bounds(entries=50, retention=3600, connections=4, receipts=50)
        self._feeds = Feeds(bounds, publishing=self.commands, sessions=self.commands)
        self.work = WorkQueue("webhooks", self.commands, hold=50, keep=7200)
        self.log = ReceiptLog(self.commands, keep=7200)
        self.redis = redis.Redis.from_url(url, decode_responses=True)

    async def give(self, count: int = 1, feed: str = FEED) -> list[str]:
        """Receipts that are to be sent; their ids."""
        given = [body(ids.parse(f"1-{n}"), "u1", Status.ACKED, 1, "phone") for n in range(count)]
        await self.work.enqueue({feed: 0.0})
        results, _ = await self._feeds.append([Append(feed, each) for each in given])
        await self.work.enqueue({feed: 0.0})
        return [ids.render(result.id) for result in results if isinstance(result, Appended)]

    @contextlib.asynccontextmanager
    async def node(self, **options: Any) -> AsyncIterator[Webhooks]:
        """A node that sends."""
        options = {"chance": lambda: 0.0, "redis_time": time.time, **options}
        sender = Webhooks(self.address, SECRET, self.work, self.log, **options)
        async with asyncio.TaskGroup() as tasks:
            sender.start(tasks)
            try:
                yield sender
            finally:
                await sender.aclose()
                await sender.aclose()

    async def sent(self, feed: str = FEED) -> str:
        return ids.render((await self.log.position(feed)).sent)

    async def until_sent(self, receipt: str, feed: str = FEED) -> None:
        await until(lambda: self.is_sent(receipt, feed))

    async def is_sent(self, receipt: str, feed: str) -> bool:
        return await self.sent(feed) == receipt


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(15):
        while not await condition():
            await asyncio.sleep(0.01)


async def until_came(count: int) -> None:
    async with asyncio.timeout(15):
        while len(Receiver.came) < count:
            await asyncio.sleep(0.01)


def outcomes(name: str) -> float:
    return REGISTRY.get_sample_value("pushsvc_webhooks_total", {"outcome": name}) or 0.0


def came() -> list[str]:
    """The ids of the receipts that the receiver was sent."""
    return [each["data"]["id"] for each in Receiver.came]


@pytest.fixture
async def rig(
    valkey: EmbeddedServer, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    monkeypatch.setattr(webhooks, "POLL", 0.02)
    for kept in (Receiver.came, Receiver.ids, Receiver.answers):
        kept.clear()
    socket, port = bind_unused_port()
    server = HTTPServer(tornado.web.Application([("/hooks", Receiver)]))
    server.add_socket(socket)
    rig = Rig(valkey.url, prefix, f"http://127.0.0.1:{port}/hooks")
    yield rig
    server.stop()
    await server.close_all_connections()
    await rig.commands.aclose()
    rig.redis.close()


async def test_receipts_are_sent_in_order_and_signed(rig: Rig) -> None:
    given = await rig.give(70)
    async with rig.node():
        await rig.until_sent(given[-1])
    assert came() == given[-50:]
    first = Receiver.came[0]
    assert first["type"] == "receipt"
    assert first["timestamp"] == first["data"]["time"]
    assert first["data"] == {
        "id": given[-50], "type": "receipt", "time": first["timestamp"], "publisher": "backend",
        "notification": "1-20", "user": "u1", "status": "acked", "device": "phone",
        "at": "1970-01-01T00:00:00.001Z",
    }  # fmt: skip
    assert len(set(Receiver.ids)) == 50


async def test_each_publisher_has_its_own_order_and_its_own_ids(rig: Rig) -> None:
    feeds = [receipts(f"p{n}") for n in range(12)]
    last = {feed: (await rig.give(3, feed))[-1] for feed in feeds}
    async with rig.node():
        for feed, receipt in last.items():
            await rig.until_sent(receipt, feed)
    assert len(Receiver.came) == len(set(Receiver.ids)) == 36


async def test_a_publisher_is_told_apart_from_one_of_another_namespace(rig: Rig) -> None:
    feeds = [receipts("acme/pub", namespace) for namespace in ("", "acme", "other")]
    last = {feed: (await rig.give(2, feed))[-1] for feed in feeds}
    async with rig.node():
        for feed, receipt in last.items():
            await rig.until_sent(receipt, feed)
    assert len(Receiver.came) == len(set(Receiver.ids)) == 6
    told = [each["data"] for each in Receiver.came]
    assert {each["publisher"] for each in told} == {"acme/pub"}
    found = sorted(each.get("namespace", "") for each in told)
    assert found == ["", "", "acme", "acme", "other", "other"]


async def test_what_comes_later_is_sent_as_well(rig: Rig) -> None:
    async with rig.node():
        for _ in range(3):
            (given,) = await rig.give()
            await rig.until_sent(given)
    assert len(Receiver.came) == 3


async def test_two_nodes_send_each_receipt_once(rig: Rig) -> None:
    async with rig.node(), rig.node():
        for _ in range(5):
            given = await rig.give(6)
            await rig.until_sent(given[-1])
    assert len(Receiver.ids) == len(set(Receiver.ids)) == 30


@pytest.mark.parametrize(
    "answer",
    [status(500), status(404), status(301, Location="/hooks"), status(429), large, broken],
    ids=["500", "404", "redirect", "429", "large", "broken"],
)
async def test_what_is_not_accepted_is_sent_again_before_anything_else(
    rig: Rig, answer: Answer
) -> None:
    Receiver.answers[:] = [answer, answer]
    given = await rig.give(2)
    async with rig.node():
        await rig.until_sent(given[1])
    assert came() == [given[0], given[0], given[0], given[1]]
    assert len(set(Receiver.ids)) == 2


async def test_a_slow_answer_is_a_failure(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "REQUEST_TIMEOUT", 0.1)
    Receiver.answers[:] = [slow]
    (given,) = await rig.give()
    async with rig.node():
        await rig.until_sent(given)
    assert came() == [given, given]


async def test_a_receiver_that_is_not_there_yet_gets_everything_later(rig: Rig) -> None:
    address, rig.address = rig.address, "http://127.0.0.1:9/hooks"
    (given,) = await rig.give()
    failed = outcomes("retry")
    async with rig.node():
        async with asyncio.timeout(15):
            while outcomes("retry") < failed + 3:
                await asyncio.sleep(0.01)
    assert (await rig.log.position(FEED)).failures >= 3
    rig.address = address
    async with rig.node():
        await rig.until_sent(given)
    assert (await rig.log.position(FEED)).failures == 0


async def test_a_failing_receiver_is_left_alone_for_a_while_whatever_comes(rig: Rig) -> None:
    Receiver.answers[:] = [status(503, Retry_After="1")]
    (first,) = await rig.give()
    loop = asyncio.get_running_loop()
    async with rig.node(), rig.node():
        await until_came(1)
        failed_at = loop.time()
        (last,) = await rig.give()
        await rig.until_sent(last)
    assert loop.time() - failed_at > 0.9
    assert came() == [first, first, last]


async def test_pauses_grow_with_each_failure_and_survive_the_node(rig: Rig) -> None:
    Receiver.answers[:] = [status(500)] * 3
    await rig.give()
    async with rig.node():
        await until_came(3)
        await until(lambda: has_failed(rig, 3))
    Receiver.answers[:] = [status(500)]
    async with rig.node(chance=lambda: 1.0):
        await until(lambda: has_failed(rig, 4))
    due = rig.redis.zscore(rig.keys.work_queue("webhooks", "due"), FEED)
    assert isinstance(due, float)
    assert 6.0 < due / 1000 - rig.redis.time()[0] < 9.0


async def has_failed(rig: Rig, times: int) -> bool:
    return (await rig.log.position(FEED)).failures == times


async def test_410_disables_the_address_for_all_nodes_and_no_other_address(rig: Rig) -> None:
    Receiver.answers[:] = [status(410)]
    given = await rig.give(2)
    async with rig.node(), rig.node() as other:
        await until(lambda: has_noticed(other))
        await rig.give()
    assert came() == given[:1]
    rig.address += "?2"
    given += await rig.give()
    async with rig.node():
        await rig.until_sent(given[-1])
    assert came()[1:3] == given[:2]


async def has_noticed(sender: Webhooks) -> bool:
    return sender._gone


async def test_what_failed_for_three_days_is_given_up(rig: Rig) -> None:
    old = await rig.give(3)
    given_up = outcomes("given_up")

    def later() -> float:
        return ids.milliseconds(ids.parse(old[-1])) / 1000 + GIVE_UP_AFTER + 1

    rig.address = "http://127.0.0.1:9/hooks"
    async with rig.node(redis_time=later):
        await rig.until_sent(old[-1])
    assert outcomes("given_up") == given_up + 3
    assert came() == []


async def test_receipts_that_were_trimmed_unsent_are_counted(rig: Rig) -> None:
    (first,) = await rig.give()
    trimmed = outcomes("trimmed")
    async with rig.node():
        await rig.until_sent(first)
    given = await rig.give(60)
    async with rig.node():
        await rig.until_sent(given[-1])
    assert outcomes("trimmed") == trimmed + 1
    assert came() == [first, *given[-50:]]


async def test_a_node_that_stops_ends_its_attempt_and_hands_the_rest_over(rig: Rig) -> None:
    given = await rig.give(5)
    Receiver.answers[:] = [slow]
    async with rig.node():
        await until_came(1)
    assert await rig.sent() == given[0]
    async with rig.node():
        await rig.until_sent(given[-1])
    assert came() == given


async def test_an_attempt_that_takes_too_long_does_not_hold_up_the_end(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "CLOSING", 0.05)
    (given,) = await rig.give()
    Receiver.answers[:] = [slow]
    async with rig.node():
        await until_came(1)
    async with rig.node():
        await rig.until_sent(given)
    assert came() == [given, given]


async def test_what_was_sent_and_could_not_be_written_down_is_sent_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = await rig.give(2)
    moved, failures = rig.log.moved, [StoreUnavailable("gone")]

    async def flaky(feed: str, position: Position) -> None:
        if failures:
            raise failures.pop()
        await moved(feed, position)

    monkeypatch.setattr(rig.log, "moved", flaky)
    async with rig.node():
        await rig.until_sent(given[1])
    assert came() == [given[0], given[0], given[1]]
    assert len(set(Receiver.ids)) == 2


async def test_what_nobody_foresaw_is_tried_again_and_the_node_lives_on(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    (given,) = await rig.give()
    async with rig.node() as sender:
        post, surprises = sender._post, [KeyError("surprise")]

        async def surprising(headers: dict[str, str], payload: bytes) -> HTTPResponse:
            if surprises:
                raise surprises.pop()
            return await post(headers, payload)

        monkeypatch.setattr(sender, "_post", surprising)
        await rig.until_sent(given)
    assert came() == [given]
    assert not surprises

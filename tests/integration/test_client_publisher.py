"""The publishers of ``pushsvc.client`` against real nodes: one call, one notification."""

import asyncio
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.client import (
    AsyncPublisher,
    Closed,
    Note,
    OutcomeUnknown,
    Publisher,
    PushError,
    Receipt,
    Refused,
    Unavailable,
)
from pushsvc.server.embedded import EmbeddedServer
from tests.support.nodes import Node, publisher_token, token, wait_until
from tests.support.proxy import Proxy
from tests.support.services import service


def kept(node: Node, user: str) -> list[Any]:
    """What is in a mailbox, oldest first."""
    headers = {"Authorization": f"Bearer {publisher_token()}"}
    url = f"{node.url}/v1/users/{user}/notifications"
    found: list[Any] = []
    before: str | None = ""
    while before is not None:
        query: dict[str, Any] = {"limit": 100} | ({"before": before} if before else {})
        page = httpx.get(url, params=query, headers=headers, timeout=10).json()
        found += page["notifications"]
        before = page["next"]
    return [note["data"] for note in reversed(found)]


def receipts(request: dict[str, Any]) -> tuple[int, Any]:
    """An answer that accepts all."""
    one = {"id": "1-0", "durability": "memory", "connections": 0}
    if "notifications" not in request:
        return 202, one
    return 202, {"results": [one] * len(request["notifications"])}


@contextmanager
def silence() -> Iterator[str]:
    """The address of a service that accepts connections, and nothing else."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


# --- one by one ----------------------------------------------------------------------------------


def test_what_is_published_has_a_receipt_and_all_its_fields(node: Node, user: str) -> None:
    with Publisher(node.url, token=publisher_token()) as publisher:
        receipt = publisher.publish(user=user, data={"order": 17}, event="order.shipped", ttl=60)
        assert receipt.id is not None
        assert (receipt.durability, receipt.connections) == ("memory", 0)
        assert publisher.publish(topic="t", data=b"\x00", collapse_key="k").id
        assert publisher.publish(broadcast=True, data=None).id
        assert publisher.publish(user=user, data=1, ephemeral=True).id is None
        once = [publisher.publish(user=user, data=2, idempotency_key="k1") for _ in range(2)]
        assert once[0].id == once[1].id
    assert kept(node, user) == [{"order": 17}, 2]


def test_a_refusal_says_what_to_change(node: Node, user: str) -> None:
    with Publisher(node.url, token=publisher_token()) as publisher:
        with pytest.raises(Refused, match="user id") as refused:
            publisher.publish(user="a\tb", data=1)
        assert (refused.value.status, refused.value.code) == (400, "invalid_name")
        publisher.publish(user=user, data=1, idempotency_key=user)
        with pytest.raises(Refused) as refused:
            publisher.publish(user=user, data=2, idempotency_key=user)
        assert refused.value.code == "idempotency_conflict"
    with (
        Publisher(node.url, token=lambda _: "no.t.oken") as publisher,
        pytest.raises(Refused, match="401"),
    ):
        publisher.publish(user=user, data=1)


def test_a_refused_token_is_replaced(node: Node, user: str) -> None:
    asked: list[bool] = []

    def provider(refused: bool) -> str:  # noqa: FBT001 - the shape of a provider
        asked.append(refused)
        return publisher_token() if refused else token("backend", ttl=-100)

    with Publisher(node.url, token=provider) as publisher:
        assert publisher.publish(user=user, data=1).id
        assert publisher.publish(user=user, data=2).id
    assert asked == [False, True]


def test_without_a_node_the_deadline_tells_the_key_with_which_to_try_again() -> None:
    begin = time.monotonic()
    with (
        Publisher("http://127.0.0.1:1", token="t", deadline=1) as publisher,
        pytest.raises(Unavailable, match=r"same call, whole, .* 'k1' is safe") as error,
    ):
        publisher.publish(user="u1", data=1, idempotency_key="k1")
    assert error.value.key == "k1"
    assert time.monotonic() - begin < 3
    with pytest.raises(ValueError, match="http://"):
        Publisher("file:///etc/passwd", token="t")


def test_a_publish_whose_answer_is_lost_is_one_notification(node: Node, user: str) -> None:
    with (
        Proxy(node.port) as network,
        Publisher(f"http://127.0.0.1:{network.port}", token=publisher_token()) as publisher,
        ThreadPoolExecutor() as threads,
    ):
        network.cut_after = b"the-answer-is-lost"
        publishing = threads.submit(publisher.publish, user=user, data="the-answer-is-lost")
        while not network.cuts:
            time.sleep(0.01)
        network.cut_after = b""
        assert publishing.result(20).id is not None
    assert kept(node, user) == ["the-answer-is-lost"]


def test_publishing_survives_the_death_of_the_node_without_a_loss_or_a_repetition(
    mortal: Node,
) -> None:
    count = 400
    with (
        Publisher(mortal.url, token=publisher_token()) as publisher,
        ThreadPoolExecutor() as threads,
    ):

        def publish_all() -> list[Receipt]:
            return [publisher.publish(user="u1", data=number) for number in range(count)]

        publishing = threads.submit(publish_all)
        for _ in range(3):
            while not publishing.done() and not kept(mortal, "u1"):
                time.sleep(0.01)
            mortal.kill()
            mortal.start()
        receipts = publishing.result(60)
    assert kept(mortal, "u1") == list(range(count))
    assert len({receipt.id for receipt in receipts}) == count


# --- several at once -----------------------------------------------------------------------------


def test_many_are_published_in_order_each_with_its_own_result(node: Node, user: str) -> None:
    notes: list[Note] = [{"user": user, "data": number} for number in range(900)]
    notes[3] = {"user": "a\tb", "data": 3}
    with Publisher(node.url, token=publisher_token(), max_body=20_000) as publisher:
        results = publisher.publish_many(notes)
        assert isinstance(results[3], Refused)
        assert all(isinstance(result, Receipt) for result in results[:3] + results[4:])
        again = publisher.publish_many(notes[:3], idempotency_key=user)
        assert publisher.publish_many(notes[:3], idempotency_key=user) == again
        users = [f"many-{number}" for number in range(1200)]
        to = publisher.publish_to_users(users, data="hi")
        assert all(isinstance(result, Receipt) for result in to)
        assert len(to) == 1200
        assert publisher.publish_many([]) == []
    assert kept(node, user) == [n for n in range(900) if n != 3] + [0, 1, 2]
    assert kept(node, "many-1199") == ["hi"]


async def test_what_is_published_in_one_moment_goes_as_one_batch(node: Node, user: str) -> None:
    before = await asyncio.to_thread(node.metric, "pushsvc_http_requests_total")
    async with AsyncPublisher(node.url, token=publisher_token()) as publisher:
        results = await asyncio.gather(
            *(publisher.publish(user=user, data=number) for number in range(300)),
            publisher.publish(user="a\tb", data=1),
            return_exceptions=True,
        )
        assert isinstance(results[-1], Refused)
        assert all(isinstance(result, Receipt) for result in results[:-1])
        requests = await asyncio.to_thread(node.metric, "pushsvc_http_requests_total")
        assert requests - before < 20
        receipt = await publisher.publish(user=user, data="own", idempotency_key=user)
        assert (await publisher.publish(user=user, data="own", idempotency_key=user)) == receipt
    assert await asyncio.to_thread(kept, node, user) == [*range(300), "own"]
    with pytest.raises(Closed):
        await publisher.publish(user=user, data=1)


async def test_where_too_much_is_scheduled_nobody_else_waits_for_room(
    node: Node, user: str
) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=30)
    full = [Note(user=user, data=number, at=soon) for number in range(1000)]
    async with AsyncPublisher(node.url, token=publisher_token(), deadline=60) as publisher:
        assert all(isinstance(each, Receipt) for each in await publisher.publish_many(full))
        async with asyncio.timeout(10):
            refused, other = await asyncio.gather(
                publisher.publish(user=user, data=1, at=soon),
                publisher.publish(user=f"{user}-other", data=1),
                return_exceptions=True,
            )
        assert isinstance(other, Receipt)
        assert isinstance(refused, Refused)
        assert refused.code == "too_many_requests"
        assert refused.retry_after is not None


async def test_the_async_publisher_survives_the_death_of_the_node_and_keeps_the_order(
    mortal: Node,
) -> None:
    async with AsyncPublisher(mortal.url, token=publisher_token(), queue=50) as publisher:
        publishing = [
            asyncio.create_task(publisher.publish(user="u1", data=number)) for number in range(600)
        ]
        for _ in range(3):
            await asyncio.to_thread(mortal.kill)
            await asyncio.to_thread(mortal.start)
        receipts = await asyncio.gather(*publishing)
    assert len({receipt.id for receipt in receipts}) == 600
    assert await asyncio.to_thread(kept, mortal, "u1") == list(range(600))


async def test_a_batch_whose_answer_is_lost_is_published_once(node: Node, user: str) -> None:
    with Proxy(node.port) as network:
        url = f"http://127.0.0.1:{network.port}"
        async with AsyncPublisher(url, token=publisher_token()) as publisher:
            network.cut_after = b"lost"
            publishing = [
                asyncio.create_task(publisher.publish(user=user, data=f"lost {number}"))
                for number in range(10)
            ]
            while not network.cuts:
                await asyncio.sleep(0.01)
            network.cut_after = b""
            await asyncio.gather(*publishing)
    assert await asyncio.to_thread(kept, node, user) == [f"lost {number}" for number in range(10)]


async def test_the_end_of_the_block_sends_what_was_published_and_leaves_no_task(
    node: Node, user: str
) -> None:
    before = asyncio.all_tasks()
    async with AsyncPublisher(node.url, token=publisher_token()) as publisher:
        left = asyncio.create_task(publisher.publish(user=user, data=1))
        cancelled = asyncio.create_task(publisher.publish(user=user, data=2))
        await asyncio.sleep(0)
        cancelled.cancel()
    assert (await left).id is not None
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert asyncio.all_tasks() == before
    assert await asyncio.to_thread(kept, node, user) == [1]


def test_a_node_without_its_store_is_waited_for(
    valkey: EmbeddedServer, tmp_path: Path, prefix: str
) -> None:
    with Proxy(int(valkey.url.rpartition(":")[2].partition("/")[0])) as network:  # noqa: SIM117
        with (
            Node(network.url, tmp_path, prefix=prefix) as node,
            Publisher(node.url, token=publisher_token()) as publisher,
            ThreadPoolExecutor() as threads,
        ):
            network.stop_flow()
            publishing = threads.submit(publisher.publish, user="u1", data="late")
            wait_until(lambda: not node.is_ready(), "the node to miss its store")
            network.flow()
            assert publishing.result(30).id is not None
            assert kept(node, "u1") == ["late"]


# --- what does not go well ----------------------------------------------------------------------


def test_the_same_call_with_the_key_of_its_error_publishes_nothing_twice(node: Node) -> None:
    notes: list[Note] = [
        {"user": f"u{number % 3}", "data": f"{'first' if number < 1000 else 'second'} {number}"}
        for number in range(1500)
    ]
    with (
        Proxy(node.port) as network,
        Publisher(
            f"http://127.0.0.1:{network.port}", token=publisher_token(), deadline=1
        ) as publisher,
    ):
        network.cut_after = b"first 0"  # it is published, and nobody hears of it
        results = publisher.publish_many(notes)
        failed = results[0]
        assert isinstance(failed, Unavailable)
        assert all(isinstance(result, Unavailable) for result in results[:1000])
        assert all(isinstance(result, Receipt) for result in results[1000:])
        assert "repeating the same call, whole," in str(failed)
        network.cut_after = b""
        again = publisher.publish_many(notes, idempotency_key=failed.key)
    assert again[1000:] == results[1000:]
    assert all(isinstance(result, Receipt) for result in again)
    for user in range(3):
        assert kept(node, f"u{user}") == [note["data"] for note in notes[user::3]]


async def test_one_of_a_batch_that_failed_names_no_key_that_is_not_its_own() -> None:
    with silence() as url:
        async with AsyncPublisher(url, token="t", deadline=0.2) as publisher:
            with pytest.raises(Unavailable) as error:
                await publisher.publish(user="u1", data=1)
    assert error.value.key is None


def test_the_deadline_holds_for_many_threads() -> None:
    def publish(publisher: Publisher) -> float:
        begin = time.monotonic()
        with pytest.raises(Unavailable):
            publisher.publish(user="u1", data=1)
        return time.monotonic() - begin

    with (
        silence() as url,
        Publisher(url, token="t", deadline=1, timeout=1) as publisher,
        ThreadPoolExecutor(20) as threads,
    ):
        assert max(threads.map(publish, [publisher] * 20)) < 2


async def test_the_deadline_holds_for_many_tasks_and_the_block_waits_for_them() -> None:
    begin = time.monotonic()
    with silence() as url:
        async with AsyncPublisher(url, token="t", deadline=1, timeout=1) as publisher:
            calls = [
                asyncio.create_task(publisher.publish(user="u", data=n, idempotency_key=f"k{n}"))
                for n in range(20)
            ]
            several = asyncio.create_task(publisher.publish_many([{"user": "u", "data": 1}]))
            users = asyncio.create_task(publisher.publish_to_users(["u"], data=1))
            await asyncio.sleep(0)
        assert all(call.done() for call in [*calls, several, users])
        outcomes = await asyncio.gather(*calls, several, users, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {Unavailable}
    assert time.monotonic() - begin < 2.5


async def test_calls_of_a_publisher_whose_end_is_cut_short_are_told_so() -> None:
    with silence() as url:
        publisher = AsyncPublisher(url, token="t", deadline=3)
        await publisher.__aenter__()
        calls = [
            asyncio.create_task(publisher.publish(user="u", data=n, idempotency_key=f"k{n}"))
            for n in range(8)
        ]
        calls += [asyncio.create_task(publisher.publish(user="u", data=n)) for n in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(publisher.close(), 0.1)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, Closed | Unavailable) for outcome in outcomes)
    assert any(isinstance(outcome, Closed) for outcome in outcomes)


async def test_an_answer_without_a_result_for_each_is_an_error_and_the_publisher_goes_on() -> None:
    answers: Iterator[tuple[int, Any]] = iter([(202, {"results": []}), (202, {})])

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        return next(answers, None) or receipts(request)

    with service(answer) as url:
        async with AsyncPublisher(url, token="t") as publisher:
            for _ in range(2):
                with pytest.raises(OutcomeUnknown, match="one result for each"):
                    await publisher.publish(user="u1", data=1)
            assert (await publisher.publish(user="u1", data=1)).id == "1-0"


def test_a_token_provider_that_fails_is_asked_again_within_the_deadline() -> None:
    asked: list[bool] = []

    def provider(refused: bool) -> str:  # noqa: FBT001 - the shape of a provider
        asked.append(refused)
        if len(asked) == 1:
            raise ConnectionError("the identity provider is down")
        return "t"

    with service(receipts) as url, Publisher(url, token=provider) as publisher:
        assert publisher.publish(user="u1", data=1).id == "1-0"
    assert asked == [False, False]


async def test_a_token_provider_that_goes_on_failing_costs_no_receipt_that_was_given() -> None:
    requests: list[int] = []

    def answer(request: dict[str, Any]) -> tuple[int, Any]:
        requests.append(len(request["notifications"]))
        return receipts(request) if requests == [1000] else (401, {"detail": "expired"})

    def provider(refused: bool) -> str:  # noqa: FBT001 - the shape of a provider
        if refused:
            raise ConnectionError("the identity provider is down")
        return "t"

    def check(results: list[Receipt | PushError]) -> None:
        assert all(isinstance(result, Receipt) for result in results[:1000])
        for result in results[1000:]:
            assert isinstance(result, Unavailable)
            assert result.key == "k"
            assert "identity provider" in str(result)

    notes: list[Note] = [{"user": "u1", "data": number} for number in range(1500)]
    with service(answer) as url:
        with Publisher(url, token=provider, deadline=1) as publisher:
            check(await asyncio.to_thread(publisher.publish_many, notes, idempotency_key="k"))
        requests.clear()
        async with AsyncPublisher(url, token=provider, deadline=1) as other:
            check(await other.publish_many(notes, idempotency_key="k"))

"""The clients in processes that were forked after they were made, against a real node.

What forks is a scenario, and runs in a process of its own.
"""

import asyncio
import json
import ssl
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from pushsvc.client import (
    AsyncPublisher,
    Closed,
    Notification,
    Publisher,
    PushError,
    connect,
    listen,
)
from pushsvc.server.embedded import EmbeddedServer
from tests.support.certificates import Authority
from tests.support.forks import Child, run_apart
from tests.support.nodes import Node, publisher_token, token
from tests.support.services import HTTPService, QuietHandler

CHILDREN = 6
THREADS = 4
EACH = 25


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(
    valkey: EmbeddedServer, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("tls")
    certificate, key = authority.issue(directory)
    with Node(
        valkey.url, directory, prefix=f"t{uuid.uuid4().hex[:10]}", tls=authority.context(),
        tls_cert_file=certificate, tls_key_file=key,
    ) as running:  # fmt: skip
        yield running


def kept(url: str, user: str, trusted: ssl.SSLContext | None = None) -> dict[str, Any]:
    """What is in a mailbox, by id."""
    found: dict[str, Any] = {}
    before: str | None = ""
    while before is not None:
        answer = httpx.get(
            f"{url}/v1/users/{user}/notifications",
            params={"limit": "100"} | ({"before": before} if before else {}),
            headers={"Authorization": f"Bearer {publisher_token()}"},
            timeout=10, verify=trusted or False,
        ).json()  # fmt: skip
        found |= {note["id"]: note["data"] for note in answer["notifications"]}
        before = answer["next"]
    return found


def publish_all(
    publisher: Publisher, user: str, threads: ThreadPoolExecutor
) -> list[tuple[str, str]]:
    """Publish from several threads; what each was told of what it published."""

    def one_by_one(thread: int) -> list[tuple[str, str]]:
        told = []
        for number in range(EACH):
            data = f"{user} {thread} {number}"
            try:
                told.append((str(publisher.publish(user=user, data=data).id), data))
            except PushError as error:
                told.append((repr(error), data))
        return told

    return [each for told in threads.map(one_by_one, range(THREADS)) for each in told]


def publish_in_child(publisher: Publisher, user: str) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(THREADS) as threads:
        return publish_all(publisher, user, threads)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_each_receipt_of_each_forked_child_is_that_of_its_own_notification(
    request: pytest.FixtureRequest, scheme: str
) -> None:
    node: Node = request.getfixturevalue("node" if scheme == "http" else "secure")
    authority = request.getfixturevalue("authority").file if scheme == "https" else ""
    run_apart(publish_beside_children, node.url, str(authority))


def publish_beside_children(url: str, authority: str) -> None:
    trusted = ssl.create_default_context(cafile=authority) if authority else None
    run = uuid.uuid4().hex[:10]
    users = [f"{run}-{number}" for number in range(CHILDREN)]
    enough = threading.Event()
    during: list[str] = []

    def publish_meanwhile() -> None:
        while not enough.is_set():
            receipt = publisher.publish(user=f"{run}-parent", data=len(during))
            during.append(str(receipt.id))

    # The threads live on meanwhile: one that ends takes a lock of OpenSSL's for a moment, which no
    # child could ever have if it was forked in that moment.
    with (
        ThreadPoolExecutor(THREADS) as threads,
        Publisher(url, token=publisher_token(), ssl=trusted) as publisher,
    ):
        publish_all(publisher, f"{run}-before", threads)
        busy = threading.Thread(target=publish_meanwhile)
        busy.start()
        try:
            children = [Child(partial(publish_in_child, publisher, user)) for user in users]
            told = [dict(child.result()) for child in children]
        finally:
            enough.set()
            busy.join()
        after = dict(publish_all(publisher, f"{run}-after", threads))
    for user, receipts in zip(users, told, strict=True):
        assert len(receipts) == THREADS * EACH
        assert receipts == kept(url, user, trusted)
    assert after == kept(url, f"{run}-after", trusted)
    assert dict(zip(during, range(len(during)), strict=True)) == kept(url, f"{run}-parent", trusted)


@contextmanager
def held() -> Iterator[tuple[str, threading.Semaphore, threading.Event, list[str]]]:
    """A service that does not answer what is called ``held`` until it is let go."""
    came, go, keys = threading.Semaphore(0), threading.Event(), list[str]()

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            keys.append(self.headers["Idempotency-Key"])
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if body["data"] == "held":
                came.release()
                go.wait(60)
            answer = b'{"id": "1-0", "durability": "memory", "connections": 0}'
            self.send_response(202)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with HTTPService(Handler) as served:
        try:
            yield served.url, came, go, keys
        finally:
            go.set()


def publish_one(publisher: Publisher) -> str | None:
    return publisher.publish(user="u", data=1).id


def test_no_child_waits_for_what_another_thread_holds_when_it_is_forked() -> None:
    run_apart(fork_while_others_hold_everything)


def fork_while_others_hold_everything() -> None:
    asked = threading.Semaphore(0)

    def provider(refused: bool) -> str:  # noqa: ARG001, FBT001 - the shape of a provider
        if threading.current_thread().name == "stuck":
            asked.release()
            go.wait(60)
        return "t"

    with held() as (url, came, go, keys), ThreadPoolExecutor() as threads:
        full = Publisher(url, token="t")
        waiting = [threads.submit(full.publish, user="u", data="held") for _ in range(4)]
        for _ in waiting:  # all of its connections are in use
            assert came.acquire(timeout=20)
        locked = Publisher(url, token=provider)
        stuck = threading.Thread(
            target=lambda: locked.publish(user="u", data="stuck"), name="stuck"
        )
        stuck.start()
        assert asked.acquire(timeout=20)
        for publisher in (full, locked):
            children = [Child(partial(publish_one, publisher)) for _ in range(3)]
            assert [child.result() for child in children] == ["1-0"] * 3
        go.set()
        assert [call.result(20).id for call in waiting] == ["1-0"] * 4
        stuck.join()
        full.close()
        locked.close()
    assert len(keys) == 4 + 1 + 6
    assert set(Counter(keys).values()) == {1}  # no key was copied with the memory


def test_a_publisher_that_a_child_closes_is_open_in_its_parent(node: Node, user: str) -> None:
    run_apart(close_in_a_child, node.url, user)


def close_in_a_child(url: str, user: str) -> None:
    with Publisher(url, token=publisher_token()) as publisher:
        publisher.publish(user=user, data=1)
        assert Child(publisher.close).result() is None
        publisher.publish(user=user, data=2)
    told = Child(lambda: publisher.publish(user=user, data=3)).result()
    assert "Closed" in told["raised"]
    assert list(kept(url, user).values()) == [2, 1]


def test_an_async_publisher_and_a_listener_are_used_in_the_process_in_which_they_are_entered(
    node: Node, user: str
) -> None:
    """They are made before the fork, as at the top of a module, and not entered."""
    run_apart(enter_in_each_process, node.url, user)


def enter_in_each_process(url: str, user: str) -> None:
    publisher = AsyncPublisher(url, token=publisher_token())
    client = connect(url, token=token(user), device="d")

    async def exchange(data: str) -> list[Any]:
        async with publisher, client:
            receipts = await asyncio.gather(
                publisher.publish(user=user, data=data),
                publisher.publish(user=user, data=data, idempotency_key=data),
            )
            found: list[Any] = []
            async for message in client:
                if isinstance(message, Notification) and message.data == data:
                    found.append(message.id)
                if len(found) == len(receipts):
                    return [sorted(str(each.id) for each in receipts), found]
        return []

    def run(data: str) -> list[Any]:
        return asyncio.run(exchange(data))

    for data in ("first", "second"):
        receipts, found = Child(partial(run, data)).result()
        assert receipts == found
    receipts, found = run("in the parent")
    assert receipts == found


def test_what_was_entered_in_another_loop_says_so_and_the_other_loop_goes_on(
    node: Node, user: str
) -> None:
    run_apart(call_from_other_loops, node.url, user)


def call_from_other_loops(url: str, user: str) -> None:
    asyncio.run(_call_from_other_loops(url, user))


async def _call_from_other_loops(url: str, user: str) -> None:
    async with (
        AsyncPublisher(url, token=publisher_token()) as publisher,
        connect(url, token=token(user, "push.publish"), ack="manual") as client,
    ):
        await publisher.publish(user=user, data=1)
        first = await anext(m async for m in client if isinstance(m, Notification))

        async def attempt() -> list[str]:
            said = []
            for call in (
                publisher.publish(user=user, data=2),
                publisher.publish(user=user, data=2, idempotency_key="k"),
                publisher.publish_many([{"user": user, "data": 2}]),
                publisher.publish_to_users([user], data=2),
                publisher.devices(user),
                anext(publisher.history(user)),
                publisher.close(),
                client.subscribe("t"),
                client.publish("t", 2, ephemeral=True),
                client.close(),
                first.ack(),
            ):
                with pytest.raises(RuntimeError) as error:
                    await call
                said.append(str(error.value))
            with pytest.raises(RuntimeError) as error:
                aiter(client)
            return [*said, str(error.value)]

        for said in (
            Child(lambda: asyncio.run(attempt())).result(),
            await asyncio.to_thread(asyncio.run, attempt()),
        ):
            assert len(said) == 12
            assert all("belongs to another event loop" in each for each in said), said
        await first.ack()
        await publisher.publish(user=user, data=3)
        second = await anext(m async for m in client if isinstance(m, Notification))
        assert second.data == 3
    assert sorted(kept(url, user).values()) == [1, 3]


# --- after the end -------------------------------------------------------------------------------


def test_a_closed_publisher_publishes_nothing_and_says_so(node: Node, user: str) -> None:
    with Publisher(node.url, token=publisher_token()) as publisher:
        publisher.publish(user=user, data=1)
    publisher.close()
    for call in (
        lambda: publisher.publish(user=user, data=2),
        lambda: publisher.publish_many([{"user": user, "data": 2}]),
        lambda: publisher.publish_many([]),
        lambda: publisher.publish_to_users([user, user], data=2),
    ):
        with pytest.raises(Closed, match="open a new one"):
            call()
    assert list(kept(node.url, user).values()) == [1]


def test_a_call_whose_publisher_is_closed_in_another_thread_ends() -> None:
    with held() as (url, came, go, _), ThreadPoolExecutor() as threads:
        publisher = Publisher(url, token="t")
        under_way = [threads.submit(publisher.publish, user="u", data="held") for _ in range(4)]
        for _ in under_way:
            assert came.acquire(timeout=20)
        waits = threads.submit(publisher.publish, user="u", data=1)
        publisher.close()
        go.set()
        assert [call.result(20).id for call in under_way] == ["1-0"] * 4
        with pytest.raises(Closed):
            waits.result(20)


async def test_closed_asynchronous_clients_say_so(node: Node, user: str) -> None:
    publisher = AsyncPublisher(node.url, token=publisher_token())
    await publisher.close()
    with pytest.raises(Closed):
        await publisher.publish(user=user, data=1)
    async with AsyncPublisher(node.url, token=publisher_token()) as publisher:
        await publisher.publish(user=user, data=1)
    await publisher.close()
    for call in (
        publisher.publish(user=user, data=2),
        publisher.publish(user=user, data=2, idempotency_key="k"),
        publisher.publish_many([{"user": user, "data": 2}]),
        publisher.publish_many([]),
        publisher.publish_to_users([user], data=2),
    ):
        with pytest.raises(Closed):
            await call
    async with connect(node.url, token=token(user)) as client:
        pass
    await client.close()
    for asked in (client.subscribe("t"), client.presence("t"), client.publish("t", 1)):
        with pytest.raises(Closed):
            await asked
    assert [message async for message in client] == []
    notifications = listen(node.url, token=token(user))
    assert (await anext(notifications)).data == 1
    await notifications.aclose()
    await notifications.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(notifications)

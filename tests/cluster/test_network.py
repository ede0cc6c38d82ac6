"""A bad network between a node and its Redis."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from pushsvc.server.embedded import EmbeddedServer
from pushsvc.store.scripts import Scripts
from tests.cluster.behind import Store, node_id
from tests.cluster.load import Load
from tests.support.nodes import Node, wait_until
from tests.support.phone import Phone
from tests.support.proxy import Proxy

LEASE = 2.0


class Pair:
    """A node behind a proxy, and one that reaches Redis directly."""

    def __init__(self, proxy: Proxy, far: Node, near: Node) -> None:
        self.proxy = proxy
        self.far = far
        self.near = near


@pytest.fixture
def pair(valkey: EmbeddedServer, tmp_path: Path, prefix: str) -> Iterator[Pair]:
    with ExitStack() as stack:
        proxy = stack.enter_context(Proxy(valkey.port))
        far, near = (
            stack.enter_context(
                Node(url, tmp_path, prefix=prefix, lease_seconds=LEASE, sweep_seconds=2)
            )
            for url in (proxy.url, valkey.url)
        )
        yield Pair(proxy, far, near)


async def eventually(condition: Callable[[], Any], what: str, seconds: float = 15.0) -> None:
    await asyncio.to_thread(wait_until, condition, what, seconds)


async def post(node: Node, user: str, data: object, key: str) -> httpx.Response:
    return await asyncio.to_thread(
        node.post,
        "/v1/notifications",
        {"to": {"user": user}, "data": data},
        headers={"Idempotency-Key": f'"{key}"'},
    )


async def test_a_slow_network_delays_and_loses_nothing(pair: Pair) -> None:
    pair.proxy.delay = 0.15  # 300 ms for an answer
    load = Load([pair.far, pair.near])
    counts = await load.run(5, load.nothing)
    assert counts.broken() == {}, counts
    assert counts.accepted > 20
    assert counts.slowest < 5
    assert pair.far.metric("pushsvc_lease_lapses_total") == 0
    assert pair.far.is_ready()


async def test_a_node_cut_off_for_longer_than_its_lease_recovers_by_itself(pair: Pair) -> None:
    before = await asyncio.to_thread(node_id, pair.far)
    async with Phone(pair.far) as phone, Phone(pair.near, device="laptop") as laptop:
        first = await asyncio.to_thread(pair.near.publish, "u1", 1)
        assert (await phone.notification())["id"] == first
        assert (await laptop.notification())["id"] == first
        assert await phone.acked(first) == first

        pair.proxy.stop_flow()
        await eventually(lambda: not pair.far.is_ready(), "the node to know that it is deaf")
        missed = [await asyncio.to_thread(pair.near.publish, "u1", n) for n in range(3)]
        refused = await post(pair.far, "u1", "refused", uuid.uuid4().hex)
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["Retry-After"]) >= 1

        pair.proxy.flow()
        assert [note["id"] for note in await phone.notifications(3)] == missed
        await eventually(pair.far.is_ready, "the node to be ready")
        assert await asyncio.to_thread(node_id, pair.far) != before
        # Whether the refused one was appended after all is open; the phones agree on it.
        last = await asyncio.to_thread(pair.far.publish, "u1", "last")
        heard = [note["id"] for note in await until(phone, last)]
        assert [note["id"] for note in await until(laptop, last)] == missed + heard


async def until(phone: Phone, notification_id: str) -> list[dict[str, object]]:
    """The notifications up to one."""
    notes = [await phone.notification()]
    while notes[-1]["id"] != notification_id:
        notes.append(await phone.notification())
    return notes


async def test_load_over_a_network_that_falls_silent_loses_nothing(pair: Pair) -> None:
    load = Load([pair.far, pair.near])

    async def fall_silent() -> None:
        await eventually(lambda: load.counts.accepted > 50, "the load to run")
        pair.proxy.stop_flow()
        await eventually(lambda: not pair.far.is_ready(), "the node to know that it is deaf")
        await eventually(lambda: load.counts.retried, "a backend to give up on the node")
        pair.proxy.flow()
        await eventually(pair.far.is_ready, "the node to be ready")

    counts = await load.run(4, fall_silent)
    assert counts.broken() == {}, counts


@pytest.mark.parametrize("retry_on", ["far", "near"])
async def test_an_answer_lost_after_the_append_and_a_retry_make_one_notification(
    pair: Pair, valkey: EmbeddedServer, prefix: str, retry_on: str
) -> None:
    async with Phone(pair.far) as phone, Phone(pair.near, device="laptop") as laptop:
        first = await asyncio.to_thread(pair.far.publish, "u1", "first")
        assert (await phone.notification())["id"] == first
        assert (await laptop.notification())["id"] == first

        pair.proxy.cut_after = Scripts().by_name["publish"].digest.encode()
        key = uuid.uuid4().hex
        answer = await post(pair.far, "u1", "once", key)
        assert pair.proxy.cuts == 1
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        pair.proxy.cut_after = b""

        async def accepted() -> str:
            while (answer := await post(getattr(pair, retry_on), "u1", "once", key)) is not None:
                if answer.status_code == 202:
                    break
            again: str = answer.json()["id"]
            return again

        once = await accepted()
        assert await accepted() == once
        assert (await phone.notification())["id"] == once
        assert (await laptop.notification())["id"] == once
        await phone.silent()
        await laptop.silent()
    store = Store(valkey.url, prefix)
    assert store.redis.xlen(store.keys.log("u:u1")) == 2
    store.redis.close()
